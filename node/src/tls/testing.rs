//! Certificates for tests, made on the spot.

#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::TlsIdentity;

/// A self-signed certificate and its key in DER.
pub(crate) fn certificate(names: &[String]) -> (CertificateDer<'static>, Zeroizing<Vec<u8>>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.der().clone(), Zeroizing::new(key.serialize_der()))
}

/// A fresh identity of ordinary size.
pub(crate) fn identity(name: &str) -> TlsIdentity {
    let (certificate, key) = certificate(&[name.to_owned()]);
    TlsIdentity::new(vec![certificate], key).unwrap()
}
