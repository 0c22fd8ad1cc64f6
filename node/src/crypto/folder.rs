//! The data folder: private, used by one process, and its files replaced whole or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::{Error, Result};

/// The storage engine's folder in the data folder.
pub const STORE_FOLDER: &str = "store";
/// The durable sentinel's folder in the data folder.
pub const SENTINEL_FOLDER: &str = "sentinel";

const LOCK_FILE: &str = "lock";

/// Makes a folder with mode 0700 where there is none, and checks that nobody else can enter it.
///
/// # Errors
/// [`Error::Folder`] where it is no folder, of another user, or open to group or world; [`Error::Io`].
pub fn make_private_folder(path: &Path) -> Result<()> {
    let shown = path.display();
    let failed = || Error::io(format!("the folder {shown} cannot be used"));
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed()(error)),
    }
    let metadata = fs::metadata(path).map_err(failed())?;
    let refuse = |why: String| Err(Error::Folder(why));
    if !metadata.is_dir() {
        return refuse(format!("{shown} is not a folder"));
    }
    if metadata.uid() != crate::os::effective_user() {
        return refuse(format!("{shown} belongs to another user (uid {})", metadata.uid()));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        return refuse(format!(
            "{shown} has mode {mode:04o} and lets others in: chmod 0700 {shown}"
        ));
    }
    Ok(())
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_folder(path: &Path) -> Result<()> {
    let failed = || Error::io(format!("the folder {} cannot be synced", path.display()));
    File::open(path).map_err(failed())?.sync_all().map_err(failed())
}

fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Takes the data folder for this process until the file is dropped.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK_FILE);
    let failed = || Error::io(format!("the file {} cannot be locked", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Folder(format!(
            "{} is in use by another process; stop that one first, or give this one its own data folder",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
    }
}

/// Replaces a file by one with this content and mode 0600; after a crash there is the old one or the new one.
///
/// What the old file held is overwritten afterwards as well as a file system lets one: not on a copy-on-write file
/// system, not in the spare blocks of a flash disk.
///
/// # Errors
/// [`Error::Io`]: the old file still stands, or both names may.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let failed = || Error::io(format!("the file {} cannot be replaced", path.display()));
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
        Ok(()) | Err(_) => {}
    }
    let old = OpenOptions::new().write(true).open(path).ok();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed())?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&new, path).map_err(failed())?;
    sync_parent(path)?;
    if let Some(old) = old
        && let Err(error) = wipe(old)
    {
        tracing::warn!(%error, path = %path.display(), "the replaced file could not be overwritten");
    }
    Ok(())
}

fn wipe(mut file: File) -> io::Result<()> {
    let len = file.metadata()?.len();
    file.rewind()?;
    io::copy(&mut io::Read::take(io::repeat(0), len), &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_private_and_an_open_one_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        make_private_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        make_private_folder(&folder).unwrap();
        for mode in [0o750, 0o705, 0o770, 0o701] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let error = make_private_folder(&folder).unwrap_err().to_string();
            assert!(error.contains("chmod 0700"), "{error}");
        }
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make_private_folder(&file).unwrap_err().to_string().contains("not a folder"));
        assert!(make_private_folder(&parent.path().join("no/where")).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.new"), "left over by a crash").unwrap();
        for content in ["one", "longer than one", ""] {
            let before = File::open(&path).ok();
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            if let Some(mut before) = before {
                let mut old = Vec::new();
                io::Read::read_to_end(&mut before, &mut old).unwrap();
                assert!(old.iter().all(|byte| *byte == 0), "the old content was overwritten");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
