//! Time, as a value that is handed in: the wall clock for dates, the boot clock for leases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::names::Timestamp;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may jump; nothing but dates may depend on it.
    fn wall(&self) -> Timestamp;
    /// Time since boot, suspended time included (`CLOCK_BOOTTIME`); for leases.
    fn boot(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // The one place that reads the wall clock.
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[allow(unsafe_code)]
    fn boot(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec that the call only writes.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        if status != 0 {
            return Duration::ZERO;
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }
}
