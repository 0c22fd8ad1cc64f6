//! A TLS connection or gRPC channel with a chosen certificate to one chosen node.
//!
//! The node is pinned by its certificate, so that a test knows who answered; names and authorities are ignored.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::identity::Identity;

/// Longest time one call may take in a test.
pub const CALL_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Accepts one server certificate and checks that the server holds its key.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if certificate.as_ref() == self.certificate.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("not the node that the test asked for".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Presents a chain with whatever key stands beside it, fitting or not, whatever the server hints at.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// How a client speaks TLS in a test.
#[derive(Clone)]
pub struct Tls {
    /// Protocols offered in ALPN; empty: none.
    pub alpn: Vec<Vec<u8>>,
    /// Versions offered.
    pub versions: Vec<&'static rustls::SupportedProtocolVersion>,
    /// Whether sessions are kept for resumption.
    pub resumption: bool,
    /// Whether early data is sent where a session allows it.
    pub early_data: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            alpn: vec![b"h2".to_vec()],
            versions: vec![&rustls::version::TLS13],
            resumption: false,
            early_data: false,
        }
    }
}

impl Tls {
    /// The rustls configuration of a client that pins `server` and presents `identity`.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn config(
        &self,
        server: &CertificateDer<'static>,
        identity: Option<&Identity>,
    ) -> Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pinned = Pinned { certificate: server.clone(), provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = provider.key_provider.load_private_key(identity.key.clone_key())?;
                let presents = Presents(Arc::new(CertifiedKey::new(identity.chain.clone(), key)));
                builder.with_client_cert_resolver(Arc::new(presents))
            }
        };
        config.alpn_protocols = self.alpn.clone();
        config.enable_early_data = self.early_data;
        if !self.resumption {
            config.resumption = rustls::client::Resumption::disabled();
        }
        Ok(config)
    }
}

/// Opens a TLS connection to `address`.
///
/// # Errors
/// No connection, or the handshake was refused. In TLS 1.3 a refusal of the client's certificate shows only when the
/// connection is read.
pub async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(ServerName::IpAddress(address.ip().into()), stream).await
}

/// A gRPC channel to `address`; it connects with the first call, and again whenever the connection has ended.
///
/// # Errors
/// The key cannot be loaded.
pub fn channel(
    address: SocketAddr,
    server: &CertificateDer<'static>,
    identity: Option<&Identity>,
) -> Result<Channel> {
    let config = Arc::new(Tls::default().config(server, identity)?);
    let connector = tower::service_fn(move |_: http::Uri| {
        let config = Arc::clone(&config);
        async move { connect(address, config).await.map(TokioIo::new) }
    });
    Ok(endpoint(address)?.connect_with_connector_lazy(connector))
}

/// A gRPC channel over the unix socket `path`.
///
/// # Errors
/// Never, as long as the placeholder address parses.
pub fn unix_channel(path: &std::path::Path) -> Result<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(endpoint(([127, 0, 0, 1], 1).into())?.connect_with_connector_lazy(connector))
}

fn endpoint(address: SocketAddr) -> Result<Endpoint> {
    // The scheme says nothing here: the connector speaks TLS.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("an address")?;
    Ok(endpoint.connect_timeout(CONNECT_LIMIT).timeout(CALL_LIMIT))
}
