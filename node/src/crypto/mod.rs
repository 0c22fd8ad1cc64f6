//! Keys, and what is sealed with them. The only place that names an AEAD, and the only one that sees key bytes.
//!
//! ```text
//! master key (file, environment, command, passphrase; never stored)
//!   └─ keyring: `keyring` in the data folder, sealed by the master key
//!        ├─ file key          one keystream a file of the storage engine   -> FileCipher
//!        ├─ data key, group 0 the node's own table and the cluster's state -> Keys::seal, Keys::open
//!        └─ data key, group n one database: destroying it shreds the database
//!
//! sealing key: `sealing` in the data folder, sealed by the node's own data key -> SealingKey, for secrets sent to it
//! ```
//!
//! cluster secret: shared by all members, sealed to each one's sealing key -> ClusterSecret, for what is replicated
//!
//! Data keys are this node's own: they are made here, never leave the keyring, and never stand in a Raft log.
//! Absent by intent: a default key, a way to print a key, and a way to go on without one.

mod cluster_secret;
mod file;
mod folder;
mod keyring;
mod master;
pub mod memory;
mod opening;
mod passphrase;
pub mod pkcs12;
mod recovery;
mod seal;
mod sealing;

use std::{fmt, io, path::PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

pub use cluster_secret::ClusterSecret;
pub use file::{FILE_HEADER_BYTES, FileCipher, FileStream};
pub use folder::{SENTINEL_FOLDER, STORE_FOLDER, make_private_folder, replace_file, sync_folder};
pub use keyring::{KEYRING_FILE, Keyring, Keys};
pub use master::{MASTER_KEY_COMMAND_TIMEOUT, MasterKey, MasterKeySource, PassphraseSource};
pub use opening::{OpenedKeyring, open_keyring};
pub use passphrase::KDF_FILE;
pub use recovery::{RecoveryExport, RecoveryKey};
pub use seal::{Place, Purpose, SEAL_OVERHEAD_BYTES, key_version as sealed_key_version};
pub use sealing::{SEALING_KEY_FILE, SEALING_OVERHEAD_BYTES, SealingKey, SealingPublicKey};

use crate::names::GroupId;

/// A failure of keys or of what they protect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key cannot be had from its source; says what to do.
    #[error("master key: {0}")]
    MasterKey(String),
    /// The keyring was sealed by another master key.
    #[error(
        "the keyring of this data folder was sealed by master key {expected}, but master key {given} was given; \
         nothing was changed"
    )]
    WrongMasterKey {
        /// The key id that stands in the keyring's header.
        expected: KeyId,
        /// The key id of what was given.
        given: KeyId,
    },
    /// There is data and no keyring that could open it.
    #[error(
        "{folder} holds data ({found}) but no keyring; restore the file `keyring` from a copy. A new one is never made \
         over existing data, because it could not open it"
    )]
    KeyringMissing {
        /// The data folder.
        folder: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The keyring's file is damaged or of an unknown version.
    #[error("the keyring {path} cannot be used: {why}; nothing was changed")]
    Keyring {
        /// The file.
        path: PathBuf,
        /// Which check failed.
        why: &'static str,
    },
    /// A folder or file is not as private or as exclusive as it must be; says what to do.
    #[error("{0}")]
    Folder(String),
    /// The file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The group has no data key: it never had one, or it was destroyed.
    #[error("no data key for group {0}")]
    NoKey(GroupId),
    /// Sealed bytes do not open under their key and place.
    #[error("not authentic: {0}")]
    NotAuthentic(&'static str),
    /// A file of the storage engine was written with a key that this keyring does not hold.
    #[error(
        "the file was written with file key {id} (version {version}), which is not in this keyring"
    )]
    OtherFileKey {
        /// The key id in the file's header.
        id: KeyId,
        /// The key version in the file's header.
        version: u32,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(String),
}

fn refuse_master<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::MasterKey(why.into()))
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A result of this layer.
pub type Result<T> = std::result::Result<T, Error>;

/// 32 secret bytes in locked memory: wiped when dropped, never printed.
pub struct SecretKey(memory::Slot);

impl SecretKey {
    /// A new key from the operating system's generator.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn random() -> Result<Self> {
        let mut key = Self(memory::Slot::zeroed());
        random(key.0.bytes_mut())?;
        Ok(key)
    }

    /// Takes 32 bytes and wipes where they stood.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let mut key = Self(memory::Slot::zeroed());
        key.0.bytes_mut().copy_from_slice(bytes);
        bytes.zeroize();
        key
    }

    /// The bytes. Every caller is a place where the key could leak.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    /// A key for one purpose, derived from this one (HKDF-SHA256, RFC 5869).
    fn derive(key: &[u8; 32], purpose: &'static str) -> Self {
        let mut derived = Self(memory::Slot::zeroed());
        hkdf::Hkdf::<Sha256>::new(None, key)
            .expand(purpose.as_bytes(), derived.0.bytes_mut())
            .expect("32 bytes are fewer than HKDF-SHA256's 8,160");
        derived
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Names a key without telling anything of it: the first 8 bytes of a domain-separated SHA-256.
///
/// The keys are 256 random bits, so the digest gives nobody a way to find one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(domain: &'static str, key: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(domain).chain_update([0]).chain_update(key);
        let digest: [u8; 32] = digest.finalize().into();
        Self(digest.first_chunk().copied().expect("a digest of 32 bytes has 8"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Fills `bytes` from the operating system's generator.
///
/// Keys and nonces come straight from it and not from a generator in this process: a copy of the process (a fork, a
/// restored image of a virtual machine) would otherwise continue the same sequence, and a nonce would be used twice.
///
/// # Errors
/// [`Error::Random`].
pub fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::Random(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = SecretKey::take(&mut [0xab; 32]);
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
    }

    #[test]
    fn a_key_id_depends_on_the_domain_and_does_not_change() {
        assert_eq!(KeyId::of("rookery test", &[1; 32]).to_string(), "39b44d7866f9bfce");
        assert_ne!(KeyId::of("a", &[1; 32]), KeyId::of("b", &[1; 32]));
    }
}
