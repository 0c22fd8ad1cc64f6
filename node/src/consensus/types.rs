//! The types that openraft is told to use, and their translation from and to protobuf.
//!
//! openraft's serde types are no wire format: everything that crosses a process or a disk is a message of
//! `rookery.log.v1` or `rookery.peer.v1`, and everything that comes back is checked here.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use openraft::{alias, async_runtime::Instant as _, impls::leader_id_adv::LeaderId};
use rookery_proto::{log::v1 as log, peer::v1 as peer};

openraft::declare_raft_types!(
    /// One configuration for the cluster group and for every database group.
    pub Types:
        D = CommandBytes,
        R = Outcome,
        NodeId = u64,
        Node = Member,
);

/// The Raft handle of one group.
pub type Raft = openraft::Raft<Types, super::state_machine::StateMachine>;
/// A log position with the leader that made it.
pub type LogId = alias::LogIdOf<Types>;
/// A term and who leads it.
pub type Vote = alias::VoteOf<Types>;
/// A log entry.
pub type Entry = alias::EntryOf<Types>;
/// A membership and the log position that set it.
pub type StoredMembership = alias::StoredMembershipOf<Types>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, Member>;
/// What a group says of itself at a moment.
pub type Metrics = openraft::RaftMetrics<Types>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<Types>;

/// Whether a follower answered its leader's heartbeats within the last `time`; of others than the leader: no.
pub fn answered_within(metrics: &Metrics, node: u64, time: Duration) -> bool {
    let last = metrics.heartbeat.as_ref().and_then(|all| all.get(&node).copied().flatten());
    last.is_some_and(|last| last.elapsed() <= time)
}

/// An encoded `rookery.log.v1.Command`.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandBytes(pub Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply answered to a command; nothing for blank and membership entries.
#[derive(Clone, Default)]
pub struct Outcome(pub Option<Box<log::Applied>>);

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "outcome" } else { "no outcome" })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A member as consensus needs it: where to dial it, and by which certificate and folder to know it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// What people call the node.
    pub name: String,
    /// host:port of the peer listener.
    pub peer_address: String,
    /// host:port of the client listener.
    pub client_address: String,
    /// SHA-256 of the node's certificate.
    pub thumbprint: Vec<u8>,
    /// 16 random bytes of its data folder.
    pub incarnation: Vec<u8>,
    /// SHA-256 of certificates by which the node is known besides.
    pub other_thumbprints: Vec<Vec<u8>>,
}

impl Member {
    /// Whether the node is known by a certificate.
    #[must_use]
    pub fn has(&self, thumbprint: &[u8]) -> bool {
        self.thumbprint == thumbprint || self.other_thumbprints.iter().any(|it| it == thumbprint)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.peer_address)
    }
}

