//! What the operating system must do for secrets: no core dumps, no tracing, no swap, nobody else's files.
//!
//! ```text
//! LockedBytes:  guard page │ pages with the bytes: locked, not dumped, not forked, wiped when dropped │ guard page
//! Slot:         32 bytes of a LockedBytes that 128 keys share
//! ```
//!
//! What is locked counts against the limit of the process (`ulimit -l`); [`Protection`] tells how far that goes.

#![allow(unsafe_code)] // System calls that the standard library does not offer; each one says why it is sound.

use std::{
    alloc::{Layout, handle_alloc_error},
    fmt, io,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
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

/// How the memory of this process is protected at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Bytes of keys that are locked into memory, in whole pages.
    pub locked_bytes: u64,
    /// Bytes of keys that should be.
    pub held_bytes: u64,
    /// The limit of locked memory; `None`: unlimited.
    pub limit_bytes: Option<u64>,
    /// No core dump is written.
    pub core_dumps_off: bool,
    /// No process of the same user can attach to this one, or read its memory.
    pub dumpable_off: bool,
}

impl Protection {
    /// As the operating system tells.
    #[must_use]
    pub fn now() -> Self {
        Self {
            locked_bytes: LOCKED_BYTES.load(Ordering::Relaxed),
            held_bytes: HELD_BYTES.load(Ordering::Relaxed),
            limit_bytes: limit(libc::RLIMIT_MEMLOCK),
            core_dumps_off: limit(libc::RLIMIT_CORE) == Some(0),
            // SAFETY: PR_GET_DUMPABLE takes nothing and touches no memory of ours.
            dumpable_off: unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } == 0,
        }
    }

    /// The limit that would do: all that is held, the keyring twice while it changes, and room for as much again.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        self.held_bytes.saturating_mul(4).max(NEEDED_BYTES_MIN)
    }

    /// Whether every key is locked.
    #[must_use]
    pub fn all_locked(&self) -> bool {
        self.locked_bytes >= self.held_bytes
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (locked, held) = (self.locked_bytes / 1024, self.held_bytes / 1024);
        write!(f, "{locked} of {held} KiB of keys are locked into memory, ")?;
        match self.limit_bytes {
            None => write!(f, "without a limit"),
            Some(limit) => write!(f, "the limit is {} KiB", limit / 1024),
        }?;
        write!(f, " and {} KiB are needed", self.needed_bytes() / 1024)
    }
}

/// A limit lower than this is spoken of, however little is held at a start.
const NEEDED_BYTES_MIN: u64 = 256 * 1024;

static HELD_BYTES: AtomicU64 = AtomicU64::new(0);
static LOCKED_BYTES: AtomicU64 = AtomicU64::new(0);

