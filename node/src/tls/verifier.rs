//! What a handshake must prove: possession of the key, on the server's side for any certificate, on the dialling side
//! for exactly one.

use std::{error::Error as StdError, fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ClientCertificate, provider};
use crate::{limits, names::Thumbprint};

/// Why a certificate ended the handshake.
#[derive(thiserror::Error)]
enum Refused {
    #[error("the certificate has {0} bytes; at most {max} are accepted", max = limits::CERTIFICATE_BYTES_MAX)]
    TooLarge(usize),
    #[error("the chain has {0} certificates; at most {max} are accepted", max = limits::CERTIFICATE_CHAIN_MAX)]
    ChainTooLong(usize),
    #[error("the certificate is {have}, not the expected {expected}")]
    NotPinned { have: String, expected: String },
}

/// rustls shows its cause by `Debug`; an operator should read the sentence.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn refused(why: Refused) -> Error {
    let source: Arc<dyn StdError + Send + Sync> = Arc::new(why);
    Error::InvalidCertificate(CertificateError::Other(OtherError(source)))
}

/// Checks the form of what was presented, before anything is hashed or parsed further.
fn well_formed(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
    if rest.len() + 1 > limits::CERTIFICATE_CHAIN_MAX {
        return Err(refused(Refused::ChainTooLong(rest.len() + 1)));
    }
    for certificate in std::iter::once(leaf).chain(rest) {
        if certificate.len() > limits::CERTIFICATE_BYTES_MAX {
            return Err(refused(Refused::TooLarge(certificate.len())));
        }
    }
    ParsedCertificate::try_from(leaf)?;
    Ok(())
}

/// The server's side: any well-formed certificate whose key the client proves to hold.
#[derive(Debug)]
pub struct AnyCertificate {
    certificate: ClientCertificate,
}

impl AnyCertificate {
    /// A verifier that goes on without a certificate or not.
    #[must_use]
    pub fn new(certificate: ClientCertificate) -> Self {
        Self { certificate }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.certificate == ClientCertificate::Required
    }

    /// Empty: a list of issuers would make clients hold back certificates of other issuers.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        well_formed(leaf, rest)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The dialling side: one of the certificates by which a node is known, by whatever name it was dialled.
#[derive(Debug)]
pub struct PinnedCertificate {
    expected: Vec<Thumbprint>,
}

impl PinnedCertificate {
    /// A verifier that accepts these alone.
    #[must_use]
    pub fn new(expected: &[Thumbprint]) -> Self {
        Self { expected: expected.to_vec() }
    }
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        well_formed(leaf, rest)?;
        let have = Thumbprint::of(leaf);
        if self.expected.contains(&have) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected: Vec<_> = self.expected.iter().map(Thumbprint::short).collect();
        Err(refused(Refused::NotPinned { have: have.short(), expected: expected.join(" or ") }))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
