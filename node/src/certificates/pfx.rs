//! PKCS#12 files (RFC 7292) as they are made here: for the holder of a key, and of public certificates alone.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::{
    certificates::{Error, Secret},
    names::Thumbprint,
};

/// Rounds of PBKDF2 and of the MAC's key derivation; far below what OpenSSL, NSS and Chromium take at most.
const ROUNDS: u32 = 100_000;

/// How a PFX is protected by its password. The salt of the MAC has 8 bytes in both, which all readers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// PBES2 with AES-256 and HMAC-SHA-256: OpenSSL 1.1 and newer, NSS, Chromium, Windows 10 1709 and newer, Java.
    #[default]
    Modern,
    /// 3DES and HMAC-SHA-1: older Windows and macOS. Weak: for the way to such a machine, not for keeping.
    Compatible,
}

impl Protection {
    fn algorithms(self) -> (EncryptionAlgorithm, MacAlgorithm) {
        match self {
            Self::Modern => {
                (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256)
            }
            Self::Compatible => {
                (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1)
            }
        }
    }
}

/// The leaf and its key, nothing else: no chain means anything here. The key is PKCS#8 in PEM.
pub(super) fn with_key(
    alias: &str,
    der: &[u8],
    key_pem: &Secret,
    password: &Secret,
    protection: Protection,
) -> Result<Vec<u8>, Error> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.expose().as_bytes())
        .map_err(|_| Error::Issuer("the private key is not PKCS#8 in PEM".to_owned()))?;
    let key = PrivateKey::from_der(key.secret_pkcs8_der()).map_err(Error::Pfx)?;
    let leaf = Certificate::from_der(der).map_err(Error::Pfx)?;
    let id = Thumbprint::of(der).as_bytes()[..20].to_vec();
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(id, key, [leaf]);
    store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(chain));
    write(&store, password, protection)
}

/// Public certificates in one file, each under its alias; of two with one alias the last is left. No key is in it: the
/// password, which may be empty, protects against changes alone.
///
/// # Errors
/// A certificate that cannot be read, or an encoding that fails.
pub fn collection<'a>(
    certificates: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    password: &Secret,
) -> Result<Vec<u8>, Error> {
    let mut store = KeyStore::new();
    for (alias, der) in certificates {
        let certificate = Certificate::from_der(der).map_err(Error::Pfx)?;
        store.add_entry(alias, KeyStoreEntry::Certificate(certificate));
    }
    write(&store, password, Protection::Modern)
}

fn write(store: &KeyStore, password: &Secret, protection: Protection) -> Result<Vec<u8>, Error> {
    let (encryption, mac) = protection.algorithms();
    store
        .writer(password.expose())
        .encryption_algorithm(encryption)
        .encryption_iterations(ROUNDS)
        .mac_algorithm(mac)
        .mac_iterations(ROUNDS)
        .write()
        .map_err(Error::Pfx)
}
