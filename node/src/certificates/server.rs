//! The certificate and key of a node out of what an administrator gives: PEM, or PKCS#12.

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName,
    pem::{PemObject as _, SectionKind},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    certificates::{Refused, bounded, parse::x509, pkcs12},
    limits,
};

/// A certificate with its issuers, own certificate first, and its private key (DER); the key is wiped when dropped.
pub struct ServerIdentity {
    /// DER, own certificate first; at most [`limits::CERTIFICATE_CHAIN_MAX`].
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, SEC1 or PKCS#1.
    pub key: Zeroizing<Vec<u8>>,
}

/// Takes a certificate and its key from PEM, or from PKCS#12 with its password (empty: none).
///
/// Whether the key belongs to the certificate is checked where it is used for TLS. The caller wipes `content`.
///
/// # Errors
/// What is not there, stands there twice, or cannot be opened.
pub fn server_identity(content: &[u8], password: &str) -> Result<ServerIdentity, Refused> {
    bounded(content, limits::UPLOAD_BYTES_MAX)?;
    let identity = match content.first() {
        Some(0x30) => from_pkcs12(content, password)?,
        Some(_) | None => from_pem(content)?,
    };
    match identity.chain.len() {
        0 => Err(Refused::NoCertificate),
        count if count > limits::CERTIFICATE_CHAIN_MAX => Err(Refused::SeveralCertificates(count)),
        _ => Ok(identity),
    }
}

fn from_pem(content: &[u8]) -> Result<ServerIdentity, Refused> {
    let mut chain = Vec::new();
    let mut keys: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(content) {
        let (kind, mut body) = section.map_err(|_| Refused::Malformed("its PEM is damaged"))?;
        let is_key =
            [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey]
                .contains(&kind);
        if kind == SectionKind::Certificate {
            chain.push(body);
        } else if is_key {
            keys.push(Zeroizing::new(body));
        } else {
            body.zeroize();
        }
    }
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(ServerIdentity { chain, key }),
        (Some(_), false) => Err(Refused::Malformed("it holds more than one private key")),
        (None, _) => Err(Refused::Malformed("it holds no unencrypted private key")),
    }
}

fn from_pkcs12(content: &[u8], password: &str) -> Result<ServerIdentity, Refused> {
    let (contents, key) = pkcs12::read_with_key(content, Some(password))?;
    let der = PrivateKeyDer::try_from(key.as_slice())
        .map_err(|_| Refused::Pkcs12("its private key is not PKCS#8"))?;
    let public = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
        .ok()
        .and_then(|key| key.public_key().map(|public| public.to_vec()))
        .ok_or(Refused::Pkcs12("its private key is of a kind that TLS has no use for"))?;
    Ok(ServerIdentity { chain: chain_of(&public, contents.certificates)?, key })
}

/// The certificate of a public key, and its issuers among the others, one after the other; by name, as chains are built.
fn chain_of(public: &[u8], mut certificates: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Refused> {
    let mut own = None;
    for (place, der) in certificates.iter().enumerate() {
        if x509(der)?.public_key().raw == public {
            own = own.or(Some(place));
        }
    }
    let none = Refused::Malformed("the PKCS#12 file holds no certificate of its private key");
    let mut chain = vec![certificates.swap_remove(own.ok_or(none)?)];
    while let Some(last) = chain.last() {
        let last = x509(last)?;
        if last.subject().as_raw() == last.issuer().as_raw() {
            break;
        }
        let issuer = last.issuer().as_raw().to_vec();
        let is_issuer =
            |der: &Vec<u8>| x509(der).is_ok_and(|other| other.subject().as_raw() == issuer);
        let Some(place) = certificates.iter().position(is_issuer) else { break };
        // Taken out, so a circle ends.
        chain.push(certificates.swap_remove(place));
    }
    Ok(chain)
}

/// Whether clients that dial `host` (a name or an address) would find it in the certificate (RFC 9525).
#[must_use]
pub fn covers_host(der: &[u8], host: &str) -> bool {
    let der = CertificateDer::from(der);
    let Ok(certificate) = webpki::EndEntityCert::try_from(&der) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(name) = ServerName::try_from(host) else { return false };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}
