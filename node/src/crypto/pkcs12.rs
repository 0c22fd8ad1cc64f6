//! Passwords of PKCS#12 files (RFC 7292, RFC 8018): whether one is right, and what it opens. For reading files that
//! other programs made; nothing of this node is protected this way.
//!
//! Old ciphers stand here because the files exist; what they hid is public (certificates), dropped unread (keys), or the
//! key of a server that somebody moves this way, wiped after use.
//! Nothing is bounded here: the caller has looked at [`Scheme::rounds`] and [`Mac::rounds`] before.

use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pkcs5::{EncryptionScheme, pbes2};
use pkcs12::kdf::{Pkcs12KeyType, derive_key};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// A password in the two encodings that the files use.
pub struct Password {
    /// UTF-8, for PBES2.
    text: Zeroizing<Vec<u8>>,
    /// UTF-16, big endian, with a terminating zero, for the key derivation of PKCS#12 itself (RFC 7292, B.1).
    wide: Zeroizing<Vec<u8>>,
}

impl Password {
    /// A password, or the empty one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        // Reserved at once, so that no part of it is moved and left behind.
        let mut wide = Zeroizing::new(Vec::with_capacity(2 * text.len() + 2));
        wide.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
        wide.extend([0, 0]);
        Self { text: Zeroizing::new(text.as_bytes().to_vec()), wide }
    }

    /// None at all, which some programs encode as nothing, without the terminating zero.
    #[must_use]
    pub fn absent() -> Self {
        Self { text: Zeroizing::default(), wide: Zeroizing::default() }
    }
}

/// The hash of a [`Mac`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1, which files of older programs use.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// What proves a password and the integrity of the file (RFC 7292, section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mac {
    /// Of the key derivation and of the HMAC.
    pub hash: Hash,
    /// Of the key derivation.
    pub salt: Vec<u8>,
    /// Of the key derivation.
    pub rounds: u32,
    /// What the file says.
    pub expected: Vec<u8>,
}

/// One hash after the other has the same lines of code and another type.
macro_rules! verify {
    ($hash:ty, $mac:expr, $password:expr, $content:expr) => {{
        let bytes = <$hash as sha2::Digest>::output_size();
        let key = derived::<$hash>($password, &$mac.salt, Pkcs12KeyType::Mac, $mac.rounds, bytes);
        Hmac::<$hash>::new_from_slice(&key).is_ok_and(|mut hmac| {
            hmac.update($content);
            hmac.verify_slice(&$mac.expected).is_ok()
        })
    }};
}

impl Mac {
    /// Whether the password is the file's, and the content what it was when the file was made. Compared in constant time.
    #[must_use]
    pub fn holds(&self, password: &Password, content: &[u8]) -> bool {
        match self.hash {
            Hash::Sha1 => verify!(Sha1, self, password, content),
            Hash::Sha224 => verify!(Sha224, self, password, content),
            Hash::Sha256 => verify!(Sha256, self, password, content),
            Hash::Sha384 => verify!(Sha384, self, password, content),
            Hash::Sha512 => verify!(Sha512, self, password, content),
        }
    }
}

/// A cipher of PKCS#12 itself (RFC 7292, appendix C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldCipher {
    /// pbeWithSHAAnd3-KeyTripleDES-CBC.
    TripleDes,
    /// pbeWithSHAAnd40BitRC2-CBC.
    Rc2,
}

/// How a part of a file is encrypted.
#[derive(Debug, Clone, PartialEq)]
pub enum Scheme {
    /// PBES2 with PBKDF2 and AES.
    Modern(Box<pbes2::Parameters>),
    /// With the key derivation of PKCS#12.
    Old {
        /// The cipher.
        cipher: OldCipher,
        /// Of the key derivation.
        salt: Vec<u8>,
        /// Of the key derivation.
        rounds: u32,
    },
}

impl Scheme {
    /// Reads the AlgorithmIdentifier of PBES2; `None` for what is damaged or not known here, scrypt among it.
    #[must_use]
    pub fn modern(algorithm_der: &[u8]) -> Option<Self> {
        let EncryptionScheme::Pbes2(parameters) = EncryptionScheme::try_from(algorithm_der).ok()?
        else {
            return None;
        };
        parameters.kdf.pbkdf2()?;
        Some(Self::Modern(Box::new(parameters)))
    }

    /// Rounds as the file names them.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        match self {
            Self::Modern(parameters) => {
                parameters.kdf.pbkdf2().map_or(u32::MAX, |kdf| kdf.iteration_count)
            }
            Self::Old { rounds, .. } => *rounds,
        }
    }

    /// Rounds that [`Self::decrypt`] takes: some keys need more than one run.
    #[must_use]
    pub fn cost(&self) -> u64 {
        let runs = match self {
            // SHA-1 gives 20 bytes a run, which is less than a key of AES-192.
            Self::Modern(parameters) => {
                let prf = parameters.kdf.pbkdf2().map(|kdf| kdf.prf);
                let bytes = match prf {
                    Some(pbes2::Pbkdf2Prf::HmacWithSha1) => 20,
                    Some(pbes2::Pbkdf2Prf::HmacWithSha224) => 28,
                    _ => 32, // The enum is open; what is known has 32 and more.
                };
                parameters.encryption.key_size().div_ceil(bytes) as u64
            }
            // The key of 3DES has 24 bytes, and the initial vector takes a run of its own.
            Self::Old { cipher: OldCipher::TripleDes, .. } => 3,
            Self::Old { cipher: OldCipher::Rc2, .. } => 2,
        };
        u64::from(self.rounds()) * runs
    }

    /// Decrypts; `None` where the password or the ciphertext is wrong.
    #[must_use]
    pub fn decrypt(&self, password: &Password, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let bytes = match self {
            Self::Modern(parameters) => {
                parameters.decrypt_in_place(&*password.text, &mut buffer).ok()?.len()
            }
            Self::Old { cipher, salt, rounds } => {
                let key = |kind, bytes| derived::<Sha1>(password, salt, kind, *rounds, bytes);
                let initial = key(Pkcs12KeyType::Iv, 8);
                match cipher {
                    OldCipher::TripleDes => {
                        let key = key(Pkcs12KeyType::EncryptionKey, 24);
                        type Cbc = cbc::Decryptor<des::TdesEde3>;
                        let cbc = Cbc::new_from_slices(&key, &initial).ok()?;
                        cbc.decrypt_padded::<Pkcs7>(&mut buffer).ok()?.len()
                    }
                    OldCipher::Rc2 => {
                        let key = key(Pkcs12KeyType::EncryptionKey, 5);
                        type Cbc = cbc::Decryptor<rc2::Rc2>;
                        let cbc = Cbc::new_from_slices(&key, &initial).ok()?;
                        cbc.decrypt_padded::<Pkcs7>(&mut buffer).ok()?.len()
                    }
                }
            }
        };
        buffer.truncate(bytes);
        Some(buffer)
    }
}

fn derived<D>(
    password: &Password,
    salt: &[u8],
    kind: Pkcs12KeyType,
    rounds: u32,
    bytes: usize,
) -> Zeroizing<Vec<u8>>
where
    D: sha2::Digest + hmac::digest::FixedOutputReset + hmac::digest::block_api::BlockSizeUser,
{
    let rounds = i32::try_from(rounds).unwrap_or(i32::MAX);
    Zeroizing::new(derive_key::<D>(&password.wide, salt, kind, rounds, bytes))
}
