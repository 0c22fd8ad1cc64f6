//! The edge over real sockets: real TLS, real HTTP/2, the real state machines, and no Raft.
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]

mod bad_input;
mod calls;
mod fake;
mod inspect;
mod monitoring;
mod rpcs;
mod server;
mod server_certificates;
mod studio;
mod studio_audit;
mod studio_changes;
mod studio_data;
mod trust;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rookery_proto::{
    database::v1 as database,
    security::v1::{self as security, Access, Clearance},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, codec::CompressionEncoding};
use tonic_types::StatusExt as _;

use self::fake::Fake;
use crate::{
    clock::SystemClock,
    crypto::SealingKey,
    edge::{
        Edge, Node, client_router,
        connections::{Bounds, Connections},
        listener::{self, Listener, Surface},
        live::Live,
        metrics::Metrics,
        recognition::Recognition,
    },
    tls::{self, CurrentIdentity, PinnedCertificate, TlsIdentity, testing::identity},
};

/// A node that listens, and who may speak to it.
struct Fixture {
    address: SocketAddr,
    fake: Arc<Fake>,
    edge: Arc<Edge>,
    connections: Arc<Connections>,
    root: TlsIdentity,
    server: TlsIdentity,
    stop: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Client bounds with a handshake that gives up soon.
const BOUNDS: Bounds = Bounds {
    connections_max: 64,
    per_address_max: 64,
    handshakes_max: 8,
    handshake_timeout: Duration::from_millis(400),
};

impl Fixture {
    fn start() -> Self {
        let (server, root) = (identity("n1.example"), identity("root"));
        let connections = Connections::new(BOUNDS);
        let fake =
            Fake::formed(server.certificate_der(), root.certificate_der(), connections.clone());
        let current = CurrentIdentity::new(server.clone());
        let metrics = Arc::new(Metrics::default());
        let edge = Arc::new(Edge {
            engine: fake.clone(),
            node: Node {
                name: "n1".into(),
                identity: current.clone(),
                ca_pem: None,
                sealing: Arc::new(SealingKey::make().unwrap()),
            },
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
            work: Default::default(),
            recognition: Recognition::default(),
            code_checks: Arc::default(),
            live: Arc::new(Live {
                client: connections.clone(),
                peer: Connections::new(Bounds::PEER),
                metrics: metrics.clone(),
            }),
        });
        let tcp = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = tcp.local_addr().unwrap();
        let stop = CancellationToken::new();
        let listener = Listener {
            surface: Surface::Client,
            tcp,
            tls: tls::client_port_config(&current, false).unwrap(),
            router: client_router(&edge).unwrap(),
            connections: connections.clone(),
            metrics: edge.metrics.clone(),
            admission: None,
            refusals: None,
        };
        tokio::spawn(listener::serve(listener, stop.clone()));
        Self { address, fake, edge, connections, root, server, stop }
    }

    /// A connection with a certificate, or without one.
    async fn connect(&self, who: Option<&TlsIdentity>) -> Client {
        self.connect_as(who, &[b"h2"]).await
    }

    async fn connect_as(&self, who: Option<&TlsIdentity>, alpn: &[&[u8]]) -> Client {
        connect(self.address, &self.server, who, alpn).await
    }

    async fn tls(&self, who: Option<&TlsIdentity>, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        handshake(self.address, &self.server, who, alpn).await
    }

    async fn as_root(&self) -> Client {
        self.connect(Some(&self.root)).await
    }

    /// Registers a certificate as the administrator.
    async fn register(&self, who: &TlsIdentity, clearance: Clearance, grants: &[(&str, Access)]) {
        let grants = grants.iter().map(|(database, access)| security::Grant {
            database: (*database).to_owned(),
            access: (*access).into(),
        });
        let request = security::UploadCertificateRequest {
            name: "somebody".into(),
            clearance: clearance.into(),
            grants: grants.collect(),
            certificate: who.certificate_der().to_vec(),
            ..Default::default()
        };
        self.as_root().await.security().upload_certificate(request).await.unwrap();
    }

    async fn create_database(&self, name: &str) {
        let request = database::CreateDatabaseRequest { name: name.into(), ..Default::default() };
        self.as_root().await.databases().create_database(request).await.unwrap();
    }
}

/// An HTTP/2 connection to a server of this certificate.
async fn connect(
    address: SocketAddr,
    server: &TlsIdentity,
    who: Option<&TlsIdentity>,
    alpn: &[&[u8]],
) -> Client {
    let io = TokioIo::new(handshake(address, server, who, alpn).await);
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (sender, serving) = connected.unwrap();
    tokio::spawn(serving);
    Client { sender, address }
}

async fn handshake(
    address: SocketAddr,
    server: &TlsIdentity,
    who: Option<&TlsIdentity>,
    alpn: &[&[u8]],
) -> TlsStream<TcpStream> {
    let expected = server.thumbprint();
    let mut config = match who {
        Some(identity) => {
            let current = CurrentIdentity::new(identity.clone());
            (*tls::pinned_client_config(current.load(), &[expected]).unwrap()).clone()
        }
        None => ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCertificate::new(&[expected])))
            .with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("n1.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// An HTTP/2 connection.
#[derive(Clone)]
struct Client {
    sender: SendRequest<tonic::body::Body>,
    address: SocketAddr,
}

impl tower::Service<http::Request<tonic::body::Body>> for Client {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

macro_rules! clients {
    ($($method:ident: $area:ident $module:ident $client:ident;)+) => {
        impl Client {
            $(fn $method(&self) -> rookery_proto::$area::v1::$module::$client<Self> {
                let origin = format!("https://{}", self.address).parse().unwrap();
                rookery_proto::$area::v1::$module::$client::with_origin(self.clone(), origin)
                    .accept_compressed(CompressionEncoding::Zstd)
            })+
        }
    };
}
clients! {
    documents: document document_service_client DocumentServiceClient;
    databases: database database_service_client DatabaseServiceClient;
    security: security security_service_client SecurityServiceClient;
    monitoring: monitoring monitoring_service_client MonitoringServiceClient;
    cluster: cluster cluster_service_client ClusterServiceClient;
    server_certificates: security server_certificate_service_client ServerCertificateServiceClient;
}

/// What came back of a raw call.
#[derive(Debug)]
struct Answer {
    http: u16,
    code: Code,
    reason: String,
    message: String,
}

impl Client {
    fn health(&self) -> tonic_health::pb::health_client::HealthClient<Self> {
        let origin = format!("https://{}", self.address).parse().unwrap();
        tonic_health::pb::health_client::HealthClient::with_origin(self.clone(), origin)
    }

    /// A gRPC request as bytes.
    async fn raw(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = http::Request::builder()
            .method("POST")
            .uri(format!("https://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = tonic::body::Body::new(Full::new(Bytes::copy_from_slice(body)));
        let request = request.body(body).unwrap();
        let response = self.sender.clone().send_request(request).await.unwrap();
        let http = response.status().as_u16();
        let first = Status::from_header_map(response.headers());
        let collected = response.into_body().collect().await.unwrap();
        let status = first
            .or_else(|| collected.trailers().and_then(Status::from_header_map))
            .unwrap_or_else(|| Status::unknown("no status"));
        Answer {
            http,
            code: status.code(),
            reason: reason(&status),
            message: status.message().to_owned(),
        }
    }

    /// A call with an empty message.
    async fn empty(&self, rpc: &str) -> Answer {
        self.raw(&format!("/{rpc}"), &[], &[0; 5]).await
    }
}

/// The reason in a status; empty where it has none.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map_or_else(String::new, |info| info.reason.clone())
}
