//! The log of one group: entries, vote and pointers, written by the node's [`Committer`].
//!
//! Keys in `Table::Raft` under the group, generation 0; values are messages of `rookery.log.v1`:
//!
//! | key | value | synced |
//! | --- | --- | --- |
//! | 1 | `Vote` | yes, before `save_vote` returns |
//! | 2 | `LogId`, the last committed entry that was saved | no |
//! | 3 | `LogId`, the last purged entry | no |
//! | 16 ‖ index (8, big endian) | `Entry` | yes, before the append is acknowledged |
//!
//! Entries stand last, so the last record of the space is the last entry. An entry is readable when `append` returns:
//! the newest ones, and all that are not written yet, are kept in memory ([`Tail`]). Replication reads those and opens
//! nothing from the disk.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, ControlFlow, RangeBounds},
    sync::{Arc, atomic::Ordering},
};

use futures::{Stream, stream};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use prost::Message;
use rookery_proto::log::v1 as log;
use tokio::sync::oneshot;

use super::{
    committer::{Committer, Job, Mark},
    types::{
        Entry, LogId, Types, Vote, entry_from, entry_to, log_id_from, log_id_to, vote_from, vote_to,
    },
};
use crate::{
    fault::fault_point,
    limits,
    names::GroupId,
    storage::{self, Batch, Change, Durability, Read, Space, Store, Table},
};

const VOTE: &[u8] = &[1];
const COMMITTED: &[u8] = &[2];
const PURGED: &[u8] = &[3];
const ENTRY: u8 = 16;

/// How often a read starts again because the log was cut meanwhile.
const READ_ATTEMPTS_MAX: usize = 16;

impl From<storage::Error> for io::Error {
    fn from(error: storage::Error) -> Self {
        let kind = match &error {
            storage::Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            storage::Error::Engine(_) | storage::Error::NoKey(_) | storage::Error::Folder(_) => {
                io::ErrorKind::Other
            }
        };
        Self::new(kind, error)
    }
}

/// The log of one group, as openraft writes it.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Log>,
}

/// The log of one group, as openraft reads it.
#[derive(Clone)]
pub struct LogReader {
    log: Arc<Log>,
}

struct Log {
    group: GroupId,
    store: Arc<dyn Store>,
    committer: Arc<Committer>,
    tail: Mutex<Tail>,
}

/// What is known of a log without a look at the disk.
#[derive(Default)]
struct Tail {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// No entry below this index exists.
    first: u64,
    /// The last entry, or the last purged one where there is none.
    last: Option<LogId>,
    /// The newest entries without a gap, up to the last.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    /// All entries below this index can be read from the store.
    written: u64,
    /// How often the log was cut at its end.
    cuts: u64,
}

struct Recent {
    entry: Entry,
    bytes: usize,
}

impl LogStore {
    /// Finds the log of a group; an empty one is a new one. The group has its data key already.
    ///
    /// # Errors
    /// A store that fails, or records that cannot be understood (`InvalidData`).
    pub fn open(
        store: Arc<dyn Store>,
        group: GroupId,
        committer: Arc<Committer>,
    ) -> io::Result<Self> {
        let tail = read_tail(&*store, group)?;
        let log = Log { group, store, committer, tail: Mutex::new(tail) };
        Ok(Self { log: Arc::new(log) })
    }

    /// Where the log ends and what its vote is, for [`storage::Sentinel::check`].
    #[must_use]
    pub fn position(&self) -> log::SentinelGroup {
        self.log.tail.lock().position(self.log.group)
    }
}

fn space(group: GroupId) -> Space {
    Space { table: Table::Raft, group, generation: 0 }
}

fn entry_key(index: u64) -> Vec<u8> {
    [[ENTRY].as_slice(), &index.to_be_bytes()].concat()
}

/// The index of an entry's key; `None` for the other keys.
fn index_of(key: &[u8]) -> Option<u64> {
    key.strip_prefix(&[ENTRY])?.try_into().ok().map(u64::from_be_bytes)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed record in the log: {what}"))
}

fn read_message<M: Message + Default>(
    read: &dyn Read,
    group: GroupId,
    key: &[u8],
    what: &str,
) -> io::Result<Option<M>> {
    let bytes = read.get(space(group), key)?;
    bytes.map(|bytes| M::decode(bytes.as_slice()).map_err(|_| malformed(what))).transpose()
}

