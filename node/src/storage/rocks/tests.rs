//! The encrypted store with real files: what it keeps, what it refuses, and that nothing is readable.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

use super::*;
use crate::{crypto::MasterKey, storage::Sentinel};

pub(super) const A: GroupId = GroupId(1);
pub(super) const B: GroupId = GroupId(2);

/// A data folder with its master key, opened and closed as often as a test likes.
pub(super) struct Data {
    _parent: tempfile::TempDir,
    pub(super) folder: PathBuf,
    master: MasterKey,
}

impl Data {
    pub(super) fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        Self { _parent: parent, folder, master: MasterKey::random().unwrap() }
    }

    pub(super) fn keyring(&self) -> Arc<Keyring> {
        Keyring::open(&self.folder, &self.master).unwrap()
    }

    pub(super) fn keyring_of(&self, rocks: &Rocks) -> Arc<Keyring> {
        Arc::clone(&rocks.inner.keyring)
    }

    pub(super) fn open(&self) -> Arc<Rocks> {
        let rocks = Rocks::open(&self.folder, self.keyring()).unwrap();
        rocks.create_key(A).unwrap();
        rocks.create_key(B).unwrap();
        rocks
    }

    fn refused(&self) -> String {
        match Rocks::open(&self.folder, self.keyring()) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.folder.join(STORE_FOLDER)
    }

    /// The engine itself, its files decrypted and the values still sealed.
    pub(super) fn edit(&self, edit: impl FnOnce(&DB)) {
        let env = env::encrypting(FileCipher::new(self.keyring()));
        let database = open_database(&self.store(), &env, false).unwrap();
        edit(&database);
        database.flush_wal(true).unwrap();
    }

    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

pub(super) fn space(table: Table, group: GroupId, generation: u32) -> Space {
    Space { table, group, generation }
}

pub(super) fn state(group: GroupId) -> Space {
    space(Table::State, group, 0)
}

pub(super) fn put(rocks: &Rocks, space: Space, key: &[u8], value: &[u8]) {
    let mut batch = Batch::default();
    batch.put(space, key, value);
    rocks.write(batch, Durability::Synced).unwrap();
}

