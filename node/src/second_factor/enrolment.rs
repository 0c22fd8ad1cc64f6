//! What a new second factor consists of, and how its holder is shown it, once.

use prost::Message as _;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use rookery_proto::log::v1::FactorSecret;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::{RECOVERY_BYTES, RECOVERY_CODES, SECRET_BYTES, STEP_SECONDS, recovery_code};

/// A new second factor. Wiped when dropped.
pub struct Enrolment {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    recovery: Zeroizing<[[u8; RECOVERY_BYTES]; RECOVERY_CODES]>,
}

impl Enrolment {
    /// How many random bytes one is made of.
    pub const RANDOM_BYTES: usize = SECRET_BYTES + RECOVERY_BYTES * RECOVERY_CODES;

    /// Takes random bytes.
    #[must_use]
    pub fn new(random: &Zeroizing<[u8; Self::RANDOM_BYTES]>) -> Self {
        let mut new = Self {
            secret: Zeroizing::new([0; SECRET_BYTES]),
            recovery: Zeroizing::new([[0; RECOVERY_BYTES]; RECOVERY_CODES]),
        };
        let (secret, recovery) = random.split_at(SECRET_BYTES);
        new.secret.copy_from_slice(secret);
        for (code, bytes) in new.recovery.iter_mut().zip(recovery.chunks_exact(RECOVERY_BYTES)) {
            code.copy_from_slice(bytes);
        }
        new
    }

    /// What is sealed and kept: the secret, and what the recovery codes are compared by.
    #[must_use]
    pub fn kept(&self) -> Zeroizing<Vec<u8>> {
        let digests = self.recovery.iter().map(|code| Sha256::digest(code).to_vec());
        let mut kept =
            FactorSecret { secret: self.secret.to_vec(), recovery_digests: digests.collect() };
        let bytes = Zeroizing::new(kept.encode_to_vec());
        kept.secret.zeroize();
        bytes
    }

    /// The secret in base32.
    #[must_use]
    pub fn secret_base32(&self) -> Zeroizing<String> {
        Zeroizing::new(data_encoding::BASE32_NOPAD.encode(&*self.secret))
    }

    /// The recovery codes as text.
    #[must_use]
    pub fn recovery_codes(&self) -> Vec<Zeroizing<String>> {
        self.recovery.iter().map(recovery_code).collect()
    }

    /// The address that authenticator programs take: `otpauth://totp/Rookery:alice?secret=…` (Key URI Format).
    #[must_use]
    pub fn uri(&self, account: &str) -> Zeroizing<String> {
        let account = escaped(account);
        let secret = self.secret_base32();
        Zeroizing::new(format!(
            "otpauth://totp/Rookery:{account}?secret={}&issuer=Rookery&algorithm=SHA1&digits=6&period={STEP_SECONDS}",
            *secret
        ))
    }
}

/// A QR code of `text` in Unicode half blocks, readable on dark and light terminals; empty where it does not fit.
#[must_use]
pub fn qr_text(text: &str) -> Zeroizing<String> {
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else {
        return Zeroizing::default();
    };
    // Light modules are drawn, so that the code stands on a light ground where the terminal is dark.
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    Zeroizing::new(drawn)
}

/// Percent-encodes all but the unreserved characters (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{recovery_digest, recovery_place},
        *,
    };

    fn enrolment() -> Enrolment {
        let random = std::array::from_fn(|i| u8::try_from(i).unwrap());
        Enrolment::new(&Zeroizing::new(random))
    }

    #[test]
    fn what_is_kept_knows_the_secret_and_every_recovery_code() {
        let enrolment = enrolment();
        let kept = FactorSecret::decode(enrolment.kept().as_slice()).unwrap();
        assert_eq!(kept.secret, (0..20).collect::<Vec<u8>>());
        assert_eq!(kept.recovery_digests.len(), RECOVERY_CODES);
        for (place, code) in (0..).zip(enrolment.recovery_codes()) {
            let digest = recovery_digest(&code).unwrap();
            assert_eq!(recovery_place(&digest, &kept.recovery_digests), Some(place));
        }
    }

    #[test]
    fn the_uri_is_what_authenticators_read() {
        assert_eq!(
            *enrolment().uri("Zoë & co"),
            "otpauth://totp/Rookery:Zo%C3%AB%20%26%20co?secret=AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQT&issuer=Rookery\
             &algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn the_qr_code_is_drawn_in_half_blocks() {
        let drawn = qr_text(&enrolment().uri("alice"));
        assert!(drawn.lines().count() > 20, "{}", *drawn);
        assert!(drawn.chars().all(|c| "█▀▄ \n".contains(c)));
        assert!(qr_text(&"x".repeat(10_000)).is_empty());
    }
}
