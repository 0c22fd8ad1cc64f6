//! Fault points: places where a test ends, fails or holds a node, before or after something that must not be half done.
//!
//! `FAILPOINTS` says what happens where, in the words of the crate `fail`:
//! `FAILPOINTS="log-append-after=3*off->return(kill);purge-before=sleep(50)"`. What `return(...)` means here:
//!
//! | action | effect |
//! | --- | --- |
//! | `return(kill)` | the process ends like after `kill -9`: no destructor runs, nothing is flushed |
//! | `return(eio)`, `return(enospc)` | the step fails with that error of the operating system |
//! | `return` | the step fails with an error without a number |
//!
//! `panic`, `sleep(ms)`, `delay(ms)`, `pause` and `off` are the crate's own. Without the cargo feature `fault-points` a
//! point is the constant `Ok(())`, and a release build with the feature does not compile.

use std::io;

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("fault points are for tests: build without the feature `fault-points`");

/// What a test may set, so that a typing error is found and not taken for a fault that was survived.
pub const NAMES: &[&str] = &[
    // A group's vote, on its way to the disk.
    "vote-save-before",
    "vote-save-after",
    // Entries: before they are queued, and once they are synced but the sentinel does not know.
    "log-append-before",
    "log-append-after",
    // Synced and in the sentinel; openraft is about to hear of it, or has heard.
    "flush-callback-before",
    "flush-callback-after",
    // A run of committed entries: nothing of it is written; written, shown and answered.
    "apply-before",
    "apply-after",
    "snapshot-build-before",
    "snapshot-build-after",
    // The first chunk is about to be sent; the trailer was sent.
    "snapshot-send-before",
    "snapshot-send-after",
    // A chunk arrived and is about to be stored; is stored.
    "snapshot-receive-before",
    "snapshot-receive-after",
    // The batch that makes the received state the current one.
    "snapshot-install-before",
    "snapshot-install-after",
    "purge-before",
    "purge-after",
    // The batch of a run of the cluster group.
    "registry-write-before",
    "registry-write-after",
    "keyring-write-before",
    "keyring-write-after",
    "sentinel-write-before",
    "sentinel-write-after",
    // Every write of the engine, whatever it is for.
    "store-write-before",
    "store-write-after",
];

/// Whether [`NAMES`] has a name; for the compiler.
#[must_use]
pub const fn is_known(name: &str) -> bool {
    let mut at = 0;
    while at < NAMES.len() {
        if equal(NAMES[at].as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Stands where a test may step in: `fault_point!("apply-before")?`. Gives an `io::Result<()>`.
macro_rules! fault_point {
    ($name:literal) => {{
        const _: () = assert!($crate::fault::is_known($name), "not in fault::NAMES");
        $crate::fault::reached($name)
    }};
}
pub(crate) use fault_point;

/// Does what `FAILPOINTS` asks for at this point.
///
/// # Errors
/// The one that was asked for.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub const fn reached(_name: &'static str) -> io::Result<()> {
    Ok(())
}

/// Does what `FAILPOINTS` asks for at this point.
///
/// # Errors
/// The one that was asked for.
#[cfg(feature = "fault-points")]
pub fn reached(name: &'static str) -> io::Result<()> {
    fail::fail_point!(name, |action| armed::act(name, action.as_deref()));
    Ok(())
}

/// Takes `FAILPOINTS` from the environment and says so in a warning.
///
/// # Errors
/// A point that does not exist, or an action that is none.
pub fn arm() -> Result<(), String> {
    let Ok(asked) = std::env::var("FAILPOINTS") else { return Ok(()) };
    if cfg!(not(feature = "fault-points")) {
        tracing::warn!("FAILPOINTS is set, but this program was built without fault points");
        return Ok(());
    }
    for point in asked.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, actions) = point.split_once('=').unwrap_or((point, ""));
        if !is_known(name) {
            return Err(format!("FAILPOINTS names `{name}`, which is no fault point"));
        }
        configure(name, actions).map_err(|why| format!("FAILPOINTS, `{name}`: {why}"))?;
    }
    tracing::warn!(points = asked, "FAILPOINTS is set: this node fails where a test asked for it");
    Ok(())
}

#[cfg(feature = "fault-points")]
fn configure(name: &str, actions: &str) -> Result<(), String> {
    fail::cfg(name, actions)
}

#[cfg(not(feature = "fault-points"))]
fn configure(_: &str, _: &str) -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::io;

    pub(super) fn act(name: &str, action: Option<&str>) -> io::Result<()> {
        match action {
            Some("kill") => end_at_once(),
            Some("eio") => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some("enospc") => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => Err(io::Error::other(format!("the fault point {name} was asked to fail"))),
        }
    }

    /// As the kernel ends a process on SIGKILL: nothing of it runs any more.
    fn end_at_once() -> ! {
        let own = rustix::process::getpid();
        // Where the signal could not be sent, aborting is the nearest that there is.
        let _sent = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        std::process::abort()
    }
}

#[cfg(all(test, feature = "fault-points"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn a_point_does_what_was_asked_for_and_nothing_else() {
        assert!(fault_point!("apply-before").is_ok());
        fail::cfg("apply-before", "1*return(eio)->1*return(enospc)->1*return->off").unwrap();
        let numbers = [Some(libc::EIO), Some(libc::ENOSPC), None];
        for number in numbers {
            assert_eq!(fault_point!("apply-before").unwrap_err().raw_os_error(), number);
        }
        assert!(fault_point!("apply-before").is_ok());
        assert!(fault_point!("apply-after").is_ok());
    }
}