fn keys(read: &dyn Read, space: Space, from: &[u8], to: Bound<&[u8]>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    read.scan(space, from, to, &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

fn all(read: &dyn Read, space: Space) -> Vec<Vec<u8>> {
    keys(read, space, b"", Bound::Unbounded)
}

#[test]
fn what_is_written_is_read_after_restarts_with_and_without_a_flush() {
    let data = Data::new();
    for round in 0..4_u8 {
        let rocks = data.open();
        for before in 0..round {
            assert_eq!(rocks.get(state(A), &[before]).unwrap(), Some(vec![before; 100]));
        }
        put(&rocks, state(A), &[round], &[round; 100]);
        put(&rocks, space(Table::Node, GroupId::CLUSTER, 0), b"round", &[round]);
        let mut batch = Batch::default();
        batch.put(space(Table::Raft, A, 0), b"gone", b"");
        batch.delete(space(Table::Raft, A, 0), b"gone");
        batch.put(space(Table::Raft, A, 0), b"empty", b"");
        rocks.write(batch, Durability::Buffered).unwrap();
        if round % 2 == 0 {
            rocks.flush().unwrap();
        }
    }
    let rocks = data.open();
    let node = space(Table::Node, GroupId::CLUSTER, 0);
    assert_eq!(rocks.get(node, b"round").unwrap(), Some(vec![3]));
    assert_eq!(rocks.get(space(Table::Raft, A, 0), b"empty").unwrap(), Some(vec![]));
    assert_eq!(rocks.get(space(Table::Raft, A, 0), b"gone").unwrap(), None);
    assert_eq!(all(&*rocks, state(A)).len(), 4);
    assert!(!rocks.inner.failed.load(Ordering::Acquire));
}

#[test]
fn a_scan_never_leaves_its_space() {
    let data = Data::new();
    let rocks = data.open();
    let spaces = [
        space(Table::State, A, 0),
        space(Table::State, A, 1),
        space(Table::State, A, u32::MAX),
        space(Table::State, B, 0),
        space(Table::Raft, A, 0),
    ];
    for flushed in [false, true] {
        for space in spaces {
            for key in [b"".as_slice(), b"a", b"a\0", b"b", b"\xff\xff", b"\xff\xff\xff"] {
                put(&rocks, space, key, &[u8::from(flushed)]);
            }
        }
        for space in spaces {
            assert_eq!(all(&*rocks, space).len(), 6, "{space:?}");
            let rows: [(&[u8], Bound<&[u8]>, &[&[u8]]); 8] = [
                (b"a", Bound::Excluded(b"b"), &[b"a", b"a\0"]),
                (b"a", Bound::Included(b"a"), &[b"a"]),
                (b"a", Bound::Included(b"b"), &[b"a", b"a\0", b"b"]),
                (b"a\0\0", Bound::Unbounded, &[b"b", b"\xff\xff", b"\xff\xff\xff"]),
                (b"b", Bound::Excluded(b"a"), &[]),
                (b"a", Bound::Excluded(b"a"), &[]),
                (b"\xff\xff\xff\xff", Bound::Unbounded, &[]),
                (b"", Bound::Included(b""), &[b""]),
            ];
            for (from, to, expected) in rows {
                assert_eq!(keys(&*rocks, space, from, to), expected, "{from:?} {to:?}");
            }
            let (key, value) = rocks.last(space).unwrap().unwrap();
            assert_eq!(
                (key.as_slice(), value),
                (b"\xff\xff\xff".as_slice(), vec![u8::from(flushed)])
            );
        }
        assert_eq!(rocks.last(space(Table::State, A, 7)).unwrap(), None);
        assert_eq!(all(&*rocks, space(Table::State, A, 7)), Vec::<Vec<u8>>::new());
        rocks.flush().unwrap();
    }
    let mut visited = 0;
    rocks
        .scan(state(A), b"", Bound::Unbounded, &mut |_, _| {
            visited += 1;
            if visited == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(visited, 2);
}

#[test]
fn a_range_delete_stays_within_its_space() {
    let data = Data::new();
    let rocks = data.open();
    let generations = [0, 1, 2].map(|generation| space(Table::State, A, generation));
    for space in generations {
        for key in 0..10 {
            put(&rocks, space, &[key], b"x");
        }
    }
    let mut batch = Batch::default();
    batch.delete_range(generations[0], [3], Some(vec![5]));
    batch.delete_range(generations[1], [], None);
    batch.delete_range(generations[2], [5], Some(vec![2]));
    batch.put(generations[1], [9], b"after the delete");
    rocks.write(batch, Durability::Synced).unwrap();
    for _ in 0..2 {
        assert_eq!(all(&*rocks, generations[0]).len(), 8);
        assert_eq!(all(&*rocks, generations[1]), [[9]]);
        assert_eq!(all(&*rocks, generations[2]).len(), 10);
        rocks.flush().unwrap();
        rocks.compact(generations[1]).unwrap();
    }
}

#[test]
fn a_view_does_not_change_and_outlives_the_store() {
    let data = Data::new();
    let rocks = data.open();
    put(&rocks, state(A), b"key", b"old");
    let view = rocks.view();
    put(&rocks, state(A), b"key", b"new");
    put(&rocks, state(A), b"more", b"new");
    let mut batch = Batch::default();
    batch.delete_range(state(A), [], None);
    rocks.write(batch, Durability::Synced).unwrap();
    rocks.flush().unwrap();
    drop(rocks);
    assert_eq!(view.get(state(A), b"key").unwrap(), Some(b"old".to_vec()));
    assert_eq!(all(&*view, state(A)), [b"key"]);
    assert_eq!(view.last(state(A)).unwrap(), Some((b"key".to_vec(), b"old".to_vec())));
    drop(view);
    assert_eq!(all(&*data.open(), state(A)), Vec::<Vec<u8>>::new());
}

#[test]
fn another_master_key_is_refused_and_no_byte_changes() {
    let data = Data::new();
    put(&data.open(), state(A), b"key", b"value");
    let before = data.files();
    let wrong = MasterKey::random().unwrap();
    let Err(error) = Keyring::open(&data.folder, &wrong) else { panic!("opened") };
    assert!(error.to_string().contains(&data.master.id().to_string()), "{error}");
    assert_eq!(data.files(), before);
}

#[test]
fn a_missing_keyring_is_never_replaced_over_data() {
    let data = Data::new();
    put(&data.open(), state(A), b"key", b"value");
    fs::remove_file(data.folder.join(crypto::KEYRING_FILE)).unwrap();
    let before = data.files();
    let Err(error) = Keyring::open(&data.folder, &data.master) else { panic!("opened") };
    assert!(matches!(error, crypto::Error::KeyringMissing { .. }), "{error}");
    assert_eq!(data.files(), before);
}

#[test]
fn the_keyring_of_another_folder_is_refused_by_its_file_key() {
    let (data, other) = (Data::new(), Data::new());
    put(&data.open(), state(A), b"key", b"value");
    drop(other.keyring());
    let keyring = Keyring::open(&other.folder, &other.master).unwrap();
    let Err(error) = Rocks::open(&data.folder, keyring) else { panic!("opened") };
    assert!(error.to_string().contains("file key"), "{error}");
}

#[test]
fn a_store_that_is_gone_is_not_made_anew() {
    let data = Data::new();
    drop(data.open());
    fs::remove_dir_all(data.store()).unwrap();
    drop(data.open());
    let (sentinel, recorded) = Sentinel::open(&data.folder, &data.keyring()).unwrap();
    assert_eq!(recorded, None);
    sentinel.forget(A).unwrap();
    drop(sentinel);
    drop(data.open());
    fs::remove_dir_all(data.store()).unwrap();
    assert!(data.refused().contains("is gone"));
}

#[test]
fn a_store_without_its_newest_log_is_refused() {
    let data = Data::new();
    copy_while_open(&data, hundred);
    fs::remove_file(newest_log(&data.store()).unwrap().unwrap()).unwrap();
    let error = data.refused();
    assert!(error.contains("orruption"), "{error}");
}

#[test]
fn a_first_start_that_was_cut_short_is_repeated() {
    let data = Data::new();
    drop(data.keyring());
    fs::create_dir(data.folder.join("store.new")).unwrap();
    fs::write(data.folder.join("store.new/000004.log"), b"half").unwrap();
    put(&data.open(), state(A), b"key", b"value");
    assert!(!data.folder.join("store.new").exists());
}

#[test]
fn folders_that_others_may_enter_are_refused() {
    let data = Data::new();
    put(&data.open(), state(A), b"key", b"value");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(data.store(), open).unwrap();
    assert!(data.refused().contains("chmod 0700"));
}

#[test]
fn a_changed_swapped_or_moved_record_is_never_an_answer() {
    let data = Data::new();
    let rocks = data.open();
    for group in [A, B] {
        for (key, value) in [(b"one", b"first"), (b"two", b"other")] {
            put(&rocks, state(group), key, value);
        }
        put(&rocks, space(Table::State, group, 1), b"one", b"first");
        put(&rocks, space(Table::Raft, group, 0), b"one", b"first");
    }
    drop(rocks);
    let raw = |database: &DB, space: Space, key: &[u8]| {
        let handle = database.cf_handle(space.table.name()).unwrap();
        database.get_cf(&handle, full_key(space, key)).unwrap().unwrap()
    };
    let set = |database: &DB, space: Space, key: &[u8], value: &[u8]| {
        let handle = database.cf_handle(space.table.name()).unwrap();
        database.put_cf(&handle, full_key(space, key), value).unwrap();
    };
    let damages: [(&str, &dyn Fn(&DB) -> Vec<u8>); 9] = [
        ("flipped bit", &|database| {
            let mut value = raw(database, state(A), b"one");
            value[40] ^= 1;
            value
        }),
        ("other key", &|database| raw(database, state(A), b"two")),
        ("other group", &|database| raw(database, state(B), b"one")),
        ("other generation", &|database| raw(database, space(Table::State, A, 1), b"one")),
        ("other table", &|database| raw(database, space(Table::Raft, A, 0), b"one")),
        ("cut", &|database| raw(database, state(A), b"one")[..44].to_vec()),
        ("unknown version", &|database| {
            let mut value = raw(database, state(A), b"one");
            value[0] = 2;
            value
        }),
        ("unknown key version", &|database| {
            let mut value = raw(database, state(A), b"one");
            value[4] = 99;
            value
        }),
        ("plain", &|_| b"first".to_vec()),
    ];
    let mut good = Vec::new();
    data.edit(|database| good = raw(database, state(A), b"one"));
    for (what, damage) in damages {
        data.edit(|database| set(database, state(A), b"one", &damage(database)));
        let rocks = data.open();
        let corrupt = |result: Result<()>| {
            assert!(
                matches!(result, Err(Error::Corrupt { space, .. }) if space == state(A)),
                "{what}: {result:?}"
            );
        };
        corrupt(rocks.get(state(A), b"one").map(drop));
        corrupt(rocks.view().get(state(A), b"one").map(drop));
        corrupt(rocks.scan(state(A), b"", Bound::Unbounded, &mut |_, _| ControlFlow::Continue(())));
        assert_eq!(rocks.get(state(A), b"two").unwrap(), Some(b"other".to_vec()), "{what}");
    }
    data.edit(|database| set(database, state(A), b"one", &good));
    assert_eq!(data.open().get(state(A), b"one").unwrap(), Some(b"first".to_vec()));
}

#[test]
fn a_destroyed_key_shreds_its_group_only() {
    let data = Data::new();
    let rocks = data.open();
    put(&rocks, state(A), b"key", b"value");
    put(&rocks, state(B), b"key", b"value");
    rocks.destroy_key(A).unwrap();
    let no_key = |result: Result<()>| assert!(matches!(result, Err(Error::NoKey(A))), "{result:?}");
    no_key(rocks.get(state(A), b"key").map(drop));
    no_key(rocks.last(state(A)).map(drop));
    let mut batch = Batch::default();
    batch.put(state(B), *b"other", b"value");
    batch.put(state(A), *b"key", b"value");
    no_key(rocks.write(batch, Durability::Synced));
    assert_eq!(rocks.get(state(B), b"other").unwrap(), None, "nothing of the batch was written");
    let mut batch = Batch::default();
    batch.delete_range(state(A), [], None);
    rocks.write(batch, Durability::Synced).unwrap();
    assert_eq!(rocks.get(state(A), b"key").unwrap(), None);
    assert_eq!(rocks.get(state(B), b"key").unwrap(), Some(b"value".to_vec()));
}

#[test]
fn no_file_holds_a_word_of_what_was_stored() {
    let data = Data::new();
    let rocks = data.open();
    let hex_key = |i: usize| format!("PLANTED-KEY-{i:06}");
    for chunk in (0..10_000).collect::<Vec<_>>().chunks(500) {
        let mut batch = Batch::default();
        for i in chunk {
            let value = format!("PLANTED-VALUE-{i:06}-{}", "SECRET".repeat(8));
            batch.put(state(A), hex_key(*i), value);
        }
        rocks.write(batch, Durability::Synced).unwrap();
    }
    rocks.flush().unwrap();
    rocks.compact(state(A)).unwrap();
    put(&rocks, state(A), b"PLANTED-KEY-in-the-log", b"PLANTED-VALUE-in-the-log");
    drop(rocks);
    let rocks = data.open();
    put(&rocks, state(A), b"PLANTED-KEY-later", b"PLANTED-VALUE-later");
    assert_eq!(all(&*rocks, state(A)).len(), 10_002);
    let words = [
        "PLANTED",
        "SECRET",
        "leveldb",
        "rocksdb",
        "BytewiseComparator",
        "MANIFEST-0",
        "write_buffer",
    ];
    let mut kinds = std::collections::BTreeSet::new();
    for (path, content) in data.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        for word in words {
            let found = content.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} stands in {}", path.display());
        }
        assert!(!name.starts_with("LOG"), "the engine's own log is on the disk: {name}");
        kinds.insert(name.trim_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned());
    }
    let expected = ["", ".log", ".sst", "CURRENT", "IDENTITY", "LOCK", "MANIFEST", "OPTIONS"];
    for kind in &expected[1..] {
        assert!(kinds.contains(*kind), "no file of kind {kind}: {kinds:?}");
    }
}

/// Copies the store while it is open: what a `kill -9` would leave.
fn copy_while_open(data: &Data, write: impl FnOnce(&Rocks)) {
    let rocks = data.open();
    write(&rocks);
    let killed = data.folder.join("killed");
    fs::create_dir(&killed).unwrap();
    for entry in fs::read_dir(data.store()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), killed.join(entry.file_name())).unwrap();
    }
    drop(rocks);
    fs::remove_dir_all(data.store()).unwrap();
    fs::rename(killed, data.store()).unwrap();
    fs::set_permissions(data.store(), fs::Permissions::from_mode(0o700)).unwrap();
}

