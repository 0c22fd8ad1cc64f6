//! The answers to peers: who is admitted, and what each call of the peer protocol does here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rookery_proto::{
    log::v1::{Proposal, Refusal, proposal},
    peer::v1::{self as peer, forward_request, forward_response},
};

use super::{
    Consensus, Denial, Error, Fresh,
    groups::member_of,
    peer_service::{PeerHandler, PeerRefused},
    snapshot::SnapshotSink,
    types::{Member, Raft},
};
use crate::{
    authz::{self, Author, DatabaseOperation, DeniedReason, ServerOperation},
    cluster, database, limits,
    names::{DatabaseId, GroupId, NodeId, Thumbprint, Timestamp},
};

/// The handler that the peer listener calls.
#[derive(Clone)]
pub struct Peers(pub Arc<Consensus>);

#[tonic::async_trait]
impl PeerHandler for Peers {
    fn raft(&self, group: GroupId) -> Option<Raft> {
        self.0.groups.find(group).map(|group| group.raft.clone())
    }

    fn is_member(&self, thumbprint: &Thumbprint) -> bool {
        self.0.is_any_member(thumbprint)
    }

    fn admit(&self, thumbprint: &Thumbprint, hello: &peer::Hello) -> Result<NodeId, PeerRefused> {
        self.0.admit(thumbprint, hello)
    }

    fn still_member(&self, node: NodeId, thumbprint: &Thumbprint) -> bool {
        self.0.still_member(node, thumbprint)
    }

    fn hello(&self) -> peer::Hello {
        self.0.identity().hello(self.0.ages.own())
    }

    async fn read_index(&self, group: GroupId) -> Result<u64, peer::PeerError> {
        let group = self.0.group(group).map_err(|e| e.to_peer())?;
        self.0.lead_read_index(&group).await.map_err(|e| e.to_peer())
    }

    async fn freshness(
        &self,
        from: NodeId,
        request: peer::FreshnessRequest,
    ) -> Result<peer::FreshnessResponse, peer::PeerError> {
        let boot = self.0.clock.boot();
        self.0.fullness.report(from, request.full, boot);
        self.0.cluster_time.hear(from, Timestamp(request.wall_unix_ms), boot);
        self.0.answer_freshness(from).await.map_err(|e| e.to_peer())
    }

    async fn confirm(
        &self,
        request: peer::ConfirmRequest,
    ) -> Result<peer::ConfirmResponse, peer::PeerError> {
        let group = self.0.group(GroupId::CLUSTER).map_err(|e| e.to_peer())?;
        let deadline = Instant::now() + limits::PEER_ANSWER_TIMEOUT;
        group.wait_applied(request.index, deadline).await.map_err(|e| e.to_peer())?;
        Ok(peer::ConfirmResponse { applied_index: group.state.applied().0 })
    }

    fn refused(&self, thumbprint: &Thumbprint, why: &PeerRefused) {
        tracing::debug!(%thumbprint, %why, "peer refused");
        self.0.note_denial(Denial {
            operation: ServerOperation::PeerCall.name().to_owned(),
            reason: DeniedReason::NotAMember.code().to_owned(),
            rule: ServerOperation::PeerCall.rule_id().to_owned(),
            actor: Some(*thumbprint),
            details: why.to_string(),
            ..Denial::default()
        });
    }

    async fn audit_hash(
        &self,
        request: peer::AuditHashRequest,
    ) -> Result<peer::AuditHashResponse, peer::PeerError> {
        let hash = self.0.audit_hash(request.sequence).map_err(|e| e.to_peer())?;
        Ok(peer::AuditHashResponse { hash: hash.unwrap_or_default() })
    }

    async fn forward(&self, from: NodeId, request: peer::ForwardRequest) -> peer::ForwardResponse {
        use forward_response::Result as Answer;
        if self.0.registry().node(from).is_none() {
            return peer::ForwardResponse {
                result: Some(Answer::Error(Error::NotLeader.to_peer())),
            };
        }
        let author = Thumbprint::from_bytes(&request.author).ok();
        let answer = match self.0.serve_forward(from, request).await {
            Ok(answer) => answer,
            Err(Error::Refused(refusal)) => Answer::Refused(*refusal),
            Err(Error::Denied(denied)) => {
                self.0.note_denial(Denial {
                    operation: denied.operation.to_owned(),
                    reason: denied.reason.code().to_owned(),
                    rule: denied.rule.to_owned(),
                    actor: author,
                    details: format!("forwarded by node {from}"),
                    ..Denial::default()
                });
                Answer::Refused(Refusal::from(denied.as_ref()))
            }
            Err(error) => Answer::Error(error.to_peer()),
        };
        peer::ForwardResponse { result: Some(answer) }
    }

    async fn status(&self) -> peer::StatusResponse {
        peer::StatusResponse { status: Some(self.0.status_local()), members: self.0.vouch() }
    }

    fn folder_age(&self, from: NodeId, request: &peer::FolderAgeRequest) {
        let Some(member) = self.0.known_member(from) else { return };
        if let Err(seen) = self.0.ages.hear(from, &member.incarnation, request.age.as_ref()) {
            // Told late, on a channel that was slow: the folder's next Hello decides.
            tracing::debug!(peer = %from, %seen, "heard of an earlier age of a data folder");
        }
    }

