//! What is asked of the operating system and no standard library does: who this process is, and secrets from commands and people.

pub mod command;
pub mod terminal;

/// The user that this process acts as.
#[must_use]
#[allow(unsafe_code)]
pub fn effective_user() -> u32 {
    // SAFETY: geteuid has no preconditions, cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}