fn hundred(rocks: &Rocks) {
    for i in 0..100_u8 {
        put(rocks, state(A), &[i], &[i; 300]);
    }
}

#[test]
fn a_killed_store_opens_with_all_that_was_synced() {
    let data = Data::new();
    copy_while_open(&data, hundred);
    assert_eq!(all(&*data.open(), state(A)).len(), 100);
    copy_while_open(&data, |rocks| put(rocks, state(A), b"more", b""));
    assert_eq!(all(&*data.open(), state(A)).len(), 101);
}

fn logs(store: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    logs.sort();
    logs
}

/// Writes until the engine begins a second log, and takes the files before it has flushed the first.
fn killed_with_two_logs(data: &Data) -> (usize, BTreeMap<PathBuf, Vec<u8>>) {
    let rocks = data.open();
    let manifest = || {
        let name = fs::read_dir(data.store()).unwrap().map(|entry| entry.unwrap().path());
        name.filter(|path| path.to_str().unwrap().contains("MANIFEST")).max().unwrap()
    };
    let mut records = 0_u64;
    for attempt in 0..50 {
        let (newest, manifest) = (newest_log(&data.store()).unwrap(), manifest());
        let manifest_before = fs::read(&manifest).unwrap();
        while newest_log(&data.store()).unwrap() == newest {
            let mut batch = Batch::default();
            batch.put(state(A), records.to_be_bytes(), vec![7; 65_536]);
            rocks.write(batch, Durability::Buffered).unwrap();
            records += 1;
        }
        // Links first: they keep a log that the engine deletes meanwhile.
        let links = logs(&data.store()).into_iter().map(|log| {
            let link = data.folder.join(format!("{attempt}-{}", log.file_name()?.to_str()?));
            fs::hard_link(&log, &link).ok()?;
            Some((log, link))
        });
        let links: Vec<_> = links.flatten().collect();
        if links.len() == 2 && fs::read(&manifest).unwrap() == manifest_before {
            let mut files = BTreeMap::from([(manifest, manifest_before)]);
            let current = data.store().join("CURRENT");
            files.insert(current.clone(), fs::read(current).unwrap());
            files.extend(links.into_iter().map(|(log, link)| (log, fs::read(link).unwrap())));
            let tables = fs::read_dir(data.store()).unwrap().map(|entry| entry.unwrap().path());
            let tables = tables.filter(|path| path.extension().is_some_and(|e| e == "sst"));
            files.extend(tables.map(|path| (path.clone(), fs::read(path).unwrap())));
            return (usize::try_from(records).unwrap(), files);
        }
    }
    panic!("the engine was always faster");
}

