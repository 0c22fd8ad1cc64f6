//! The format of encrypted backups: a stream that a reader believes chunk by chunk, and whole or not at all.
//!
//! ```text
//! stream = header (149) ‖ chunk 0 ‖ chunk 1 ‖ … ‖ last chunk                              integers are big endian
//! header = "ROOKERYB" (8) ‖ version 1 (1) ‖ key id (8) ‖ database (8) ‖ chain (16) ‖ sequence (8) ‖ previous (32)
//!          ‖ chunk bytes (4) ‖ salt (32) ‖ check (32)
//! chunk  = ciphertext (chunk bytes; of the last one 0 to chunk bytes) ‖ tag (16)
//! nonce  = zeros (15) ‖ number of the chunk (8) ‖ 1 for the last chunk, else 0 (1)
//! ```
//!
//! The cipher is XChaCha20-Poly1305, the construction STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015: online
//! authenticated encryption that notices reordering, truncation and appended data). Two keys come from the backup key by
//! HKDF-SHA256 (RFC 5869) with the salt, for `"rookery backup v1 chunks" ‖ header without check` and
//! `"rookery backup v1 check" ‖ header without check`. The second is the header's check: it proves the header before a
//! single chunk is read, and binds the stream to one key, which the tags of this cipher alone do not. The first makes
//! every chunk depend on every bit of the header. A salt of 256 random bits is a key of its own for each stream, so
//! nonces may count.
//!
//! A chain is a full backup (sequence 0) and its increments (1, 2, …). Each names its chain, its number, and in
//! `previous` the check of the one before (zeros for a full one): increments of another chain, database or attempt do not
//! pass for the next one. [`Expected::After`] takes only what was read to its end.
//!
//! Not hidden: the header, and the length of the content.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, io};

use subtle::ConstantTimeEq as _;

use super::{KeyId, Keys, SecretKey, random};
use crate::{
    limits,
    names::{DatabaseId, GroupId},
};

pub use reader::{BackupReader, WholeBackup};
pub use writer::BackupWriter;

/// Bytes before the first chunk.
pub const BACKUP_HEADER_BYTES: usize = FIELDS_BYTES + CHECK_BYTES;

const MAGIC: &[u8; 8] = b"ROOKERYB";
const VERSION: u8 = 1;
const FIELDS_BYTES: usize = 8 + 1 + 8 + 8 + 16 + 8 + 32 + 4 + SALT_BYTES;
const SALT_BYTES: usize = 32;
const CHECK_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Why a stream cannot be written, or is not what it should be. After one, nothing more is written or given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// No stream of this format, or of a version that this program does not know.
    #[error("this is no encrypted backup: {0}")]
    Malformed(&'static str),
    /// The stream was written with another key.
    #[error("the backup was encrypted with key {expected}, but key {given} was given")]
    WrongKey {
        /// The key that the header names.
        expected: KeyId,
        /// The key that was tried.
        given: KeyId,
    },
    /// The header is not the one that was written with this key.
    #[error("the header of the backup was changed or damaged")]
    Header,
    /// An authentic backup, and not the one that belongs here.
    #[error(
        "this is not the backup that belongs here: its {field} is {found}, expected is {expected}"
    )]
    Other {
        /// database, chain, sequence or predecessor.
        field: &'static str,
        /// What was asked for.
        expected: String,
        /// What the header says.
        found: String,
    },
    /// A chunk does not authenticate in its place.
    #[error("chunk {0} of the backup was changed, damaged or moved")]
    Chunk(u64),
    /// The stream ends where more must follow.
    #[error("the backup is cut off: it ends in or after chunk {0}, which is not its last one")]
    CutOff(u64),
    /// The last chunk is not the end of the stream.
    #[error("something stands behind the end of the backup, after chunk {0}")]
    Appended(u64),
    /// The size of chunks is out of bounds.
    #[error(
        "chunks of {0} bytes: they have {min} to {max}",
        min = limits::BACKUP_CHUNK_BYTES_MIN,
        max = limits::BACKUP_CHUNK_BYTES_MAX
    )]
    ChunkBytes(usize),
    /// The group has no key; or none with the id that a header names.
    #[error("there is no key for this backup: {0}")]
    NoKey(String),
    /// The operating system gave no randomness.
    #[error("{0}")]
    Random(String),
    /// A failure of the file below, which came before.
    #[error("the backup failed before: {0}")]
    Failed(String),
}

