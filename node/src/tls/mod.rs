//! TLS as both listeners and the peer channel speak it: who holds which key, and nothing about what they may do.
//!
//! | port | versions | client certificate | ALPN |
//! | --- | --- | --- | --- |
//! | client | 1.3, and 1.2 where the configuration says so | asked for, not demanded | h2, http/1.1 |
//! | peer | 1.3 | demanded | h2 |
//!
//! A certificate proves one thing here: that the other side holds its key. No chain, name or date is looked at; who a
//! certificate belongs to is looked up by its thumbprint, on every request, by others. Therefore:
//!
//! 1. The handshake signature is verified by rustls' own helpers, for TLS 1.2 and 1.3 ([`verifier`]).
//! 2. No session is ever resumed and no early data accepted: a resumed session would skip step 1.
//! 3. Identity is the first certificate of the chain and no other ([`PeerCertificate::of`]).
//!
//! Absent: certificate authorities, host names, key logs, session tickets.

mod command;
mod identity;
mod signature;
mod verifier;

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, CommonState, NoKeyLog, ServerConfig, SupportedProtocolVersion,
    client::Resumption, crypto::CryptoProvider, server::NoServerSessionStorage,
};

pub use self::{
    command::run_for_identity,
    identity::{CurrentIdentity, IdentityError, TlsIdentity, expected_name, read_private_file},
    signature::{Signed, is_signed},
    verifier::{AnyCertificate, PinnedCertificate},
};
use crate::names::Thumbprint;

/// Whether the handshake goes on without a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Asked for; an anonymous connection passes (client port).
    Optional,
    /// Demanded (peer port).
    Required,
}

/// The protocol versions that a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3 alone.
    Tls13,
    /// TLS 1.3, and TLS 1.2 for clients that have nothing newer.
    Tls12And13,
}

impl Versions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        const BOTH: &[&SupportedProtocolVersion] =
            &[&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls13 => TLS13,
            Self::Tls12And13 => BOTH,
        }
    }
}

/// The application protocols that a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// gRPC alone.
    H2,
    /// gRPC, and pages for browsers.
    H2AndHttp1,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2 => vec![b"h2".to_vec()],
            Self::H2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// The cryptography of every handshake: aws-lc with its default suites (AES-GCM, ChaCha20-Poly1305; X25519MLKEM768 first).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// What the client listener speaks.
///
/// # Errors
/// As [`server_config`].
pub fn client_port_config(
    identity: &Arc<CurrentIdentity>,
    tls12: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions = if tls12 { Versions::Tls12And13 } else { Versions::Tls13 };
    server_config(identity, ClientCertificate::Optional, versions, Alpn::H2AndHttp1)
}

/// What the peer listener speaks.
///
/// # Errors
/// As [`server_config`].
pub fn peer_port_config(
    identity: &Arc<CurrentIdentity>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    server_config(identity, ClientCertificate::Required, Versions::Tls13, Alpn::H2)
}

/// The server's side of a handshake. A certificate that is replaced in `identity` is served from the next handshake on.
///
/// # Errors
/// The provider lacks a cipher suite for the versions.
pub fn server_config(
    identity: &Arc<CurrentIdentity>,
    certificate: ClientCertificate,
    versions: Versions,
    alpn: Alpn,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions.supported())?
        .with_client_cert_verifier(Arc::new(AnyCertificate::new(certificate)))
        .with_cert_resolver(identity.clone());
    config.alpn_protocols = alpn.protocols();
    // A resumed session presents no signature, so its certificate would go unproven and a revoked one live on.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog);
    Ok(Arc::new(config))
}

/// The dialling side of a handshake: shows `identity`, and accepts holders of the keys of `expected` certificates alone.
///
/// # Errors
/// The provider lacks a cipher suite for TLS 1.3.
pub fn pinned_client_config(
    identity: Arc<TlsIdentity>,
    expected: &[Thumbprint],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(Versions::Tls13.supported())?
        .dangerous() // The pin is stricter than any chain.
        .with_custom_certificate_verifier(Arc::new(PinnedCertificate::new(expected)))
        .with_client_cert_resolver(identity);
    config.alpn_protocols = Alpn::H2.protocols();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = true; // The name asks for one of the peer's certificates; it is no host name.
    config.key_log = Arc::new(NoKeyLog);
    Ok(Arc::new(config))
}

/// The certificate whose key the other side of a connection has proven to hold; an extension of every request.
#[derive(Clone)]
pub struct PeerCertificate {
    /// SHA-256 of the certificate.
    pub thumbprint: Thumbprint,
    /// The certificate exactly as it was received.
    pub der: Arc<[u8]>,
}

impl PeerCertificate {
    /// The certificate of a finished handshake; `None` where the other side showed none.
    #[must_use]
    pub fn of(connection: &CommonState) -> Option<Self> {
        // Only the first certificate was proven; the rest of the chain is whatever the other side likes to send.
        let leaf = connection.peer_certificates()?.first()?;
        Some(Self { thumbprint: Thumbprint::of(leaf), der: leaf.as_ref().into() })
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.thumbprint.fmt(f)
    }
}

/// The thumbprint of the certificate that the other side proved; `None` where it showed none.
#[must_use]
pub fn leaf_thumbprint(connection: &CommonState) -> Option<Thumbprint> {
    Some(Thumbprint::of(connection.peer_certificates()?.first()?))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
