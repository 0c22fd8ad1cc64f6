//! The durable sentinel: how long each group's log was at least when it was last synced.
//!
//! A write-ahead log that is cut at the end of a record, deleted, or replaced by an older copy looks healthy. The
//! sentinel stands outside of it and remembers, for each group, the last log id and the vote; a start whose log is
//! shorter, or whose vote is older, is refused.
//!
//! Four slots, each a file `length (4, big endian) ‖ sealed Sentinel`, take turns; the valid one with the highest
//! sequence counts. `record` writes into the oldest slot that is neither the last durable one nor the one being synced,
//! and returns; a thread syncs the newest slot as often as the disk allows. So:
//! - after `kill -9` nothing is lost: the writes are in the page cache;
//! - after a power cut the sentinel is behind by the batches of at most two syncs of a slot, never ahead, and at least
//!   the last durable slot is whole;
//! - a log that is shortened on purpose (a conflict, a removed group) is recorded with `record_durably` or `forget`
//!   **before** it is shortened.
//!
//! It remembers the last checkpoint of the audit log as well, which consensus holds against the chain at a start, and the
//! revision of the keyring, so that an older copy of that is known.
//!
//! The sentinel cannot find a data folder that was replaced as a whole, itself included: that is for the peers.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

mod reseal;

use parking_lot::{Condvar, Mutex};
use prost::Message;
use rookery_proto::log::v1::{self as proto, AuditCheckpoint, LogId, SentinelGroup, Vote};

use super::{Error, Result};
use crate::{
    crypto::{
        self, Keyring, Place, Purpose, SENTINEL_FOLDER, STORE_FOLDER, make_private_folder,
        replace_file,
    },
    limits,
    names::{GroupId, Incarnation, NodeId},
};

/// The sequence of the record that a new data folder begins with; a higher one means that the node has lived.
pub(super) const FIRST_SEQUENCE: u64 = 1;

const SLOTS: usize = 4;

/// Keeps the sentinel of a data folder.
pub struct Sentinel {
    shared: Arc<Shared>,
    syncer: Option<JoinHandle<()>>,
}

struct Shared {
    slots: [File; SLOTS],
    keyring: Arc<Keyring>,
    state: Mutex<State>,
    /// Something was written, became durable, failed, or ends.
    changed: Condvar,
}

type OnFailure = Box<dyn FnOnce(&str) + Send>;

struct State {
    sequence: u64,
    node_id: u64,
    incarnation: Vec<u8>,
    groups: BTreeMap<u64, SentinelGroup>,
    audit_checkpoint: Option<AuditCheckpoint>,
    /// The sequence that each slot holds; 0 for none.
    written: [u64; SLOTS],
    durable: usize,
    syncing: Option<usize>,
    /// The first failure; it is final.
    failure: Option<String>,
    on_failure: Option<OnFailure>,
    closing: bool,
}