impl From<BackupError> for io::Error {
    fn from(error: BackupError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// What a stream is encrypted with: the data key of a database, or a key that was given for backups.
///
/// Neither is used itself; both go through the key derivation of the format, so a backup tells nothing that helps with
/// what else the data key seals.
pub struct BackupKey {
    key: SecretKey,
    id: KeyId,
}

impl BackupKey {
    /// A key that somebody gave for backups: 32 random bytes.
    #[must_use]
    pub fn given(key: SecretKey) -> Self {
        let id = KeyId::of("rookery backup key v1", key.expose());
        Self { key, id }
    }

    /// The newest data key of a group. The backup can be read on this node, as long as it holds that key: neither the
    /// deletion of the database nor the end of a rotation leaves it.
    ///
    /// # Errors
    /// [`BackupError::NoKey`].
    pub fn of_group(keys: &Keys, group: GroupId) -> Result<Self, BackupError> {
        keys.data_keys(group).last().map(Self::copy).ok_or_else(|| no_key(group, None))
    }

    /// The data key of a group that a header names, however old it is.
    ///
    /// # Errors
    /// [`BackupError::NoKey`].
    pub fn find(keys: &Keys, group: GroupId, id: KeyId) -> Result<Self, BackupError> {
        let mut held = keys.data_keys(group).map(Self::copy);
        held.find(|key| key.id == id).ok_or_else(|| no_key(group, Some(id)))
    }

    /// Names the key, in headers and errors.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn copy(key: &[u8; 32]) -> Self {
        Self::given(SecretKey::take(&mut key.to_owned()))
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupKey({})", self.id)
    }
}

fn no_key(group: GroupId, id: Option<KeyId>) -> BackupError {
    BackupError::NoKey(match id {
        Some(id) => format!("group {group} has no data key {id}"),
        None => format!("group {group} has no data key"),
    })
}

/// A full backup and its increments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChainId([u8; 16]);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainId({self})")
    }
}

/// What a reader must find; anything else is refused by name before content is given out.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// The full backup that a chain of this database begins with.
    Full(DatabaseId),
    /// The increment that follows this one.
    After(&'a WholeBackup),
}

/// The header of a stream. What [`BackupHeader::parse`] gives is what the stream claims; what a reader gives is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHeader {
    /// Names the key.
    pub key: KeyId,
    /// The database that was backed up.
    pub database: DatabaseId,
    /// The chain it belongs to.
    pub chain: ChainId,
    /// 0 for a full backup, then counted.
    pub sequence: u64,
    /// Bytes of content in every chunk but the last.
    pub chunk_bytes: usize,
    previous: [u8; CHECK_BYTES],
    salt: [u8; SALT_BYTES],
    check: [u8; CHECK_BYTES],
}

impl BackupHeader {
    /// Reads a header, of which nothing is proven yet: for choosing the key.
    ///
    /// # Errors
    /// [`BackupError::Malformed`], [`BackupError::ChunkBytes`].
    pub fn parse(bytes: &[u8; BACKUP_HEADER_BYTES]) -> Result<Self, BackupError> {
        const SHORT: BackupError = BackupError::Malformed("its header is too short");
        let mut rest = bytes.as_slice();
        if *take::<8>(&mut rest).ok_or(SHORT)? != *MAGIC {
            return Err(BackupError::Malformed("it does not begin like one"));
        }
        if *take::<1>(&mut rest).ok_or(SHORT)? != [VERSION] {
            return Err(BackupError::Malformed(
                "it is of a version that this program does not know",
            ));
        }
        let key = KeyId(*take(&mut rest).ok_or(SHORT)?);
        let database = DatabaseId(u64::from_be_bytes(*take(&mut rest).ok_or(SHORT)?));
        let chain = ChainId(*take(&mut rest).ok_or(SHORT)?);
        let sequence = u64::from_be_bytes(*take(&mut rest).ok_or(SHORT)?);
        let previous = *take(&mut rest).ok_or(SHORT)?;
        let chunk_bytes = u32::from_be_bytes(*take(&mut rest).ok_or(SHORT)?);
        let chunk_bytes = usize::try_from(chunk_bytes).unwrap_or(usize::MAX);
        check_chunk_bytes(chunk_bytes)?;
        let (salt, check) = (*take(&mut rest).ok_or(SHORT)?, *take(&mut rest).ok_or(SHORT)?);
        Ok(Self { key, database, chain, sequence, chunk_bytes, previous, salt, check })
    }

