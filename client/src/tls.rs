//! TLS 1.3 to a node: the client shows its certificate, the server is verified with the context's anchors.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{context, context::Context};

/// The TLS configuration of a context: TLS 1.3 alone, no resumption (each connection proves the key anew), ALPN h2.
pub(crate) fn client_config(context: &Context) -> Result<Arc<ClientConfig>, context::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let bad = |what, e: &dyn std::fmt::Display| context::Error::Credential {
        what,
        problem: e.to_string(),
    };
    let verifier = AnchorsVerifier::new(context.ca(), Arc::clone(&provider))
        .map_err(|problem| context::Error::Credential { what: "ca", problem })?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| bad("tls", &e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = if context.certificate().is_empty() {
        builder.with_no_client_auth()
    } else {
        builder
            .with_client_auth_cert(context.certificate().to_vec(), context.key()?)
            .map_err(|e| bad("certificate", &e))?
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// `WebPKI`, with one addition: a certificate that is an anchor itself is trusted, whoever issued it and whether it is a CA
/// or not.
///
/// A self-signed node certificate without `CA:TRUE` verifies as its own anchor; one with `CA:TRUE` (what `openssl req
/// -x509` makes) is refused by webpki as an end entity, and one that a CA issued for want of that CA. Equality with an anchor
/// is at least as strict as a signature by it.
#[derive(Debug)]
struct AnchorsVerifier {
    anchors: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
}

impl AnchorsVerifier {
    fn new(
        anchors: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots.add(anchor.clone()).map_err(|e| e.to_string())?;
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { anchors: anchors.to_vec(), webpki })
    }

    /// Whether an anchor was refused for its issuer or its kind: webpki comes to both after the dates.
    fn is_refused_anchor(&self, end_entity: &CertificateDer<'_>, error: &rustls::Error) -> bool {
        let rustls::Error::InvalidCertificate(error) = error else { return false };
        let by_issuer =
            matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature);
        let by_kind = matches!(error, CertificateError::Other(other)
            if other.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity));
        (by_issuer || by_kind) && self.anchors.iter().any(|anchor| anchor == end_entity)
    }
}

impl ServerCertVerifier for AnchorsVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(error) if self.is_refused_anchor(end_entity, &error) => {
                rustls::client::verify_server_name(
                    &rustls::server::ParsedCertificate::try_from(end_entity)?,
                    server_name,
                )?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
