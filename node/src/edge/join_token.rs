//! The text form of a join token: what an administrator carries from a member to the machine of a new node.
//!
//! ```text
//! rookery1.<id>.<secret>.<pin>
//! ```
//!
//! `secret` is 32 random bytes, `pin` the SHA-256 of the certificate of the node that made the token, both base64url
//! without padding. The new node dials any member's client listener, accepts only the pinned certificate there, and shows
//! the secret. The log holds the secret's SHA-256 and never the secret.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::names::Thumbprint;

/// The version of the form, in front of every token.
const VERSION: &str = "rookery1";
/// Length of a secret in bytes.
pub const SECRET_BYTES: usize = 32;
/// Longest id in characters.
const ID_CHARS_MAX: usize = 64;
/// Longest token in characters.
const TOKEN_CHARS_MAX: usize = 256;

/// A token that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token of this version; take the whole line that `rookery cluster join-token create` printed"
)]
pub struct Malformed;

/// A join token. Its secret is zeroized, and neither printed nor logged by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the token in the cluster's state.
    pub id: String,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    /// SHA-256 of the certificate of the member that made it.
    pub pin: Thumbprint,
}

impl JoinToken {
    /// A new token with a random id and secret.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn random(pin: Thumbprint) -> Result<Self, getrandom::Error> {
        let mut id = [0_u8; 8];
        getrandom::fill(&mut id)?;
        let mut secret = Zeroizing::new([0_u8; SECRET_BYTES]);
        getrandom::fill(secret.as_mut_slice())?;
        Ok(Self { id: hex::encode(id), secret, pin })
    }

    /// The secret, for the one call that shows it to a member.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// What the log keeps of the secret.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        secret_digest(self.secret.as_slice())
    }

    /// The text form; whoever has it can join one node.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.as_slice()));
        let pin = URL_SAFE_NO_PAD.encode(self.pin.as_bytes());
        Zeroizing::new(format!("{VERSION}.{}.{}.{pin}", self.id, secret.as_str()))
    }
}

/// What the log keeps of a secret.
#[must_use]
pub fn secret_digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

impl FromStr for JoinToken {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if text.len() > TOKEN_CHARS_MAX {
            return Err(Malformed);
        }
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(Malformed);
        let (version, id, secret, pin) = (part()?, part()?, part()?, part()?);
        let id_is_plain = (1..=ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if version != VERSION || !id_is_plain || parts.next().is_some() {
            return Err(Malformed);
        }
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).map_err(|_| Malformed)?);
        let mut secret = Zeroizing::new([0_u8; SECRET_BYTES]);
        if decoded.len() != SECRET_BYTES {
            return Err(Malformed);
        }
        secret.copy_from_slice(&decoded);
        let pin = URL_SAFE_NO_PAD.decode(pin).map_err(|_| Malformed)?;
        let pin = Thumbprint::from_bytes(&pin).map_err(|_| Malformed)?;
        Ok(Self { id: id.to_owned(), secret, pin })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text() {
        let token = JoinToken::random(Thumbprint::of(b"certificate")).unwrap();
        let text = token.expose();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!("  {}\n", text.as_str()).parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(text.split('.').nth(2).unwrap()));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let text = JoinToken::random(Thumbprint::of(b"certificate")).unwrap().expose();
        let parts: Vec<&str> = text.split('.').collect();
        let short_secret = format!("{VERSION}.{}.AAAA.{}", parts[1], parts[3]);
        let other_version = text.replace(VERSION, "rookery2");
        let extra = format!("{}.x", text.as_str());
        let no_id = format!("{VERSION}..{}.{}", parts[2], parts[3]);
        let long = "a".repeat(10_000);
        for bad in ["", ".", "...", &short_secret, &other_version, &extra, &no_id, &long, parts[2]]
        {
            assert_eq!(bad.parse::<JoinToken>(), Err(Malformed), "{bad}");
        }
    }
}
