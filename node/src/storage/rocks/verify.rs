//! A look at every record of a stopped node: does each open under its key and its place?
//!
//! The store is opened for reading alone, so nothing in it changes, not even a write-ahead log that is replayed. Every
//! file's header is authenticated first; the engine's own checksums find damage in blocks, logs and manifests while they
//! are read; and every record is opened. The report names files, tables, groups and generations, and never a key or a
//! value.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::Path,
    sync::Arc,
};

use rocksdb::{BoundColumnFamily, DB};

use super::{
    PREFIX_BYTES, TABLES, column_family, database_options, env, family_options, file_error, place,
    total_order,
};
use crate::{
    crypto::{FILE_HEADER_BYTES, FileCipher, Keyring, STORE_FOLDER},
    limits,
    names::GroupId,
    storage::{Error, Result, Space, Table, sentinel},
};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A file, or a table with group and generation.
    pub place: String,
    /// Which check failed; no content.
    pub why: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// Files of the store whose headers were looked at.
    pub files: u64,
    /// Records that opened, a table and group each.
    pub records: BTreeMap<(&'static str, GroupId), u64>,
    /// Everything that did not.
    pub failures: u64,
    /// The first of them.
    pub listed: Vec<Failure>,
}

impl Verified {
    /// Adds what somebody else found wrong.
    pub fn fail(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.failures += 1;
        if self.listed.len() < limits::VERIFY_FAILURES_MAX {
            self.listed.push(Failure { place: place.into(), why: why.into() });
        }
    }
}

/// Authenticates everything in the store and the sentinel of a data folder, whose keyring this is. Changes nothing.
///
/// # Errors
/// [`Error::Engine`] where the folder cannot be read at all; what is wrong with its content stands in the report.
pub fn verify(folder: &Path, keyring: &Arc<Keyring>) -> Result<Verified> {
    let mut found = Verified::default();
    if let Err(error) = sentinel::verify(folder, keyring) {
        found.fail("sentinel", error.to_string());
    }
    let store = folder.join(STORE_FOLDER);
    let cipher = FileCipher::new(Arc::clone(keyring));
    verify_headers(&store, &cipher, &mut found)?;
    match open(&store, cipher) {
        Ok(database) => {
            for table in TABLES {
                verify_table(&database, table, keyring, &mut found)?;
            }
        }
        Err(error) => found.fail(STORE_FOLDER, error.to_string()),
    }
    Ok(found)
}

fn open(store: &Path, cipher: FileCipher) -> Result<DB> {
    let env = env::encrypting(cipher);
    let options = database_options(&env, false)?;
    let cache = rocksdb::Cache::new_lru_cache(super::BLOCK_CACHE_BYTES);
    let families = ["default"]
        .into_iter()
        .chain(TABLES.map(Table::name))
        .map(|name| rocksdb::ColumnFamilyDescriptor::new(name, family_options(&env, &cache)));
    DB::open_cf_descriptors_read_only(&options, store, families.collect::<Vec<_>>(), false)
        .map_err(|error| Error::Engine(format!("it cannot be opened: {error}")))
}

/// The header of every file; an empty file, or one that was never written, has none yet.
fn verify_headers(store: &Path, cipher: &FileCipher, found: &mut Verified) -> Result<()> {
    let failed = |error: std::io::Error| file_error("cannot be listed", store, &error);
    for entry in fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
        let read = File::open(&path)
            .and_then(|file| file.take(FILE_HEADER_BYTES as u64).read_to_end(&mut header));
        found.files += 1;
        match read {
            Err(error) => found.fail(format!("{STORE_FOLDER}/{name}"), error.to_string()),
            Ok(_) if name == "LOCK" || header.iter().all(|byte| *byte == 0) => {}
            Ok(_) => {
                if let Err(error) = cipher.open(&header) {
                    found.fail(format!("{STORE_FOLDER}/{name}"), error.to_string());
                }
            }
        }
    }
    Ok(())
}

fn verify_table(
    database: &DB,
    table: Table,
    keyring: &Keyring,
    found: &mut Verified,
) -> Result<()> {
    let handle = column_family(database, table.name())?;
    let begins = beginnings(database, table, found);
    verify_filters(database, &handle, table, &begins, found);
    let mut records = database.raw_iterator_cf_opt(&handle, total_order());
    let mut last = Vec::new();
    records.seek_to_first();
    loop {
        while let Some((key, sealed)) = records.item() {
            verify_record(table, key, sealed, keyring, found);
            last = key.to_vec();
            records.next();
        }
        let Err(error) = records.status() else { return Ok(()) };
        found.fail(format!("table {}", table.name()), error.to_string());
        // Past the damage: on with the next file that begins behind it.
        let Some(next) = begins.iter().find(|begin| **begin > last) else { return Ok(()) };
        last = next.clone();
        records = database.raw_iterator_cf_opt(&handle, total_order());
        records.seek(next);
    }
}

/// The first keys of the table's files, ascending.
fn beginnings(database: &DB, table: Table, found: &mut Verified) -> Vec<Vec<u8>> {
    match database.live_files() {
        Ok(files) => {
            let of = files.into_iter().filter(|file| file.column_family_name == table.name());
            let mut begins: Vec<_> = of.filter_map(|file| file.start_key).collect();
            begins.sort();
            begins
        }
        Err(error) => {
            found.fail(format!("table {}", table.name()), error.to_string());
            Vec::new()
        }
    }
}

