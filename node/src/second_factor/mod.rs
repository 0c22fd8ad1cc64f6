//! One-time passwords for people: codes of an authenticator program, recovery codes, session tokens. Pure.
//!
//! ```text
//! secret (20 random bytes) ── RFC 4226 over T = time / 30 s ──> six digits      (totp)
//! recovery code (80 random bits, base32)  ── SHA-256 ──> digest                 (once each)
//! session token (32 random bytes, hex)    ── SHA-256 ──> digest in the log
//! ```
//!
//! Who counts wrong codes and forbids used ones is the log, not this module: [`crate::cluster`].
//!
//! **Invariant:** no clock and no randomness is read here; time and random bytes are handed in.

mod enrolment;
mod totp;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use enrolment::{Enrolment, qr_text};
pub use totp::{Code, SECRET_BYTES, STEP_SECONDS, matching_step, step};

/// How many recovery codes a second factor has.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes of a recovery code: 80 bits, which no limit of tries needs to protect.
pub const RECOVERY_BYTES: usize = 10;
/// Random bytes of a session token.
pub const TOKEN_BYTES: usize = 32;
/// The metadata key in which a session token goes with a call.
pub const SESSION_HEADER: &str = "rookery-session";

/// What a session token is compared by; `None` for text that is no token.
#[must_use]
pub fn token_digest(token: &str) -> Option<[u8; 32]> {
    let plain = token.len() == 2 * TOKEN_BYTES && token.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| Sha256::digest(token.to_ascii_lowercase()).into())
}

/// The text of a session token, which its holder sees once.
#[must_use]
pub fn token(random: &[u8; TOKEN_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(random))
}

/// Whether two digests are equal, in a time that does not depend on them.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The text of a recovery code, in groups of four: `ABCD-EFGH-IJKL-MNOP`.
#[must_use]
pub fn recovery_code(random: &[u8; RECOVERY_BYTES]) -> Zeroizing<String> {
    let plain = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(random));
    let mut text = Zeroizing::new(String::with_capacity(plain.len() + 3));
    for (place, letter) in plain.chars().enumerate() {
        if place > 0 && place % 4 == 0 {
            text.push('-');
        }
        text.push(letter);
    }
    text
}

/// What a recovery code is compared by: letter case, blanks and dashes aside. `None` for text that is no such code.
#[must_use]
pub fn recovery_digest(text: &str) -> Option<[u8; 32]> {
    if text.len() > 64 {
        return None;
    }
    let plain: String =
        text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_uppercase()).collect();
    let plain = Zeroizing::new(plain);
    let random = Zeroizing::new(data_encoding::BASE32_NOPAD.decode(plain.as_bytes()).ok()?);
    (random.len() == RECOVERY_BYTES).then(|| Sha256::digest(&*random).into())
}

/// The place of a recovery code among the digests. Looks at all of them, whichever it is.
#[must_use]
pub fn recovery_place(digest: &[u8; 32], digests: &[Vec<u8>]) -> Option<u32> {
    let places = (0_u32..).zip(digests);
    places.fold(None, |found, (place, other)| if same(digest, other) { Some(place) } else { found })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_and_nothing_else_is_a_token() {
        let token = token(&[0xab; TOKEN_BYTES]);
        assert_eq!(token_digest(&token), token_digest(&token.to_uppercase()));
        let longer = format!("{}00", *token);
        for other in ["", "ab", &token[1..], longer.as_str(), &"zz".repeat(32), &"é".repeat(32)] {
            assert_eq!(token_digest(other), None, "{other:?}");
        }
    }

    #[test]
    fn recovery_codes_are_read_as_people_type_them() {
        let code = recovery_code(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(*code, "AAAQ-EAYE-AUDA-OCAJ");
        let digest = recovery_digest(&code).unwrap();
        for typed in ["aaaqeayeaudaocaj", " AAAQ EAYE AUDA OCAJ", "aaaq-eaye-auda-ocaj"] {
            assert_eq!(recovery_digest(typed), Some(digest), "{typed}");
        }
        let long = "A".repeat(100);
        for other in ["", "AAAQ", "AAAQ-EAYE-AUDA-OCA1", "123456", long.as_str(), "ÄÄÄÄÄÄÄÄ"]
        {
            assert_eq!(recovery_digest(other), None, "{other}");
        }
    }

    #[test]
    fn a_recovery_code_is_found_at_its_place() {
        let digests: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 32]).collect();
        assert_eq!(recovery_place(&[7; 32], &digests), Some(7));
        assert_eq!(recovery_place(&[11; 32], &digests), None);
        assert_eq!(recovery_place(&[0; 32], &[]), None);
    }
}
