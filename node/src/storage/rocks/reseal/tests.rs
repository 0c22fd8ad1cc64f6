//! Sealing again beside everything else that goes on: what is lost (nothing), what is kept, and what the keyring forgets.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::{
    ops::{Bound, ControlFlow},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use super::{
    super::tests::{A, B, Data, put, space, state},
    *,
};
use crate::storage::{Batch, Durability, Read, Store as _};

/// Walks to the end; gives how many records were sealed again.
fn reseal(rocks: &Rocks, group: GroupId) -> usize {
    let (mut walk, mut all) = (Walk::default(), 0);
    loop {
        match rocks.reseal_step(group, &mut walk).unwrap() {
            Step::Walked { resealed } => all += resealed,
            Step::Busy => {}
            Step::Finished => return all,
        }
    }
}

fn unused(rocks: &Rocks, group: GroupId) -> Unused {
    match rocks.older_records(group).unwrap() {
        Named::ByNone(unused) => unused,
        Named::By(records) => panic!("{records} records"),
    }
}

fn versions(rocks: &Rocks, group: GroupId) -> Vec<u32> {
    rocks.inner.keyring.keys().versions(group).collect()
}

#[test]
fn every_record_of_the_group_and_no_other_gets_the_new_key() {
    let data = Data::new();
    let rocks = data.open();
    let spaces = [state(A), space(Table::State, A, 7), space(Table::Raft, A, 0)];
    for (i, at) in spaces.into_iter().enumerate() {
        for key in 0..=300_u16 {
            put(&rocks, at, &key.to_be_bytes(), &[u8::try_from(i).unwrap(); 50]);
        }
    }
    put(&rocks, state(B), b"other", b"group");
    assert_eq!(rocks.older_records(A).unwrap(), Named::ByNone(unused(&rocks, A)));
    let old = versions(&rocks, A);
    rocks.rotate_key(A).unwrap();
    assert_eq!(rocks.rotating(), [A]);
    put(&rocks, state(A), b"new", b"sealed with the new key");
    assert_eq!(rocks.older_records(A).unwrap(), Named::By(903));
    assert_eq!(reseal(&rocks, A), 903);
    assert_eq!(reseal(&rocks, A), 0, "a second walk passes over what is done");
    assert_eq!(rocks.destroy_older_keys(&unused(&rocks, A)).unwrap(), 0);
    let new = versions(&rocks, A);
    assert!(new.len() == 1 && new[0] > old[0], "{old:?} {new:?}");
    assert!(rocks.rotating().is_empty());
    drop(rocks);
    let rocks = data.open();
    for (i, at) in spaces.into_iter().enumerate() {
        for key in 0..=300_u16 {
            let value = rocks.get(at, &key.to_be_bytes()).unwrap();
            assert_eq!(value, Some(vec![u8::try_from(i).unwrap(); 50]));
        }
    }
    assert_eq!(rocks.get(state(B), b"other").unwrap(), Some(b"group".to_vec()));
}

