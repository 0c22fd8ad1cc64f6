//! Kept results of request ids, and what else the state machines share of a log entry: who wrote it, when, what refuses it.
//!
//! A client that got no answer sends its request id again. The first entry of an id decides; its result, refusals
//! included, is kept for 24 hours of log time and answers every later entry of that id without applying it. Log time is
//! the wall clock of leaders, which may jump; so a result is also kept for a number of entries, whatever the clocks say:
//! a late copy of a request must not be applied again, or it would give back a right that was taken away since. The
//! result stands under a digest of author and command, so an id that comes back with something else is refused
//! rather than answered with a result it never had.
//!
//! | key | value |
//! | --- | --- |
//! | `70` request id (16 bytes) | `KeptResult` |
//! | `71` log time (8 bytes, sign flipped, big endian) request id | empty; the order of pruning |
//!
//! **Invariant:** time is the entry's. No clock is read here, so all replicas forget the same results at the same entry.

use std::ops::{Bound, ControlFlow};

use prost::Message as _;
use rookery_proto::log::v1::{Applied, Command, KeptResult, Refusal, applied, command};
use sha2::{Digest as _, Sha256};

use crate::{
    limits,
    names::{RequestId, Thumbprint, Timestamp},
    storage::{self, Overlay},
};

/// The version of `Command` that this build writes and applies.
pub const COMMAND_VERSION: u32 = 1;

const RESULT: u8 = 0x70;
const RESULT_BY_TIME: u8 = 0x71;

/// Why an entry could not be applied at all. Each depends on this node's disk or build, and a node that went on would
/// diverge: it must stop. What a client did wrong is a `Refusal` and stands in the reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage below failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A record authenticates but is not what its key promises.
    #[error("the state holds a {what} that cannot be read: {why}")]
    Corrupt {
        /// The kind of record.
        what: &'static str,
        /// What is wrong; no content.
        why: String,
    },
    /// The entry was written by a newer build.
    #[error(
        "log entry {index} has version {version} and this build knows version {COMMAND_VERSION}: \
         install the version that the other nodes run, then start this node again"
    )]
    UnknownVersion {
        /// The log position.
        index: u64,
        /// The version it has.
        version: u32,
    },
    /// The entry holds a command, or a part of one, that this build has no field for.
    #[error(
        "log entry {index} holds no {what} that this build knows: \
         install the version that the other nodes run, then start this node again"
    )]
    UnknownCommand {
        /// The log position.
        index: u64,
        /// What was looked for.
        what: &'static str,
    },
}

impl Error {
    /// A record that does not decode.
    pub(crate) fn corrupt(what: &'static str, why: impl ToString) -> Self {
        Self::Corrupt { what, why: why.to_string() }
    }
}

/// Why a command ends before its outcome.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A reply.
    Refused(Refusal),
    /// The node stops.
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A refusal with its stable reason and a sentence for people.
pub(crate) fn refusal(reason: &str, message: impl Into<String>) -> Refusal {
    Refusal { reason: reason.to_owned(), message: message.into(), ..Refusal::default() }
}

/// A refusal that blames one field.
pub(crate) fn refusal_at(
    reason: &str,
    field: impl Into<String>,
    message: impl Into<String>,
) -> Refusal {
    Refusal { field: field.into(), ..refusal(reason, message) }
}

/// A refusal with metadata.
pub(crate) fn with(mut refusal: Refusal, key: &str, value: impl ToString) -> Refusal {
    refusal.metadata.insert(key.to_owned(), value.to_string());
    refusal
}

/// Who wrote an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author<'a> {
    /// The holder of a certificate.
    Certificate(Thumbprint),
    /// The node itself, for this reason.
    Node(&'a str),
}

/// The envelope of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// Position in the group's log.
    pub index: u64,
    /// The leader's wall clock when it took the command: all time that apply knows.
    pub at: Timestamp,
    /// Who wrote it.
    pub author: Author<'a>,
}

