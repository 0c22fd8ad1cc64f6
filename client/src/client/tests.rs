//! The client against a node of its own making: real TLS, real HTTP/2, answers from a script.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::VecDeque, net::SocketAddr};

use rookery_proto::document::v1::{
    document_service_server::{DocumentService, DocumentServiceServer},
    *,
};
use tokio_rustls::{TlsAcceptor, rustls as tls_server};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

/// Answers every put with the next word of the script and keeps the request ids.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<&'static str>>,
    request_ids: Mutex<Vec<String>>,
}

struct Fake(Arc<Script>);

fn status(code: tonic::Code, reason: &str, retry_ms: Option<u64>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "rookery", <[(String, String); 0]>::default());
    if let Some(ms) = retry_ms {
        details.set_retry_info(Some(Duration::from_millis(ms)));
    }
    Status::with_error_details(code, reason.to_lowercase(), details)
}

#[tonic::async_trait]
impl DocumentService for Fake {
    async fn put_document(
        &self,
        request: tonic::Request<PutDocumentRequest>,
    ) -> Result<Response<PutDocumentResponse>, Status> {
        self.0.request_ids.lock().unwrap().push(request.into_inner().request_id);
        let answer = self.0.answers.lock().unwrap().pop_front().unwrap_or("ok");
        match answer {
            "ok" => Ok(Response::new(PutDocumentResponse { etag: "1".into(), position: None })),
            "hang" => std::future::pending().await,
            "busy" => Err(status(tonic::Code::Unavailable, "NO_QUORUM", Some(120))),
            "stale" => Err(status(tonic::Code::Unavailable, "AUTHORIZATION_STALE", None)),
            "conflict" => Err(status(tonic::Code::Aborted, "CONCURRENCY", None)),
            "denied" => Err(status(tonic::Code::PermissionDenied, "DATABASE_ACCESS_DENIED", None)),
            other => panic!("{other} is not in the script's language"),
        }
    }
    async fn get_document(
        &self,
        _: tonic::Request<GetDocumentRequest>,
    ) -> Result<Response<GetDocumentResponse>, Status> {
        std::future::pending().await
    }
    async fn delete_document(
        &self,
        _: tonic::Request<DeleteDocumentRequest>,
    ) -> Result<Response<DeleteDocumentResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    async fn list_documents(
        &self,
        _: tonic::Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    async fn batch_write(
        &self,
        _: tonic::Request<BatchWriteRequest>,
    ) -> Result<Response<BatchWriteResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

struct Node {
    address: String,
    script: Arc<Script>,
}

/// A certificate for `name` that is its own anchor.
fn made(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap()
}

async fn node(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>, answers: &[&'static str]) -> Node {
    let key = rustls_pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der());
    let mut config = tls_server::ServerConfig::builder_with_provider(Arc::new(
        tls_server::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certificate.cert.der().clone()], key.unwrap())
    .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let script = Arc::new(Script {
        answers: Mutex::new(answers.iter().copied().collect()),
        request_ids: Mutex::default(),
    });
    let service = DocumentServiceServer::new(Fake(Arc::clone(&script)));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(tcp).await?;
                let service = hyper_util::service::TowerToHyperService::new(service);
                let executor = hyper_util::rt::TokioExecutor::new();
                let io = hyper_util::rt::TokioIo::new(stream);
                let server = hyper_util::server::conn::auto::Builder::new(executor).http2_only();
                server.serve_connection(io, service).await.map_err(std::io::Error::other)
            });
        }
    });
    Node { address, script }
}

fn client(addresses: &[&str], ca_pem: &str, timeout_ms: u64) -> Client {
    let me = made("alice");
    let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
    let context = Context::from_pem(
        "alice",
        addresses,
        me.cert.pem().as_bytes(),
        me.signing_key.serialize_pem().as_bytes(),
        ca_pem.as_bytes(),
    )
    .unwrap();
    let policy = Policy { attempt_timeout: Duration::from_millis(400), ..Policy::default() };
    Client::with_options(
        &context,
        Options { timeout: Duration::from_millis(timeout_ms), policy, request_id: None },
    )
    .unwrap()
}

async fn put(client: &Client) -> Result<String, Error> {
    client.put("db", "a", "", b"{}".to_vec()).await.map(|answer| answer.etag)
}

