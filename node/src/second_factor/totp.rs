//! Codes of six digits: HOTP (RFC 4226) over the time (RFC 6238), with HMAC-SHA-1 and steps of 30 seconds.
//!
//! These are the parameters that every authenticator program knows; the weakness of SHA-1 against collisions does not
//! touch HMAC.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::same;
use crate::names::Timestamp;

/// Length of a secret (RFC 4226, section 4, R6).
pub const SECRET_BYTES: usize = 20;
/// Length of a time step (RFC 6238, X).
pub const STEP_SECONDS: u64 = 30;
/// How many steps before and after the present one are taken: clocks and typing differ.
const WINDOW: u64 = 1;
/// Digits of a code.
const DIGITS: u32 = 6;

/// A code as it was typed.
pub struct Code(Zeroizing<[u8; DIGITS as usize]>);

impl Code {
    /// Takes six digits, blanks around and between them aside. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 32 {
            return None;
        }
        let mut digits = Zeroizing::new([0; DIGITS as usize]);
        let mut typed = text.bytes().filter(|byte| *byte != b' ');
        for digit in digits.iter_mut() {
            *digit = typed.next().filter(u8::is_ascii_digit)?;
        }
        typed.next().is_none().then_some(Self(digits))
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(..)")
    }
}

/// The time step at a moment (RFC 6238, T).
#[must_use]
pub fn step(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or(0) / (STEP_SECONDS * 1000)
}

/// The step, among those near `at`, whose code this is. All of them are computed, whichever it is.
#[must_use]
pub fn matching_step(secret: &[u8], code: &Code, at: Timestamp) -> Option<u64> {
    let now = step(at);
    let mut found = None;
    for step in now.saturating_sub(WINDOW)..=now.saturating_add(WINDOW) {
        let expected = Zeroizing::new(format!("{:06}", hotp(secret, step, DIGITS)));
        if same(expected.as_bytes(), &*code.0) {
            found = Some(step);
        }
    }
    found
}

/// The value of a counter (RFC 4226, section 5.3).
fn hotp(secret: &[u8], counter: u64, digits: u32) -> u32 {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&counter.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[19] & 0x0f);
    let four = [digest[offset], digest[offset + 1], digest[offset + 2], digest[offset + 3]];
    (u32::from_be_bytes(four) & 0x7fff_ffff) % 10_u32.pow(digits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    #[test]
    fn the_values_of_rfc_4226_come_out() {
        // Appendix D.
        let expected = [
            755_224, 287_082, 359_152, 969_429, 338_314, 254_676, 287_922, 162_583, 399_871,
            520_489,
        ];
        for (counter, value) in (0..).zip(expected) {
            assert_eq!(hotp(SECRET, counter, 6), value, "counter {counter}");
        }
    }

    #[test]
    fn the_values_of_rfc_6238_come_out() {
        // Appendix B, the rows of SHA-1: seconds, eight digits, and their last six.
        for (seconds, eight, six) in [
            (59, 94_287_082, "287082"),
            (1_111_111_109, 7_081_804, "081804"),
            (1_111_111_111, 14_050_471, "050471"),
            (1_234_567_890, 89_005_924, "005924"),
            (2_000_000_000, 69_279_037, "279037"),
            (20_000_000_000, 65_353_130, "353130"),
        ] {
            let at = Timestamp(seconds * 1000);
            assert_eq!(hotp(SECRET, step(at), 8), eight, "{seconds}");
            let code = Code::parse(six).unwrap();
            assert_eq!(matching_step(SECRET, &code, at), Some(step(at)), "{seconds}");
        }
    }

    #[test]
    fn a_code_holds_one_step_before_and_one_after_its_own() {
        // 081804 is the code of step 37037036, from 1111111080 s to before 1111111110 s.
        let code = Code::parse("081804").unwrap();
        for (second, matches) in [
            (1_111_111_049, false),
            (1_111_111_050, true),
            (1_111_111_080, true),
            (1_111_111_139, true),
            (1_111_111_140, false),
        ] {
            let found = matching_step(SECRET, &code, Timestamp(second * 1000));
            assert_eq!(found, matches.then_some(37_037_036), "{second}");
        }
        for at in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(matching_step(SECRET, &code, Timestamp(at)), None, "{at}");
        }
    }

    #[test]
    fn a_code_is_six_digits() {
        for (text, is_code) in [
            ("123456", true),
            (" 123 456 ", true),
            ("12345", false),
            ("1234567", false),
            ("12345a", false),
            ("", false),
            ("\u{661}23456", false),
            ("-12345", false),
            ("                                 123456", false),
        ] {
            assert_eq!(Code::parse(text).is_some(), is_code, "{text:?}");
        }
        assert_eq!(format!("{:?}", Code::parse("123456")), "Some(Code(..))");
    }
}