impl Sentinel {
    /// Opens the sentinel of a data folder, and gives what it says; `None` where nothing was recorded yet.
    ///
    /// The caller compares node id and incarnation, calls [`Sentinel::check`] for each group it finds on disk, and
    /// refuses when the sentinel names a group that it does not find.
    ///
    /// # Errors
    /// [`Error::Folder`] where there is a store without a sentinel, or no slot of it authenticates; [`Error::Engine`].
    pub fn open(folder: &Path, keyring: &Arc<Keyring>) -> Result<(Self, Option<proto::Sentinel>)> {
        if newest(folder, keyring)?.is_none() {
            let store = folder.join(STORE_FOLDER);
            let lived = store.try_exists().map_err(|error| failed("look for", &store, &error))?;
            if lived {
                return Err(Error::Folder(format!(
                    "{} has no sentinel, so nobody can tell whether its log is whole; restore `{SENTINEL_FOLDER}` \
                     from a copy, or delete the whole data folder and let the node join anew",
                    folder.display()
                )));
            }
            create(folder, keyring)?;
        }
        let mut slots = Vec::with_capacity(SLOTS);
        let mut written = [0; SLOTS];
        let mut newest: Option<proto::Sentinel> = None;
        for (slot, sequence) in written.iter_mut().enumerate() {
            let path = slot_path(folder, slot);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|error| failed("open", &path, &error))?;
            if let Some(record) = read_slot(&file, slot, keyring)? {
                *sequence = record.sequence;
                newest = newest.filter(|newest| newest.sequence > record.sequence).or(Some(record));
            }
            slots.push(file);
        }
        let newest = newest.ok_or_else(|| damaged(folder))?;
        reseal::check_keyring(folder, keyring, newest.keyring_revision)?;
        let slots = slots.try_into().map_err(|_| Error::Engine("four slots".to_owned()))?;
        let shared = Arc::new(Shared {
            slots,
            keyring: Arc::clone(keyring),
            state: Mutex::new(State::new(&newest, written)),
            changed: Condvar::new(),
        });
        // What the last process wrote may be in the page cache only.
        shared.sync_newest()?;
        crypto::sync_folder(&folder.join(SENTINEL_FOLDER))?;
        let syncer = thread::Builder::new()
            .name("sentinel".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.sync_until_closed()
            })
            .map_err(|error| Error::Engine(format!("no thread for the sentinel: {error}")))?;
        let recorded = (newest.sequence > FIRST_SEQUENCE).then_some(newest);
        Ok((Self { shared, syncer: Some(syncer) }, recorded))
    }

    /// Called once, from another thread, when a slot cannot be written or synced: the process must end, because a
    /// second sync after a failed one proves nothing.
    pub fn on_failure(&self, callback: impl FnOnce(&str) + Send + 'static) {
        let mut state = self.shared.state.lock();
        match state.failure.clone() {
            Some(why) => {
                drop(state);
                callback(&why);
            }
            None => state.on_failure = Some(Box::new(callback)),
        }
    }

    /// Whether a write or a sync has failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.shared.state.lock().failure.is_some()
    }

    /// Records who the node is; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Engine`], final.
    pub fn identify(&self, node: NodeId, incarnation: Incarnation) -> Result<()> {
        self.shared.change_durably(|state| {
            state.node_id = node.0;
            state.incarnation = incarnation.as_bytes().to_vec();
        })
    }

    /// Records the last checkpoint of the audit log that was applied; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Engine`], final.
    pub fn note_audit(&self, checkpoint: &AuditCheckpoint) -> Result<()> {
        self.shared.change_durably(|state| state.audit_checkpoint = Some(checkpoint.clone()))
    }

    /// Records where logs end after a synced batch; names only the groups that moved. Does not wait for the disk.
    ///
    /// # Errors
    /// [`Error::Engine`], final.
    pub fn record(&self, groups: impl IntoIterator<Item = SentinelGroup>) -> Result<()> {
        let mut state = self.shared.state.lock();
        state.update(groups);
        self.shared.write(&mut state).map(drop)
    }

    /// As [`Sentinel::record`], and durable when it returns. Call it before a log is cut, with the shorter length.
    ///
    /// # Errors
    /// [`Error::Engine`], final.
    pub fn record_durably(&self, groups: impl IntoIterator<Item = SentinelGroup>) -> Result<()> {
        self.shared.change_durably(|state| state.update(groups))
    }

    /// Expects nothing of a group any more; durable when it returns. Call it before the group's data is deleted.
    ///
    /// # Errors
    /// [`Error::Engine`], final.
    pub fn forget(&self, group: GroupId) -> Result<()> {
        self.shared.change_durably(|state| {
            state.groups.remove(&group.0);
        })
    }

    /// Whether a group's log, as found at the start, is at least as long as it was.
    ///
    /// # Errors
    /// [`Error::Folder`]: the log is shorter or the vote is older than what was synced.
    pub fn check(
        &self,
        group: GroupId,
        last_log_id: Option<&LogId>,
        vote: Option<&Vote>,
    ) -> Result<()> {
        let state = self.shared.state.lock();
        state.groups.get(&group.0).map_or(Ok(()), |expected| check(expected, last_log_id, vote))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(syncer) = self.syncer.take() {
            // A panic of the thread has been reported already, and nothing is left to do here.
            let _ = syncer.join();
        }
    }
}

