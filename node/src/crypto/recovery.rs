//! What opens a node's data folder without its master key: a file, and a key that is printed once.
//!
//! ```text
//! file    = "ROOKERYR" (8) ‖ version 1 (1) ‖ recovery key id (8) ‖ master key id (8) ‖ nonce (24) ‖ ciphertext ‖ tag (16)
//! content = wrapping key (32) ‖ the keyring's file of that moment
//! ```
//!
//! The fields before the nonce are the associated data. The wrapping key is derived from the master key and opens the
//! keyring of that folder as long as the master key is not rotated, with every key that is made later. The keyring itself
//! goes along for the day on which its file is lost.
//!
//! The recovery key is 256 random bits and not a passphrase, because nobody needs to remember it and nobody can guess it:
//! 52 letters and digits of base 32 (RFC 4648) and four of a checksum, in groups of four.

use std::{fmt, path::Path};

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Error, KeyId, Result, SecretKey, random, seal};
use crate::limits;

const MAGIC: &[u8; 8] = b"ROOKERYR";
const VERSION: u8 = 1;
const FIELDS_BYTES: usize = 8 + 1 + 8 + 8;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const KEY_CHARS: usize = 52;
const CHECK_CHARS: usize = 4;
const KEY_BYTES: usize = 32;

/// Opens a recovery export. Shown once and stored nowhere.
pub struct RecoveryKey(SecretKey);

impl RecoveryKey {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn random() -> Result<Self> {
        SecretKey::random().map(Self)
    }

    /// Reads what [`RecoveryKey::expose_text`] gave; spaces, dashes and case do not count.
    ///
    /// # Errors
    /// [`Error::MasterKey`]: it has another length, or a letter is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::MasterKey(format!("the recovery key {why}")));
        let mut letters = Zeroizing::new(String::with_capacity(KEY_CHARS + CHECK_CHARS));
        for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            if letters.len() == KEY_CHARS + CHECK_CHARS {
                return refuse("is too long: it has 56 letters and digits");
            }
            letters.push(c.to_ascii_uppercase());
        }
        let whole = letters.len() == KEY_CHARS + CHECK_CHARS;
        let Some((key, check)) = letters.split_at_checked(KEY_CHARS).filter(|_| whole) else {
            return refuse("is too short: it has 56 letters and digits");
        };
        let Ok(bytes) = BASE32_NOPAD.decode(key.as_bytes()).map(Zeroizing::new) else {
            return refuse("holds a letter or digit that none of them is: A to Z and 2 to 7");
        };
        let Ok(mut bytes) = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) else {
            return refuse("has another length: it has 56 letters and digits");
        };
        let key = Self(SecretKey::take(&mut bytes));
        if key.check() != check {
            return refuse("was mistyped: its last four letters do not fit the others");
        }
        Ok(key)
    }

    /// The key for a person to keep, in groups of four.
    #[must_use]
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * (KEY_CHARS + CHECK_CHARS)));
        let letters = Zeroizing::new(BASE32_NOPAD.encode(self.0.expose()));
        for (i, c) in letters.chars().chain(self.check().chars()).enumerate() {
            if i > 0 && i % 4 == 0 {
                text.push('-');
            }
            text.push(c);
        }
        text
    }

    /// Tells a mistyped key; of no use to find one.
    fn check(&self) -> String {
        let digest = Sha256::new()
            .chain_update("rookery recovery key check v1\0")
            .chain_update(self.0.expose())
            .finalize();
        let mut check = BASE32_NOPAD.encode(&digest);
        check.truncate(CHECK_CHARS);
        check
    }

    fn id(&self) -> KeyId {
        KeyId::of("rookery recovery key v1", self.0.expose())
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({})", self.id())
    }
}

/// What an export holds, opened.
pub struct RecoveryExport {
    /// The master key that sealed the keyring when the export was made.
    pub master: KeyId,
    /// Opens keyrings that this master key sealed.
    pub(super) wrapping_key: SecretKey,
    /// The keyring's file when the export was made.
    pub(super) keyring: Vec<u8>,
}

