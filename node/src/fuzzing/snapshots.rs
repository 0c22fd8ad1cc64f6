//! A snapshot as its receiver sees it: chunks of a stream, then a trailer.

use std::sync::Arc;

use prost::Message as _;
use rookery_proto::log::v1 as log;
use sha2::{Digest as _, Sha256};

use super::{
    input::{Input, push_piece},
    store::{Records, Shared, hash_of, space},
};
use crate::{
    consensus::{
        applied::GroupState,
        snapshot::{SnapshotData, SnapshotSink, check_meta},
        types::{SnapshotMeta, Vote, snapshot_meta_from, vote_from},
    },
    limits,
    names::GroupId,
    storage::{Batch, Durability, Store as _, Table},
};

const GROUP: u64 = 5;

/// What is taken is exactly what was sent, whole; what is refused leaves the state as it was and nothing behind.
///
/// The first byte says what is made right for the input, which it could not guess: 1 the header, 2 the trailer.
pub(super) fn receive(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let (meta_bytes, chunk_bytes) = (input.piece(), input.short() + 1);
    let body = input.rest();
    let meta = log::SnapshotMeta::decode(meta_bytes).ok();
    let meta = meta.and_then(|meta| snapshot_meta_from(&meta).ok()).unwrap_or_default();
    let (stream, sent) = match (mode & 1, records(body)) {
        (1, Some(sent)) => ([header(meta_bytes, &sent), body.to_vec()].concat(), Some(sent)),
        _ => {
            let behind = header_bytes(body).and_then(|bytes| body.get(bytes..));
            (body.to_vec(), behind.and_then(records))
        }
    };
    let store = Arc::new(Shared::default());
    let mut batch = Batch::default();
    batch.put(space(GROUP), b"here before".as_slice(), b"1".as_slice());
    store.write(batch, Durability::Synced).unwrap();
    let state = GroupState::open(store.clone(), GroupId(GROUP)).unwrap();
    let before = store.0.lock().clone();
    let taken = take(&state, &stream, chunk_bytes, mode & 2 == 2, &meta);
    assert_eq!(state.space(), space(GROUP), "a snapshot that is not installed yet is shown");
    let whole = taken.is_some();
    match taken {
        Some(data) => {
            let sent = sent.expect("what is taken is well formed");
            assert_eq!(carried(&data), meta);
            let mut spaces = store.0.lock().clone().spaces;
            spaces.retain(|at, _| at.table == Table::State && *at != space(GROUP));
            assert_eq!(spaces.into_values().next().unwrap_or_default(), sent, "other records");
            drop(data);
        }
        None => drop(sent),
    }
    assert_eq!(store.0.lock().spaces, before.spaces, "something was left behind");
    let vote = vote_from(&log::Vote::default());
    let _ = check_meta(&meta, &vote, None).map(|()| check_accepted(&meta, &vote));
    if let Ok(vote) = log::Vote::decode(body) {
        let vote = vote_from(&vote);
        let _ = check_meta(&meta, &vote, meta.last_log_id.as_ref())
            .map(|()| check_accepted(&meta, &vote));
    }
    assert_eq!(state.read(|read, space| read.get(space, b"here before")).unwrap().unwrap(), b"1");
    whole
}

/// What openraft takes for granted of a snapshot's meta data, and would end the node over.
fn check_accepted(meta: &SnapshotMeta, vote: &Vote) {
    let last = meta.last_log_id.expect("a position");
    assert!(last.leader_id <= vote.leader_id);
    assert!(meta.last_membership.log_id().as_ref() <= Some(&last));
    assert!(meta.last_membership.membership().voter_ids().next().is_some(), "nobody votes");
}

