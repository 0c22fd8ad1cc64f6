//! The key of the engine's files: which file names which version, and how all come to name the newest.
//!
//! New files take the newest key. Tables are written anew by a compaction of everything, write-ahead logs by a flush; the
//! manifest, the options and the identity are written anew only when the store is opened. So a rotation is complete after
//! the next start, and [`Rocks::retire_file_keys`] destroys the older key when no file names it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rocksdb::{BottommostLevelCompaction, CompactOptions, WaitForCompactOptions};

use super::{Rocks, TABLES, column_family, engine, file_error};
use crate::{
    crypto::{FILE_HEADER_BYTES, FileCipher},
    storage::Result,
};

/// How many files of the store name each version of the file key; those that name none (empty, or being made) do not
/// count.
pub type FilesByKey = BTreeMap<u32, u64>;

impl Rocks {
    /// Makes a new key for files; every file that is made after this takes it.
    ///
    /// # Errors
    /// [`crate::storage::Error::Folder`] where the keyring cannot be written.
    pub fn rotate_file_key(&self) -> Result<()> {
        Ok(self.inner.keyring.rotate_files()?)
    }

    /// Writes logs and tables anew, so that they take the newest key. Takes as long as reading and writing the whole
    /// store.
    ///
    /// # Errors
    /// [`crate::storage::Error::Engine`].
    pub fn rewrite_files(&self) -> Result<()> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        options.set_exclusive_manual_compaction(false);
        for name in ["default"].into_iter().chain(TABLES.map(super::Table::name)) {
            let handle = column_family(&self.inner.database, name)?;
            let all: Option<&[u8]> = None;
            self.inner.database.compact_range_cf_opt(&handle, all, all, &options);
        }
        let wait = self.inner.database.wait_for_compact(&WaitForCompactOptions::default());
        wait.map_err(|error| engine(&error))
    }

    /// Breaks off what is being written anew; nothing is compacted or flushed after this, and the log of the engine has
    /// everything. For the end of the process.
    pub fn stop_compactions(&self) {
        self.inner.database.cancel_all_background_work(false);
    }

    /// How many files name which version of the file key.
    ///
    /// # Errors
    /// [`crate::storage::Error::Engine`] where the folder cannot be read.
    pub fn files_by_key(&self) -> Result<FilesByKey> {
        let mut found = FilesByKey::new();
        for (_, version) in versions(self.inner.database.path())? {
            *found.entry(version).or_default() += 1;
        }
        Ok(found)
    }

    /// Destroys the older keys of files if no file names one; gives how many files do.
    ///
    /// # Errors
    /// As [`Rocks::files_by_key`]; [`crate::storage::Error::Folder`] where the keyring cannot be written.
    pub fn retire_file_keys(&self) -> Result<u64> {
        let newest = self.inner.keyring.keys().file_versions().last().unwrap_or_default();
        let older = self.files_by_key()?.range(..newest).map(|(_, files)| files).sum();
        if older == 0 {
            self.inner.keyring.destroy_older_of_files()?;
        }
        Ok(older)
    }

    /// The versions of the file key that are held, ascending.
    #[must_use]
    pub fn file_key_versions(&self) -> Vec<u32> {
        self.inner.keyring.keys().file_versions().collect()
    }
}

/// Removes what the engine makes anew when it opens, and would otherwise keep under an older key: the identity, which
/// stands in the manifest as well, and options of earlier starts, which nothing reads.
pub(super) fn drop_remade(store: &Path, newest: u32) -> Result<()> {
    for (path, version) in versions(store)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if version < newest && (name == "IDENTITY" || name.starts_with("OPTIONS-")) {
            fs::remove_file(&path)
                .map_err(|error| file_error("cannot be removed", &path, &error))?;
        }
    }
    Ok(())
}

/// The files of a store and the version of the file key that each names.
fn versions(store: &Path) -> Result<Vec<(PathBuf, u32)>> {
    let failed = |error: io::Error| file_error("cannot be listed", store, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(version) = version(&path)? {
            found.push((path, version));
        }
    }
    Ok(found)
}

/// `None` for a file that vanished, or is too short to have a header.
fn version(path: &Path) -> Result<Option<u32>> {
    let failed = |error: io::Error| file_error("cannot be read", path, &error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
    file.take(FILE_HEADER_BYTES as u64).read_to_end(&mut header).map_err(failed)?;
    Ok(FileCipher::key_version(&header))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{
        Arc,
        tests::{A, Data, put, state},
    };
    use crate::storage::Read as _;

    #[test]
    fn after_a_rotation_and_a_restart_no_file_names_the_older_key() {
        let data = Data::new();
        let rocks = data.open();
        let at = state(A);
        for round in 0..20 {
            put(&rocks, at, format!("key {round}").as_bytes(), &[7; 10_000]);
            rocks.flush().unwrap();
        }
        let [old] = rocks.file_key_versions()[..] else { unreachable!("one key") };
        assert_eq!(rocks.retire_file_keys().unwrap(), 0, "there is no older one");
        rocks.rotate_file_key().unwrap();
        let before = rocks.files_by_key().unwrap();
        assert!(before[&old] >= 4, "{before:?}");
        rocks.rewrite_files().unwrap();
        let left = rocks.retire_file_keys().unwrap();
        assert!(
            left > 0 && left < before[&old],
            "{left} of {before:?}: those of the opening are left"
        );
        assert_eq!(rocks.file_key_versions().len(), 2);
        drop(rocks);
        let rocks = data.open();
        assert_eq!(rocks.retire_file_keys().unwrap(), 0, "{:?}", rocks.files_by_key());
        let versions = rocks.file_key_versions();
        assert!(versions.len() == 1 && versions[0] != old, "{versions:?}");
        drop(rocks);
        let rocks = data.open();
        assert_eq!(rocks.get(at, b"key 7").unwrap(), Some(vec![7; 10_000]));
        assert_eq!(Arc::strong_count(&rocks), 1);
    }
}