    fn takes_entries(&self, group: GroupId, commands: bool) -> bool {
        self.0.takes_entries(group, commands)
    }

    fn snapshot_sink(&self, group: GroupId) -> Option<SnapshotSink> {
        let running = self.0.groups.find(group)?;
        if !self.0.takes_entries(group, true) {
            return None;
        }
        match SnapshotSink::begin(&running.state) {
            Ok(sink) => Some(sink),
            Err(error) => {
                tracing::error!(%group, %error, "a snapshot cannot be received");
                None
            }
        }
    }

    fn probe(
        &self,
        thumbprint: &Thumbprint,
        request: peer::ProbeRequest,
    ) -> Result<peer::ProbeResponse, tonic::Status> {
        self.0.answer_probe(thumbprint, &request)
    }
}

impl Consensus {
    /// Whether the holder of a certificate may speak as the node that its Hello names.
    ///
    /// A removed node, a wiped folder under an old id, and a node of another cluster are refused here.
    fn admit(&self, thumbprint: &Thumbprint, hello: &peer::Hello) -> Result<NodeId, PeerRefused> {
        let identity = self.identity();
        if !identity.is_member() {
            return Err(PeerRefused::NotFormed);
        }
        if hello.cluster_id != identity.cluster_id {
            return Err(PeerRefused::OtherCluster);
        }
        let id = NodeId(hello.node_id);
        let member = self.known_member(id).ok_or(PeerRefused::NotAMember)?;
        if !member.has(thumbprint.as_bytes()) {
            return Err(match self.is_any_member(thumbprint) {
                true => PeerRefused::OtherNode,
                false => PeerRefused::NotAMember,
            });
        }
        if member.incarnation != hello.incarnation {
            return Err(PeerRefused::OtherIncarnation);
        }
        let heard = self.ages.hear(id, &hello.incarnation, hello.age.as_ref());
        heard.map(|()| id).map_err(PeerRefused::RolledBack)
    }

    fn still_member(&self, node: NodeId, thumbprint: &Thumbprint) -> bool {
        let registry = self.cluster.registry();
        if registry.is_formed() {
            return match registry.node(node) {
                Some(_) => registry.is_certificate_of(node, thumbprint),
                None => {
                    let vouched = self.vouched.find(node).filter(|_| !registry.is_removed(node));
                    vouched.is_some_and(|member| member.has(thumbprint.as_bytes()))
                }
            };
        }
        self.identity.load().peers.get(&node).is_some_and(|m| m.has(thumbprint.as_bytes()))
    }

    /// Whether a certificate is that of a current member, as far as this node knows or was told.
    #[must_use]
    pub fn is_any_member(&self, thumbprint: &Thumbprint) -> bool {
        let registry = self.cluster.registry();
        if registry.is_formed() {
            let known = registry.member(thumbprint).is_some() || self.vouched.holds(thumbprint);
            if !known {
                self.vouched.wanted.notify_one();
            }
            return known;
        }
        let identity = self.identity.load();
        identity.peers.values().any(|member| member.has(thumbprint.as_bytes()))
    }

    /// A current member: by which certificates and which data folder it is known.
    fn known_member(&self, id: NodeId) -> Option<Member> {
        let registry = self.cluster.registry();
        if registry.is_formed() {
            return match member_of(&registry, id) {
                Some(member) => Some(member),
                None => self.vouched.find(id).filter(|_| !registry.is_removed(id)),
            };
        }
        self.identity.load().peers.get(&id).cloned()
    }

    /// Steps 2 and 3 of `freshness`.
    async fn answer_freshness(&self, from: NodeId) -> Result<peer::FreshnessResponse, Error> {
        let received = self.clock.boot();
        let group = self.group(GroupId::CLUSTER)?;
        if !group.is_leader() {
            return Err(Error::NotLeader);
        }
        self.note_leadership(GroupId::CLUSTER);
        self.time_to_tell()?;
        self.promises.promise(from, received, self.lease());
        // Of this node's own leadership, or not at all: an index of another leader would come without that leader's
        // promise.
        let commit_index = self.lead_read_index(&group).await?;
        let lease_ms = u32::try_from(self.lease().as_millis()).unwrap_or(u32::MAX);
        Ok(peer::FreshnessResponse {
            commit_index,
            leader_unix_ms: self.time_as_leader().time.0,
            lease_ms,
            full_node_ids: self.full_nodes().iter().map(|node| node.0).collect(),
        })
    }

