//! Certificates out of what somebody uploaded: DER, PEM or PKCS#12; private keys are dropped.

use std::collections::BTreeSet;

use crate::{
    certificates::{Refused, bounded, parse, parse::x509, pem, pkcs12},
    limits,
};

/// What an upload held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The holder's certificates in DER, at least one, in the order of the upload; the first is the primary.
    pub certificates: Vec<Vec<u8>>,
    /// Certificates that only issue others of the upload, and so are nobody's identity.
    pub authorities_skipped: usize,
    /// Whether a private key was in it too. It was neither decrypted nor copied; the caller zeroizes the upload itself.
    pub private_key_dropped: bool,
}

impl Upload {
    /// The certificate, where only one can be used.
    ///
    /// # Errors
    /// [`Refused::SeveralCertificates`].
    pub fn single(mut self) -> Result<Vec<u8>, Refused> {
        match (self.certificates.pop(), self.certificates.len()) {
            (Some(der), 0) => Ok(der),
            (Some(_), others) => Err(Refused::SeveralCertificates(others + 1)),
            (None, _) => Err(Refused::NoCertificate),
        }
    }
}

/// Takes the holder's certificates out of DER, PEM or PKCS#12. Every certificate in it must be one; those that issue
/// others are skipped, so that of a chain the leaf is left. A CA's certificate alone is taken for the holder's.
///
/// Reading PKCS#12 may take most of a second of one core, so this is no work for an asynchronous task. `bytes` may hold
/// a private key: the caller zeroizes them.
///
/// # Errors
/// No certificates, too many, one twice, a private key alone, a password that is missing or wrong, what is too much,
/// and what [`parse`] refuses.
pub fn from_upload(bytes: &[u8], password: Option<&str>) -> Result<Upload, Refused> {
    bounded(bytes, limits::UPLOAD_BYTES_MAX)?;
    let (found, private_key_dropped) =
        if bytes.first() == Some(&0x30) { from_der(bytes, password)? } else { from_pem(bytes)? };
    let total = found.len();
    let certificates = holders(found)?;
    let authorities_skipped = total - certificates.len();
    Ok(Upload { certificates, authorities_skipped, private_key_dropped })
}

/// All certificates, and whether there was a key among them.
type Found = (Vec<Vec<u8>>, bool);

fn from_der(bytes: &[u8], password: Option<&str>) -> Result<Found, Refused> {
    if is_pkcs12(bytes) {
        let contents = pkcs12::read(bytes, password)?;
        return match contents.certificates.is_empty() {
            true if contents.private_key => Err(Refused::PrivateKey),
            true => Err(Refused::NoCertificate),
            false => Ok((contents.certificates, contents.private_key)),
        };
    }
    match parse(bytes) {
        Ok(parsed) => Ok((vec![parsed.der], false)),
        Err(Refused::Malformed(_)) if is_private_key(bytes) => Err(Refused::PrivateKey),
        Err(refused) => Err(refused),
    }
}

fn from_pem(bytes: &[u8]) -> Result<Found, Refused> {
    let mut certificates = Vec::new();
    let mut private_key = false;
    for section in pem::sections(bytes) {
        if section.label.ends_with(b"PRIVATE KEY") {
            private_key = true;
        } else if section.label == b"CERTIFICATE" {
            if certificates.len() == limits::UPLOAD_CERTIFICATES_MAX {
                return Err(Refused::TooManyCertificates(limits::UPLOAD_CERTIFICATES_MAX));
            }
            certificates.push(section.decode().ok_or(Refused::Malformed("its PEM is damaged"))?);
        }
    }
    match certificates.is_empty() {
        true if private_key => Err(Refused::PrivateKey),
        true => Err(Refused::NoCertificate),
        false => Ok((certificates, private_key)),
    }
}

/// Those that issue no other. By name, as a chain is built; who signed what does not matter, because nothing is trusted
/// for its issuer. A certificate that names itself as its issuer makes no authority of a namesake.
fn holders(all: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Refused> {
    let mut known = BTreeSet::new();
    let mut issuers = BTreeSet::new();
    let mut subjects = Vec::with_capacity(all.len());
    for der in &all {
        let certificate = x509(der)?;
        if !known.insert(der.as_slice()) {
            return Err(Refused::Duplicate);
        }
        let (subject, issuer) = (certificate.subject().as_raw(), certificate.issuer().as_raw());
        if subject != issuer {
            issuers.insert(issuer.to_vec());
        }
        subjects.push(subject.to_vec());
    }
    let holders = subjects.iter().map(|subject| !issuers.contains(subject)).collect::<Vec<_>>();
    let holders: Vec<_> =
        all.into_iter().zip(holders).filter_map(|(der, holds)| holds.then_some(der)).collect();
    if holders.is_empty() { Err(Refused::Circle) } else { Ok(holders) }
}

/// `SEQUENCE { INTEGER 3, SEQUENCE …`: the head of a PKCS#12 file (RFC 7292, section 4).
/// Reading one takes up to a second; reading anything else, microseconds.
#[must_use]
pub fn is_pkcs12(bytes: &[u8]) -> bool {
    content(bytes).is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03, 0x30]))
}

/// `SEQUENCE { INTEGER 0 or 1, …`: the head of PKCS#8 (RFC 5958), PKCS#1 and SEC1 private keys.
pub(super) fn is_private_key(bytes: &[u8]) -> bool {
    let content = content(bytes);
    content.is_some_and(|content| matches!(content, [0x02, 0x01, 0x00 | 0x01, ..]))
}

/// What stands behind the tag and length of the outer value, BER included.
fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.get(1..)?.split_first()?;
    let skipped = if *length < 0x80 { 0 } else { usize::from(*length & 0x7f) };
    rest.get(skipped..)
}