/// Applies a command unless its request id was seen before, and keeps the result.
///
/// 1. Versions that this build does not know stop the node. 2. A malformed envelope is refused. 3. A kept result answers.
/// 4. `apply` runs; it must write nothing where it refuses. 5. The result is kept. 6. Old results are pruned.
///
/// `revision` is the registry revision for a reply that changes nothing; `apply` answers the one after its command.
pub(crate) fn once(
    index: u64,
    command: &Command,
    state: &mut Overlay<'_>,
    revision: u64,
    apply: impl FnOnce(&Entry<'_>, &mut Overlay<'_>) -> Result<(applied::Outcome, u64), Stop>,
) -> Result<Applied, Error> {
    if command.version != COMMAND_VERSION {
        return Err(Error::UnknownVersion { index, version: command.version });
    }
    let answer =
        |outcome, registry_revision| Applied { index, registry_revision, outcome: Some(outcome) };
    let (entry, request_id) = match envelope(index, command) {
        Ok(parsed) => parsed,
        Err(refusal) => return Ok(answer(applied::Outcome::Refusal(refusal), revision)),
    };
    let digest = digest(index, command)?;
    match find(state, request_id, &digest, &entry)? {
        Found::Nothing => {}
        Found::Kept(applied) => return Ok(*applied),
        Found::OtherCommand => {
            let refusal = refusal_at(
                "REQUEST_ID_REUSED",
                "request_id",
                "this request id was used for another command; take a new one",
            );
            return Ok(answer(applied::Outcome::Refusal(refusal), revision));
        }
    }
    let (outcome, revision) = match apply(&entry, state) {
        Ok(applied) => applied,
        Err(Stop::Refused(refusal)) => (applied::Outcome::Refusal(refusal), revision),
        Err(Stop::Failed(error)) => return Err(error),
    };
    let applied = answer(outcome, revision);
    keep(state, request_id, digest, entry.at, &applied)?;
    prune(state, index, entry.at)?;
    Ok(applied)
}

fn envelope(index: u64, command: &Command) -> Result<(Entry<'_>, RequestId), Refusal> {
    let invalid = |field, message: String| refusal_at("INVALID_ARGUMENT", field, message);
    let request_id = RequestId::from_bytes(&command.request_id)
        .map_err(|e| invalid("request_id", e.to_string()))?;
    let author = match (command.author.is_empty(), command.internal_reason.is_empty()) {
        (false, true) => Author::Certificate(
            Thumbprint::from_bytes(&command.author)
                .map_err(|e| invalid("author", e.to_string()))?,
        ),
        (true, false) => Author::Node(&command.internal_reason),
        (true, true) | (false, false) => {
            return Err(invalid("author", "an entry has exactly one author".to_owned()));
        }
    };
    Ok((Entry { index, at: Timestamp(command.at_unix_ms), author }, request_id))
}

/// SHA-256 of author and command.
fn digest(index: u64, command: &Command) -> Result<[u8; 32], Error> {
    let (kind, body) = match &command.command {
        Some(command::Command::Cluster(cluster)) => (1u8, cluster.encode_to_vec()),
        Some(command::Command::Database(database)) => (2u8, database.encode_to_vec()),
        None => return Err(Error::UnknownCommand { index, what: "command" }),
    };
    let mut hasher = Sha256::new();
    for part in [command.author.as_slice(), command.internal_reason.as_bytes()] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update([kind]);
    hasher.update(body);
    Ok(hasher.finalize().into())
}

enum Found {
    Nothing,
    Kept(Box<Applied>),
    OtherCommand,
}

fn find(
    state: &Overlay<'_>,
    id: RequestId,
    digest: &[u8; 32],
    entry: &Entry<'_>,
) -> Result<Found, Error> {
    let Some(kept) = read(state, id)? else { return Ok(Found::Nothing) };
    if is_past(&kept, entry.index, entry.at) {
        return Ok(Found::Nothing); // Due for pruning; whether that has happened yet must not matter.
    }
    if kept.digest != digest {
        return Ok(Found::OtherCommand);
    }
    kept.applied
        .map(|applied| Found::Kept(Box::new(applied)))
        .ok_or_else(|| Error::corrupt("kept result", "it holds no result"))
}

/// Whether a result is past its time and far enough behind in the log.
fn is_past(kept: &KeptResult, index: u64, now: Timestamp) -> bool {
    let kept_at = kept.applied.as_ref().map_or(0, |applied| applied.index);
    let is_behind = kept_at.saturating_add(limits::REQUEST_RESULT_KEPT_ENTRIES) <= index;
    is_behind && kept.at_unix_ms < cutoff(now)
}

fn read(state: &Overlay<'_>, id: RequestId) -> Result<Option<KeptResult>, Error> {
    let Some(bytes) = state.get(&result_key(id.as_bytes()))? else { return Ok(None) };
    KeptResult::decode(bytes.as_slice()).map(Some).map_err(|e| Error::corrupt("kept result", e))
}

fn keep(
    state: &mut Overlay<'_>,
    id: RequestId,
    digest: [u8; 32],
    at: Timestamp,
    applied: &Applied,
) -> Result<(), Error> {
    if let Some(expired) = read(state, id)? {
        state.delete(&time_key(expired.at_unix_ms, id.as_bytes()))?;
    }
    let kept =
        KeptResult { at_unix_ms: at.0, applied: Some(applied.clone()), digest: digest.to_vec() };
    state.put(&result_key(id.as_bytes()), kept.encode_to_vec())?;
    state.put(&time_key(at.0, id.as_bytes()), Vec::new())?;
    Ok(())
}