    /// Serves a call whose author is a client of another node: decided here again, with the author's own identity.
    async fn serve_forward(
        &self,
        from: NodeId,
        request: peer::ForwardRequest,
    ) -> Result<forward_response::Result, Error> {
        let malformed = || Error::refused("INVALID_ARGUMENT", "the forwarded call is malformed");
        let author = Thumbprint::from_bytes(&request.author).map_err(|_| malformed())?;
        let left = Duration::from_millis(u64::from(request.deadline_ms)).min(limits::DEADLINE_MAX);
        let deadline = Instant::now() + left;
        let fresh = self.fresh(deadline).await?;
        match request.call.ok_or_else(malformed)? {
            forward_request::Call::Propose(mut proposal) => {
                proposal.origin_node_id = from.0;
                decide_proposal(&fresh, from, &author, &proposal)?.map_err(|()| malformed())?;
                enabled(&fresh, GroupId(proposal.group))?;
                let applied =
                    self.propose_here(Author::Certificate(author), proposal, deadline).await?;
                Ok(forward_response::Result::Applied(applied))
            }
            forward_request::Call::Read(read) => {
                let database = GroupId(read.group).database().ok_or_else(malformed)?;
                let operation = match read.read.as_ref().ok_or_else(malformed)? {
                    peer::document_read::Read::Get(_) => DatabaseOperation::ReadDocument,
                    peer::document_read::Read::List(_) => DatabaseOperation::ListDocuments,
                    peer::document_read::Read::Statistics(_) => DatabaseOperation::ViewStatistics,
                };
                let caller = fresh.registry.caller(Some(author));
                let permit = authz::decide_database(
                    caller,
                    operation,
                    database,
                    fresh.at,
                    fresh.registry.revision,
                )?;
                enabled(&fresh, GroupId::from(database))?;
                let read = read.read.ok_or_else(malformed)?;
                let bytes = self.serve_forwarded_read(&permit, read, deadline).await?;
                Ok(forward_response::Result::Read(bytes))
            }
            forward_request::Call::Lead(call) => {
                self.serve_leader(&fresh, from, author, &call, deadline).await?;
                Ok(forward_response::Result::Led(peer::LeaderAnswer {}))
            }
            forward_request::Call::Local(call) => {
                let call = call.call.ok_or_else(malformed)?;
                self.serve_local(&fresh, author, call).map(forward_response::Result::Local)
            }
        }
    }

    /// Formation: tells a node with an empty folder whether the cluster stands already.
    fn answer_probe(
        &self,
        thumbprint: &Thumbprint,
        request: &peer::ProbeRequest,
    ) -> Result<peer::ProbeResponse, tonic::Status> {
        let refused = || tonic::Status::permission_denied("this certificate is no member");
        let identity = self.identity();
        let in_formation = self.formation.as_ref().is_some_and(|formation| {
            formation.cluster_id == request.cluster_id
                && formation.nodes.iter().any(|node| node.thumbprint == *thumbprint)
        });
        let member = identity.cluster_id == request.cluster_id
            && self.cluster.registry().member(thumbprint).is_some();
        if !in_formation && !member {
            return Err(refused());
        }
        let known =
            identity.peers.iter().find(|(_, member)| member.has(thumbprint.as_bytes())).map(
                |(id, member)| match self.known_member(*id) {
                    Some(member) => member.incarnation,
                    None => member.incarnation.clone(),
                },
            );
        Ok(peer::ProbeResponse {
            formed: identity.is_member(),
            incarnation: identity.incarnation.as_bytes().to_vec(),
            known_incarnation: known.unwrap_or_default(),
        })
    }
}

/// A disabled database answers no document call, by whichever way it comes.
fn enabled(fresh: &Fresh, group: GroupId) -> Result<(), Error> {
    let Some(id) = group.database() else { return Ok(()) };
    match fresh.registry.database_by_id(id) {
        Some(record) if record.enabled => Ok(()),
        Some(_) => Err(Error::refused("DATABASE_DISABLED", "the database is disabled")),
        None if fresh.registry.was_deleted(id) => {
            Err(Error::refused("NOT_FOUND", "the database was deleted"))
        }
        // Created a moment ago, and not applied here yet: the asking node tries again.
        None => Err(Error::NotLeader),
    }
}

/// Decides a forwarded proposal as if its author had called here.
///
/// **Invariant:** what only members may write, a member writes in its own name: `from` sent it, and nobody else's node
/// certificate may stand under it.
pub(super) fn decide_proposal(
    fresh: &Fresh,
    from: NodeId,
    author: &Thumbprint,
    proposal: &Proposal,
) -> Result<Result<(), ()>, Error> {
    let caller = fresh.registry.caller(Some(*author));
    let revision = fresh.registry.revision;
    match &proposal.command {
        Some(proposal::Command::Cluster(command)) if proposal.group == GroupId::CLUSTER.0 => {
            let operation = cluster::operation(command);
            let _permit = authz::decide_server(caller, operation, fresh.at, revision)?;
            let of_members = operation == ServerOperation::PeerCall;
            if of_members && !fresh.registry.is_certificate_of(from, author) {
                let why = "a node writes in the name of no other node";
                return Err(Error::refused("NOT_A_MEMBER", why));
            }
            Ok(Ok(()))
        }
        Some(proposal::Command::Database(command)) if proposal.group != GroupId::CLUSTER.0 => {
            let operation = database::operation(command);
            let id = DatabaseId(proposal.group);
            let _permit = authz::decide_database(caller, operation, id, fresh.at, revision)?;
            Ok(Ok(()))
        }
        Some(_) | None => Ok(Err(())),
    }
}