#[test]
fn a_reader_who_began_before_keeps_the_older_key_alive() {
    let data = Data::new();
    let rocks = data.open();
    put(&rocks, state(A), b"key", b"value");
    let view = rocks.view();
    rocks.rotate_key(A).unwrap();
    reseal(&rocks, A);
    let proof = unused(&rocks, A);
    let after = rocks.view();
    assert_eq!(rocks.destroy_older_keys(&proof).unwrap(), 1, "the view from before");
    assert_eq!(view.get(state(A), b"key").unwrap(), Some(b"value".to_vec()));
    drop(view);
    assert_eq!(rocks.destroy_older_keys(&proof).unwrap(), 0);
    assert_eq!(after.get(state(A), b"key").unwrap(), Some(b"value".to_vec()));
    drop(after);
    // A scan in the middle counts as well.
    rocks.rotate_key(A).unwrap();
    rocks
        .scan(state(A), b"", Bound::Unbounded, &mut |_, _| {
            reseal(&rocks, A);
            assert_eq!(rocks.destroy_older_keys(&unused(&rocks, A)).unwrap(), 1);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rocks.destroy_older_keys(&unused(&rocks, A)).unwrap(), 0);
}

#[test]
fn no_write_is_lost_or_undone_beside_a_rotation() {
    let data = Data::new();
    let rocks = data.open();
    for key in 0..200_u8 {
        put(&rocks, state(A), &[key], &0_u64.to_be_bytes());
    }
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u8)
            .map(|of| {
                let (rocks, stop, writes) = (&rocks, &stop, &writes);
                scope.spawn(move || {
                    let mut last = vec![Some(0_u64); 100];
                    for round in 1_u64.. {
                        for (i, last) in last.iter_mut().enumerate() {
                            let key = [of * 100 + u8::try_from(i).unwrap()];
                            let mut batch = Batch::default();
                            *last = (round % 5 != 4).then_some(round);
                            match *last {
                                Some(value) => batch.put(state(A), key, value.to_be_bytes()),
                                None => batch.delete(state(A), key),
                            }
                            rocks.write(batch, Durability::Buffered).unwrap();
                            writes.fetch_add(1, Ordering::Relaxed);
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    last
                })
            })
            .collect();
        for _ in 0..20 {
            rocks.rotate_key(A).unwrap();
            reseal(&rocks, A);
            let proof = unused(&rocks, A);
            while rocks.destroy_older_keys(&proof).unwrap() > 0 {}
            assert_eq!(versions(&rocks, A).len(), 1);
        }
        stop.store(true, Ordering::Relaxed);
        for (of, writer) in writers.into_iter().enumerate() {
            for (i, last) in writer.join().unwrap().into_iter().enumerate() {
                let key = [u8::try_from(of * 100 + i).unwrap()];
                let found = rocks.get(state(A), &key).unwrap();
                assert_eq!(found, last.map(|value| value.to_be_bytes().to_vec()), "{key:?}");
            }
        }
    });
    assert!(writes.load(Ordering::Relaxed) > 400, "writes went on meanwhile");
}

#[test]
fn a_damaged_record_stops_a_rotation_and_the_older_key_stays() {
    let data = Data::new();
    let rocks = data.open();
    put(&rocks, state(A), b"key", b"value");
    rocks.rotate_key(A).unwrap();
    drop(rocks);
    data.edit(|database| {
        let handle = database.cf_handle("state").unwrap();
        let mut records = database.raw_iterator_cf_opt(&handle, total_order());
        records.seek(A.0.to_be_bytes());
        let (key, mut value) = records.item().map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap();
        *value.last_mut().unwrap() ^= 1;
        database.put_cf(&handle, key, value).unwrap();
    });
    let rocks = data.open();
    let mut walk = Walk::default();
    let error = loop {
        match rocks.reseal_step(A, &mut walk) {
            Ok(Step::Walked { .. } | Step::Busy) => {}
            Ok(Step::Finished) => panic!("it was not found"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(rocks.older_records(A).unwrap(), Named::By(1));
    assert_eq!(versions(&rocks, A).len(), 2);
}

/// An attacker's copy of the store from before a deletion, with the keyring of after it.
#[test]
fn a_copy_of_the_store_does_not_open_with_the_keyring_of_after_a_deletion() {
    let data = Data::new();
    let rocks = data.open();
    put(&rocks, state(A), b"key", b"value");
    put(&rocks, state(B), b"key", b"value");
    rocks.flush().unwrap();
    drop(rocks);
    let before = data.files();
    let rocks = data.open();
    rocks.rotate_key(A).unwrap();
    rocks.destroy_key(A).unwrap();
    rocks.clear_group(A).unwrap();
    drop(rocks);
    let store = data.store();
    std::fs::remove_dir_all(&store).unwrap();
    crate::crypto::make_private_folder(&store).unwrap();
    for (path, content) in before.iter().filter(|(path, _)| path.starts_with(&store)) {
        std::fs::write(path, content).unwrap();
    }
    let rocks = Rocks::open(&data.folder, data.keyring()).unwrap();
    assert_eq!(rocks.get(state(B), b"key").unwrap(), Some(b"value".to_vec()));
    let error = rocks.get(state(A), b"key").unwrap_err();
    assert!(matches!(error, Error::NoKey(A)), "{error}");
    // Nor with a key that is made for the group afterwards.
    rocks.create_key(A).unwrap();
    let error = rocks.get(state(A), b"key").unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
