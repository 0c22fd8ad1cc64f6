//! Snapshots without files: what is sent is a consistent view of the state, what arrives becomes a new generation.
//!
//! The sender reads a view record by record ([`SnapshotSource`]); the receiver writes the records into a fresh generation
//! of the group's space ([`SnapshotSink`]), checks the whole, and only then hands it to openraft, which installs it with
//! one batch that makes that generation the current one ([`super::state_machine`]). A crash before that batch leaves the
//! old state; the unfinished generation is deleted at the next start, or when the next snapshot begins.
//!
//! The stream is cut into chunks at ends of records. The first chunk begins with a header:
//!
//! | | bytes |
//! | --- | --- |
//! | header | `RKS1` ‖ group (8) ‖ state hash (32) ‖ length (4) ‖ `SnapshotMeta` |
//! | record | length of key (4) ‖ length of value (4) ‖ key ‖ value; keys strictly ascending |
//!
//! Numbers are big endian. The transfer ends with the number of chunks and the SHA-256 of all of them; the receiver also
//! computes the state hash of the records that it stored and compares it with the sender's.

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use prost::Message;
use rookery_proto::log::v1 as log;
use sha2::{Digest, Sha256};

use super::{
    applied::{Applied, GroupState},
    types::{LogId, SnapshotMeta, Vote, snapshot_meta_from, snapshot_meta_to},
};
use crate::{
    limits,
    names::GroupId,
    storage::{self, Read, Space, StateHash},
};

const MAGIC: &[u8; 4] = b"RKS1";
const HASH_BYTES: usize = 32;

/// Why a snapshot cannot be sent or taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage failed; the node must stop.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// What arrived is no snapshot, or not the whole of it. Nothing was changed.
    #[error("the snapshot is refused: it {0}")]
    Refused(&'static str),
    /// Another snapshot of the group began to arrive.
    #[error("another snapshot took the place of this one")]
    Superseded,
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// A snapshot as openraft passes it around.
#[derive(Debug)]
pub enum SnapshotData {
    /// Read from this node's state, to be sent.
    Outgoing(SnapshotSource),
    /// Received and checked, to be installed.
    Incoming(Staged),
}

/// A snapshot with its meta data.
pub type Snapshot = openraft::alias::SnapshotOf<super::types::Types, SnapshotData>;

/// Checks what openraft asserts of a snapshot's meta data, so that a wrong one is refused and does not end the node.
///
/// `vote` is the sender's; `committed` the highest committed position that this node knows of the group.
///
/// # Errors
/// [`Error::Refused`].
pub fn check_meta(
    meta: &SnapshotMeta,
    vote: &Vote,
    committed: Option<&LogId>,
) -> Result<(), Error> {
    let last = meta.last_log_id.as_ref().ok_or(Error::Refused("has no position"))?;
    if meta.last_membership.log_id().as_ref() > Some(last) {
        return Err(Error::Refused("has a membership from after its own position"));
    }
    if meta.last_membership.membership().get_joint_config().is_empty() {
        return Err(Error::Refused("has no membership"));
    }
    if last.leader_id > vote.leader_id {
        return Err(Error::Refused("is from after the term of the leader that sends it"));
    }
    if let Some(committed) = committed
        && last > committed
        && last.index <= committed.index
    {
        return Err(Error::Refused("contradicts entries that are committed here"));
    }
    Ok(())
}

// ---- sending ----

/// Reads a view of a state chunk by chunk.
pub struct SnapshotSource {
    view: Arc<dyn Read>,
    space: Space,
    applied: Applied,
    next: Next,
    chunks: u64,
    digest: Sha256,
}

#[derive(Debug)]
enum Next {
    Header,
    /// The records from this key on.
    From(Vec<u8>),
    End,
}

impl SnapshotSource {
    pub(super) fn new(view: Arc<dyn Read>, space: Space, applied: Applied) -> Self {
        Self { view, space, applied, next: Next::Header, chunks: 0, digest: Sha256::new() }
    }

    /// What the snapshot covers.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        self.applied.meta()
    }

    /// The next chunk; `None` after the last. Reads from the disk: call it where that may block.
    ///
    /// A chunk has at most [`limits::SNAPSHOT_CHUNK_BYTES_MAX`] bytes and one record.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Refused`] for a record above the limits, which no receiver would take.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let (mut chunk, from) = match std::mem::replace(&mut self.next, Next::End) {
            Next::Header => (self.header()?, Vec::new()),
            Next::From(key) => (Vec::new(), key),
            Next::End => return Ok(None),
        };
        let header_bytes = chunk.len();
        let resume = read_records(&*self.view, self.space, &from, &mut chunk)?;
        if chunk.is_empty() && header_bytes == 0 {
            return Ok(None);
        }
        if let Some(key) = resume {
            self.next = Next::From(key);
        }
        self.chunks += 1;
        self.digest.update(&chunk);
        Ok(Some(chunk))
    }

    /// Number of chunks that were read, and the SHA-256 of all of them: the trailer, once `next_chunk` gave `None`.
    #[must_use]
    pub fn trailer(&self) -> (u64, [u8; 32]) {
        (self.chunks, self.digest.clone().finalize().into())
    }

    fn header(&self) -> Result<Vec<u8>, Error> {
        let meta = snapshot_meta_to(&self.applied.meta()).encode_to_vec();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.space.group.0.to_be_bytes());
        bytes.extend_from_slice(&self.applied.hash.to_bytes());
        bytes.extend_from_slice(&length(&meta)?);
        bytes.extend_from_slice(&meta);
        Ok(bytes)
    }
}

