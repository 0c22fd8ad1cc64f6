//! What a renewed certificate shares with the one it follows: the key, and who issued it.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::certificates::{Refused, parse::x509};

/// SHA-256 of a SubjectPublicKeyInfo (RFC 7469, section 2.4): the same for all certificates of one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Takes 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({})", hex::encode(&self.0[..6]))
    }
}

/// The digest of a certificate's key.
///
/// # Errors
/// As [`super::parse`].
pub fn key_digest(der: &[u8]) -> Result<KeyDigest, Refused> {
    let x509 = x509(der)?;
    Ok(KeyDigest(Sha256::digest(x509.public_key().raw).into()))
}

/// Whether two certificates name the same issuer, byte for byte.
///
/// # Errors
/// As [`super::parse`], for either one.
pub fn same_issuer(one: &[u8], other: &[u8]) -> Result<bool, Refused> {
    Ok(x509(one)?.issuer().as_raw() == x509(other)?.issuer().as_raw())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn issued(issuer: &str, key: &rcgen::KeyPair, year: i32) -> Vec<u8> {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, issuer);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let issuer = rcgen::Issuer::new(ca, ca_key);
        params.signed_by(key, &issuer).unwrap().der().to_vec()
    }

    #[test]
    fn a_renewed_certificate_shares_key_and_issuer() {
        let (key, other) =
            (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let old = issued("CA one", &key, 2040);
        let new = issued("CA one", &key, 2050);
        let elsewhere = issued("CA two", &key, 2050);
        let stranger = issued("CA one", &other, 2050);
        assert_eq!(key_digest(&old).unwrap(), key_digest(&new).unwrap());
        assert_eq!(key_digest(&old).unwrap(), key_digest(&elsewhere).unwrap());
        assert_ne!(key_digest(&old).unwrap(), key_digest(&stranger).unwrap());
        assert!(same_issuer(&old, &new).unwrap());
        assert!(!same_issuer(&old, &elsewhere).unwrap());
        assert!(key_digest(b"nothing").is_err() && same_issuer(&old, b"nothing").is_err());
    }
}
