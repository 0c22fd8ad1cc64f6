//! Logs, states and snapshots on the real encrypted store.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::{Bound, ControlFlow},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use openraft::{
    EntryPayload, RaftLogReader, RaftSnapshotBuilder, StorageError,
    impls::leader_id_adv::LeaderId,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt,
};
use parking_lot::{Condvar, Mutex};
use prost::Message;
use rookery_proto::log::v1::{self as log, SentinelGroup};

use super::{
    applied::GroupState,
    committer::{Committer, Job, Mark, Watermarks},
    log_store::{LogReader, LogStore},
    snapshot::{self, SnapshotData, SnapshotSink, SnapshotSource, check_meta},
    state_machine::{Machine, MachineError, StateMachine},
    types::{
        CommandBytes, Entry, LogId, Member, Membership, SnapshotMeta, StoredMembership, Types,
        Vote, entry_to,
    },
};
use crate::{
    crypto::{Keyring, MasterKey},
    limits,
    names::GroupId,
    storage::{
        self, Batch, Change, Durability, Overlay, Read, Rocks, Sentinel, Space, StateHash, Store,
        Table,
    },
};

pub(super) const GROUP: GroupId = GroupId(7);

// ---- what the tests stand on ----

/// A data folder, opened and closed as often as a test likes.
pub(super) struct Data {
    parent: tempfile::TempDir,
    master: MasterKey,
}

impl Data {
    pub(super) fn new() -> Self {
        Self { parent: tempfile::tempdir().unwrap(), master: MasterKey::random().unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.parent.path().join("data")
    }

    fn keyring(&self) -> Arc<Keyring> {
        Keyring::open(&self.folder(), &self.master).unwrap()
    }

    pub(super) fn is_closed(&self) -> bool {
        Keyring::open(&self.folder(), &self.master).is_ok()
    }

    pub(super) fn open(&self) -> Arc<Rocks> {
        self.open_with(self.keyring())
    }

    fn open_with(&self, keyring: Arc<Keyring>) -> Arc<Rocks> {
        let rocks = Rocks::open(&self.folder(), keyring).unwrap();
        for group in 1..=9 {
            rocks.create_key(GroupId(group)).unwrap();
        }
        rocks
    }
}

impl Watermarks for () {
    fn before_cut(&mut self, _: Vec<SentinelGroup>) -> storage::Result<()> {
        Ok(())
    }

    fn synced(&mut self, _: Vec<SentinelGroup>) -> storage::Result<()> {
        Ok(())
    }
}

fn committer(store: &Arc<dyn Store>) -> Arc<Committer> {
    Committer::start(Arc::clone(store), (), |why| panic!("{why}")).unwrap()
}

fn open_log(store: &Arc<dyn Store>) -> LogStore {
    LogStore::open(Arc::clone(store), GROUP, committer(store)).unwrap()
}

/// A store whose writes are counted, held up, or fail from some point on as after a crash.
struct Watched {
    inner: Arc<dyn Store>,
    writes: Mutex<Vec<(Batch, Durability)>>,
    /// How many more writes succeed.
    left: AtomicUsize,
    held: Mutex<bool>,
    released: Condvar,
}

impl Watched {
    fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            writes: Mutex::default(),
            left: AtomicUsize::new(usize::MAX),
            held: Mutex::new(false),
            released: Condvar::new(),
        })
    }

    fn hold(&self) {
        *self.held.lock() = true;
    }

    fn release(&self) {
        *self.held.lock() = false;
        self.released.notify_all();
    }

    fn fail_after(&self, writes: usize) {
        self.left.store(writes, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.writes.lock().len()
    }
}

impl Read for Watched {
    fn get(&self, space: Space, key: &[u8]) -> storage::Result<Option<Vec<u8>>> {
        self.inner.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
    ) -> storage::Result<()> {
        self.inner.scan(space, from, to, visit)
    }

    fn last(&self, space: Space) -> storage::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.inner.last(space)
    }
}

impl Store for Watched {
    fn write(&self, batch: Batch, durability: Durability) -> storage::Result<()> {
        self.writes.lock().push((batch.clone(), durability));
        let mut held = self.held.lock();
        while *held {
            self.released.wait(&mut held);
        }
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(storage::Error::Engine("injected".to_owned()));
        }
        if left != usize::MAX {
            self.left.store(left - 1, Ordering::SeqCst);
        }
        self.inner.write(batch, durability)
    }

    fn view(&self) -> Arc<dyn Read> {
        self.inner.view()
    }

    fn has_key(&self, group: GroupId) -> bool {
        self.inner.has_key(group)
    }

    fn clear_group(&self, group: GroupId) -> storage::Result<()> {
        self.inner.clear_group(group)
    }

    fn create_key(&self, group: GroupId) -> storage::Result<()> {
        self.inner.create_key(group)
    }

    fn destroy_key(&self, group: GroupId) -> storage::Result<()> {
        self.inner.destroy_key(group)
    }
}

/// Stores documents as they come: id -> JSON.
#[derive(Default)]
struct Documents {
    published: AtomicUsize,
    /// How many documents there were at each reload.
    reloaded: Mutex<Vec<usize>>,
}

/// The id of a document that this state machine panics at.
const PANICS_AFTER_A_WRITE: &str = "poison";