impl std::fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "snapshot of {:?} at {:?}", self.space, self.applied.log_id)
    }
}

/// Fills a chunk; gives the key to resume at, or `None` where the space ends.
fn read_records(
    view: &dyn Read,
    space: Space,
    from: &[u8],
    chunk: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, Error> {
    let mut resume = None;
    let mut refused = None;
    view.scan(space, from, Bound::Unbounded, &mut |key, value| {
        if chunk.len() >= limits::SNAPSHOT_CHUNK_BYTES_MAX {
            resume = Some(key.to_vec());
            return ControlFlow::Break(());
        }
        match push_record(chunk, key, &value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    refused.map_or(Ok(resume), Err)
}

fn push_record(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Result<(), Error> {
    check_record(key.len(), value.len())?;
    chunk.extend_from_slice(&length(key)?);
    chunk.extend_from_slice(&length(value)?);
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(value);
    Ok(())
}

fn length(bytes: &[u8]) -> Result<[u8; 4], Error> {
    u32::try_from(bytes.len()).map(u32::to_be_bytes).map_err(|_| Error::Refused("is too large"))
}

fn check_record(key_bytes: usize, value_bytes: usize) -> Result<(), Error> {
    if key_bytes > limits::STATE_KEY_BYTES_MAX {
        return Err(Error::Refused("has a key that is too long"));
    }
    if value_bytes > limits::STATE_VALUE_BYTES_MAX {
        return Err(Error::Refused("has a record that is too large"));
    }
    Ok(())
}

// ---- receiving ----

/// A generation that is being received or waits to be installed; deleted when it is dropped before.
pub(super) struct Staging {
    state: Arc<GroupState>,
    generation: u32,
}

impl Staging {
    pub(super) fn new(state: Arc<GroupState>, generation: u32) -> Self {
        Self { state, generation }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Without effect after the installation. A store that fails here fails for the committer too, which stops the
        // node; and the record of the generation stands until the next start.
        if let Err(error) = self.state.discard(self.generation) {
            tracing::warn!(group = %self.state.group(), %error, "an unfinished snapshot could not be deleted");
        }
    }
}

/// A snapshot that was received whole, checked, and not installed yet.
pub struct Staged {
    staging: Staging,
    applied: Applied,
}

impl Staged {
    /// What the snapshot covers.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        self.applied.meta()
    }

    /// Makes it the state of the group.
    pub(super) fn install(self, state: &Arc<GroupState>) -> Result<Applied, Error> {
        if !Arc::ptr_eq(&self.staging.state, state) {
            return Err(Error::Refused("was received for another group"));
        }
        state.switch(self.staging.generation, &self.applied)?;
        Ok(self.applied.clone())
    }
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "received snapshot of group {} at {:?}",
            self.staging.state.group(),
            self.applied.log_id
        )
    }
}

/// Writes the chunks of a snapshot into a fresh generation.
///
/// Dropping it gives the snapshot up.
pub struct SnapshotSink {
    staging: Staging,
    expected: Option<Applied>,
    /// Hash of the records that are stored.
    hash: StateHash,
    last_key: Option<Vec<u8>>,
    chunks: u64,
    digest: Sha256,
}

impl SnapshotSink {
    /// Begins to receive a snapshot of a group; one that was being received before is given up.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn begin(state: &Arc<GroupState>) -> Result<Self, Error> {
        Ok(Self {
            staging: state.stage()?,
            expected: None,
            hash: StateHash::default(),
            last_key: None,
            chunks: 0,
            digest: Sha256::new(),
        })
    }

    /// Stores the records of a chunk, all or none. Writes to the disk: call it where that may block.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no chunk; [`Error::Superseded`]; [`Error::Storage`]. The snapshot is lost then.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), Error> {
        if chunk.len() > limits::SNAPSHOT_MESSAGE_BYTES_MAX {
            return Err(Error::Refused("has a chunk that is too large"));
        }
        self.chunks += 1;
        self.digest.update(chunk);
        let mut rest = chunk;
        if self.expected.is_none() {
            self.expected = Some(take_header(&mut rest, self.staging.state.group())?);
        }
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (key, value) = take_record(&mut rest)?;
            let last = records.last().map(|(key, _): &(Vec<u8>, _)| key).or(self.last_key.as_ref());
            if last.is_some_and(|last| last.as_slice() >= key) {
                return Err(Error::Refused("has records out of order"));
            }
            self.hash.add(key, value);
            records.push((key.to_vec(), value.to_vec()));
        }
        if let Some((key, _)) = records.last() {
            self.last_key = Some(key.clone());
        }
        self.staging.state.write_staged(self.staging.generation, records)
    }

    /// Checks the whole: number of chunks, SHA-256 of all, the meta data that the transfer was announced with, and that
    /// the records have the state hash of the sender.
    ///
    /// # Errors
    /// [`Error::Refused`]; what was received is deleted then.
    pub fn finish(
        self,
        chunks: u64,
        digest: &[u8],
        meta: &SnapshotMeta,
    ) -> Result<SnapshotData, Error> {
        let applied = self.expected.ok_or(Error::Refused("has no header"))?;
        if chunks != self.chunks {
            return Err(Error::Refused("lacks chunks"));
        }
        if digest != self.digest.finalize().as_slice() {
            return Err(Error::Refused("was changed on its way"));
        }
        if *meta != applied.meta() {
            return Err(Error::Refused("is not the one that was announced"));
        }
        if self.hash != applied.hash {
            return Err(Error::Refused("does not have the state hash of its sender"));
        }
        Ok(SnapshotData::Incoming(Staged { staging: self.staging, applied }))
    }

    /// Gives the snapshot up and deletes what was received.
    pub fn abandon(self) {}
}