#[test]
fn a_cut_or_missing_log_before_the_newest_is_refused() {
    let data = Data::new();
    let (records, files) = killed_with_two_logs(&data);
    let restore = || {
        fs::remove_dir_all(data.store()).unwrap();
        make_private_folder(&data.store()).unwrap();
        for (path, content) in &files {
            fs::write(path, content).unwrap();
        }
        logs(&data.store()).remove(0)
    };
    restore();
    assert_eq!(all(&*data.open(), state(A)).len(), records);
    fs::remove_file(restore()).unwrap();
    assert!(data.refused().contains("orruption"), "deleted");
    for cut in [1, 100, 65_536, 200_000] {
        let older = OpenOptions::new().write(true).open(restore()).unwrap();
        older.set_len(older.metadata().unwrap().len() - cut).unwrap();
        assert!(data.refused().contains("orruption"), "cut by {cut}");
    }
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_refused() {
    let data = Data::new();
    copy_while_open(&data, hundred);
    let path = newest_log(&data.store()).unwrap().unwrap();
    let good = fs::read(&path).unwrap();
    for at in [FILE_HEADER_BYTES + 1_000, good.len() / 2, good.len() - 2_000] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let error = data.refused();
        assert!(error.contains("orruption"), "{error}");
    }
    for at in [0, 20, 40, 60, 4_000] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let error = data.refused();
        assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(all(&*data.open(), state(A)).len(), 100);
}

