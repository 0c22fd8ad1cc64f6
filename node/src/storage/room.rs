//! How much room the file system of the data folder has, and the reserve for the day when it has none.
//!
//! A storage that runs into a full disk fails, and a failed storage ends the node. So the room is looked at before
//! anything is written. `<data>/reserve` is a file of allocated blocks that nobody reads; with R bytes of it:
//!
//! | free | level | what is written |
//! | --- | --- | --- |
//! | R/2 and more | [`Level::Enough`] | everything |
//! | less | [`Level::Low`] | votes, heartbeats, what takes rights away, what frees room |
//! | less than R/8 | `Low`; the reserve is given up | the same, with R more bytes of room |
//! | less than R/8 again | [`Level::None`] | votes and heartbeats |
//!
//! The way back needs R/8 more than the way in, and the reserve is restored first, so nothing goes to and fro. Nobody has
//! to start anything anew.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::{Error, Result};
use crate::crypto::sync_folder;

/// The file that keeps room for revocations.
pub const RESERVE_FILE: &str = "reserve";

/// How much may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Votes and heartbeats only: the reserve is used up.
    None,
    /// What takes rights away and what frees room.
    Low,
    /// Everything.
    Enough,
}

impl Level {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Low,
            _ => Self::Enough,
        }
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// How much may be written.
    pub level: Level,
    /// Bytes that the file system would give this process.
    pub free_bytes: u64,
    /// Whether the reserve is held.
    pub reserve_held: bool,
}

/// The room of one data folder.
pub struct Room {
    folder: PathBuf,
    /// R of the module's text; 0: nothing is looked at.
    reserve_bytes: u64,
    /// Whether the reserve is held. Held itself while the file is changed.
    held: Mutex<bool>,
    level: AtomicU8,
    free_bytes: AtomicU64,
    /// Where the free bytes come from.
    probe: Box<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>,
}

impl Room {
    /// Looks at the file system of a data folder, which exists, and takes the reserve where there is room for it.
    ///
    /// # Errors
    /// [`Error::Engine`] where the file system does not answer.
    pub fn open(folder: &Path, reserve_bytes: u64) -> Result<Self> {
        Self::with_probe(folder, reserve_bytes, Box::new(free_bytes))
    }

    /// Room without end, for folders that nobody watches.
    #[must_use]
    pub fn unwatched() -> Self {
        Self {
            folder: PathBuf::new(),
            reserve_bytes: 0,
            held: Mutex::new(false),
            level: AtomicU8::new(Level::Enough as u8),
            free_bytes: AtomicU64::new(u64::MAX),
            probe: Box::new(|_| Ok(u64::MAX)),
        }
    }

    fn with_probe(
        folder: &Path,
        reserve_bytes: u64,
        probe: Box<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>,
    ) -> Result<Self> {
        let path = folder.join(RESERVE_FILE);
        let held = is_allocated(&path, reserve_bytes).map_err(|error| failed(&path, &error))?;
        if !held {
            remove(&path).map_err(|error| failed(&path, &error))?;
        }
        let room = Self {
            folder: folder.to_owned(),
            reserve_bytes,
            held: Mutex::new(held),
            level: AtomicU8::new(Level::Enough as u8),
            free_bytes: AtomicU64::new(0),
            probe,
        };
        room.look()?;
        Ok(room)
    }

