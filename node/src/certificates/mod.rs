//! What a certificate is: parsed, judged fit for registration, issued, and packed for its holder.
//!
//! ```text
//! upload:    bytes -> from_upload -> parse -> check_registrable -> the registry
//! generate:  issue_client -> parse -> check_registrable -> the registry -> package, once
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
mod registrable;
mod secret;
mod upload;

pub use display::escape;
pub use issue::{IssueRequest, Issued, issue_ca, issue_client, issue_node};
pub use lineage::{KeyDigest, key_digest, same_issuer};
pub use package::{PackageContents, file_stem, package, password};
pub use parse::{Parsed, parse};
pub use registrable::{Usage, check_registrable};
pub use secret::Secret;
pub use upload::{Upload, from_upload};

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
    #[error("{0} certificates were found; give the one leaf certificate, without its chain")]
    SeveralCertificates(usize),
    /// A PKCS#12 file.
    #[error(
        "this is a PKCS#12 file (.pfx, .p12); take the certificate out of it with `openssl pkcs12 -in FILE -clcerts \
         -nokeys -out certificate.pem` and give that"
    )]
    Pkcs12,
    /// A private key where a certificate is expected.
    #[error("this is a private key; give the certificate, and keep the key to yourself")]
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

/// One PEM section, lines of 64 characters.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> Secret {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    // The capacity is exact enough that the text is never moved, so that no copy of a key stays behind.
    let mut body = zeroize::Zeroizing::new(String::with_capacity(der.len() / 3 * 4 + 8));
    STANDARD.encode_string(der, &mut body);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 48);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    Secret::new(text)
}

/// A certificate as PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der).expose().to_owned()
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
mod tests;