#[test]
fn a_torn_end_of_the_log_is_forgiven() {
    let data = Data::new();
    copy_while_open(&data, hundred);
    let path = newest_log(&data.store()).unwrap().unwrap();
    let whole: BTreeMap<_, _> = data.files();
    for torn in [1, 2, 7, 50, 100, 150, 200] {
        fs::remove_dir_all(data.store()).unwrap();
        make_private_folder(&data.store()).unwrap();
        for (path, content) in &whole {
            if path.starts_with(data.store()) {
                fs::write(path, content).unwrap();
            }
        }
        let log = OpenOptions::new().write(true).open(&path).unwrap();
        log.set_len(log.metadata().unwrap().len() - torn).unwrap();
        assert_eq!(all(&*data.open(), state(A)).len(), 99, "torn by {torn}");
    }
}

#[test]
fn a_newest_log_that_was_never_written_is_empty() {
    for content in [vec![], vec![0; 10], vec![7; 4_095], vec![0; 4_096], vec![0; 9_000]] {
        let data = Data::new();
        copy_while_open(&data, |rocks| {
            hundred(rocks);
            rocks.flush().unwrap();
        });
        let path = newest_log(&data.store()).unwrap().unwrap();
        fs::write(&path, &content).unwrap();
        assert_eq!(all(&*data.open(), state(A)).len(), 100, "{} bytes", content.len());
    }
}

