//! What a certificate is: parsed, judged fit for registration, issued, and packed for its holder.
//!
//! ```text
//! upload:    bytes -> from_upload -> parse -> check_registrable -> the registry
//! generate:  issue_client -> parse -> check_registrable -> the registry -> package, once
//! request:   bytes -> SigningRequest -> issue_for_request -> … -> package without a key
//! export:    public certificates -> collection (PFX and PEM)
//! ```
//!
//! Trust never comes from here: a certificate is an identity because it is registered, whoever issued it. What is
//! refused at registration is what a handshake would refuse or what would surprise its holder later (weak keys,
//! unsupported curves, a CA's certificate, usages that exclude clients, extensions nobody understands).
//!
//! **Invariant:** pure but for randomness. No policy, no registry, no clock: `at` and dates are the caller's.
//!
//! **Invariant:** names within certificates are shown, never used: [`escape`] makes them harmless, and nothing parses
//! an identity out of them. Identity is the thumbprint of the whole DER.
//!
//! **Invariant:** a private key is never kept: [`Secret`] zeroizes itself and prints as nothing.

mod der;
mod display;
mod issue;
mod lineage;
mod package;
mod parse;
mod pem;
mod pfx;
mod pkcs12;
mod readme;
mod registrable;
mod request;
mod secret;
mod server;
mod upload;

pub use display::{escape, is_misleading};
pub use issue::{IssueRequest, Issued, issue_ca, issue_client, issue_for_request, issue_node};
pub use lineage::{KeyDigest, key_digest, same_issuer};
pub use package::{HolderKey, PackageContents, file_stem, package, password};
pub use parse::{Parsed, parse};
pub use pem::{certificate_pem, pem};
pub use pfx::{Protection, collection};
pub use registrable::{Usage, check_registrable};
pub use request::SigningRequest;
pub use secret::Secret;
pub use server::{ServerIdentity, covers_host, server_identity};
pub use upload::{Upload, from_upload, is_pkcs12};

use crate::{limits, names::Timestamp};

