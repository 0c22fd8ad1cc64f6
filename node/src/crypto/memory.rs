//! What the operating system must do for secrets: no core dumps, no tracing, no swap, nobody else's files.

#![allow(unsafe_code)] // System calls that the standard library does not offer; each one says why it is sound.

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};

use zeroize::Zeroize;

/// Keeps the memory of this process from its neighbours: no core dumps, no attaching of debuggers.
///
/// Call it first thing in `main`, before any key is read.
///
/// # Errors
/// The system call that failed; the process works on, less protected.
pub fn harden() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one integer and touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives through the call and is only read.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Pages of their own for keys: locked into memory where the limit allows, left out of dumps, wiped when dropped.
pub struct LockedBytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to this value alone, and are only changed through `&mut self`.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// No memory. A refused lock is only a warning in the log, said once: the limit is `ulimit -l`.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        // SAFETY: a new anonymous mapping; nothing else refers to it.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping above has `len` bytes at `start`; neither call changes its content.
        let locked = unsafe {
            libc::madvise(start, len, libc::MADV_DONTDUMP);
            libc::mlock(start, len) == 0
        };
        if !locked {
            warn_unlocked(&io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, len })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable, initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as `as_slice`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.as_mut_slice().zeroize();
        // SAFETY: the mapping of `zeroed`, unmapped once; this also unlocks it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn warn_unlocked(error: &io::Error) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            %error,
            "the keys in memory cannot be locked and may reach swap; raise the limit of locked memory (ulimit -l)"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn locked_bytes_begin_as_zeros_and_keep_what_is_written() {
        let mut bytes = LockedBytes::zeroed(5_000).unwrap();
        assert!(bytes.as_slice().iter().all(|byte| *byte == 0));
        bytes.as_mut_slice()[4_999] = 7;
        assert_eq!(bytes.as_slice()[4_999], 7);
        assert_eq!(bytes.as_slice().len(), 5_000);
    }

    #[test]
    fn a_hardened_process_leaves_no_core_dump() {
        harden().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}