#[test]
fn flipped_bits_in_tables_and_the_manifest_are_never_an_answer() {
    let data = Data::new();
    let rocks = data.open();
    hundred(&rocks);
    rocks.flush().unwrap();
    drop(rocks);
    for (path, good) in data.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !(name.ends_with(".sst") || name.starts_with("MANIFEST") || name == "CURRENT") {
            continue;
        }
        let mut wrong = 0;
        let step = (good.len() / 7).max(1);
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 0x04;
            let before = data.files();
            fs::write(&path, &bad).unwrap();
            // Either an error, or exactly what was stored.
            if let Ok(rocks) = Rocks::open(&data.folder, data.keyring()) {
                for i in 0..100_u8 {
                    match rocks.get(state(A), &[i]) {
                        Ok(value) => assert_eq!(value, Some(vec![i; 300]), "{name} at {at}"),
                        Err(_) => wrong += 1,
                    }
                }
            } else {
                wrong += 1;
            }
            for path in data.files().keys().filter(|path| !before.contains_key(*path)) {
                fs::remove_file(path).unwrap();
            }
            for (path, content) in before {
                fs::write(path, content).unwrap();
            }
        }
        assert!(wrong > 0, "no flipped bit of {name} was noticed");
    }
    assert_eq!(all(&*data.open(), state(A)).len(), 100);
}

#[test]
fn the_end_of_the_prefix_space_has_no_successor() {
    assert_eq!(after_prefix(&[u8::MAX; PREFIX_BYTES]), None);
    let mut expected = vec![0; PREFIX_BYTES];
    expected[PREFIX_BYTES - 1] = 1;
    assert_eq!(after_prefix(&[0; PREFIX_BYTES]), Some(expected));
    let all_ones = prefix(space(Table::State, GroupId(5), u32::MAX));
    assert_eq!(after_prefix(&all_ones), Some(vec![0, 0, 0, 0, 0, 0, 0, 6]));
}