/// Scans use no filters, lookups do: one in each file.
fn verify_filters(
    database: &DB,
    handle: &Arc<BoundColumnFamily<'_>>,
    table: Table,
    begins: &[Vec<u8>],
    found: &mut Verified,
) {
    for begin in begins {
        if let Err(error) = database.get_pinned_cf(handle, begin) {
            found.fail(format!("table {}, a lookup", table.name()), error.to_string());
        }
    }
}

fn verify_record(table: Table, key: &[u8], sealed: &[u8], keyring: &Keyring, found: &mut Verified) {
    let Some((group, generation)) = prefix_of(key) else {
        return found.fail(format!("table {}", table.name()), "a key is too short");
    };
    let space = Space { table, group, generation };
    match keyring.keys().open(&place(space, key), sealed) {
        Ok(content) => {
            drop(zeroize::Zeroizing::new(content));
            *found.records.entry((table.name(), group)).or_default() += 1;
        }
        Err(error) => {
            let place = format!("table {}, group {group}, generation {generation}", table.name());
            found.fail(place, error.to_string());
        }
    }
}

fn prefix_of(key: &[u8]) -> Option<(GroupId, u32)> {
    let (group, rest) = key.get(..PREFIX_BYTES)?.split_first_chunk::<8>()?;
    let generation = rest.first_chunk::<4>()?;
    Some((GroupId(u64::from_be_bytes(*group)), u32::from_be_bytes(*generation)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::{
        super::tests::{A, B, Data, put, space, state},
        *,
    };
    use crate::storage::Sentinel;

    fn filled() -> Data {
        let data = Data::new();
        let rocks = data.open();
        let (sentinel, _) = Sentinel::open(&data.folder, &data.keyring_of(&rocks)).unwrap();
        sentinel.record_durably([]).unwrap();
        for key in 0..500_u16 {
            put(&rocks, state(A), &key.to_be_bytes(), b"a marked value");
            if key == 250 {
                rocks.flush().unwrap();
            }
        }
        put(&rocks, space(Table::Raft, B, 0), b"key", b"a marked value");
        data
    }

    fn verified(data: &Data) -> Verified {
        verify(&data.folder, &data.keyring()).unwrap()
    }

    #[test]
    fn a_sound_store_is_counted_and_not_changed() {
        let data = filled();
        let before = data.files();
        let found = verified(&data);
        assert_eq!((found.failures, found.listed.len()), (0, 0), "{:?}", found.listed);
        assert_eq!(found.records[&("state", A)], 500);
        assert_eq!(found.records[&("raft", B)], 1);
        assert!(found.files > 4);
        assert_eq!(data.files(), before);
    }

    #[test]
    fn a_flipped_bit_is_found_in_every_kind_of_file() {
        let data = filled();
        let good = data.files();
        let mut kinds = 0;
        for (path, content) in good.iter().filter(|(path, _)| path.starts_with(data.store())) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let kind = ["CURRENT", "MANIFEST", ".log", ".sst"];
            if !kind.iter().any(|kind| name.contains(kind)) || content.len() <= FILE_HEADER_BYTES {
                continue;
            }
            kinds += 1;
            for at in [20, (FILE_HEADER_BYTES + content.len()) / 2] {
                let mut bad = content.clone();
                bad[at] ^= 0x10;
                fs::write(path, bad).unwrap();
                let found = verified(&data);
                assert!(found.failures > 0, "{name} at {at}");
                let listed = format!("{:?}", found.listed);
                assert!(!listed.contains("marked"), "{listed}");
            }
            fs::write(path, content).unwrap();
        }
        assert!(kinds >= 4, "{kinds}");
        assert_eq!(verified(&data).failures, 0);
    }

    #[test]
    fn a_record_in_another_place_is_named_by_table_and_group() {
        let data = filled();
        data.edit(|database| {
            let handle = database.cf_handle("state").unwrap();
            let mut records = database.raw_iterator_cf_opt(&handle, total_order());
            records.seek_to_first();
            let first = records.item().map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap();
            records.next();
            let (second, _) = records.item().unwrap();
            database.put_cf(&handle, second, first.1).unwrap();
        });
        let found = verified(&data);
        assert_eq!(found.failures, 1);
        assert_eq!(found.listed[0].place, format!("table state, group {A}, generation 0"));
        assert_eq!(found.records[&("state", A)], 499);
    }

    #[test]
    fn a_missing_key_and_a_torn_sentinel_are_failures() {
        let data = filled();
        data.keyring().destroy(A).unwrap();
        let found = verified(&data);
        assert_eq!((found.failures, found.listed.len()), (500, limits::VERIFY_FAILURES_MAX));
        for slot in 0..4 {
            let path: PathBuf = data.folder.join("sentinel").join(format!("slot{slot}"));
            fs::write(path, [7; 100]).unwrap();
        }
        let found = verified(&data);
        assert_eq!(found.failures, 501);
        assert_eq!(found.listed[0].place, "sentinel");
    }
}
