//! Signatures outside of a handshake: what a node vouches for with the key of its certificate.

use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;

use super::{TlsIdentity, provider};

/// A signature and how it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// TLS SignatureScheme (RFC 8446, section 4.2.3).
    pub scheme: u32,
    /// The signature as TLS has it.
    pub signature: Vec<u8>,
}

/// What is signed with, best first: whatever kind of key the certificate has.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

impl TlsIdentity {
    /// Signs a message, which must begin with a line of its own that no handshake begins with.
    ///
    /// # Errors
    /// A key of a kind that signs nothing here.
    pub fn sign(&self, message: &[u8]) -> Result<Signed, rustls::Error> {
        let unfit = || rustls::Error::General("the key signs with none of the schemes".to_owned());
        let signer = self.signing_key().choose_scheme(SCHEMES).ok_or_else(unfit)?;
        let signature = signer.sign(message)?;
        Ok(Signed { scheme: u32::from(u16::from(signer.scheme())), signature })
    }
}

/// Whether the holder of the certificate's key signed the message. Dates and names of the certificate do not matter.
#[must_use]
pub fn is_signed(certificate: &[u8], message: &[u8], signed: &Signed) -> bool {
    let Ok(scheme) = u16::try_from(signed.scheme) else { return false };
    let scheme = SignatureScheme::from(scheme);
    if !SCHEMES.contains(&scheme) {
        return false;
    }
    let certificate = CertificateDer::from(certificate);
    let Ok(certificate) = webpki::EndEntityCert::try_from(&certificate) else { return false };
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms.mapping.iter();
    algorithms
        .filter(|(of, _)| *of == scheme)
        .flat_map(|(_, algorithms)| *algorithms)
        .any(|it| certificate.verify_signature(*it, message, &signed.signature).is_ok())
}