/// A soft limit of this process; `None`: unlimited, or the system does not tell.
fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call, which fills it.
    let told = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
    (told && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Pages of their own for keys, between two that nobody may touch: locked into memory where the limit allows, left out
/// of dumps and of forked processes, wiped when dropped.
pub struct LockedBytes {
    /// The guard page before the content.
    mapping: NonNull<u8>,
    /// Bytes of the content in whole pages.
    inner_bytes: usize,
    page_bytes: usize,
    len: usize,
    locked: bool,
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
        let page_bytes = page_bytes();
        let inner_bytes = len.max(1).next_multiple_of(page_bytes);
        // SAFETY: a new anonymous mapping; nothing else refers to it.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                inner_bytes + 2 * page_bytes,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast::<u8>());
        let mapping = mapping.ok_or_else(|| io::Error::other("mapped at zero"))?;
        // Dropped from here on if anything fails: it unmaps.
        let mut bytes = Self { mapping, inner_bytes, page_bytes, len: len.max(1), locked: false };
        HELD_BYTES.fetch_add(inner_bytes as u64, Ordering::Relaxed);
        let start = bytes.start().as_ptr().cast::<libc::c_void>();
        // SAFETY: `inner_bytes` at `start` lie within the mapping; none of the calls changes their content.
        unsafe {
            check(libc::mprotect(start, inner_bytes, libc::PROT_READ | libc::PROT_WRITE))?;
            check(libc::madvise(start, inner_bytes, libc::MADV_DONTDUMP))?;
            check(libc::madvise(start, inner_bytes, libc::MADV_DONTFORK))?;
            bytes.locked = libc::mlock(start, inner_bytes) == 0;
        }
        if bytes.locked {
            LOCKED_BYTES.fetch_add(inner_bytes as u64, Ordering::Relaxed);
        } else {
            warn_unlocked(&io::Error::last_os_error());
        }
        Ok(bytes)
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: one page into a mapping that is longer than that.
        unsafe { self.mapping.add(self.page_bytes) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping has `len` readable, initialised bytes here and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as `as_slice`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        // SAFETY: asks whether the pages became readable and writable; `zeroed` drops half-made values.
        let start = self.start().as_ptr().cast::<libc::c_void>();
        let usable = unsafe {
            libc::mprotect(start, self.inner_bytes, libc::PROT_READ | libc::PROT_WRITE) == 0
        };
        if usable {
            self.as_mut_slice().zeroize();
        }
        HELD_BYTES.fetch_sub(self.inner_bytes as u64, Ordering::Relaxed);
        if self.locked {
            LOCKED_BYTES.fetch_sub(self.inner_bytes as u64, Ordering::Relaxed);
        }
        let whole_bytes = self.inner_bytes + 2 * self.page_bytes;
        // SAFETY: the mapping of `zeroed`, unmapped once; this also unlocks it.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), whole_bytes) };
    }
}

fn page_bytes() -> usize {
    // SAFETY: takes an integer and touches no memory of ours.
    let told = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(told).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
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

/// Bytes of a [`Slot`]: one key.
const SLOT_BYTES: usize = 32;
/// Slots of one page of 4 KiB.
const SLOTS: u32 = 128;

/// 32 bytes in locked memory, wiped when dropped. All slots share pages, so that a key costs 32 bytes of the limit.
pub(super) struct Slot {
    bytes: NonNull<[u8; SLOT_BYTES]>,
    page: usize,
    index: u32,
}

// SAFETY: the bytes belong to this value alone, and are only changed through `&mut self`.
unsafe impl Send for Slot {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Slot {}

/// A page of slots; it stays for the life of the process, because slots point into it.
struct Page {
    bytes: LockedBytes,
    taken: u128,
}

static PAGES: Mutex<Vec<Page>> = Mutex::new(Vec::new());

impl Slot {
    /// 32 zero bytes. Ends the process where there is no memory, as any other allocation does.
    pub(super) fn zeroed() -> Self {
        let mut pages = PAGES.lock();
        let with_room = pages.iter().position(|page| page.taken != u128::MAX);
        let page = with_room.unwrap_or_else(|| {
            let bytes = LockedBytes::zeroed(SLOT_BYTES * SLOTS as usize)
                .unwrap_or_else(|_| handle_alloc_error(Layout::new::<[u8; SLOT_BYTES]>()));
            pages.push(Page { bytes, taken: 0 });
            pages.len() - 1
        });
        let of = &mut pages[page];
        let index = of.taken.trailing_ones();
        of.taken |= 1 << index;
        // SAFETY: `index` is below 128 because a bit was free, so the 32 bytes lie within the page, which is never
        // unmapped and whose pages were zeros or wiped by the last owner.
        let bytes = unsafe { of.bytes.start().add(SLOT_BYTES * index as usize).cast() };
        Self { bytes, page, index }
    }

    pub(super) fn bytes(&self) -> &[u8; SLOT_BYTES] {
        // SAFETY: this slot's own bytes, initialised and mapped for the life of the process.
        unsafe { self.bytes.as_ref() }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; SLOT_BYTES] {
        // SAFETY: as `bytes`, and `&mut self` makes this the only reference.
        unsafe { self.bytes.as_mut() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        if let Some(page) = PAGES.lock().get_mut(self.page) {
            page.taken &= !(1 << self.index);
        }
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

    /// The line of permissions and the flags of the mapping that holds `address`.
    fn mapping(address: usize) -> (String, String) {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut header = String::new();
        for line in smaps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) =
                    (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                let here = (from..to).contains(&address);
                header = if here { line.to_owned() } else { String::new() };
            }
            if let (false, Some(flags)) = (header.is_empty(), line.strip_prefix("VmFlags:")) {
                return (header, flags.to_owned());
            }
        }
        (header, String::new())
    }

    #[test]
    fn keys_stand_between_guards_in_pages_that_are_neither_dumped_nor_forked() {
        let bytes = LockedBytes::zeroed(5_000).unwrap();
        let start = bytes.start().as_ptr() as usize;
        let (inner, flags) = mapping(start + 4_999);
        assert!(inner.contains(" rw-p "), "{inner}");
        for flag in ["dd", "dc"] {
            assert!(flags.split(' ').any(|it| it == flag), "no {flag} in {flags}");
        }
        assert_eq!(flags.split(' ').any(|it| it == "lo"), bytes.locked);
        for guard in [start - 1, start + bytes.inner_bytes] {
            let (guard, _) = mapping(guard);
            assert!(guard.contains(" ---p "), "{guard}");
        }
    }

    #[test]
    fn slots_are_apart_and_wiped_and_used_again() {
        let mut slots: Vec<_> = (0..300).map(|_| Slot::zeroed()).collect();
        for (i, slot) in slots.iter_mut().enumerate() {
            assert_eq!(slot.bytes(), &[0; 32], "slot {i}");
            slot.bytes_mut().fill(u8::try_from(i % 255).unwrap() + 1);
        }
        for (i, slot) in slots.iter().enumerate() {
            assert_eq!(slot.bytes(), &[u8::try_from(i % 255).unwrap() + 1; 32], "slot {i}");
        }
        slots.clear();
        let again: Vec<_> = (0..300).map(|_| Slot::zeroed()).collect();
        assert!(again.iter().all(|slot| slot.bytes() == &[0; 32]));
    }

    #[test]
    fn what_is_held_is_counted() {
        let bytes = LockedBytes::zeroed(100_000).unwrap();
        let now = Protection::now();
        assert!(now.held_bytes >= 100_000 && now.needed_bytes() > now.held_bytes, "{now:?}");
        assert_eq!(now.locked_bytes >= 100_000, bytes.locked || now.locked_bytes >= 100_000);
        let limited = Protection {
            locked_bytes: 4_096,
            held_bytes: 1_048_576,
            limit_bytes: Some(65_536),
            ..now
        };
        assert!(!limited.all_locked());
        let said = limited.to_string();
        for part in ["4 of 1024 KiB", "limit is 64 KiB", "4096 KiB are needed"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_hardened_process_leaves_no_core_dump() {
        harden().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        let now = Protection::now();
        assert!(now.core_dumps_off && now.dumpable_off, "{now:?}");
    }
}
