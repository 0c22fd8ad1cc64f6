//! Secrets for one node: sealed by anybody who knows its public key, opened by the node alone.
//!
//! ```text
//! sealed = version 1 (1 byte) ‖ encapsulated key (32) ‖ ciphertext ‖ tag (16)
//! info   = "rookery sealing v1" ‖ 0 ‖ purpose          associated data = the context
//! ```
//!
//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, one message a key
//! encapsulation. Base mode proves nothing about the sender; who may hand a node a secret is decided where the sealed
//! bytes are taken from.
//!
//! The private key is made once in a data folder and stands beside the keyring, sealed with the node's own data key: it
//! goes with the folder, and a copy of the file opens nowhere without the master key.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use hpke::{
    Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _, aead::ChaCha20Poly1305,
    kdf::HkdfSha256, kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};
use zeroize::Zeroizing;

use super::{Error, Keyring, Place, Purpose, Result, SecretKey, folder, random};
use crate::names::GroupId;

/// The file of the private key in the data folder.
pub const SEALING_KEY_FILE: &str = "sealing";
/// How much longer sealed bytes are than what they hold.
pub const SEALING_OVERHEAD_BYTES: usize = 1 + ENCAPSULATED_BYTES + TAG_BYTES;

const VERSION: u8 = 1;
const ENCAPSULATED_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const DOMAIN: &[u8] = b"rookery sealing v1\0";
/// Where the private key stands, for its seal.
const PLACE: Place<'static> =
    Place { purpose: Purpose::SealingKey, group: GroupId::CLUSTER, table: 0, key: b"sealing key" };

type Kem = X25519HkdfSha256;

/// The private half of a node's sealing key (X25519); wiped when dropped, never printed.
pub struct SealingKey {
    secret: SecretKey,
    public: SealingPublicKey,
}

impl SealingKey {
    /// The key of a data folder; makes one where there is none yet.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`] where the file was altered or is another folder's; [`Error::Io`], [`Error::Random`].
    pub fn open_or_make(folder: &Path, keyring: &Keyring) -> Result<Self> {
        let path = folder.join(SEALING_KEY_FILE);
        if let Some(sealed) = read(&path)? {
            let mut opened = Zeroizing::new(keyring.keys().open(&PLACE, &sealed)?);
            let bytes: &mut [u8; 32] = opened
                .as_mut_slice()
                .try_into()
                .map_err(|_| Error::NotAuthentic("the sealing key has another length"))?;
            return Self::from_secret(SecretKey::take(bytes));
        }
        let key = Self::make()?;
        folder::replace_file(&path, &keyring.keys().seal(&PLACE, key.secret.expose())?)?;
        tracing::info!(public = %key.public, "made this node's sealing key");
        Ok(key)
    }

    /// Seals the file of this key in a data folder again, with the newest key of the node.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Random`]; the older file stands.
    pub fn reseal(&self, folder: &Path, keyring: &Keyring) -> Result<()> {
        let sealed = keyring.keys().seal(&PLACE, self.secret.expose())?;
        folder::replace_file(&folder.join(SEALING_KEY_FILE), &sealed)
    }

    /// A new key that stands in no folder.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn make() -> Result<Self> {
        Self::from_secret(SecretKey::random()?)
    }

    fn from_secret(secret: SecretKey) -> Result<Self> {
        let private = private(&secret)?;
        let mut public = [0; 32];
        public.copy_from_slice(&Kem::sk_to_pk(&private).to_bytes());
        Ok(Self { secret, public: SealingPublicKey(public) })
    }

    /// What others seal to.
    #[must_use]
    pub fn public(&self) -> SealingPublicKey {
        self.public
    }

    /// Opens what was sealed to this key for the same purpose and context.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`]: for another key, purpose or context, or altered.
    pub fn open(&self, purpose: &str, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let refused = || Error::NotAuthentic("this was not sealed to this node for this purpose");
        let [VERSION, rest @ ..] = sealed else {
            return Err(Error::NotAuthentic("the sealed secret is of an unknown version"));
        };
        let (encapsulated, ciphertext) =
            rest.split_at_checked(ENCAPSULATED_BYTES).ok_or_else(refused)?;
        let encapsulated =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| refused())?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &private(&self.secret)?,
            &encapsulated,
            &info(purpose),
            ciphertext,
            context,
        )
        .map(Zeroizing::new)
        .map_err(|_| refused())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.public)
    }
}

/// The public half of a node's sealing key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealingPublicKey([u8; 32]);

