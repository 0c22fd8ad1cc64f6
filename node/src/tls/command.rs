//! A certificate and its key from a command.

use std::time::Duration;

use zeroize::Zeroizing;

use super::IdentityError;
use crate::os::command::secret_output;

/// Longest time that the command may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes that are taken of its output.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Runs a command and gives what it prints.
///
/// # Errors
/// It cannot be started, fails, prints more than 64 KiB, or takes longer than 30 s and is ended then.
pub fn run_for_identity(words: &[String]) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let unfit = |from: String, why: String| IdentityError::Unfit { from, why };
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| unfit("tls.certificate_exec".to_owned(), "is empty".to_owned()))?;
    let from = || format!("the command {program}");
    let output =
        secret_output(program, arguments, "certificate command", OUTPUT_BYTES_MAX + 1, TIMEOUT)
            .map_err(|why| unfit(from(), why))?;
    if output.len() > OUTPUT_BYTES_MAX {
        return Err(unfit(from(), format!("prints more than {OUTPUT_BYTES_MAX} bytes")));
    }
    Ok(output)
}
