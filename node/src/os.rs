//! What the operating system says of this process and no library of the standard ones tells.

/// The user that this process acts as.
#[must_use]
#[allow(unsafe_code)]
pub fn effective_user() -> u32 {
    // SAFETY: geteuid has no preconditions, cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}
