//! The certificate and key of a node out of what an administrator gives: PEM, or PKCS#12.

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName,
    pem::{PemObject as _, SectionKind},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    certificates::{Refused, bounded},
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
    let refused = Refused::Malformed("this is no PKCS#12 file, or its password is another one");
    let store = KeyStore::from_pkcs12(content, password, Pkcs12ImportPolicy::Strict)
        .map_err(|_| refused.clone())?;
    let (_, found) = store
        .private_key_chain()
        .ok_or(Refused::Malformed("the PKCS#12 file holds no private key with its certificate"))?;
    let chain = found.certs().iter().map(|certificate| certificate.as_der().to_vec()).collect();
    let key = Zeroizing::new(found.key().as_der().to_vec());
    PrivateKeyDer::try_from(key.as_slice()).map_err(|_| refused)?;
    Ok(ServerIdentity { chain, key })
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