/// Runs one put against one node with a script: how it ends, how often the node was asked, and that every attempt had
/// the same request id.
async fn check(answers: &[&'static str], expected: &str, asked: usize) {
    let certificate = made("localhost");
    let node = node(&certificate, answers).await;
    let ended = put(&client(&[&node.address], &certificate.cert.pem(), 1500)).await;
    let ended = ended.as_ref().map_or_else(Error::kind, |_| "ok");
    assert_eq!(ended, expected, "{answers:?}");
    let ids = node.script.request_ids.lock().unwrap().clone();
    assert_eq!(ids.len(), asked, "{answers:?}");
    assert!(ids.iter().all(|id| *id == ids[0] && Uuid::try_parse(id).is_ok()), "{ids:?}");
}

#[tokio::test]
async fn retries_carry_the_same_request_id_and_end_as_the_log_decides() {
    check(&["ok"], "ok", 1).await;
    check(&["stale", "stale", "ok"], "ok", 3).await;
    check(&["busy", "ok"], "ok", 2).await;
    check(&["hang", "ok"], "ok", 2).await;
    check(&["conflict"], "conflict", 1).await;
    check(&["denied"], "denied", 1).await;
    check(&["stale", "hang"], "ok", 3).await;
    // The first attempt may have been applied; what the log answers later settles it, what a gate answers does not.
    check(&["hang", "conflict"], "conflict", 2).await;
    check(&["hang", "denied"], "unknown-outcome", 2).await;
    check(&["hang", "hang", "hang", "hang", "hang"], "unknown-outcome", 4).await;
}

#[tokio::test]
async fn the_pause_a_node_asks_for_is_kept() {
    let certificate = made("localhost");
    let node = node(&certificate, &["busy", "ok"]).await;
    let started = Instant::now();
    put(&client(&[&node.address], &certificate.cert.pem(), 2000)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn the_next_node_is_asked_where_one_is_gone_and_a_pinned_client_does_not() {
    let certificate = made("localhost");
    let node = node(&certificate, &[]).await;
    let gone = "localhost:1";
    let client = client(&[gone, &node.address], &certificate.cert.pem(), 3000);
    put(&client).await.unwrap();
    assert_eq!(client.addresses().last().map(String::as_str), Some(gone));
    let pinned = client.pinned(gone).with_policy(Policy::once());
    let error = put(&pinned).await.unwrap_err();
    assert_eq!(error.kind(), "unavailable", "{error}");
}

#[tokio::test]
async fn servers_are_verified_with_anchor_and_host_name() {
    let (right, other, wrong_name) = (made("localhost"), made("localhost"), made("elsewhere"));
    let node_right = node(&right, &[]).await;
    let node_wrong = node(&wrong_name, &[]).await;
    let check = async |address: &str, ca: &rcgen::CertifiedKey<rcgen::KeyPair>, ok: bool| {
        let client = client(&[address], &ca.cert.pem(), 2000).with_policy(Policy::once());
        match put(&client).await {
            Ok(_) => assert!(ok, "accepted"),
            Err(error) => assert_eq!((ok, error.kind()), (false, "tls"), "{error}"),
        }
    };
    check(&node_right.address, &right, true).await;
    check(&node_right.address, &other, false).await;
    check(&node_wrong.address, &wrong_name, false).await;
}

#[tokio::test]
async fn a_self_signed_certificate_that_calls_itself_a_ca_is_its_own_anchor() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).unwrap();
    let ca = rcgen::CertifiedKey { cert, signing_key: key };
    let node = node(&ca, &[]).await;
    put(&client(&[&node.address], &ca.cert.pem(), 2000)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_an_anchor_is_trusted_alone_whoever_issued_it() {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(params, rcgen::KeyPair::generate().unwrap());
    let issued = |host: &str, end: (i32, u8, u8)| {
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let cert = params.signed_by(&signing_key, &issuer).unwrap();
        rcgen::CertifiedKey { cert, signing_key }
    };
    let (own, twin) = (issued("localhost", (4000, 1, 1)), issued("localhost", (4000, 1, 1)));
    let (expired, elsewhere) =
        (issued("localhost", (2020, 1, 1)), issued("elsewhere", (4000, 1, 1)));
    for (presented, anchor, trusted) in [
        (&own, &own, true),
        (&twin, &own, false),
        (&expired, &expired, false),
        (&elsewhere, &elsewhere, false),
    ] {
        let node = node(presented, &[]).await;
        let client = client(&[&node.address], &anchor.cert.pem(), 2000);
        let told = put(&client.with_policy(Policy::once())).await;
        assert_eq!(told.as_ref().err().map(|error| error.kind()), (!trusted).then_some("tls"));
    }
}

#[tokio::test]
async fn what_a_node_said_is_reported_and_not_the_silence_after_it() {
    let certificate = made("localhost");
    let node = node(&certificate, &["busy", "hang", "hang", "hang"]).await;
    let error = put(&client(&[&node.address], &certificate.cert.pem(), 900)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), ("unknown-outcome", "NO_QUORUM"), "{error}");
}

#[tokio::test]
async fn reads_end_with_the_deadline() {
    let certificate = made("localhost");
    let node = node(&certificate, &[]).await;
    let client = client(&[&node.address], &certificate.cert.pem(), 600);
    let started = Instant::now();
    let error = client.get("db", "a").await.unwrap_err();
    assert_eq!(error.kind(), "timeout");
    assert!(started.elapsed() < Duration::from_secs(2));
}