    /// What the last look found.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::of(self.level.load(Ordering::Acquire))
    }

    /// The free bytes of the last look.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Free bytes below which only what takes rights away is written.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        self.reserve_bytes / 2
    }

    /// Whether the reserve is held.
    #[must_use]
    pub fn reserve_held(&self) -> bool {
        self.reserve_bytes == 0 || *self.held.lock()
    }

    /// Looks, gives the reserve up or takes it back, and says so where the level changed.
    ///
    /// # Errors
    /// [`Error::Engine`] where the file system does not answer.
    pub fn look(&self) -> Result<Look> {
        if self.reserve_bytes == 0 {
            let level = Level::Enough;
            return Ok(Look { level, free_bytes: u64::MAX, reserve_held: false });
        }
        let mut held = self.held.lock();
        let mut free = self.free()?;
        let margin = self.reserve_bytes / 8;
        if *held && free < margin {
            remove(&self.path()).map_err(|error| failed(&self.path(), &error))?;
            *held = false;
            free = self.free()?;
            tracing::warn!(
                free_bytes = free,
                reserve_bytes = self.reserve_bytes,
                "the file system of the data folder is full: its reserve is given up for revocations"
            );
        } else if !*held && free >= self.reserve_bytes + self.needed_bytes() + margin {
            match allocate(&self.path(), self.reserve_bytes) {
                Ok(()) => {
                    *held = true;
                    tracing::info!(reserve_bytes = self.reserve_bytes, "the reserve is held");
                }
                // Somebody else took the room in between; the next look tries again.
                Err(error) => {
                    tracing::warn!(%error, "the reserve cannot be restored yet");
                    remove(&self.path()).map_err(|error| failed(&self.path(), &error))?;
                }
            }
            free = self.free()?;
        }
        let level = self.judge(free, *held);
        self.free_bytes.store(free, Ordering::Relaxed);
        let before = Level::of(self.level.swap(level as u8, Ordering::AcqRel));
        drop(held);
        self.tell(before, level, free);
        Ok(Look { level, free_bytes: free, reserve_held: self.reserve_held() })
    }

    /// Gives the reserve up where `bytes` more would not fit; for the moment before a write.
    ///
    /// # Errors
    /// As [`Room::look`].
    pub fn make_room(&self, bytes: usize) -> Result<()> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        // Sealing, keys and the log's own frames: twice the bytes is more than ever goes to the disk for them.
        let wanted = (bytes as u64).saturating_mul(2).max(self.reserve_bytes / 8);
        if self.free()? < wanted {
            self.look()?;
        }
        Ok(())
    }

    fn judge(&self, free: u64, held: bool) -> Level {
        let margin = self.reserve_bytes / 8;
        let before = self.level();
        if !held {
            // A little more is asked for on the way back.
            let least = if before == Level::None { 2 * margin } else { margin };
            return if free >= least { Level::Low } else { Level::None };
        }
        let back = if before == Level::Enough { 0 } else { margin };
        if free >= self.needed_bytes() + back { Level::Enough } else { Level::Low }
    }

    fn tell(&self, before: Level, level: Level, free: u64) {
        let (free_mib, needed_mib) = (free >> 20, self.needed_bytes() >> 20);
        match level {
            _ if before == level => {}
            Level::Enough => tracing::info!(free_mib, "there is room again: writes are taken"),
            Level::Low => tracing::warn!(
                free_mib,
                needed_mib,
                folder = %self.folder.display(),
                "the file system of the data folder is full: writes are refused until there is room again; reads and \
                 revocations go on"
            ),
            Level::None => tracing::error!(
                free_mib,
                folder = %self.folder.display(),
                "the file system of the data folder is full and the reserve used up: revocations are refused too"
            ),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(RESERVE_FILE)
    }

    fn free(&self) -> Result<u64> {
        (self.probe)(&self.folder).map_err(|error| {
            Error::Engine(format!("the room of {} is not known: {error}", self.folder.display()))
        })
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Engine(format!("the reserve {} cannot be changed: {error}", path.display()))
}

/// What the file system gives to whoever is not root.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether the reserve has all its blocks.
fn is_allocated(path: &Path, bytes: u64) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_file() && found.len() == bytes && found.blocks() * 512 >= bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        // A file system that cannot allocate takes zeros.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => fill(&file, bytes)?,
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    sync_folder(folder).map_err(io::Error::other)
}

fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let mut file = file;
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    const MIB: u64 = 1024 * 1024;
    const RESERVE: u64 = 16 * MIB;

    /// A file system of `size` bytes, of which others use some.
    fn room(folder: &Path, size: u64, used: &Arc<AtomicU64>) -> Room {
        let used = used.clone();
        let probe = move |folder: &Path| {
            let reserve = fs::metadata(folder.join(RESERVE_FILE)).map_or(0, |found| found.len());
            Ok(size.saturating_sub(reserve).saturating_sub(used.load(Ordering::Relaxed)))
        };
        Room::with_probe(folder, RESERVE, Box::new(probe)).unwrap()
    }

    #[test]
    fn the_reserve_is_given_up_in_need_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let used = Arc::new(AtomicU64::new(0));
        let room = room(folder.path(), 100 * MIB, &used);
        // Used MiB, then what is expected: the level, and whether the reserve is held.
        let steps = [
            (0, Level::Enough, true),
            (75, Level::Enough, true),
            (77, Level::Low, true), // 7 of 8 MiB
            (75, Level::Low, true), // the way back asks for 2 more
            (74, Level::Enough, true),
            (83, Level::Low, false), // 1 MiB left: the reserve is given up
            (82, Level::Low, false),
            (98, Level::Low, false),
            (99, Level::None, false), // and used up
            (97, Level::None, false),
            (96, Level::Low, false),
            (75, Level::Low, false), // 25 MiB: not enough for the reserve and the writes
            (74, Level::Enough, true),
        ];
        for (step, (mib, level, held)) in steps.into_iter().enumerate() {
            used.store(mib * MIB, Ordering::Relaxed);
            let look = room.look().unwrap();
            assert_eq!((look.level, look.reserve_held), (level, held), "step {step}: {mib} MiB");
            assert_eq!(folder.path().join(RESERVE_FILE).exists(), held, "step {step}");
        }
    }

    #[test]
    fn a_write_that_would_not_fit_finds_the_reserve_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let used = Arc::new(AtomicU64::new(0));
        let room = room(folder.path(), 100 * MIB, &used);
        used.store(83 * MIB, Ordering::Relaxed);
        room.make_room(1).unwrap();
        assert!(!room.reserve_held());
        assert_eq!(room.level(), Level::Low);
    }

    #[test]
    fn a_reserve_without_its_blocks_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RESERVE_FILE);
        File::create(&path).unwrap().set_len(RESERVE).unwrap();
        let room = Room::open(folder.path(), RESERVE).unwrap();
        assert!(room.reserve_held());
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= RESERVE);
    }
}
