//! The cluster secret: a key that all members share, for what must stand in the replicated state and nowhere in clear.
//!
//! ```text
//! sealed = version 1 (1 byte) ‖ nonce (24) ‖ ciphertext ‖ tag (16)        XChaCha20-Poly1305, random nonce
//! associated data = "rookery cluster secret" ‖ version ‖ key id (8) ‖ owner (32) ‖ purpose (the rest)
//! ```
//!
//! Every field of the associated data but the last has a fixed width, so two places never encode alike. How the key
//! itself reaches the members is not told here: it stands in the state sealed to each one's own key.

use zeroize::Zeroizing;

use super::{
    Error, Result, SecretKey, random,
    seal::{decrypt, encrypt},
};
use crate::names::Thumbprint;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const DOMAIN: &[u8; 22] = b"rookery cluster secret";

/// A cluster secret and the id it has in the state.
#[derive(Debug)]
pub struct ClusterSecret {
    id: u64,
    key: SecretKey,
}

impl ClusterSecret {
    /// Takes the 32 bytes of a cluster secret.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`] for any other length.
    pub fn take(id: u64, bytes: &Zeroizing<Vec<u8>>) -> Result<Self> {
        let mut key: [u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| Error::NotAuthentic("a cluster secret has 32 bytes"))?;
        Ok(Self { id, key: SecretKey::take(&mut key) })
    }

    /// The id it has in the state.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The 32 bytes, to be sealed to a member.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.key.expose()
    }

    /// Seals `content`, which opens for this owner and purpose alone.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn seal(&self, purpose: &str, owner: &Thumbprint, content: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + content.len() + TAG_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(content);
        let (_, body) = sealed.split_at_mut(1 + NONCE_BYTES);
        let tag = encrypt(self.key.expose(), nonce, &self.bound_to(purpose, owner), body)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens what [`ClusterSecret::seal`] made.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`].
    pub fn open(
        &self,
        purpose: &str,
        owner: &Thumbprint,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let short = Error::NotAuthentic("the sealed content is too short or of an unknown version");
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(short) };
        let Some((nonce, rest)) = rest.split_first_chunk::<NONCE_BYTES>() else {
            return Err(short);
        };
        let Some((body, tag)) = rest.split_last_chunk::<TAG_BYTES>() else { return Err(short) };
        let mut content = Zeroizing::new(body.to_vec());
        let bound = self.bound_to(purpose, owner);
        decrypt(self.key.expose(), *nonce, &bound, &mut content, *tag)?;
        Ok(content)
    }

    fn bound_to(&self, purpose: &str, owner: &Thumbprint) -> Vec<u8> {
        let id = self.id.to_be_bytes();
        [DOMAIN.as_slice(), &[VERSION], &id, owner.as_bytes(), purpose.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn secret(id: u64) -> ClusterSecret {
        ClusterSecret::take(id, &Zeroizing::new(vec![7; 32])).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_its_owner_purpose_and_key_alone() {
        let (alice, bob) = (Thumbprint::of(b"alice"), Thumbprint::of(b"bob"));
        let sealed = secret(3).seal("totp", &alice, b"content").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"content"));
        assert_eq!(secret(3).open("totp", &alice, &sealed).unwrap().as_slice(), b"content");
        assert!(secret(3).open("totp", &bob, &sealed).is_err());
        assert!(secret(3).open("totq", &alice, &sealed).is_err());
        assert!(secret(4).open("totp", &alice, &sealed).is_err());
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert!(secret(3).open("totp", &alice, &altered).is_err(), "byte {place}");
            assert!(secret(3).open("totp", &alice, &sealed[..place]).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn a_cluster_secret_has_32_bytes_and_prints_none() {
        for length in [0, 31, 33] {
            assert!(ClusterSecret::take(1, &Zeroizing::new(vec![7; length])).is_err());
        }
        assert_eq!(format!("{:?}", secret(1)), "ClusterSecret { id: 1, key: SecretKey(..) }");
    }
}