    /// The header of a new stream, with a salt of its own.
    fn new(
        key: &BackupKey,
        at: &Position<'_>,
        chunk_bytes: usize,
        salt: [u8; SALT_BYTES],
    ) -> Result<Self, BackupError> {
        check_chunk_bytes(chunk_bytes)?;
        let (database, chain, sequence, previous) = match at {
            Position::Full(database, chain) => (*database, *chain, 0, [0; CHECK_BYTES]),
            Position::After(whole) => {
                let before = whole.header();
                (before.database, before.chain, before.following()?, before.check)
            }
        };
        let check = [0; CHECK_BYTES];
        let key_id = key.id;
        let mut header =
            Self { key: key_id, database, chain, sequence, chunk_bytes, previous, salt, check };
        header.check = *header.derive(key, "rookery backup v1 check").expose();
        Ok(header)
    }

    fn following(&self) -> Result<u64, BackupError> {
        self.sequence.checked_add(1).ok_or(BackupError::Malformed("its chain has no more numbers"))
    }

    fn fields(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BACKUP_HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.database.0.to_be_bytes());
        bytes.extend_from_slice(&self.chain.0);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.previous);
        let chunk_bytes = u32::try_from(self.chunk_bytes).unwrap_or(u32::MAX); // Bounded: `check_chunk_bytes`.
        bytes.extend_from_slice(&chunk_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.fields();
        bytes.extend_from_slice(&self.check);
        bytes
    }

    /// A key that belongs to this header and no other.
    fn derive(&self, key: &BackupKey, purpose: &str) -> SecretKey {
        let mut derived = zeroize::Zeroizing::new([0; 32]);
        let info = [purpose.as_bytes(), &self.fields()].concat();
        hkdf::Hkdf::<sha2::Sha256>::new(Some(&self.salt), key.key.expose())
            .expand(&info, derived.as_mut_slice())
            .expect("32 bytes are fewer than HKDF-SHA256's 8,160");
        SecretKey::take(&mut derived)
    }

    /// Proves the header, and that it is the expected one; gives the key of the chunks.
    fn prove(&self, key: &BackupKey, expected: Expected<'_>) -> Result<SecretKey, BackupError> {
        if self.key != key.id {
            return Err(BackupError::WrongKey { expected: self.key, given: key.id });
        }
        let check = self.derive(key, "rookery backup v1 check");
        if !bool::from(check.expose().ct_eq(&self.check)) {
            return Err(BackupError::Header);
        }
        self.compare(expected)?;
        Ok(self.derive(key, "rookery backup v1 chunks"))
    }

    fn compare(&self, expected: Expected<'_>) -> Result<(), BackupError> {
        let (database, chain, sequence, previous) = match expected {
            Expected::Full(database) => (database, self.chain, 0, [0; CHECK_BYTES]),
            Expected::After(whole) => {
                let before = whole.header();
                (before.database, before.chain, before.following()?, before.check)
            }
        };
        differs("database", &self.database, &database)?;
        differs("chain", &self.chain, &chain)?;
        differs("sequence", &self.sequence, &sequence)?;
        differs("predecessor", &hex::encode(self.previous), &hex::encode(previous))
    }
}

/// Where a new stream stands in its chain.
enum Position<'a> {
    Full(DatabaseId, ChainId),
    After(&'a WholeBackup),
}

fn differs<T: PartialEq + fmt::Display>(
    field: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), BackupError> {
    if found == expected {
        return Ok(());
    }
    Err(BackupError::Other { field, expected: expected.to_string(), found: found.to_string() })
}

fn check_chunk_bytes(bytes: usize) -> Result<(), BackupError> {
    let allowed = limits::BACKUP_CHUNK_BYTES_MIN..=limits::BACKUP_CHUNK_BYTES_MAX;
    if allowed.contains(&bytes) { Ok(()) } else { Err(BackupError::ChunkBytes(bytes)) }
}

fn take<'a, const BYTES: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; BYTES]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

/// The nonce of a chunk: no two chunks of a stream have the same, and the last one's is no other's.
fn nonce(chunk: u64, last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[15..23].copy_from_slice(&chunk.to_be_bytes());
    nonce[23] = u8::from(last);
    nonce
}

fn random_bytes<const BYTES: usize>() -> Result<[u8; BYTES], BackupError> {
    let mut bytes = [0; BYTES];
    random(&mut bytes).map_err(|error| BackupError::Random(error.to_string()))?;
    Ok(bytes)
}