fn take(
    state: &Arc<GroupState>,
    stream: &[u8],
    chunk_bytes: usize,
    right_trailer: bool,
    meta: &SnapshotMeta,
) -> Option<SnapshotData> {
    let mut sink = SnapshotSink::begin(state).unwrap();
    let (mut chunks, mut digest) = (0, Sha256::new());
    for chunk in cut(stream, chunk_bytes) {
        sink.write(chunk).ok()?;
        chunks += 1;
        digest.update(chunk);
    }
    let digest = if right_trailer { digest.finalize().to_vec() } else { vec![0; 32] };
    let taken = sink.finish(chunks, &digest, meta).ok();
    assert!(right_trailer || taken.is_none(), "a wrong trailer is taken");
    taken
}

/// Cuts behind records, as a sender does, or anywhere where the bytes are none.
fn cut(stream: &[u8], chunk_bytes: usize) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() && chunks.len() < 64 {
        let mut at = if chunks.is_empty() { header_bytes(rest).unwrap_or(0) } else { 0 };
        while at < chunk_bytes.min(rest.len()) {
            let Some(bytes) = record_bytes(&rest[at..]) else {
                at = rest.len();
                break;
            };
            at += bytes;
        }
        let (chunk, later) = rest.split_at(at.max(1).min(rest.len()));
        chunks.push(chunk);
        rest = later;
    }
    chunks
}

fn number(bytes: &[u8]) -> Option<usize> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?) as usize)
}

fn header_bytes(stream: &[u8]) -> Option<usize> {
    let bytes = 48 + number(stream.get(44..)?)?;
    (bytes <= stream.len()).then_some(bytes)
}

fn record_bytes(rest: &[u8]) -> Option<usize> {
    let bytes = 8 + number(rest)? + number(rest.get(4..)?)?;
    (bytes <= rest.len()).then_some(bytes)
}

/// The records of a body, read by rules of its own; `None` where one of them does not hold.
fn records(body: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (record, later) = rest.split_at(record_bytes(rest)?);
        let (key, value) = record[8..].split_at(number(record)?);
        let in_order = records.last_key_value().is_none_or(|(last, _)| last.as_slice() < key);
        let small = key.len() <= limits::STATE_KEY_BYTES_MAX
            && value.len() <= limits::STATE_VALUE_BYTES_MAX;
        if !in_order || !small {
            return None;
        }
        records.insert(key.to_vec(), value.to_vec());
        rest = later;
    }
    Some(records)
}

fn header(meta: &[u8], records: &Records) -> Vec<u8> {
    let length = u32::try_from(meta.len()).unwrap().to_be_bytes();
    let hash = hash_of(records).to_bytes();
    [b"RKS1".as_slice(), &GROUP.to_be_bytes(), &hash, &length, meta].concat()
}

fn carried(data: &SnapshotData) -> SnapshotMeta {
    match data {
        SnapshotData::Incoming(staged) => staged.meta(),
        SnapshotData::Outgoing(source) => source.meta(),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let peer = log::Peer { id: 1, name: "n1".to_owned(), ..log::Peer::default() };
    let position = log::LogId { term: 1, node_id: 1, index: 9 };
    let membership = log::Membership {
        configurations: vec![log::VoterSet { node_ids: vec![1] }],
        nodes: vec![peer],
    };
    let stored = log::StoredMembership { log_id: Some(position), membership: Some(membership) };
    let meta = log::SnapshotMeta {
        last_log_id: Some(position),
        last_membership: Some(stored),
        snapshot_id: String::new(),
    }
    .encode_to_vec();
    let mut body = Vec::new();
    for (key, value) in [("a", "1"), ("b", ""), ("bc", "a longer value"), ("c", "2")] {
        for part in [key, value] {
            body.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        }
        body.extend_from_slice([key, value].concat().as_bytes());
    }
    let seed = |mode: u8, chunk: u16, body: &[u8]| {
        let mut bytes = vec![mode];
        push_piece(&mut bytes, &meta);
        bytes.extend(chunk.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    };
    let whole = [header(&meta, &records(&body).unwrap()), body.clone()].concat();
    vec![
        seed(3, 10, &body),
        seed(3, 1_000, &body),
        seed(2, 20, &whole),
        seed(1, 10, &body),
        seed(3, 0, b""),
    ]
}
