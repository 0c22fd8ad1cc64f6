//! The certificates of what somebody uploaded, PEM or DER; private keys are dropped.

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    certificates::{Refused, bounded, parse},
    limits,
};

/// What an upload held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Leaf certificates in DER, the primary first; at least one.
    pub certificates: Vec<Vec<u8>>,
    /// CA certificates that were in it and were passed over.
    pub authorities_skipped: usize,
    /// Whether a private key was in it too, which was dropped and zeroized.
    pub private_key_dropped: bool,
}

/// Takes the certificates out of PEM or DER. The caller zeroizes `bytes`, which may hold a private key.
///
/// # Errors
/// No certificate or too many, PKCS#12, a private key alone, or what [`parse`] refuses.
pub fn from_upload(bytes: &[u8], _password: Option<&str>) -> Result<Upload, Refused> {
    bounded(bytes, limits::UPLOAD_BYTES_MAX)?;
    if bytes.first() == Some(&0x30) {
        return from_der(bytes);
    }
    from_pem(bytes)
}

fn from_der(bytes: &[u8]) -> Result<Upload, Refused> {
    match parse(bytes) {
        Ok(parsed) => Ok(Upload {
            certificates: vec![parsed.der],
            authorities_skipped: 0,
            private_key_dropped: false,
        }),
        Err(Refused::Malformed(_) | Refused::NotCanonical(_) | Refused::TooLarge { .. })
            if is_pkcs12(bytes) =>
        {
            Err(Refused::Pkcs12)
        }
        Err(Refused::Malformed(_)) if is_private_key(bytes) => Err(Refused::PrivateKey),
        Err(refused) => Err(refused),
    }
}

fn from_pem(bytes: &[u8]) -> Result<Upload, Refused> {
    let mut certificates = Vec::new();
    let mut private_key_dropped = names_a_private_key(bytes);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, mut body) = section.map_err(|_| Refused::Malformed("its PEM is damaged"))?;
        if kind == SectionKind::Certificate {
            certificates.push(body);
            continue;
        }
        private_key_dropped |=
            [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey]
                .contains(&kind);
        body.zeroize();
    }
    if certificates.is_empty() {
        let refused =
            if private_key_dropped { Refused::PrivateKey } else { Refused::NoCertificate };
        return Err(refused);
    }
    if certificates.len() > limits::ENTRY_CERTIFICATES_MAX {
        return Err(Refused::TooManyCertificates(certificates.len()));
    }
    let parsed = certificates.iter().map(|der| Ok(parse(der)?.der));
    let certificates = parsed.collect::<Result<_, Refused>>()?;
    Ok(Upload { certificates, authorities_skipped: 0, private_key_dropped })
}

/// Sections that the PEM reader passes over, such as encrypted keys, are private keys too.
fn names_a_private_key(bytes: &[u8]) -> bool {
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----"))
}

/// `SEQUENCE { INTEGER 3, SEQUENCE …`: the head of a PKCS#12 file (RFC 7292, section 4).
fn is_pkcs12(bytes: &[u8]) -> bool {
    content(bytes).is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03, 0x30]))
}

/// `SEQUENCE { INTEGER 0 or 1, …`: the head of PKCS#8 (RFC 5958), PKCS#1 and SEC1 private keys.
fn is_private_key(bytes: &[u8]) -> bool {
    let content = content(bytes);
    content.is_some_and(|content| matches!(content, [0x02, 0x01, 0x00 | 0x01, ..]))
}

/// What stands behind the tag and length of the outer value, BER included.
fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.get(1..)?.split_first()?;
    let skipped = if *length < 0x80 { 0 } else { usize::from(*length & 0x7f) };
    rest.get(skipped..)
}
