//! Certificate requests (PKCS#10, RFC 2986): somebody keeps a private key and asks for a certificate over its public half.
//!
//! Of a request only the key is taken. Its subject, its extensions and its attributes are wishes that nobody has to
//! grant: what stands in the certificate is what the administrator ordered.

use x509_parser::{
    certification_request::X509CertificationRequest, error::X509Error, prelude::FromDer as _,
};

use crate::{
    certificates::{
        Refused, bounded, der, parse::Key, pem, registrable::check_key, upload::is_private_key,
    },
    limits,
};

/// A request whose signature proved that whoever made it holds the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// SubjectPublicKeyInfo in DER.
    public_key: Vec<u8>,
    /// Such as "ECDSA P-256".
    key_algorithm: String,
}

impl SigningRequest {
    /// Reads a request in PEM or DER and checks its signature. Keys as for registered certificates: ECDSA P-256 and
    /// P-384, Ed25519, RSA of 2048 to 8192 bits with an exponent of 65537 or more.
    ///
    /// # Errors
    /// No request, a damaged one, a key that cannot be used, or a signature that does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        bounded(bytes, limits::CERTIFICATE_REQUEST_BYTES_MAX)?;
        if bytes.first() == Some(&0x30) {
            return Self::from_der(bytes);
        }
        Self::from_der(&from_pem(bytes)?)
    }

    fn from_der(bytes: &[u8]) -> Result<Self, Refused> {
        if is_private_key(bytes) && !is_request(bytes) {
            return Err(Refused::PrivateKey);
        }
        der::check(bytes).map_err(|_| Refused::Request("it is not one whole value in DER"))?;
        let (_, request) = X509CertificationRequest::from_der(bytes)
            .map_err(|_| Refused::Request("its fields are not those of a request"))?;
        let public_key = &request.certification_request_info.subject_pki;
        let key = Key::of(public_key);
        check_key(&key)?;
        request.verify_signature().map_err(|error| {
            let unsupported = matches!(error, X509Error::SignatureUnsupportedAlgorithm);
            if unsupported { Refused::RequestAlgorithm } else { Refused::RequestSignature }
        })?;
        Ok(Self { public_key: public_key.raw.to_vec(), key_algorithm: key.to_string() })
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Such as "ECDSA P-256".
    #[must_use]
    pub fn key_algorithm(&self) -> &str {
        &self.key_algorithm
    }
}

fn from_pem(bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut private_key = false;
    for section in pem::sections(bytes) {
        private_key |= section.label.ends_with(b"PRIVATE KEY");
        // The second is what Windows writes.
        if [&b"CERTIFICATE REQUEST"[..], b"NEW CERTIFICATE REQUEST"].contains(&section.label) {
            return section.decode().ok_or(Refused::Request("its PEM is damaged"));
        }
    }
    Err(if private_key { Refused::PrivateKey } else { Refused::NoRequest })
}

/// `SEQUENCE { SEQUENCE …`; a key is `SEQUENCE { INTEGER …`.
fn is_request(bytes: &[u8]) -> bool {
    der::split_value(bytes).is_ok_and(|(_, content, _)| content.first() == Some(&0x30))
}
