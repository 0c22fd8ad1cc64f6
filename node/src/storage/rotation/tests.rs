//! The thread of rotations: to their ends, across stops, and what it says of them.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    crypto::{Keyring, MasterKey},
    storage::{Batch, Durability, Space, Table},
};

const A: GroupId = GroupId(1);

fn none() -> Others {
    Box::new(|| Ok(()))
}

struct Data {
    _parent: tempfile::TempDir,
    folder: std::path::PathBuf,
    master: MasterKey,
}

impl Data {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        Self { _parent: parent, folder, master: MasterKey::random().unwrap() }
    }

    fn open(&self) -> (Arc<Rocks>, Arc<Keyring>) {
        let keyring = Keyring::open(&self.folder, &self.master).unwrap();
        let rocks = Rocks::open(&self.folder, keyring.clone()).unwrap();
        rocks.create_key(A).unwrap();
        (rocks, keyring)
    }
}

fn fill(rocks: &Rocks, group: GroupId, records: u32) {
    for key in 0..records {
        let mut batch = Batch::default();
        let space = Space { table: Table::State, group, generation: 0 };
        batch.put(space, key.to_be_bytes(), [7; 100]);
        rocks.write(batch, Durability::Buffered).unwrap();
    }
}

fn wait_for(rotation: &Rotation, subject: Subject, phase: impl Fn(&Phase) -> bool) -> Progress {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let progress = rotation.progress();
        match progress.get(&subject) {
            Some(it) if phase(&it.phase) => return it.clone(),
            it => assert!(Instant::now() < until, "{subject:?}: {it:?}"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_rotation_comes_to_its_end_and_counts_its_records() {
    let data = Data::new();
    let (rocks, keyring) = data.open();
    fill(&rocks, A, 1_000);
    let rotation = Rotation::start(rocks, none()).unwrap();
    assert!(rotation.progress().is_empty());
    let subject = Subject::Group(A);
    assert!(rotation.rotate(subject).unwrap());
    let done = wait_for(&rotation, subject, |phase| *phase == Phase::Done);
    assert_eq!((done.records, done.resealed), (1_000, 1_000));
    assert_eq!(keyring.keys().versions(A).count(), 1);
    let missing = rotation.rotate(Subject::Group(GroupId(9)));
    assert!(matches!(missing, Err(Error::NoKey(GroupId(9)))));
}

#[test]
fn a_rotation_goes_on_after_a_stop_and_is_not_begun_twice() {
    let data = Data::new();
    let (rocks, _) = data.open();
    fill(&rocks, A, 2_000);
    let subject = Subject::Group(A);
    let view = rocks.view();
    let rotation = Rotation::start(rocks.clone(), none()).unwrap();
    assert!(rotation.rotate(subject).unwrap());
    assert!(!rotation.rotate(subject).unwrap(), "it is under way");
    // Whatever it got done; the view keeps it from its end.
    wait_for(&rotation, subject, |phase| *phase != Phase::Queued);
    drop(rotation);
    assert_eq!(rocks.rotating(), [A]);
    drop((view, rocks));
    let (rocks, keyring) = data.open();
    let rotation = Rotation::start(rocks, none()).unwrap();
    wait_for(&rotation, subject, |phase| *phase == Phase::Done);
    assert_eq!(keyring.keys().versions(A).count(), 1);
}

#[test]
fn the_nodes_own_key_waits_for_what_is_sealed_beside_the_tables() {
    let data = Data::new();
    let (rocks, keyring) = data.open();
    fill(&rocks, GroupId::CLUSTER, 10);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let others = Box::new(move || match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Error::Folder("cannot be written".to_owned())),
        _ => Ok(()),
    });
    let rotation = Rotation::start(rocks, others).unwrap();
    let subject = Subject::Group(GroupId::CLUSTER);
    assert!(rotation.rotate(subject).unwrap());
    let stopped = wait_for(&rotation, subject, |phase| matches!(phase, Phase::Stopped(_)));
    assert_eq!(stopped.phase, Phase::Stopped("cannot be written".to_owned()));
    assert_eq!(keyring.keys().versions(GroupId::CLUSTER).count(), 2, "the older key stays");
    assert!(!rotation.rotate(subject).unwrap(), "the same rotation is tried again");
    wait_for(&rotation, subject, |phase| *phase == Phase::Done);
    assert_eq!(keyring.keys().versions(GroupId::CLUSTER).count(), 1);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn the_key_of_files_is_rotated_at_the_next_start() {
    let data = Data::new();
    let (rocks, _) = data.open();
    fill(&rocks, A, 100);
    let rotation = Rotation::start(rocks.clone(), none()).unwrap();
    assert!(rotation.rotate(Subject::Files).unwrap());
    wait_for(&rotation, Subject::Files, |phase| matches!(phase, Phase::NextStart(_)));
    drop((rotation, rocks));
    let (rocks, keyring) = data.open();
    let rotation = Rotation::start(rocks, none()).unwrap();
    wait_for(&rotation, Subject::Files, |phase| *phase == Phase::Done);
    assert_eq!(keyring.keys().file_versions().count(), 1);
}