/// Why a certificate cannot be taken: who is to blame is always whoever handed it in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing was given.
    #[error("the certificate is empty")]
    Empty,
    /// Larger than is looked at.
    #[error("the certificate is too large: {bytes} bytes, at most {bytes_max} are taken")]
    TooLarge {
        /// What was given.
        bytes: usize,
        /// What is taken.
        bytes_max: usize,
    },
    /// No X.509 certificate.
    #[error("this is not an X.509 certificate: {0}")]
    Malformed(&'static str),
    /// Another encoding of the same certificate would have another thumbprint.
    #[error("the certificate is not in DER, the one exact encoding: {0}; export it again")]
    NotCanonical(&'static str),
    /// Bytes after the certificate.
    #[error("{0} bytes follow the certificate; give the certificate alone")]
    TrailingBytes(usize),
    /// A text without a certificate.
    #[error("no certificate was found; give one as PEM (-----BEGIN CERTIFICATE-----) or as DER")]
    NoCertificate,
    /// A text with several.
    #[error("{0} certificates were found, and one is expected; give the holder's alone")]
    SeveralCertificates(usize),
    /// More certificates than one entry takes.
    #[error("there are more than {0} certificates in it; give those of one holder alone")]
    TooManyCertificates(usize),
    /// The same certificate more than once.
    #[error("a certificate stands in it twice; give each once")]
    Duplicate,
    /// Every certificate is the issuer of another.
    #[error("its certificates issue one another in a circle, so none is the holder's")]
    Circle,
    /// A PKCS#12 file that is damaged.
    #[error("the PKCS#12 file (.pfx, .p12) is damaged: {0}; export it again")]
    Pkcs12(&'static str),
    /// A PKCS#12 file in BER, as NSS exports them.
    #[error(
        "the PKCS#12 file is in BER, as Firefox and NSS (pk12util) export them, and only DER is read here; take the \
         certificate out of it with `openssl pkcs12 -in FILE -nokeys -out certificate.pem` and give that"
    )]
    Pkcs12Ber,
    /// A PKCS#12 file that is protected in a way that is not known here.
    #[error(
        "the PKCS#12 file cannot be read here: {0}; take the certificate out of it with `openssl pkcs12 -in FILE \
         -nokeys -out certificate.pem` and give that"
    )]
    Pkcs12Unsupported(&'static str),
    /// A PKCS#12 file that proves nothing.
    #[error(
        "the PKCS#12 file has no MAC, so nothing tells whether it is whole; export it with one"
    )]
    Pkcs12WithoutMac,
    /// A PKCS#12 file that would keep a processor busy for long.
    #[error(
        "the PKCS#12 file demands {rounds} rounds of key derivation, at most {rounds_max} are done; export it again \
         with fewer"
    )]
    Pkcs12Rounds {
        /// What the file demands.
        rounds: u64,
        /// What is done.
        rounds_max: u64,
    },
    /// A PKCS#12 file with too much in it.
    #[error(
        "the PKCS#12 file holds more than {1} {0}; give a file with the certificates of one holder"
    )]
    Pkcs12TooMany(&'static str, usize),
    /// A PKCS#12 file with a password, and none was given.
    #[error("the PKCS#12 file has a password; give it too")]
    PasswordRequired,
    /// Not its password.
    #[error("this is not the password of the PKCS#12 file, or the file is damaged")]
    WrongPassword,
    /// No request in what should be one.
    #[error(
        "no certificate request was found; give one (PKCS#10) as PEM (-----BEGIN CERTIFICATE REQUEST-----) or as DER"
    )]
    NoRequest,
    /// A certificate request that is damaged.
    #[error("the certificate request is damaged: {0}")]
    Request(&'static str),
    /// A certificate request without proof that who made it holds the key.
    #[error("the certificate request is not signed by the key that stands in it")]
    RequestSignature,
    /// A certificate request that is signed in a way that cannot be checked here.
    #[error(
        "the certificate request is signed with an algorithm that cannot be checked here; sign it with SHA-256 and the \
         key's own scheme"
    )]
    RequestAlgorithm,
    /// A private key where a certificate is expected.
    #[error(
        "this is a private key; give the certificate or the request, and keep the key to yourself"
    )]
    PrivateKey,
    /// Not version 3.
    #[error(
        "the certificate is X.509 version {0}; version 3 is required, and TLS would refuse it too"
    )]
    Version(u32),
    /// A key that TLS connections here cannot use.
    #[error(
        "{0} keys cannot be used for TLS here; use ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits"
    )]
    UnsupportedKey(String),
    /// A key that does not protect.
    #[error(
        "the key is too weak: {0}; use ECDSA P-256, Ed25519, or RSA of at least 2048 bits with exponent 65537"
    )]
    WeakKey(String),
    /// A key that is none.
    #[error("the public key is malformed: {0}")]
    MalformedKey(&'static str),
    /// Its last moment has passed.
    #[error("the certificate expired at {}; make a new one", moment(*.0))]
    Expired(Timestamp),
    /// It ends before it begins.
    #[error("the certificate ends before it begins")]
    Dates,
    /// A CA's certificate.
    #[error(
        "the certificate is a CA's (basicConstraints CA:TRUE); register the leaf certificate of the holder"
    )]
    Authority,
    /// Key usage without digital signatures.
    #[error("the certificate's key usage lacks digitalSignature, without which TLS cannot use it")]
    KeyUsage,
    /// Extended key usage without the purpose.
    #[error(
        "the certificate's extended key usage lacks {0}; leave the extension out, or name the purpose in it"
    )]
    ExtendedKeyUsage(&'static str),
    /// A critical extension that is not understood.
    #[error("the certificate has a critical extension that is not understood: {0}")]
    CriticalExtension(String),
    /// The same extension twice, or one that cannot be read.
    #[error("the certificate's extension {0} is malformed or stands twice")]
    Extension(String),
    /// A self-signed certificate that its own key did not sign.
    #[error(
        "the certificate says that it signed itself, but the signature does not hold: the file is damaged"
    )]
    SelfSignature,
    /// Refused by the TLS library for a reason of its own.
    #[error("TLS cannot use the certificate: {0}")]
    Tls(String),
}

/// Why a certificate could not be issued or packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The names or dates cannot stand in a certificate.
    #[error("cannot issue a certificate: {0}")]
    Request(String),
    /// The issuer's certificate or key cannot be used, or they do not belong together.
    #[error("the issuer cannot sign: {0}")]
    Issuer(String),
    /// Signing or encoding failed.
    #[error("could not issue the certificate")]
    Issue(#[source] rcgen::Error),
    /// The operating system gave no random bytes.
    #[error("no randomness")]
    Random(#[source] getrandom::Error),
    /// An address that cannot stand in a package.
    #[error("address {0:?} is not host:port")]
    Address(String),
    /// The PFX could not be made.
    #[error("could not make the PFX: {0}")]
    Pfx(#[source] p12_keystore::error::Error),
    /// The archive could not be made.
    #[error("could not make the archive")]
    Archive(#[source] zip::result::ZipError),
    /// The archive could not be written.
    #[error("could not write the archive")]
    Write(#[from] std::io::Error),
    /// The context file could not be written.
    #[error("could not write context.toml")]
    Context(#[source] toml::ser::Error),
}

/// A moment as people read it, in UTC.
fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| format!("{at} ms after 1970"), |at| at.to_string())
}

fn bounded(bytes: &[u8], bytes_max: usize) -> Result<(), Refused> {
    match bytes.len() {
        0 => Err(Refused::Empty),
        n if n > bytes_max => Err(Refused::TooLarge { bytes: n, bytes_max }),
        _ => Ok(()),
    }
}

fn bounded_certificate(der: &[u8]) -> Result<(), Refused> {
    bounded(der, limits::CERTIFICATE_BYTES_MAX)
}

#[cfg(test)]
mod package_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upload_tests;