impl State {
    fn new(newest: &proto::Sentinel, written: [u64; SLOTS]) -> Self {
        Self {
            sequence: newest.sequence,
            node_id: newest.node_id,
            incarnation: newest.incarnation.clone(),
            groups: newest.groups.iter().map(|group| (group.group, *group)).collect(),
            audit_checkpoint: newest.audit_checkpoint.clone(),
            written,
            durable: slot_of(&written),
            syncing: None,
            failure: None,
            on_failure: None,
            closing: false,
        }
    }

    fn update(&mut self, groups: impl IntoIterator<Item = SentinelGroup>) {
        for group in groups {
            self.groups.insert(group.group, group);
        }
    }

    fn record(&self) -> proto::Sentinel {
        proto::Sentinel {
            sequence: self.sequence,
            node_id: self.node_id,
            incarnation: self.incarnation.clone(),
            groups: self.groups.values().copied().collect(),
            audit_checkpoint: self.audit_checkpoint.clone(),
            ..proto::Sentinel::default()
        }
    }

    /// The oldest slot that may be overwritten.
    fn free_slot(&self) -> usize {
        let taken = |slot: &usize| *slot == self.durable || Some(*slot) == self.syncing;
        (0..SLOTS)
            .filter(|slot| !taken(slot))
            .min_by_key(|slot| self.written[*slot])
            .expect("of four slots two are free")
    }

    fn is_durable(&self, sequence: u64) -> bool {
        self.written[self.durable] >= sequence
    }

    fn check_working(&self) -> Result<()> {
        match &self.failure {
            Some(why) => Err(Error::Engine(why.clone())),
            None => Ok(()),
        }
    }
}

/// The slot with the highest sequence.
fn slot_of(written: &[u64; SLOTS]) -> usize {
    (0..SLOTS).max_by_key(|slot| written[*slot]).unwrap_or_default()
}

impl Shared {
    /// Writes the state into a free slot; gives its sequence.
    fn write(&self, state: &mut State) -> Result<u64> {
        state.check_working()?;
        state.sequence += 1;
        let slot = state.free_slot();
        let keyring_revision = self.keyring.keys().revision();
        let record = proto::Sentinel { keyring_revision, ..state.record() };
        let bytes = seal_slot(&record, slot, &self.keyring)?;
        if let Err(error) = self.slots[slot].write_all_at(&bytes, 0) {
            return Err(Self::fail(state, &format!("the sentinel cannot be written: {error}")));
        }
        state.written[slot] = state.sequence;
        self.changed.notify_all();
        Ok(state.sequence)
    }

    fn change_durably(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock();
        change(&mut state);
        let sequence = self.write(&mut state)?;
        while !state.is_durable(sequence) {
            state.check_working()?;
            self.changed.wait(&mut state);
        }
        Ok(())
    }

    fn fail(state: &mut State, why: &str) -> Error {
        if state.failure.is_none() {
            state.failure = Some(why.to_owned());
            if let Some(callback) = state.on_failure.take() {
                let why = why.to_owned();
                // On a thread of its own: the callback may take its time, or come back here.
                thread::spawn(move || callback(&why));
            }
        }
        Error::Engine(why.to_owned())
    }

    /// Makes the newest slot the durable one.
    fn sync_newest(&self) -> Result<()> {
        let slot = {
            let mut state = self.state.lock();
            let slot = slot_of(&state.written);
            state.syncing = Some(slot);
            slot
        };
        let result = self.slots[slot].sync_data();
        let mut state = self.state.lock();
        state.syncing = None;
        let result = match result {
            Ok(()) => {
                state.durable = slot;
                Ok(())
            }
            Err(error) => {
                Err(Self::fail(&mut state, &format!("the sentinel cannot be synced: {error}")))
            }
        };
        self.changed.notify_all();
        result
    }

    fn sync_until_closed(&self) {
        loop {
            {
                let mut state = self.state.lock();
                while state.is_durable(state.sequence) {
                    if state.closing {
                        return;
                    }
                    self.changed.wait(&mut state);
                }
            }
            // The failure is in the state, where every caller finds it.
            if self.sync_newest().is_err() {
                return;
            }
        }
    }
}

