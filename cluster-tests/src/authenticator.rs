//! The codes that an authenticator shows (RFC 6238: SHA-1, six digits, 30 seconds).

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};

/// Seconds for which a code holds.
const STEP: i64 = 30;

/// The code of a secret in base32, with or without blanks, for the present step, or for one beside it.
///
/// # Errors
/// The secret is no base32.
pub fn code(secret: &str, offset: i64) -> Result<String> {
    code_of(&data_encoding::BASE32_NOPAD.decode(secret.replace(' ', "").as_bytes())?, offset)
}

/// The same of the secret itself.
///
/// # Errors
/// None that an HMAC key of any length could give.
pub fn code_of(secret: &[u8], offset: i64) -> Result<String> {
    at(secret, time::OffsetDateTime::now_utc().unix_timestamp() / STEP + offset)
}

/// The code of a step (RFC 4226, section 5.3).
fn at(secret: &[u8], step: i64) -> Result<String> {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret)?;
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[19] & 15);
    let four = digest.get(offset..offset + 4).context("a digest of 20 bytes")?;
    Ok(format!("{:06}", (u32::from_be_bytes(four.try_into()?) & 0x7fff_ffff) % 1_000_000))
}

#[cfg(test)]
mod tests {
    /// RFC 6238, appendix B, the last six digits of its eight.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let check = |seconds: i64, expected: &str| {
            assert_eq!(super::at(b"12345678901234567890", seconds / 30).unwrap(), expected);
        };
        check(59, "287082");
        check(1_111_111_109, "081804");
        check(20_000_000_000, "353130");
    }
}
