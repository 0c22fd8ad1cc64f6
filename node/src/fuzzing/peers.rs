//! Messages of peers: what is taken for consensus is sound, and is sent on as it came.

use prost::Message;
use rookery_proto::{log::v1 as log, peer::v1 as peer};

use super::input::Input;
use crate::{
    consensus::{
        peer_service::check_append,
        types::{
            append_to, entry_from, entry_to, log_id_from, log_id_to, member_from, member_to,
            membership_from, membership_to, snapshot_meta_from, snapshot_meta_to, vote_from,
            vote_to,
        },
    },
    names::NodeId,
};

/// A message that decodes, encodes to the same value; the parts that consensus takes are the same both ways.
#[allow(clippy::wildcard_enum_match_arm)] // Nothing is made of the other messages but what is decoded.
pub(super) fn messages(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (kind, body) = (input.byte(), input.rest());
    match kind % 4 {
        0 => {
            let Some(message) = decoded::<peer::ChannelRequest>(body) else { return false };
            match message.body {
                Some(peer::channel_request::Body::Append(append)) => check_entries(&append),
                Some(
                    peer::channel_request::Body::Vote(request)
                    | peer::channel_request::Body::PreVote(request),
                ) => {
                    check_position(request.vote.as_ref(), request.last_log_id.as_ref());
                }
                _ => {}
            }
        }
        1 => {
            let Some(message) = decoded::<peer::ChannelResponse>(body) else { return false };
            if let Some(peer::channel_response::Body::Append(append)) = message.body {
                check_position(append.higher_vote.as_ref(), append.matching.as_ref());
            }
        }
        2 => {
            let Some(message) = decoded::<peer::InstallSnapshotRequest>(body) else {
                return false;
            };
            if let Some(peer::install_snapshot_request::Part::Header(header)) = message.part {
                check_meta(header.meta.unwrap_or_default());
            }
        }
        _ => {
            let Some(entry) = decoded::<log::Entry>(body) else { return false };
            check_entry(entry);
        }
    }
    true
}

fn decoded<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = message.encode_to_vec();
    assert_eq!(M::decode(again.as_slice()).as_ref(), Ok(&message), "encoded to something else");
    assert!(again.len() <= 8 * bytes.len() + 64, "a message grows by being sent on");
    Some(message)
}

fn check_position(vote: Option<&log::Vote>, position: Option<&log::LogId>) {
    if let Some(vote) = vote {
        assert_eq!(vote_to(&vote_from(vote)), *vote);
    }
    if let Some(position) = position {
        assert_eq!(log_id_to(&log_id_from(position)), *position);
    }
}

fn check_entry(entry: log::Entry) {
    let Ok(taken) = entry_from(entry) else { return };
    let sent = entry_to(&taken);
    assert_eq!(entry_from(sent.clone()).as_ref(), Ok(&taken));
    if let Some(log::entry::Payload::Membership(membership)) = sent.payload {
        let taken = membership_from(&membership).expect("it was taken before");
        assert_eq!(membership_to(&taken), membership);
        for (id, member) in taken.nodes() {
            assert_eq!(member_from(&member_to(*id, member)), *member);
        }
    }
}

fn check_meta(meta: log::SnapshotMeta) {
    let Ok(taken) = snapshot_meta_from(&meta) else { return };
    assert_eq!(snapshot_meta_from(&snapshot_meta_to(&taken)).as_ref(), Ok(&taken));
}

/// Entries that are taken follow each other, fit the vote of their sender, and are taken again when they are sent on.
fn check_entries(append: &peer::AppendRequest) {
    append.entries.iter().cloned().for_each(check_entry);
    for sender in [0, 1, append.vote.as_ref().map_or(2, |vote| vote.node_id)] {
        let Ok(taken) = check_append(NodeId(sender), append.clone()) else { continue };
        assert_eq!(taken.vote.leader_id.node_id, sender, "a vote of somebody else");
        assert!(taken.vote.committed);
        let indexes = taken.entries.iter().map(|entry| entry.log_id.index);
        let first = taken.prev_log_id.map_or(0, |previous| previous.index + 1);
        assert!(indexes.eq((first..).take(taken.entries.len())), "entries with a gap");
        let mut terms = taken.prev_log_id.into_iter().chain(taken.entries.iter().map(|e| e.log_id));
        assert!(terms.clone().is_sorted_by_key(|at| at.leader_id), "falling terms");
        assert!(terms.all(|at| at.leader_id <= taken.vote.leader_id));
        let sent = append_to(append.group, &taken);
        let again = check_append(NodeId(sender), sent).expect("what was taken is sent on");
        assert_eq!(again.entries, taken.entries);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let position = |index| log::LogId { term: 3, node_id: 1, index };
    let vote = log::Vote { term: 3, node_id: 1, committed: true };
    let peer = |id: u64| log::Peer {
        id,
        name: format!("n{id}"),
        peer_address: "n1.example:7444".to_owned(),
        thumbprint: vec![1; 32],
        ..log::Peer::default()
    };
    let membership = log::Membership {
        configurations: vec![log::VoterSet { node_ids: vec![1, 2] }],
        nodes: vec![peer(1), peer(2)],
    };
    let entry =
        |index, payload| log::Entry { log_id: Some(position(index)), payload: Some(payload) };
    let entries = vec![
        entry(8, log::entry::Payload::Blank(log::Blank {})),
        entry(9, log::entry::Payload::Command(b"command".to_vec().into())),
        entry(10, log::entry::Payload::Membership(membership.clone())),
    ];
    let last = entries[2].clone();
    let append = peer::AppendRequest {
        group: 1,
        vote: Some(vote),
        previous: Some(position(7)),
        committed: Some(position(7)),
        entries,
    };
    let request = |body| peer::ChannelRequest { call: 1, body: Some(body) }.encode_to_vec();
    let vote_request = peer::VoteRequest {
        group: 1,
        vote: Some(log::Vote { committed: false, ..vote }),
        last_log_id: Some(position(7)),
        leadership_transfer: false,
    };
    let stored = log::StoredMembership { log_id: Some(position(7)), membership: Some(membership) };
    let meta = log::SnapshotMeta {
        last_log_id: Some(position(9)),
        last_membership: Some(stored),
        snapshot_id: String::new(),
    };
    let header = peer::SnapshotHeader { meta: Some(meta), vote: Some(vote), ..<_>::default() };
    let part = Some(peer::install_snapshot_request::Part::Header(header));
    let answer =
        peer::AppendResponse { result: 1, matching: Some(position(9)), higher_vote: Some(vote) };
    let answer = peer::channel_response::Body::Append(answer);
    [
        (0, request(peer::channel_request::Body::Append(append))),
        (0, request(peer::channel_request::Body::Vote(vote_request))),
        (1, peer::ChannelResponse { call: 1, body: Some(answer) }.encode_to_vec()),
        (2, peer::InstallSnapshotRequest { part }.encode_to_vec()),
        (3, last.encode_to_vec()),
    ]
    .map(|(kind, body)| [vec![kind], body].concat())
    .to_vec()
}