/// Makes the first slot of a new data folder.
pub(super) fn create(folder: &Path, keyring: &Keyring) -> Result<()> {
    make_private_folder(&folder.join(SENTINEL_FOLDER))?;
    let first = proto::Sentinel { sequence: FIRST_SEQUENCE, ..proto::Sentinel::default() };
    Ok(replace_file(&slot_path(folder, 0), &seal_slot(&first, 0, keyring)?)?)
}

/// What the sentinel of a data folder says; `None` where there is none.
pub(super) fn newest(folder: &Path, keyring: &Keyring) -> Result<Option<proto::Sentinel>> {
    let mut newest: Option<proto::Sentinel> = None;
    let mut found = false;
    for slot in 0..SLOTS {
        let path = slot_path(folder, slot);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("open", &path, &error)),
        };
        found = true;
        if let Some(record) = read_slot(&file, slot, keyring)?
            && newest.as_ref().is_none_or(|newest| newest.sequence < record.sequence)
        {
            newest = Some(record);
        }
    }
    if found && newest.is_none() {
        return Err(damaged(folder));
    }
    Ok(newest)
}

/// Whether a sentinel is there and authentic, and the keyring no older than it knows. Changes nothing.
pub(super) fn verify(folder: &Path, keyring: &Keyring) -> Result<()> {
    match newest(folder, keyring)? {
        Some(newest) => reseal::check_keyring(folder, keyring, newest.keyring_revision),
        None => Err(Error::Folder("there is none".to_owned())),
    }
}

fn slot_path(folder: &Path, slot: usize) -> PathBuf {
    folder.join(SENTINEL_FOLDER).join(format!("slot{slot}"))
}

fn damaged(folder: &Path) -> Error {
    Error::Folder(format!(
        "no slot of the sentinel in {} authenticates; it was changed or damaged. Restore it from a copy, or delete \
         the whole data folder and let the node join anew",
        folder.join(SENTINEL_FOLDER).display()
    ))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::Engine(format!("cannot {what} {}: {error}", path.display()))
}

fn place(slot: &[u8; 1]) -> Place<'_> {
    Place { purpose: Purpose::Sentinel, group: GroupId::CLUSTER, table: 0, key: slot }
}

fn slot_name(slot: usize) -> [u8; 1] {
    [u8::try_from(slot).unwrap_or(u8::MAX)]
}

fn seal_slot(record: &proto::Sentinel, slot: usize, keyring: &Keyring) -> Result<Vec<u8>> {
    let sealed = keyring.keys().seal(&place(&slot_name(slot)), &record.encode_to_vec())?;
    let len = u32::try_from(sealed.len())
        .ok()
        .filter(|_| sealed.len() <= limits::SENTINEL_BYTES_MAX)
        .ok_or_else(|| Error::Engine("the sentinel has too many groups".to_owned()))?;
    Ok([len.to_be_bytes().as_slice(), &sealed].concat())
}