/// Forgets results that are past their time, at some positions only: the range is a queue, and to step over its
/// tombstones at every entry would cost more than the entry.
fn prune(state: &mut Overlay<'_>, index: u64, now: Timestamp) -> Result<(), Error> {
    if !index.is_multiple_of(limits::RESULTS_PRUNED_EVERY) {
        return Ok(());
    }
    let to = time_key(cutoff(now), &[]);
    let mut old = Vec::new();
    state.scan(&[RESULT_BY_TIME], Bound::Excluded(&to), &mut |key, _| {
        old.push(key.to_vec());
        if old.len() < limits::RESULTS_PRUNED_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    for key in old {
        let id = key.get(9..).unwrap_or_default();
        // One of a clock that was far behind waits for the entries; the others wait with it.
        let kept = RequestId::from_bytes(id).ok().map(|id| read(state, id)).transpose()?.flatten();
        if kept.is_some_and(|kept| !is_past(&kept, index, now)) {
            continue;
        }
        state.delete(&result_key(id))?;
        state.delete(&key)?;
    }
    Ok(())
}

fn cutoff(now: Timestamp) -> i64 {
    let kept_ms = i64::try_from(limits::REQUEST_RESULT_KEPT.as_millis()).unwrap_or(i64::MAX);
    now.0.saturating_sub(kept_ms)
}

fn result_key(id: &[u8]) -> Vec<u8> {
    [&[RESULT], id].concat()
}

fn time_key(at_unix_ms: i64, id: &[u8]) -> Vec<u8> {
    // Flipping the sign makes the byte order the order of time, also before 1970.
    let ordered = at_unix_ms.cast_unsigned() ^ (1 << 63);
    [&[RESULT_BY_TIME], ordered.to_be_bytes().as_slice(), id].concat()
}

#[cfg(test)]
pub(crate) mod testing {
    //! One space in memory, and entries cut into batches as a state machine gets them.
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        names::GroupId,
        storage::{Batch, Change, Read, Space, StateHash, Table},
    };

    pub(crate) fn space(group: u64) -> Space {
        Space { table: Table::State, group: GroupId(group), generation: 1 }
    }

    /// The records of one space and their hash.
    #[derive(Debug, Clone, Default, PartialEq)]
    pub(crate) struct Memory {
        pub records: BTreeMap<Vec<u8>, Vec<u8>>,
        pub hash: StateHash,
    }

    impl Memory {
        /// Runs `apply` on an overlay and writes what it left.
        pub(crate) fn batch<T>(
            &mut self,
            group: u64,
            apply: impl FnOnce(&mut Overlay<'_>) -> T,
        ) -> T {
            let mut overlay = Overlay::new(&*self, space(group), self.hash);
            let answer = apply(&mut overlay);
            let hash = overlay.hash();
            let batch = overlay.into_batch();
            self.write(batch);
            self.hash = hash;
            answer
        }

        fn write(&mut self, batch: Batch) {
            for change in batch.changes {
                match change {
                    Change::Put(_, key, value) => drop(self.records.insert(key, value)),
                    Change::Delete(_, key) => drop(self.records.remove(&key)),
                    Change::DeleteRange(..) => panic!("an overlay makes none"),
                }
            }
        }

        /// The hash that the records have, computed anew.
        pub(crate) fn rehash(&self) -> StateHash {
            let mut hash = StateHash::default();
            for (key, value) in &self.records {
                hash.add(key, value);
            }
            hash
        }
    }

    impl Read for Memory {
        fn get(&self, _: Space, key: &[u8]) -> storage::Result<Option<Vec<u8>>> {
            Ok(self.records.get(key).cloned())
        }

        fn scan(
            &self,
            _: Space,
            from: &[u8],
            to: Bound<&[u8]>,
            visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
        ) -> storage::Result<()> {
            for (key, value) in self.records.range::<[u8], _>((Bound::Included(from), to)) {
                if visit(key, value.clone()).is_break() {
                    break;
                }
            }
            Ok(())
        }

        fn last(&self, _: Space) -> storage::Result<Option<(Vec<u8>, Vec<u8>)>> {
            Ok(self.records.last_key_value().map(|(key, value)| (key.clone(), value.clone())))
        }
    }

    pub(crate) fn request_id(number: u64) -> Vec<u8> {
        [[0; 8], number.to_be_bytes()].concat()
    }

    /// The refusal's reason and field, or the outcome.
    pub(crate) fn refused(applied: &Applied) -> Option<(&str, &str)> {
        match applied.outcome.as_ref().unwrap() {
            applied::Outcome::Refusal(refusal) => Some((&refusal.reason, &refusal.field)),
            applied::Outcome::Cluster(_) | applied::Outcome::Database(_) => None,
        }
    }
}