impl RecoveryExport {
    /// Seals what opens a folder to a recovery key; gives the content of the file.
    pub(super) fn seal(
        key: &RecoveryKey,
        master: KeyId,
        wrapping_key: &SecretKey,
        keyring: &[u8],
    ) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        Self::seal_with_nonce(key, master, wrapping_key, keyring, nonce)
    }

    fn seal_with_nonce(
        key: &RecoveryKey,
        master: KeyId,
        wrapping_key: &SecretKey,
        keyring: &[u8],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>> {
        let mut fields = Vec::with_capacity(FIELDS_BYTES);
        fields.extend_from_slice(MAGIC);
        fields.push(VERSION);
        fields.extend_from_slice(&key.id().0);
        fields.extend_from_slice(&master.0);
        let mut body = Zeroizing::new([wrapping_key.expose().as_slice(), keyring].concat());
        let sealing = SecretKey::derive(key.0.expose(), "rookery recovery export v1");
        let tag = seal::encrypt(sealing.expose(), nonce, &fields, &mut body)?;
        Ok([fields.as_slice(), &nonce, &body, &tag].concat())
    }

    /// Opens the file of an export.
    ///
    /// # Errors
    /// [`Error::MasterKey`]: another recovery key's, damaged, or no export.
    pub fn open(path: &Path, content: &[u8], key: &RecoveryKey) -> Result<Self> {
        let shown = path.display();
        let refuse = |why: String| Error::MasterKey(format!("the recovery export {shown} {why}"));
        let short = || refuse("is too short".to_owned());
        if content.len() > limits::KEYRING_BYTES_MAX + 4096 {
            return Err(refuse("is too long".to_owned()));
        }
        let (fields, rest) = content.split_at_checked(FIELDS_BYTES).ok_or_else(short)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(short)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(short)?;
        if !fields.starts_with(MAGIC) {
            return Err(refuse("is no recovery export".to_owned()));
        }
        if fields.get(8) != Some(&VERSION) {
            return Err(refuse("is of a version that this program does not know".to_owned()));
        }
        let id = |at: usize| fields.get(at..at + 8).and_then(|id| id.try_into().ok()).map(KeyId);
        let (made_for, master) = (id(9).ok_or_else(short)?, id(17).ok_or_else(short)?);
        if made_for != key.id() {
            let given = key.id();
            return Err(refuse(format!("was made for recovery key {made_for}, not for {given}")));
        }
        let mut opened = Zeroizing::new(body.to_vec());
        let sealing = SecretKey::derive(key.0.expose(), "rookery recovery export v1");
        seal::decrypt(sealing.expose(), *nonce, fields, &mut opened, *tag)
            .map_err(|_| refuse("was changed or damaged".to_owned()))?;
        let (wrapping, keyring) = opened.split_first_chunk::<KEY_BYTES>().ok_or_else(short)?;
        let mut wrapping = Zeroizing::new(*wrapping);
        let wrapping_key = SecretKey::take(&mut wrapping);
        Ok(Self { master, wrapping_key, keyring: keyring.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key() -> RecoveryKey {
        RecoveryKey(SecretKey::take(&mut [5; 32]))
    }

    #[test]
    fn a_recovery_key_is_read_as_people_type_it() {
        let text = key().expose_text();
        assert_eq!(
            text.as_str(),
            "AUCQ-KBIF-AUCQ-KBIF-AUCQ-KBIF-AUCQ-KBIF-AUCQ-KBIF-AUCQ-KBIF-AUCQ-RYSM"
        );
        for typed in [
            text.to_lowercase(),
            text.replace('-', " "),
            text.replace('-', ""),
            format!(" {}\n", text.as_str()),
        ] {
            assert_eq!(RecoveryKey::parse(&typed).unwrap().id(), key().id());
        }
        let mut mistyped = text.to_string();
        mistyped.replace_range(0..1, "B");
        for (typed, part) in [
            (mistyped.as_str(), "mistyped"),
            (&text[1..], "too short"),
            (&format!("{}A", text.as_str()), "too long"),
            (&text.replace('A', "1"), "2 to 7"),
            ("", "too short"),
        ] {
            let error = RecoveryKey::parse(typed).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_bytes_of_an_export_do_not_change_and_any_other_is_refused() {
        let (master, wrapping) = (KeyId([3; 8]), SecretKey::take(&mut [4; 32]));
        let sealed =
            RecoveryExport::seal_with_nonce(&key(), master, &wrapping, b"keyring", [9; 24]);
        let sealed = sealed.unwrap();
        assert_eq!(
            hex::encode(&sealed),
            "524f4f4b4552595201d60b20a4a23481ab0303030303030303090909090909090909090909090909\
             0909090909090909098954d02927901c0021e333f88215f18c66799f9183b20664de545345110727\
             b0403a5d532cb9d9d3a3aff222bc7dbb7fb96e329fcac82c"
        );
        let path = Path::new("export");
        let opened = RecoveryExport::open(path, &sealed, &key()).unwrap();
        assert_eq!((opened.master, opened.keyring.as_slice()), (master, b"keyring".as_slice()));
        assert_eq!(opened.wrapping_key.expose(), &[4; 32]);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RecoveryExport::open(path, &bad, &key()).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(RecoveryExport::open(path, &sealed[..len], &key()).is_err(), "length {len}");
        }
        let other = RecoveryExport::open(path, &sealed, &RecoveryKey::random().unwrap());
        assert!(other.is_err_and(|error| error.to_string().contains("was made for recovery key")));
    }
}