/// Copies a view into a new generation of a group, as a transfer would.
pub(super) fn copy(mut source: SnapshotSource, state: &Arc<GroupState>) -> Result<Staged, Error> {
    let mut sink = SnapshotSink::begin(state)?;
    while let Some(chunk) = source.next_chunk()? {
        sink.write(&chunk)?;
    }
    let (chunks, digest) = source.trailer();
    match sink.finish(chunks, &digest, &source.meta())? {
        SnapshotData::Incoming(staged) => Ok(staged),
        SnapshotData::Outgoing(_) => Err(Error::Refused("is not a received one")),
    }
}

fn take_header(rest: &mut &[u8], group: GroupId) -> Result<Applied, Error> {
    const SHORT: Error = Error::Refused("has a header that is too short");
    if take(rest, MAGIC.len()) != Some(MAGIC) {
        return Err(Error::Refused("begins with no header that this version knows"));
    }
    let sent_group = take(rest, 8).and_then(|bytes| bytes.try_into().ok()).ok_or(SHORT)?;
    if u64::from_be_bytes(sent_group) != group.0 {
        return Err(Error::Refused("is of another group"));
    }
    let hash: &[u8; HASH_BYTES] =
        take(rest, HASH_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or(SHORT)?;
    let meta_bytes = take_length(rest).ok_or(SHORT)?;
    let meta = take(rest, meta_bytes).ok_or(SHORT)?;
    let meta = log::SnapshotMeta::decode(meta).map_err(|_| Error::Refused("has no meta data"))?;
    let meta = snapshot_meta_from(&meta).map_err(|_| Error::Refused("has malformed meta data"))?;
    Ok(Applied {
        log_id: meta.last_log_id,
        membership: meta.last_membership,
        hash: StateHash::from_bytes(hash),
    })
}

fn take_record<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Error> {
    const CUT: Error = Error::Refused("has a record that is cut off");
    let key_bytes = take_length(rest).ok_or(CUT)?;
    let value_bytes = take_length(rest).ok_or(CUT)?;
    check_record(key_bytes, value_bytes)?;
    let key = take(rest, key_bytes).ok_or(CUT)?;
    let value = take(rest, value_bytes).ok_or(CUT)?;
    Ok((key, value))
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}