/// The record of a slot; `None` where it is empty, torn, or not authentic: another slot then counts.
fn read_slot(file: &File, slot: usize, keyring: &Keyring) -> Result<Option<proto::Sentinel>> {
    let mut bytes = Vec::new();
    let bytes_max = limits::SENTINEL_BYTES_MAX as u64 + 4;
    file.take(bytes_max).read_to_end(&mut bytes).map_err(|error| {
        Error::Engine(format!("slot {slot} of the sentinel cannot be read: {error}"))
    })?;
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    let Some(sealed) = rest.get(..len) else { return Ok(None) };
    let opened = match keyring.keys().open(&place(&slot_name(slot)), sealed) {
        Ok(opened) => opened,
        Err(crypto::Error::NotAuthentic(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(proto::Sentinel::decode(opened.as_slice()).ok())
}

fn check(expected: &SentinelGroup, last_log_id: Option<&LogId>, vote: Option<&Vote>) -> Result<()> {
    let group = expected.group;
    let position = |id: Option<&LogId>| id.map(|id| (id.term, id.index));
    let (was, is) = (position(expected.last_log_id.as_ref()), position(last_log_id));
    if is < was {
        return refuse(group, &format!("ends at {}, but was synced up to {}", show(is), show(was)));
    }
    let Some(was) = &expected.vote else { return Ok(()) };
    // Within a term the vote may go from one candidate to the leader that won, and not back to uncommitted.
    let newer = vote.is_some_and(|is| {
        let taken_back = is.node_id == was.node_id && was.committed && !is.committed;
        is.term > was.term || (is.term == was.term && !taken_back)
    });
    if newer {
        return Ok(());
    }
    let is = vote.map_or_else(|| "none".to_owned(), |vote| format!("of term {}", vote.term));
    refuse(group, &format!("has the vote {is}, but one of term {} was synced", was.term))
}

fn show(position: Option<(u64, u64)>) -> String {
    position.map_or_else(
        || "nothing".to_owned(),
        |(term, index)| format!("index {index} of term {term}"),
    )
}

fn refuse(group: u64, why: &str) -> Result<()> {
    Err(Error::Folder(format!(
        "the log of group {group} {why}: it was cut, damaged, or replaced by an older copy. This node must not take \
         part with it: delete the whole data folder and let the node join anew"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;
    use crate::crypto::MasterKey;

    fn data() -> (tempfile::TempDir, PathBuf, Arc<Keyring>) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let keyring = Keyring::open(&folder, &MasterKey::random().unwrap()).unwrap();
        (parent, folder, keyring)
    }

    fn group(group: u64, term: u64, index: u64, vote: Option<(u64, u64, bool)>) -> SentinelGroup {
        SentinelGroup {
            group,
            last_log_id: Some(LogId { term, node_id: 1, index }),
            vote: vote.map(|(term, node_id, committed)| Vote { term, node_id, committed }),
        }
    }

    #[test]
    fn a_shorter_log_or_an_older_vote_is_refused() {
        let expected = group(7, 3, 10, Some((3, 1, true)));
        let vote = Some((3, 1, true));
        for (log, vote, refused) in [
            (Some((3, 10)), vote, None),
            (Some((3, 11)), vote, None),
            (Some((4, 2)), vote, None),
            (Some((3, 10)), Some((4, 2, false)), None),
            (Some((3, 10)), Some((3, 2, false)), None),
            (Some((3, 9)), vote, Some("index 9 of term 3")),
            (Some((2, 99)), vote, Some("index 99 of term 2")),
            (None, vote, Some("nothing")),
            (Some((3, 10)), None, Some("vote none")),
            (Some((3, 10)), Some((2, 1, true)), Some("of term 2")),
            (Some((3, 10)), Some((3, 1, false)), Some("of term 3")),
        ] {
            let log = log.map(|(term, index)| LogId { term, node_id: 1, index });
            let found = group(7, 0, 0, vote).vote;
            match (check(&expected, log.as_ref(), found.as_ref()), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, _) => panic!("{log:?} {vote:?}: {result:?}"),
            }
        }
    }

    #[test]
    fn what_was_recorded_is_found_again_and_what_was_forgotten_is_not() {
        let (_parent, folder, keyring) = data();
        let (sentinel, recorded) = Sentinel::open(&folder, &keyring).unwrap();
        assert_eq!(recorded, None);
        sentinel.identify(NodeId(3), Incarnation::from_bytes(&[7; 16]).unwrap()).unwrap();
        for index in 1..=50 {
            sentinel.record([group(1, 1, index, None), group(2, 1, 2 * index, None)]).unwrap();
        }
        sentinel.record_durably([group(2, 1, 5, None)]).unwrap();
        sentinel.record([group(4, 1, 1, None)]).unwrap();
        sentinel.forget(GroupId(4)).unwrap();
        drop(sentinel);
        let (sentinel, recorded) = Sentinel::open(&folder, &keyring).unwrap();
        let recorded = recorded.unwrap();
        assert_eq!((recorded.node_id, recorded.incarnation), (3, vec![7; 16]));
        assert_eq!(recorded.groups, [group(1, 1, 50, None), group(2, 1, 5, None)]);
        let log = |index| LogId { term: 1, node_id: 1, index };
        assert!(sentinel.check(GroupId(1), Some(&log(49)), None).is_err());
        sentinel.check(GroupId(1), Some(&log(50)), None).unwrap();
        sentinel.check(GroupId(4), None, None).unwrap();
        assert!(!sentinel.failed());
    }

    #[test]
    fn the_last_checkpoint_of_the_audit_log_is_found_again() {
        let (_folder, path, keyring) = data();
        let (sentinel, _) = Sentinel::open(&path, &keyring).unwrap();
        let checkpoint = AuditCheckpoint { sequence: 7, hash: vec![3; 32], ..Default::default() };
        sentinel.note_audit(&checkpoint).unwrap();
        sentinel.record([group(1, 2, 3, None)]).unwrap();
        drop(sentinel);
        let (_, recorded) = Sentinel::open(&path, &keyring).unwrap();
        assert_eq!(recorded.unwrap().audit_checkpoint, Some(checkpoint));
    }

    #[test]
    fn a_torn_slot_gives_way_to_the_one_before() {
        let (_parent, folder, keyring) = data();
        let (sentinel, _) = Sentinel::open(&folder, &keyring).unwrap();
        for index in 1..=20 {
            sentinel.record_durably([group(1, 1, index, None)]).unwrap();
        }
        drop(sentinel);
        let index = |slot| {
            let file = File::open(slot_path(&folder, slot)).unwrap();
            let record = read_slot(&file, slot, &keyring).unwrap();
            record.map(|record| record.groups[0].last_log_id.unwrap().index)
        };
        let newest = (0..SLOTS).max_by_key(|slot| index(*slot)).unwrap();
        let whole = fs::read(slot_path(&folder, newest)).unwrap();
        for torn in [&whole[..whole.len() - 1], &whole[..3], &[], &vec![0; whole.len()]] {
            fs::write(slot_path(&folder, newest), torn).unwrap();
            let (_, recorded) = Sentinel::open(&folder, &keyring).unwrap();
            assert_eq!(recorded.unwrap().groups, [group(1, 1, 19, None)]);
        }
        for slot in 0..SLOTS {
            let path = slot_path(&folder, slot);
            let mut bytes = fs::read(&path).unwrap();
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
            }
            fs::write(&path, bytes).unwrap();
        }
        assert!(Sentinel::open(&folder, &keyring).is_err());
    }

    #[test]
    fn a_slot_does_not_open_in_another_place() {
        let (_parent, folder, keyring) = data();
        create(&folder, &keyring).unwrap();
        fs::copy(slot_path(&folder, 0), slot_path(&folder, 1)).unwrap();
        let copy = File::open(slot_path(&folder, 1)).unwrap();
        assert_eq!(read_slot(&copy, 1, &keyring).unwrap(), None);
        assert_eq!(read_slot(&copy, 0, &keyring).unwrap(), None, "read to its end already");
    }

    #[test]
    fn a_store_without_its_sentinel_is_refused() {
        let (_parent, folder, keyring) = data();
        fs::create_dir(folder.join(STORE_FOLDER)).unwrap();
        let Err(error) = Sentinel::open(&folder, &keyring) else { panic!("opened") };
        assert!(error.to_string().contains("no sentinel"), "{error}");
    }

    #[test]
    fn a_failure_is_final_and_told_once() {
        let (_parent, folder, keyring) = data();
        let (sentinel, _) = Sentinel::open(&folder, &keyring).unwrap();
        let (sender, told) = mpsc::channel();
        sentinel.on_failure(move |why| sender.send(why.to_owned()).unwrap());
        let _ = Shared::fail(&mut sentinel.shared.state.lock(), "injected");
        assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), "injected");
        assert!(sentinel.failed());
        for result in
            [sentinel.record([]), sentinel.record_durably([]), sentinel.forget(GroupId(1))]
        {
            assert!(matches!(result, Err(Error::Engine(why)) if why == "injected"));
        }
    }
}