fn read_tail(read: &dyn Read, group: GroupId) -> io::Result<Tail> {
    let vote = read_message::<log::Vote>(read, group, VOTE, "vote")?;
    let committed = read_message::<log::LogId>(read, group, COMMITTED, "committed position")?;
    let purged = read_message::<log::LogId>(read, group, PURGED, "purged position")?;
    let purged = purged.as_ref().map(log_id_from);
    let last = match read.last(space(group))? {
        Some((key, value)) if key.first() == Some(&ENTRY) => {
            let index = index_of(&key).ok_or_else(|| malformed("key of an entry"))?;
            Some(decode_entry(index, value)?.log_id)
        }
        Some(_) | None => None,
    };
    let last = last.max(purged);
    let first = first_index(read, group)?.unwrap_or(next_index(last));
    if purged.is_some() && first != next_index(purged) {
        return Err(malformed("the entries do not begin where the purged ones end"));
    }
    Ok(Tail {
        vote: vote.as_ref().map(vote_from),
        committed: committed.as_ref().map(log_id_from),
        purged,
        first,
        last,
        written: next_index(last),
        ..Tail::default()
    })
}

fn first_index(read: &dyn Read, group: GroupId) -> io::Result<Option<u64>> {
    let mut first = None;
    read.scan(space(group), &entry_key(0), Bound::Unbounded, &mut |key, _| {
        first = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    first.map(|key| index_of(&key).ok_or_else(|| malformed("key of an entry"))).transpose()
}

fn decode_entry(index: u64, value: Vec<u8>) -> io::Result<Entry> {
    // From `Bytes`, so that the command is a slice of the value and no copy.
    let entry = log::Entry::decode(bytes::Bytes::from(value)).map_err(|_| malformed("entry"))?;
    let entry = entry_from(entry)?;
    if entry.log_id.index != index {
        return Err(malformed("entry in the place of another"));
    }
    Ok(entry)
}

fn next_index(last: Option<LogId>) -> u64 {
    last.map_or(0, |last| last.index.saturating_add(1))
}

impl Tail {
    fn position(&self, group: GroupId) -> log::SentinelGroup {
        log::SentinelGroup {
            group: group.0,
            last_log_id: self.last.as_ref().map(log_id_to),
            vote: self.vote.as_ref().map(vote_to),
        }
    }

    /// The first index that is in memory.
    fn recent_from(&self) -> u64 {
        self.recent.front().map_or(next_index(self.last), |recent| recent.entry.log_id.index)
    }

    /// Drops entries from memory, oldest first, while `unwanted` says so; gives their bytes.
    fn forget_oldest(&mut self, unwanted: impl Fn(&Self, u64) -> bool) -> usize {
        let before = self.recent_bytes;
        while let Some(oldest) = self.recent.front()
            && unwanted(self, oldest.entry.log_id.index)
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.bytes;
        }
        before - self.recent_bytes
    }

    /// Drops the entries from an index on; gives their bytes.
    fn forget_newest(&mut self, from: u64) -> usize {
        let before = self.recent_bytes;
        while self.recent.back().is_some_and(|newest| newest.entry.log_id.index >= from)
            && let Some(newest) = self.recent.pop_back()
        {
            self.recent_bytes -= newest.bytes;
        }
        before - self.recent_bytes
    }
}

/// A part of the log, as far as it is in memory, and what is left to read from the store.
struct Part {
    /// To read from the store.
    stored: std::ops::Range<u64>,
    recent: Vec<Recent>,
    cuts: u64,
}

impl Log {
    /// Entries of `range` in order without a gap, until `bytes_max` is reached; at least one where there is one.
    fn entries(&self, range: &std::ops::Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let part = self.part(range, bytes_max);
            let (mut entries, mut bytes) = self.stored(&part.stored, bytes_max)?;
            if self.changed_since(&part) {
                continue;
            }
            let whole = part.stored.start.saturating_add(entries.len() as u64) == part.stored.end;
            if !whole && bytes < bytes_max {
                return Err(malformed("an entry is missing"));
            }
            for recent in part.recent {
                if !entries.is_empty() && bytes >= bytes_max {
                    break;
                }
                bytes += recent.bytes;
                entries.push(recent.entry);
            }
            return Ok(entries);
        }
        Err(io::Error::other("the log was cut again and again while it was read"))
    }

    fn part(&self, range: &std::ops::Range<u64>, bytes_max: usize) -> Part {
        let tail = self.tail.lock();
        let from = range.start.max(tail.first);
        let to = range.end.min(next_index(tail.last)).max(from);
        let split = tail.recent_from().clamp(from, to);
        let mut bytes = 0;
        let skip = usize::try_from(split - tail.recent_from().min(split)).unwrap_or(usize::MAX);
        let take = usize::try_from(to - split).unwrap_or(usize::MAX);
        let recent = tail.recent.iter().skip(skip).take(take).take_while(|recent| {
            let wanted = bytes < bytes_max;
            bytes += recent.bytes;
            wanted
        });
        let recent =
            recent.map(|recent| Recent { entry: recent.entry.clone(), bytes: recent.bytes });
        Part { stored: from..split, recent: recent.collect(), cuts: tail.cuts }
    }

    /// Whether what was to be read from the store may have been deleted or replaced since.
    fn changed_since(&self, part: &Part) -> bool {
        let tail = self.tail.lock();
        tail.cuts != part.cuts || tail.first > part.stored.start && !part.stored.is_empty()
    }

    /// Reads from the store until an entry is missing or the bytes are reached.
    fn stored(
        &self,
        range: &std::ops::Range<u64>,
        bytes_max: usize,
    ) -> io::Result<(Vec<Entry>, usize)> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        if range.is_empty() {
            return Ok((entries, bytes));
        }
        let mut failure = None;
        let mut expected = range.start;
        let (from, to) = (entry_key(range.start), entry_key(range.end));
        self.store.scan(space(self.group), &from, Bound::Excluded(&to), &mut |key, value| {
            if index_of(key) != Some(expected) || bytes >= bytes_max {
                return ControlFlow::Break(());
            }
            bytes += value.len();
            match decode_entry(expected, value) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            expected += 1;
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok((entries, bytes)), Err)
    }

    /// Takes entries into memory; gives what the committer is to write, and where the log ends then.
    fn take(
        &self,
        entries: impl IntoIterator<Item = Entry>,
    ) -> io::Result<(Vec<Change>, log::SentinelGroup, u64)> {
        let mut batch = Batch::default();
        let mut taken = VecDeque::new();
        let mut tail = self.tail.lock();
        let mut last = tail.last;
        for entry in entries {
            let index = entry.log_id.index;
            if last.is_some_and(|last| last.index.checked_add(1) != Some(index)) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("entry {index} would leave a hole in the log, or overwrite it"),
                ));
            }
            let value = entry_to(&entry).encode_to_vec();
            last = Some(entry.log_id);
            taken.push_back(Recent { entry, bytes: value.len() });
            batch.put(space(self.group), entry_key(index), value);
        }
        let bytes = taken.iter().map(|recent| recent.bytes).sum::<usize>();
        if tail.last.is_none()
            && let Some(first) = taken.front()
        {
            tail.first = first.entry.log_id.index;
            tail.written = tail.first;
        }
        tail.last = last;
        tail.recent.append(&mut taken);
        tail.recent_bytes += bytes;
        self.committer.cached_bytes().fetch_add(bytes, Ordering::Relaxed);
        Ok((batch.changes, tail.position(self.group), next_index(last)))
    }

    /// The entries below an index are in the store: the oldest may leave the memory.
    fn written(&self, next: u64) {
        let mut tail = self.tail.lock();
        // The log may have been cut since; what comes after the cut is not written yet.
        tail.written = tail.written.max(next).min(next_index(tail.last));
        let full = self.committer.cache_is_full();
        let freed = tail.forget_oldest(|tail, oldest| {
            oldest < tail.written && (full || tail.recent_bytes > limits::LOG_CACHE_GROUP_BYTES_MAX)
        });
        self.freed(freed);
    }

    fn freed(&self, bytes: usize) {
        self.committer.cached_bytes().fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Submits a job and waits until it is written.
    async fn commit(&self, changes: Vec<Change>, mark: Mark) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        // Nobody waits any more where the group was shut down.
        let done = Box::new(move |result| drop(done.send(result)));
        self.committer.submit(Job { changes, durability: Durability::Synced, mark, done }).await?;
        written.await.map_err(|_| io::Error::other("the committer has stopped"))?
    }

    /// Submits a job that nobody waits for; a failure ends the node.
    async fn note(&self, batch: Batch) -> io::Result<()> {
        let job = Job {
            changes: batch.changes,
            durability: Durability::Buffered,
            mark: Mark::None,
            done: Box::new(drop),
        };
        self.committer.submit(job).await
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let bytes = self.tail.get_mut().recent_bytes;
        self.freed(bytes);
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.log.entries(&half_open(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.tail.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.log.entries(&(start..end), limits::APPEND_BYTES_MAX)
    }

    /// Committed entries for the state machine, a bounded part in memory at a time.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let rest = half_open(&range);
        let state = (Arc::clone(&self.log), rest, VecDeque::new());
        Box::pin(stream::try_unfold(state, |(log, mut rest, mut ready)| async move {
            if ready.is_empty() && !rest.is_empty() {
                ready = VecDeque::from(log.entries(&rest, limits::APPLY_BYTES_MAX)?);
            }
            let Some(entry): Option<Entry> = ready.pop_front() else { return Ok(None) };
            rest.start = entry.log_id.index.saturating_add(1);
            Ok(Some((entry, (log, rest, ready))))
        }))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let tail = self.log.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { log: Arc::clone(&self.log) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.put(space(self.log.group), VOTE, vote_to(vote).encode_to_vec());
        let position = {
            let mut tail = self.log.tail.lock();
            tail.vote = Some(*vote);
            tail.position(self.log.group)
        };
        fault_point!("vote-save-before")?;
        self.log.commit(batch.changes, Mark::Voted(position)).await?;
        fault_point!("vote-save-after")
    }

    /// Not synced: it only spares a restarted node the wait for its leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.tail.lock().committed = committed;
        let mut batch = Batch::default();
        match committed {
            Some(id) => {
                batch.put(space(self.log.group), COMMITTED, log_id_to(&id).encode_to_vec());
            }
            None => batch.delete(space(self.log.group), COMMITTED),
        }
        self.log.note(batch).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.tail.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        fault_point!("log-append-before")?;
        let (changes, position, next) = self.log.take(entries)?;
        let log = Arc::downgrade(&self.log);
        let done = Box::new(move |result: io::Result<()>| {
            if result.is_ok()
                && let Some(log) = log.upgrade()
            {
                log.written(next);
            }
            let result = result.and_then(|()| fault_point!("flush-callback-before"));
            callback.io_completed(result);
            if let Err(error) = fault_point!("flush-callback-after") {
                tracing::warn!(%error, "nothing is left to fail after the callback");
            }
        });
        let mark = Mark::Appended(position);
        let job = Job { changes, durability: Durability::Synced, mark, done };
        self.log.committer.submit(job).await
    }

    /// One atomic deletion, so that a crash leaves the log as it was or cut, and never with a hole.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let next = next_index(last_log_id);
        let position = {
            let mut tail = self.log.tail.lock();
            let next = next.max(tail.first);
            if next >= next_index(tail.last) {
                return Ok(());
            }
            tail.last = last_log_id.max(tail.purged);
            tail.cuts += 1;
            let freed = tail.forget_newest(next);
            self.log.freed(freed);
            tail.position(self.log.group)
        };
        let mut batch = Batch::default();
        batch.delete_range(space(self.log.group), entry_key(next), None);
        self.log.commit(batch.changes, Mark::Cut(position)).await?;
        let mut tail = self.log.tail.lock();
        tail.written = tail.written.min(next);
        Ok(())
    }

    /// Not synced: what was purged and comes back is purged again.
    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let next = next_index(Some(log_id));
        {
            let mut tail = self.log.tail.lock();
            if tail.purged >= Some(log_id) {
                return Ok(());
            }
            tail.purged = Some(log_id);
            tail.last = tail.last.max(Some(log_id));
            tail.first = tail.first.max(next);
            tail.written = tail.written.max(next);
            let freed = tail.forget_oldest(|_, oldest| oldest < next);
            self.log.freed(freed);
        }
        let mut batch = Batch::default();
        batch.put(space(self.log.group), PURGED, log_id_to(&log_id).encode_to_vec());
        batch.delete_range(space(self.log.group), entry_key(0), Some(entry_key(next)));
        fault_point!("purge-before")?;
        self.log.note(batch).await?;
        fault_point!("purge-after")
    }
}