/// A message that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// To protobuf.
pub fn log_id_to(id: &LogId) -> log::LogId {
    log::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

/// From protobuf.
pub fn log_id_from(id: &log::LogId) -> LogId {
    LogId::new(LeaderId { term: id.term, node_id: id.node_id }, id.index)
}

/// To protobuf.
pub fn vote_to(vote: &Vote) -> log::Vote {
    log::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

/// From protobuf.
pub fn vote_from(vote: &log::Vote) -> Vote {
    Vote {
        leader_id: LeaderId { term: vote.term, node_id: vote.node_id },
        committed: vote.committed,
    }
}

/// To protobuf.
pub fn entry_to(entry: &Entry) -> log::Entry {
    use log::entry::Payload;
    let payload = match &entry.payload {
        openraft::EntryPayload::Blank => Payload::Blank(log::Blank {}),
        openraft::EntryPayload::Normal(command) => Payload::Command(command.0.clone()),
        openraft::EntryPayload::Membership(membership) => {
            Payload::Membership(membership_to(membership))
        }
    };
    log::Entry { log_id: Some(log_id_to(&entry.log_id)), payload: Some(payload) }
}

/// From protobuf.
///
/// # Errors
/// A missing position or payload, or a membership that is none.
pub fn entry_from(entry: log::Entry) -> Result<Entry, Malformed> {
    use log::entry::Payload;
    let log_id =
        entry.log_id.as_ref().map(log_id_from).ok_or(Malformed("entry without position"))?;
    let payload = match entry.payload.ok_or(Malformed("entry without payload"))? {
        Payload::Blank(log::Blank {}) => openraft::EntryPayload::Blank,
        Payload::Command(bytes) => openraft::EntryPayload::Normal(CommandBytes(bytes)),
        Payload::Membership(membership) => {
            openraft::EntryPayload::Membership(membership_from(&membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

/// To protobuf.
pub fn membership_to(membership: &Membership) -> log::Membership {
    let configurations = membership
        .get_joint_config()
        .iter()
        .map(|voters| log::VoterSet { node_ids: voters.iter().copied().collect() })
        .collect();
    let nodes = membership.nodes().map(|(id, member)| member_to(*id, member)).collect();
    log::Membership { configurations, nodes }
}

/// From protobuf.
///
/// # Errors
/// A voter without a node, or an empty configuration.
pub fn membership_from(membership: &log::Membership) -> Result<Membership, Malformed> {
    let configurations = membership
        .configurations
        .iter()
        .map(|set| set.node_ids.iter().copied().collect())
        .collect();
    let nodes: BTreeMap<u64, Member> =
        membership.nodes.iter().map(|peer| (peer.id, member_from(peer))).collect();
    Membership::new(configurations, nodes).map_err(|_| Malformed("membership"))
}

/// To protobuf.
pub fn member_to(id: u64, member: &Member) -> log::Peer {
    log::Peer {
        id,
        name: member.name.clone(),
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        thumbprint: member.thumbprint.clone(),
        incarnation: member.incarnation.clone(),
        other_thumbprints: member.other_thumbprints.clone(),
    }
}

/// From protobuf.
pub fn member_from(peer: &log::Peer) -> Member {
    Member {
        name: peer.name.clone(),
        peer_address: peer.peer_address.clone(),
        client_address: peer.client_address.clone(),
        thumbprint: peer.thumbprint.clone(),
        incarnation: peer.incarnation.clone(),
        other_thumbprints: peer.other_thumbprints.clone(),
    }
}

/// To protobuf.
pub fn stored_membership_to(stored: &StoredMembership) -> log::StoredMembership {
    log::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(stored.membership())),
    }
}

/// From protobuf.
///
/// # Errors
/// As [`membership_from`].
pub fn stored_membership_from(
    stored: Option<&log::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let Some(stored) = stored else { return Ok(StoredMembership::default()) };
    let Some(membership) = &stored.membership else { return Ok(StoredMembership::default()) };
    if membership.configurations.is_empty() && membership.nodes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let log_id = stored.log_id.as_ref().map(log_id_from);
    Ok(StoredMembership::new(log_id, membership_from(membership)?))
}

/// To protobuf.
pub fn snapshot_meta_to(meta: &SnapshotMeta) -> log::SnapshotMeta {
    log::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to),
        last_membership: Some(stored_membership_to(&meta.last_membership)),
        snapshot_id: String::new(),
    }
}

/// From protobuf.
///
/// # Errors
/// As [`membership_from`].
pub fn snapshot_meta_from(meta: &log::SnapshotMeta) -> Result<SnapshotMeta, Malformed> {
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from),
        last_membership: stored_membership_from(meta.last_membership.as_ref())?,
    })
}

/// To protobuf.
pub fn append_to(
    group: u64,
    append: &openraft::raft::AppendEntriesRequest<Types>,
) -> peer::AppendRequest {
    peer::AppendRequest {
        group,
        vote: Some(vote_to(&append.vote)),
        previous: append.prev_log_id.as_ref().map(log_id_to),
        committed: append.leader_commit.as_ref().map(log_id_to),
        entries: append.entries.iter().map(entry_to).collect(),
    }
}

/// From protobuf.
///
/// # Errors
/// A missing vote or a malformed entry.
pub fn append_from(
    append: peer::AppendRequest,
) -> Result<openraft::raft::AppendEntriesRequest<Types>, Malformed> {
    Ok(openraft::raft::AppendEntriesRequest {
        vote: append.vote.as_ref().map(vote_from).ok_or(Malformed("append without vote"))?,
        prev_log_id: append.previous.as_ref().map(log_id_from),
        leader_commit: append.committed.as_ref().map(log_id_from),
        entries: append.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
    })
}