impl Machine for Documents {
    fn apply(
        &self,
        index: u64,
        command: &log::Command,
        state: &mut Overlay<'_>,
    ) -> Result<log::Applied, MachineError> {
        let Some(log::command::Command::Database(command)) = &command.command else {
            return Err(MachineError::Entry { index, why: "it is for another group".to_owned() });
        };
        for write in &command.writes {
            assert_ne!(write.id, PANICS_AFTER_A_WRITE, "a bug in the state machine");
            match &write.operation {
                Some(log::document_write::Operation::Put(put)) => {
                    state.put(write.id.as_bytes(), put.json.to_vec())?;
                }
                Some(log::document_write::Operation::Delete(_)) | None => {
                    state.delete(write.id.as_bytes())?;
                }
            }
        }
        Ok(log::Applied { index, ..log::Applied::default() })
    }

    fn publish(&self) {
        self.published.fetch_add(1, Ordering::SeqCst);
    }

    fn reload(&self, read: &dyn Read, space: Space) -> Result<(), MachineError> {
        self.reloaded.lock().push(records(read, space).len());
        Ok(())
    }
}

pub(super) fn open_state(store: &Arc<dyn Store>) -> (Arc<GroupState>, StateMachine) {
    let state = GroupState::open(Arc::clone(store), GROUP).unwrap();
    let machine = StateMachine::new(Arc::clone(&state), Arc::new(Documents::default())).unwrap();
    (state, machine)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }
}

fn bytes_entry(index: u64, bytes: Vec<u8>) -> Entry {
    let payload = EntryPayload::Normal(CommandBytes(Bytes::from(bytes)));
    Entry { log_id: log_id(1, index), payload }
}

fn write(id: &str, json: &[u8]) -> log::DocumentWrite {
    let put = log::PutDocument { json: json.to_vec(), ..log::PutDocument::default() };
    log::DocumentWrite {
        id: id.to_owned(),
        operation: Some(log::document_write::Operation::Put(put)),
        ..log::DocumentWrite::default()
    }
}

pub(super) fn command(version: u32, id: &str, json: &[u8]) -> Vec<u8> {
    let command = log::DatabaseCommand { writes: vec![write(id, json)] };
    let command = Some(log::command::Command::Database(command));
    log::Command { version, command, ..log::Command::default() }.encode_to_vec()
}

fn put(index: u64, id: &str, json: &[u8]) -> Entry {
    bytes_entry(index, command(1, id, json))
}

fn membership(index: u64) -> Entry {
    let nodes = BTreeMap::from([(1, Member::default()), (2, Member::default())]);
    let membership = Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap();
    Entry { log_id: log_id(1, index), payload: EntryPayload::Membership(membership) }
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (done, flushed) = Types::oneshot();
    store.append(entries, IOFlushed::signal(done)).await?;
    flushed.await.unwrap()
}

async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) -> io::Result<()> {
    machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

async fn entries(store: &mut LogStore) -> io::Result<Vec<Entry>> {
    store.get_log_reader().await.try_get_log_entries(0..).await
}

fn log_space() -> Space {
    Space { table: Table::Raft, group: GROUP, generation: 0 }
}

pub(super) fn records(read: &dyn Read, space: Space) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    read.scan(space, b"", Bound::Unbounded, &mut |key, value| {
        records.push((key.to_vec(), value));
        ControlFlow::Continue(())
    })
    .unwrap();
    records
}

pub(super) fn hash_of(records: &[(Vec<u8>, Vec<u8>)]) -> StateHash {
    let mut hash = StateHash::default();
    records.iter().for_each(|(key, value)| hash.add(key, value));
    hash
}