impl SealingPublicKey {
    /// Takes the 32 bytes of an X25519 public key.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`] where it is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|_| Error::NotAuthentic("a public sealing key has 32 bytes"))?;
        Ok(Self(bytes))
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals `plaintext` to the holder of the private half. It opens with the same purpose and context alone.
    ///
    /// # Errors
    /// [`Error::Random`]; [`Error::NotAuthentic`] for a key to which nothing can be sealed (a point of low order).
    pub fn seal(&self, purpose: &str, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
        random(&mut [0; 1])?; // The library panics where there is no randomness.
        let unusable = || Error::NotAuthentic("nothing can be sealed to this public key");
        let recipient =
            <Kem as hpke::Kem>::PublicKey::from_bytes(&self.0).map_err(|_| unusable())?;
        let (encapsulated, ciphertext) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeS::Base,
            &recipient,
            &info(purpose),
            plaintext,
            context,
        )
        .map_err(|_| unusable())?;
        Ok([[VERSION].as_slice(), &encapsulated.to_bytes(), &ciphertext].concat())
    }
}

impl fmt::Display for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublicKey({self})")
    }
}

fn private(secret: &SecretKey) -> Result<<Kem as hpke::Kem>::PrivateKey> {
    <Kem as hpke::Kem>::PrivateKey::from_bytes(secret.expose())
        .map_err(|_| Error::NotAuthentic("the sealing key is no X25519 key"))
}

fn info(purpose: &str) -> Vec<u8> {
    [DOMAIN, purpose.as_bytes()].concat()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = || Error::io(format!("the sealing key {} cannot be read", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    let mut sealed = Vec::new();
    file.take(1_024).read_to_end(&mut sealed).map_err(failed())?;
    Ok(Some(sealed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypto::MasterKey;

    #[test]
    fn the_test_vector_of_rfc_9180_opens() {
        // RFC 9180, appendix A.2.1: base mode, X25519, HKDF-SHA256, ChaCha20-Poly1305, sequence number 0.
        let hex = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
        let secret = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let public = hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        let encapsulated = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let key =
            SealingKey::from_secret(SecretKey::take(&mut secret.try_into().unwrap())).unwrap();
        assert_eq!(key.public().as_bytes().as_slice(), public);
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &private(&key.secret).unwrap(),
            &<Kem as hpke::Kem>::EncappedKey::from_bytes(&encapsulated).unwrap(),
            &hex("4f6465206f6e2061204772656369616e2055726e"),
            &hex(
                "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
            ),
            b"Count-0",
        );
        assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn a_secret_opens_for_its_node_purpose_and_context_alone() {
        let key = SealingKey::make().unwrap();
        let sealed = key.public().seal("purpose", b"context", b"secret").unwrap();
        assert_eq!(sealed.len(), b"secret".len() + SEALING_OVERHEAD_BYTES);
        assert_eq!(key.open("purpose", b"context", &sealed).unwrap().as_slice(), b"secret");
        assert_ne!(sealed, key.public().seal("purpose", b"context", b"secret").unwrap());
        let other = SealingKey::make().unwrap();
        assert!(other.open("purpose", b"context", &sealed).is_err(), "another node");
        assert!(key.open("purposes", b"context", &sealed).is_err(), "another purpose");
        assert!(key.open("purpose", b"", &sealed).is_err(), "another context");
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert!(key.open("purpose", b"context", &altered).is_err(), "byte {place}");
            assert!(key.open("purpose", b"context", &sealed[..place]).is_err(), "cut at {place}");
        }
        let low_order = SealingPublicKey::from_bytes(&[0; 32]).unwrap();
        assert!(low_order.seal("purpose", b"", b"secret").is_err());
        assert!(SealingPublicKey::from_bytes(&[1; 31]).is_err());
    }

    #[test]
    fn a_folder_keeps_its_key_and_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let keyring = Keyring::open(&data, &MasterKey::random().unwrap()).unwrap();
        let first = SealingKey::open_or_make(&data, &keyring).unwrap();
        let again = SealingKey::open_or_make(&data, &keyring).unwrap();
        assert_eq!(first.public(), again.public());
        let file = data.join(SEALING_KEY_FILE);
        let stored = std::fs::read(&file).unwrap();
        assert!(!stored.windows(32).any(|window| window == first.secret.expose()));
        assert!(!format!("{first:?}").contains(&hex::encode(first.secret.expose())));
        for altered in [&stored[1..], &stored[..stored.len() - 1], &[]] {
            std::fs::write(&file, altered).unwrap();
            assert!(SealingKey::open_or_make(&data, &keyring).is_err());
        }
        std::fs::remove_file(&file).unwrap();
        let new = SealingKey::open_or_make(&data, &keyring).unwrap();
        assert_ne!(new.public(), first.public(), "a wiped folder has another key");
    }
}