// ---- openraft's own suite ----

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, Data> for Builder {
    async fn build(&self) -> Result<(Data, LogStore, StateMachine), StorageError<Types>> {
        let data = Data::new();
        let store: Arc<dyn Store> = data.open();
        let (_, machine) = open_state(&store);
        Ok((data, open_log(&store), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_openraft_passes_on_the_encrypted_store() {
    Suite::test_all(Builder).await.unwrap();
}

// ---- the committer ----

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_come_during_a_write_share_the_next_one() {
    let data = Data::new();
    let watched = Watched::new(data.open());
    let store: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
    let committer = committer(&store);
    let mut logs: Vec<_> = (1..=9)
        .map(|group| {
            let committer = Arc::clone(&committer);
            LogStore::open(Arc::clone(&store), GroupId(group), committer).unwrap()
        })
        .collect();
    watched.hold();
    let mut flushed = Vec::new();
    for log in &mut logs {
        for index in 0..3 {
            let (done, receiver) = Types::oneshot();
            log.append([blank(1, index)], IOFlushed::signal(done)).await.unwrap();
            flushed.push(receiver);
            // Readable before it is written.
            assert_eq!(entries(log).await.unwrap().len() as u64, index + 1);
        }
    }
    assert!(flushed.iter_mut().all(|receiver| receiver.try_recv().is_err()), "held up");
    watched.release();
    for receiver in flushed {
        receiver.await.unwrap().unwrap();
    }
    let writes = watched.writes.lock();
    assert!(writes.len() <= 2, "{} writes for 27 appends", writes.len());
    assert_eq!(writes.iter().map(|(batch, _)| batch.changes.len()).sum::<usize>(), 27);
    assert!(writes.iter().all(|(_, durability)| *durability == Durability::Synced));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_the_jobs_and_only_some_need_a_sync() {
    let data = Data::new();
    let watched = Watched::new(data.open());
    let store: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
    let committer = committer(&store);
    let order = Arc::new(Mutex::new(Vec::new()));
    for job in 0..1_000_usize {
        let order = Arc::clone(&order);
        let mut batch = Batch::default();
        batch.put(log_space(), job.to_be_bytes(), [0; 10]);
        let done = Box::new(move |result: io::Result<()>| {
            result.unwrap();
            order.lock().push(job);
        });
        let durability = Durability::Buffered;
        let job = Job { changes: batch.changes, durability, mark: Mark::None, done };
        committer.submit(job).await.unwrap();
    }
    drop(committer);
    assert_eq!(*order.lock(), (0..1_000).collect::<Vec<_>>());
    let writes = watched.writes.lock();
    assert!(writes.iter().all(|(_, durability)| *durability == Durability::Buffered));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_queue_is_drained_loses_its_key_without_harm() {
    let data = Data::new();
    let watched = Watched::new(data.open());
    let store: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
    let committer = committer(&store);
    let mut log = LogStore::open(Arc::clone(&store), GROUP, Arc::clone(&committer)).unwrap();
    append(&mut log, vec![blank(1, 0)]).await.unwrap();
    watched.hold();
    log.append([blank(1, 1)], IOFlushed::noop()).await.unwrap();
    let mut drained = tokio::spawn({
        let committer = Arc::clone(&committer);
        async move { committer.drained().await }
    });
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut drained).await;
    assert!(early.is_err(), "an entry still waits");
    watched.release();
    drained.await.unwrap().unwrap();
    store.destroy_key(GROUP).unwrap();
    committer.drained().await.unwrap();
    assert_eq!(committer.failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failed_write_is_final() {
    let data = Data::new();
    let watched = Watched::new(data.open());
    let store: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
    let told = Arc::new(Mutex::new(Vec::new()));
    let committer = {
        let told = Arc::clone(&told);
        Committer::start(Arc::clone(&store), (), move |why| told.lock().push(why)).unwrap()
    };
    let mut log = LogStore::open(Arc::clone(&store), GROUP, Arc::clone(&committer)).unwrap();
    append(&mut log, vec![blank(1, 0)]).await.unwrap();
    assert_eq!(committer.failure(), None);
    watched.fail_after(0);
    append(&mut log, vec![blank(1, 1)]).await.unwrap_err();
    watched.fail_after(usize::MAX);
    let written = watched.count();
    append(&mut log, vec![blank(1, 2)]).await.unwrap_err();
    log.save_vote(&Vote::new(3, 1)).await.unwrap_err();
    log.truncate_after(None).await.unwrap_err();
    assert_eq!(watched.count(), written, "nothing is tried again");
    assert_eq!(*told.lock(), ["storage failed: injected"]);
    assert_eq!(committer.failure(), Some("storage failed: injected"));
}

/// Notes what it is told, and what the store held by then.
struct Notes(Arc<Watched>, Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, what: &str, groups: &[SentinelGroup]) {
        let ends = groups.iter().map(|end| (end.group, end.last_log_id.map(|id| id.index)));
        let note = format!("{what} {:?} after {}", ends.collect::<Vec<_>>(), self.0.count());
        self.1.lock().push(note);
    }
}

impl Watermarks for Notes {
    fn before_cut(&mut self, groups: Vec<SentinelGroup>) -> storage::Result<()> {
        self.note("cut", &groups);
        Ok(())
    }

    fn synced(&mut self, groups: Vec<SentinelGroup>) -> storage::Result<()> {
        self.note("synced", &groups);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sentinel_learns_of_a_cut_before_it_and_after_what_it_keeps() {
    let data = Data::new();
    let watched = Watched::new(data.open());
    let store: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let watermarks = Notes(Arc::clone(&watched), Arc::clone(&notes));
    let committer =
        Committer::start(Arc::clone(&store), watermarks, |why| panic!("{why}")).unwrap();
    let mut log = LogStore::open(Arc::clone(&store), GROUP, Arc::clone(&committer)).unwrap();
    append(&mut log, vec![blank(1, 0)]).await.unwrap();
    watched.hold();
    log.append([blank(1, 1)], IOFlushed::noop()).await.unwrap();
    // The first write is under way, so these two are drained together.
    while watched.count() < 2 {
        tokio::task::yield_now().await;
    }
    log.append([blank(1, 2), blank(1, 3)], IOFlushed::noop()).await.unwrap();
    let cut = tokio::spawn(async move {
        log.truncate_after(Some(log_id(1, 2))).await.unwrap();
        log
    });
    while committer.queued() < 2 {
        tokio::task::yield_now().await;
    }
    watched.release();
    let mut log = cut.await.unwrap();
    assert_eq!(entries(&mut log).await.unwrap(), [blank(1, 0), blank(1, 1), blank(1, 2)]);
    let expected = [
        "synced [(7, Some(0))] after 1",
        "synced [(7, Some(1))] after 2",
        "synced [(7, Some(3))] after 3",
        "cut [(7, Some(2))] after 3",
        "synced [(7, Some(2))] after 4",
    ];
    assert_eq!(*notes.lock(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_shortened_behind_the_sentinel_is_found_and_a_cut_is_not() {
    let data = Data::new();
    let start = || {
        let keyring = data.keyring();
        let store: Arc<dyn Store> = data.open_with(Arc::clone(&keyring));
        let sentinel = Arc::new(Sentinel::open(&data.folder(), &keyring).unwrap().0);
        let committer =
            Committer::start(Arc::clone(&store), Arc::clone(&sentinel), |_| {}).unwrap();
        let log = LogStore::open(Arc::clone(&store), GROUP, committer).unwrap();
        (store, sentinel, log)
    };
    let check = |sentinel: &Sentinel, log: &LogStore| {
        let end = log.position();
        sentinel.check(GROUP, end.last_log_id.as_ref(), end.vote.as_ref())
    };
    {
        let (_store, _sentinel, mut log) = start();
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
        append(&mut log, (0..10).map(|index| blank(1, index)).collect()).await.unwrap();
        log.truncate_after(Some(log_id(1, 6))).await.unwrap();
        log.purge(log_id(1, 3)).await.unwrap();
    }
    {
        let (store, sentinel, log) = start();
        check(&sentinel, &log).unwrap();
        let mut batch = Batch::default();
        batch.delete(log_space(), [[16].as_slice(), &6_u64.to_be_bytes()].concat());
        store.write(batch, Durability::Synced).unwrap();
    }
    let (_store, sentinel, log) = start();
    check(&sentinel, &log).unwrap_err();
}

// ---- the log ----

/// Random appends, cuts, purges, pointers and restarts, compared with a plain list.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_what_was_written_whatever_the_order_of_operations() {
    for seed in [1, 2, 3, 4] {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let data = Data::new();
        let mut store: Arc<dyn Store> = data.open();
        let mut log = open_log(&store);
        let mut model: BTreeMap<u64, Entry> = BTreeMap::new();
        let (mut next, mut purged, mut vote, mut committed) = (0, None, None, None);
        for step in 0..60_u64 {
            match random.random_range(0..10) {
                0..=4 => {
                    let new: Vec<_> = (0..random.random_range(1..6))
                        .map(|at| bytes_entry(next + at, vec![7; random.random_range(0..90_000)]))
                        .collect();
                    model.extend(new.iter().map(|entry| (entry.log_id.index, entry.clone())));
                    next += new.len() as u64;
                    append(&mut log, new).await.unwrap();
                }
                5 if next > 0 => {
                    let from = purged.map_or(0, |purged: LogId| purged.index + 1);
                    let keep = random.random_range(from..=next);
                    let last = keep.checked_sub(1).map(|index| log_id(1, index));
                    log.truncate_after(last).await.unwrap();
                    model.retain(|index, _| *index < keep);
                    next = keep;
                }
                6 if next > 0 => {
                    let upto = log_id(1, random.random_range(0..next + 2));
                    purged = purged.max(Some(upto));
                    log.purge(upto).await.unwrap();
                    model.retain(|index, _| *index > upto.index);
                    next = next.max(upto.index + 1);
                }
                7 => {
                    vote = Some(Vote::new(step, 2));
                    log.save_vote(&Vote::new(step, 2)).await.unwrap();
                }
                8 => {
                    committed = Some(log_id(1, step));
                    log.save_committed(committed).await.unwrap();
                }
                9 => {
                    drop((log, store));
                    store = data.open();
                    log = open_log(&store);
                }
                _ => {}
            }
            let found = entries(&mut log).await.unwrap();
            let expected: Vec<_> = model.values().cloned().collect();
            assert!(found == expected, "seed {seed}, step {step}");
            let state = log.get_log_state().await.unwrap();
            let last = next.checked_sub(1).map(|index| log_id(1, index));
            assert_eq!((state.last_purged_log_id, state.last_log_id), (purged, last), "{seed}");
            let mut reader = log.get_log_reader().await;
            assert_eq!(reader.read_vote().await.unwrap(), vote);
            assert_eq!(log.read_committed().await.unwrap(), committed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_bounded_in_bytes_and_come_from_memory_and_disk() {
    const BYTES: usize = 300_000;
    let data = Data::new();
    let store: Arc<dyn Store> = data.open();
    let mut log = open_log(&store);
    let all: Vec<_> = (0..30).map(|index| bytes_entry(index, vec![3; BYTES])).collect();
    for chunk in all.chunks(4) {
        append(&mut log, chunk.to_vec()).await.unwrap();
    }
    let mut reader = log.get_log_reader().await;
    let per_read = limits::APPEND_BYTES_MAX / BYTES + 1;
    for start in 0..30_u64 {
        let read = reader.limited_get_log_entries(start, 30).await.unwrap();
        let expected = usize::try_from(30 - start).unwrap().min(per_read);
        assert_eq!(read.len(), expected, "from {start}");
        assert_eq!(read[0].log_id.index, start);
    }
    for (range, most) in [(0..30, 30), (0..2, 2), (25..30, 5), (10..29, 19), (29..99, 1)] {
        assert_eq!(reader.try_get_log_entries(range.clone()).await.unwrap().len(), most);
        let streamed: Vec<Entry> =
            reader.entries_stream(range.clone()).await.try_collect().await.unwrap();
        let start = usize::try_from(range.start).unwrap();
        assert!(streamed == all[start..start + most], "{range:?}");
    }
    // An entry larger than the bound is read alone.
    let large = bytes_entry(30, vec![1; 3 * limits::APPEND_BYTES_MAX]);
    append(&mut log, vec![large, blank(1, 31)]).await.unwrap();
    assert_eq!(reader.limited_get_log_entries(30, 32).await.unwrap().len(), 1);
    drop((log, reader, store));
    let store: Arc<dyn Store> = data.open();
    let mut reader = open_log(&store).get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(30, 32).await.unwrap().len(), 1);
    assert_eq!(reader.try_get_log_entries(0..=31).await.unwrap().len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_leaves_a_hole_or_overwrites_is_refused() {
    let data = Data::new();
    let store: Arc<dyn Store> = data.open();
    let mut log = open_log(&store);
    append(&mut log, vec![blank(1, 0), blank(1, 1)]).await.unwrap();
    for wrong in [vec![blank(1, 3)], vec![blank(1, 1)], vec![blank(1, 2), blank(1, 4)]] {
        append(&mut log, wrong).await.unwrap_err();
    }
    append(&mut log, vec![blank(1, 2)]).await.unwrap();
    assert_eq!(entries(&mut log).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_an_error_and_never_a_panic_or_a_shorter_log() {
    let key = |index: u64| [[16].as_slice(), &index.to_be_bytes()].concat();
    let good = |index| entry_to(&blank(1, index)).encode_to_vec();
    let empty = log::Entry { log_id: None, payload: None }.encode_to_vec();
    let unknown = log::Entry { payload: None, ..entry_to(&blank(1, 1)) }.encode_to_vec();
    let purged = log::LogId { term: 1, node_id: 1, index: 1 }.encode_to_vec();
    // What is changed, and whether the damage is found when the log is opened already.
    type Case = (&'static str, Vec<u8>, Option<Vec<u8>>, bool);
    let cases: [Case; 10] = [
        ("garbled", key(1), Some(vec![0xff; 20]), false),
        ("truncated", key(1), Some(good(1)[..3].to_vec()), false),
        ("without position", key(1), Some(empty), false),
        ("without payload", key(1), Some(unknown), false),
        ("in the place of another", key(1), Some(good(2)), false),
        ("missing", key(1), None, false),
        ("garbled at the end", key(3), Some(vec![0xff; 20]), true),
        ("with a malformed key", vec![16, 1], Some(good(1)), true),
        ("with a garbled vote", vec![1], Some(vec![0xff; 5]), true),
        ("purged further than it is", vec![3], Some(purged), true),
    ];
    for (what, key, value, at_open) in cases {
        let data = Data::new();
        let store: Arc<dyn Store> = data.open();
        let mut log = open_log(&store);
        append(&mut log, (0..4).map(|index| blank(1, index)).collect()).await.unwrap();
        drop(log);
        let mut batch = Batch::default();
        batch.changes.push(match value {
            Some(value) => Change::Put(log_space(), key, value),
            None => Change::Delete(log_space(), key),
        });
        store.write(batch, Durability::Synced).unwrap();
        let opened = LogStore::open(Arc::clone(&store), GROUP, committer(&store));
        let error = match opened {
            Err(error) => {
                assert!(at_open, "{what}: {error}");
                error
            }
            Ok(mut log) => {
                assert!(!at_open, "a log {what} was opened");
                entries(&mut log).await.expect_err(what)
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
    }
}

/// A reader that races with cuts sees the log as it was before or after, never a mixture.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_during_cuts_is_consistent() {
    let data = Data::new();
    let store: Arc<dyn Store> = data.open();
    let mut log = open_log(&store);
    let large = |term, index| Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(CommandBytes(vec![0; 200_000].into())),
    };
    append(&mut log, (0..20).map(|index| large(1, index)).collect()).await.unwrap();
    let mut reader: LogReader = log.get_log_reader().await;
    let reads = tokio::spawn(async move {
        let mut whole = 0;
        loop {
            let read = reader.try_get_log_entries(0..20).await.unwrap();
            let terms: Vec<_> = read.iter().map(|entry| entry.log_id.leader_id.term).collect();
            assert!(terms.is_sorted(), "{terms:?}");
            assert!(read.iter().zip(0..).all(|(entry, index)| entry.log_id.index == index));
            whole += usize::from(read.len() == 20);
            if terms.last() == Some(&16) {
                return whole;
            }
            tokio::task::yield_now().await;
        }
    });
    for term in 2..=16 {
        log.truncate_after(Some(log_id(1, 4))).await.unwrap();
        append(&mut log, (5..20).map(|index| large(term, index)).collect()).await.unwrap();
    }
    assert!(reads.await.unwrap() > 0);
}

// ---- the state machine ----

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_state_machine_goes_on_where_it_was() {
    let data = Data::new();
    let first = vec![membership(0), put(1, "a", b"1"), put(2, "b", b"1")];
    let second = vec![put(3, "a", b"2"), blank(1, 4)];
    {
        let store: Arc<dyn Store> = data.open();
        let (state, mut machine) = open_state(&store);
        assert_eq!(state.applied(), (0, StateHash::default()));
        assert!(machine.get_current_snapshot().await.unwrap().is_none());
        let mut told = state.subscribe();
        apply(&mut machine, first.clone()).await.unwrap();
        assert!(told.has_changed().unwrap());
        assert_eq!(told.borrow_and_update().log_id, Some(log_id(1, 2)));
    }
    let store: Arc<dyn Store> = data.open();
    let (state, mut machine) = open_state(&store);
    let (applied, members) = machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 2)));
    assert_eq!(*members.log_id(), Some(log_id(1, 0)));
    assert_eq!(members.membership().voter_ids().collect::<Vec<_>>(), [1, 2]);
    apply(&mut machine, second.clone()).await.unwrap();
    let found = state.read(records);
    assert_eq!(found, [(b"a".to_vec(), b"2".to_vec()), (b"b".to_vec(), b"1".to_vec())]);
    assert_eq!(state.applied(), (4, hash_of(&found)));

    // Another node that applied all at once is in the same state.
    let other = Data::new();
    let store: Arc<dyn Store> = other.open();
    let (straight, mut machine) = open_state(&store);
    apply(&mut machine, [first, second].concat()).await.unwrap();
    assert_eq!(straight.progress(), state.progress());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_bounded_and_written_once_each() {
    let data = Data::new();
    let watched = Watched::new(data.open());
    let store: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
    let (state, mut machine) = open_state(&store);
    let large = vec![b'1'; limits::APPLY_BYTES_MAX / 2];
    let many = limits::APPLY_ENTRIES_MAX as u64;
    for (entries, writes) in [
        ((1..=10).map(|index| put(index, "a", b"1")).collect::<Vec<_>>(), 1),
        ((11..=14).map(|index| put(index, "a", &large)).collect(), 2),
        ((15..15 + 2 * many).map(|index| blank(1, index)).collect(), 2),
    ] {
        let before = watched.count();
        let last = entries.last().unwrap().log_id.index;
        apply(&mut machine, entries).await.unwrap();
        assert_eq!(watched.count() - before, writes, "up to {last}");
        assert_eq!(state.applied().0, last);
    }
    assert!(watched.writes.lock().iter().all(|(_, how)| *how == Durability::Buffered));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_understood_stops_the_group_and_changes_nothing() {
    let data = Data::new();
    let store: Arc<dyn Store> = data.open();
    let (state, mut machine) = open_state(&store);
    apply(&mut machine, vec![put(1, "a", b"1")]).await.unwrap();
    let before = state.progress();
    for (bytes, text) in [
        (command(2, "b", b"1"), "entry 3 of the log cannot be applied: it has version 2"),
        (command(0, "b", b"1"), "it has version 0"),
    ] {
        let run = vec![put(2, "c", b"1"), bytes_entry(3, bytes)];
        let error = apply(&mut machine, run).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(state.progress(), before);
        assert_eq!(state.read(records).len(), 1);
    }
    let failing = stream::iter([Ok((put(2, "c", b"1"), None)), Err(io::Error::other("read"))]);
    machine.apply(failing.boxed()).await.unwrap_err();
    assert_eq!(state.progress(), before);
}

/// All nodes have the same entry and the same program: whoever stopped for it would stop at every start.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_entry_is_refused_and_changes_nothing() {
    let clean = Data::new();
    let store: Arc<dyn Store> = clean.open();
    let (expected, mut machine) = open_state(&store);
    apply(&mut machine, vec![put(1, "a", b"1"), blank(1, 2), blank(1, 3), put(4, "b", b"2")])
        .await
        .unwrap();
    let poisoned = Data::new();
    let store: Arc<dyn Store> = poisoned.open();
    let (state, mut machine) = open_state(&store);
    // The second entry overwrites a document of the first one before it panics.
    let half = log::DatabaseCommand {
        writes: [("a", &b"0"[..]), ("new", b"0"), (PANICS_AFTER_A_WRITE, b"0")]
            .map(|(id, json)| write(id, json))
            .to_vec(),
    };
    let half = Some(log::command::Command::Database(half));
    let half = log::Command { version: 1, command: half, ..log::Command::default() };
    let entries = vec![
        put(1, "a", b"1"),
        bytes_entry(2, half.encode_to_vec()),
        bytes_entry(3, vec![0xff; 9]),
        put(4, "b", b"2"),
    ];
    apply(&mut machine, entries).await.unwrap();
    assert_eq!(state.progress(), expected.progress());
    assert_eq!(state.read(records), expected.read(records));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_group_is_a_new_one() {
    let data = Data::new();
    let store: Arc<dyn Store> = data.open();
    let (state, mut machine) = open_state(&store);
    let mut log = open_log(&store);
    append(&mut log, vec![blank(1, 0)]).await.unwrap();
    apply(&mut machine, vec![put(0, "a", b"1")]).await.unwrap();
    let _unfinished = SnapshotSink::begin(&state).unwrap();
    store.clear_group(GROUP).unwrap();
    drop((log, machine));
    assert_eq!(records(&*store, state.space()), []);
    let (state, _) = open_state(&store);
    assert_eq!(state.applied(), (0, StateHash::default()));
    assert_eq!(open_log(&store).position(), SentinelGroup { group: 7, ..Default::default() });
}

// ---- snapshots ----

/// A state of more than one chunk.
async fn large_state(machine: &mut StateMachine) {
    let mut entries = vec![membership(0)];
    for index in 1..=20 {
        entries.push(put(index, &format!("document {index:02}"), &vec![index as u8; 200_000]));
    }
    apply(machine, entries).await.unwrap();
}

async fn source(machine: &mut StateMachine) -> SnapshotSource {
    let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
    match snapshot.snapshot {
        SnapshotData::Outgoing(source) => source,
        SnapshotData::Incoming(_) => panic!("not a view"),
    }
}

fn chunks(source: &mut SnapshotSource) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| source.next_chunk().unwrap()).collect()
}

fn receive(state: &Arc<GroupState>, source: &mut SnapshotSource) -> SnapshotData {
    let mut sink = SnapshotSink::begin(state).unwrap();
    for chunk in chunks(source) {
        sink.write(&chunk).unwrap();
    }
    let (count, digest) = source.trailer();
    sink.finish(count, &digest, &source.meta()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_makes_an_equal_state_of_another_one() {
    let (from, to) = (Data::new(), Data::new());
    let store: Arc<dyn Store> = from.open();
    let (sender, mut leader) = open_state(&store);
    large_state(&mut leader).await;
    let expected = sender.progress();
    let mut view = source(&mut leader).await;
    let meta = view.meta();
    // What happens later is not in it.
    apply(&mut leader, vec![put(21, "later", b"1")]).await.unwrap();

    let target: Arc<dyn Store> = to.open();
    let machine = Arc::new(Documents::default());
    let receiver = GroupState::open(Arc::clone(&target), GROUP).unwrap();
    let mut follower = StateMachine::new(Arc::clone(&receiver), Arc::clone(&machine) as _).unwrap();
    apply(&mut follower, vec![put(1, "old", b"1")]).await.unwrap();
    let old_space = receiver.space();
    let data = receive(&receiver, &mut view);
    assert!(view.trailer().0 > 3, "several chunks");
    // Until it is installed, the old state stands.
    assert_eq!(receiver.read(records).len(), 1);
    let old_view = receiver.view();
    follower.install_snapshot(&meta, data).await.unwrap();
    assert_eq!(*machine.reloaded.lock(), [20]);
    assert_eq!(machine.published.load(Ordering::SeqCst), 2);
    assert_eq!(receiver.progress(), expected);
    assert_eq!(hash_of(&receiver.read(records)), expected.hash);
    assert_eq!(records(&*target, old_space), []);
    assert_eq!(records(&*old_view.0, old_view.1).len(), 1, "an open view is not taken away");

    // The next entries go on top, and a restart finds all of it.
    apply(&mut follower, vec![put(21, "later", b"1")]).await.unwrap();
    assert_eq!(receiver.progress(), sender.progress());
    let built = follower.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(built.meta, leader.get_current_snapshot().await.unwrap().unwrap().meta);
    drop((built, old_view, follower, receiver, target));
    let target: Arc<dyn Store> = to.open();
    let (receiver, mut follower) = open_state(&target);
    assert_eq!(receiver.progress(), sender.progress());
    assert_eq!(receiver.read(records), sender.read(records));
    // A second one, on top of a generation that is not the first.
    let mut again = source(&mut leader).await;
    let data = receive(&receiver, &mut again);
    follower.install_snapshot(&again.meta(), data).await.unwrap();
    assert_eq!(receiver.progress(), sender.progress());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_snapshot_leaves_the_old_state_and_nothing_else() {
    let from = Data::new();
    let store: Arc<dyn Store> = from.open();
    let (_, mut leader) = open_state(&store);
    large_state(&mut leader).await;
    let whole = chunks(&mut source(&mut leader).await).len();
    // begin, each chunk, and the installation: a crash before each of these writes.
    for writes in 0..whole + 2 {
        let to = Data::new();
        let (before, staged) = {
            let watched = Watched::new(to.open());
            let target: Arc<dyn Store> = Arc::clone(&watched) as Arc<dyn Store>;
            let (receiver, mut follower) = open_state(&target);
            apply(&mut follower, vec![put(1, "old", b"1")]).await.unwrap();
            watched.fail_after(writes);
            let mut source = source(&mut leader).await;
            let received = (|| {
                let mut sink = SnapshotSink::begin(&receiver)?;
                for chunk in chunks(&mut source) {
                    sink.write(&chunk)?;
                }
                let (count, digest) = source.trailer();
                sink.finish(count, &digest, &source.meta())
            })();
            match received {
                Ok(data) => {
                    assert_eq!(writes, whole + 1);
                    follower.install_snapshot(&source.meta(), data).await.unwrap_err();
                }
                Err(error) => assert!(matches!(error, snapshot::Error::Storage(_)), "{error}"),
            }
            (receiver.progress(), Space { generation: 1, ..receiver.space() })
        };
        let target: Arc<dyn Store> = to.open();
        assert_eq!(records(&*target, staged).is_empty(), writes < 2, "crash after {writes}");
        let (receiver, mut follower) = open_state(&target);
        assert_eq!(receiver.progress(), before);
        assert_eq!(receiver.read(records), [(b"old".to_vec(), b"1".to_vec())]);
        assert_eq!(records(&*target, staged), [], "what was left is deleted at the start");
        let mut source = source(&mut leader).await;
        let data = receive(&receiver, &mut source);
        follower.install_snapshot(&source.meta(), data).await.unwrap();
        assert_eq!(hash_of(&receiver.read(records)), receiver.applied().1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_and_true_snapshot_is_refused() {
    let (from, to) = (Data::new(), Data::new());
    let store: Arc<dyn Store> = from.open();
    let (_, mut leader) = open_state(&store);
    apply(&mut leader, vec![membership(0), put(1, "a", b"1"), put(2, "b", b"2")]).await.unwrap();
    let good = chunks(&mut source(&mut leader).await).concat();
    let meta = source(&mut leader).await.meta();
    let target: Arc<dyn Store> = to.open();
    let (receiver, mut follower) = open_state(&target);
    apply(&mut follower, vec![put(1, "old", b"1")]).await.unwrap();
    let before = receiver.progress();
    // Each record is 8 + 1 + 1 bytes.
    let header = good.len() - 20;
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut chunk = good.clone();
        edit(&mut chunk);
        vec![chunk]
    };
    let swapped = [&good[..header], &good[header + 10..], &good[header..header + 10]].concat();
    let huge = [&good[..], &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], b"c"].concat();
    let long_key = [&good[..], &[0, 0, 0xff, 0xff, 0, 0, 0, 0]].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("nothing", vec![]),
        ("an empty chunk", vec![vec![]]),
        ("noise", vec![vec![0xaa; 100]]),
        ("a chunk that is too large", vec![vec![0; limits::SNAPSHOT_MESSAGE_BYTES_MAX + 1]]),
        ("another format", edited(&|chunk| chunk[3] = b'2')),
        ("another group", edited(&|chunk| chunk[11] ^= 1)),
        ("another state hash", edited(&|chunk| chunk[12] ^= 1)),
        ("meta data beyond the end", edited(&|chunk| chunk[44] = 0xff)),
        ("garbled meta data", edited(&|chunk| chunk[48..60].fill(0xff))),
        ("a header that is cut off", vec![good[..30].to_vec()]),
        ("a record that is cut off", vec![good[..good.len() - 1].to_vec()]),
        ("the last record missing", vec![good[..good.len() - 10].to_vec()]),
        ("another value", edited(&|chunk| *chunk.last_mut().unwrap() ^= 1)),
        ("another key", edited(&|chunk| chunk[header + 18] ^= 0x10)),
        ("records out of order", vec![swapped]),
        ("a record twice", vec![good.clone(), good[header + 10..].to_vec()]),
        ("a record that is too large", vec![huge]),
        ("a key that is too long", vec![long_key]),
        ("an added record", vec![good.clone(), vec![0, 0, 0, 1, 0, 0, 0, 1, b'c', b'c']]),
    ];
    for (what, chunks) in cases {
        // The sender of a wrong snapshot computes its digest all the same.
        use sha2::Digest;
        let digest = sha2::Sha256::digest(chunks.concat());
        let mut sink = SnapshotSink::begin(&receiver).unwrap();
        let result = chunks.iter().try_for_each(|chunk| sink.write(chunk));
        let result = result.and_then(|()| sink.finish(chunks.len() as u64, &digest, &meta));
        let Err(error) = result else { panic!("{what} was taken") };
        assert!(matches!(error, snapshot::Error::Refused(_)), "{what}: {error}");
    }
    let trailers = [(2, None, &meta), (0, None, &meta), (1, Some([0; 32]), &meta)];
    let other_meta = SnapshotMeta { last_log_id: Some(log_id(1, 9)), ..meta.clone() };
    for (count, digest, meta) in trailers.into_iter().chain([(1, None, &other_meta)]) {
        use sha2::Digest;
        let digest = digest.unwrap_or_else(|| sha2::Sha256::digest(&good).into());
        let mut sink = SnapshotSink::begin(&receiver).unwrap();
        sink.write(&good).unwrap();
        let error = sink.finish(count, &digest, meta).unwrap_err();
        assert!(matches!(error, snapshot::Error::Refused(_)), "{error}");
    }
    assert_eq!(receiver.progress(), before);
    assert_eq!(receiver.read(records).len(), 1);
    for generation in 1..60 {
        let space = Space { generation, ..receiver.space() };
        assert_eq!(records(&*target, space), [], "generation {generation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_snapshot_that_begins_supersedes_the_others() {
    let (from, to) = (Data::new(), Data::new());
    let store: Arc<dyn Store> = from.open();
    let (_, mut leader) = open_state(&store);
    large_state(&mut leader).await;
    let target: Arc<dyn Store> = to.open();
    let (receiver, mut follower) = open_state(&target);
    let mut first = source(&mut leader).await;
    let all = chunks(&mut first);
    let mut superseded = SnapshotSink::begin(&receiver).unwrap();
    superseded.write(&all[0]).unwrap();
    let staged = receive(&receiver, &mut source(&mut leader).await);
    assert!(matches!(superseded.write(&all[1]), Err(snapshot::Error::Superseded)));
    superseded.abandon();
    // One that is whole is superseded too, as long as it is not installed.
    let newest = receive(&receiver, &mut source(&mut leader).await);
    follower.install_snapshot(&first.meta(), staged).await.unwrap_err();
    assert_eq!(receiver.applied().0, 0);
    follower.install_snapshot(&first.meta(), newest).await.unwrap();
    assert_eq!(receiver.applied().0, 20);
    assert_eq!(hash_of(&receiver.read(records)), receiver.applied().1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_snapshot_that_openraft_drops_is_deleted() {
    let (from, to) = (Data::new(), Data::new());
    let store: Arc<dyn Store> = from.open();
    let (_, mut leader) = open_state(&store);
    large_state(&mut leader).await;
    let target: Arc<dyn Store> = to.open();
    let (receiver, _) = open_state(&target);
    let staged = receive(&receiver, &mut source(&mut leader).await);
    let space = Space { generation: 1, ..receiver.space() };
    assert_eq!(records(&*target, space).len(), 20);
    drop(staged);
    assert_eq!(records(&*target, space), []);
}

#[test]
fn meta_data_that_openraft_would_assert_on_are_refused() {
    let voters = |term, index| {
        let nodes = BTreeMap::from([(1, Member::default())]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        StoredMembership::new(Some(log_id(term, index)), membership)
    };
    let vote = Vote::new_committed(5, 1);
    for (last, last_membership, committed, refused) in [
        (Some(log_id(5, 10)), voters(1, 1), None, false),
        (Some(log_id(5, 10)), voters(5, 10), Some(log_id(4, 9)), false),
        (Some(log_id(4, 10)), voters(1, 1), Some(log_id(4, 10)), false),
        (Some(log_id(4, 10)), voters(1, 1), Some(log_id(4, 20)), false),
        (None, voters(1, 1), None, true),
        (Some(log_id(5, 10)), StoredMembership::default(), None, true),
        (Some(log_id(5, 10)), voters(5, 11), None, true),
        (Some(log_id(6, 10)), voters(1, 1), None, true),
        (Some(log_id(5, 10)), voters(1, 1), Some(log_id(4, 10)), true),
        (Some(log_id(5, 10)), voters(1, 1), Some(log_id(4, 11)), true),
    ] {
        let meta = SnapshotMeta { last_log_id: last, last_membership };
        let result = check_meta(&meta, &vote, committed.as_ref());
        assert_eq!(result.is_err(), refused, "{meta:?} {committed:?}");
    }
}
