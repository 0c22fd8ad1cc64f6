//! The ways in which a client reaches a node again and again, and what each of its requests was told.
//!
//! A [`Line`] is a call and how it travels; a [`Session`] is one client that uses a line to one node; a [`Watch`] runs
//! many of them and notes every decision, for `authorization_history` to judge.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::channel::mpsc;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use rookery_proto::document::v1::GetDocumentRequest;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::client::TlsStream;
use tonic::{Status, Streaming};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
};

use crate::{
    authorization_history::{Moment, Request},
    caller::{Caller, Decision},
    cluster::Cluster,
    connection::{self, Tls},
    identity::Identity,
    node::Node,
    probes::{Call, Target},
};

/// Longest wait for one answer; nothing was decided then.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Largest answer over HTTP/1.1 that is read.
const HTTP1_BYTES_MAX: usize = 64 * 1024;

/// A call and how it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// On one HTTP/2 connection that stays open.
    Kept(Call),
    /// On a new connection each time.
    New(Call),
    /// A linearizable read over HTTP/1.1 on a connection that stays open.
    Http1,
    /// Messages of one running stream: server reflection.
    Stream,
}

/// What reaches one node as one identity.
#[derive(Clone)]
pub struct Entrance {
    address: SocketAddr,
    server: CertificateDer<'static>,
    identity: Identity,
}

impl Entrance {
    /// The client listener of `node`.
    #[must_use]
    pub fn of(node: &Node, identity: &Identity) -> Self {
        Self::new(node.addresses.client, node.certificate(), identity)
    }

    /// The client listener at `address` that presents `server`.
    #[must_use]
    pub fn new(address: SocketAddr, server: &CertificateDer<'static>, identity: &Identity) -> Self {
        Self { address, server: server.clone(), identity: identity.clone() }
    }

    /// A caller on a connection of its own.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn caller(&self) -> Result<Caller> {
        let channel = connection::channel(self.address, &self.server, Some(&self.identity))?;
        Ok(Caller { channel })
    }
}

type Reflection =
    (mpsc::UnboundedSender<ServerReflectionRequest>, Streaming<ServerReflectionResponse>);

/// One client on one line to one node.
pub struct Session {
    line: Line,
    entrance: Entrance,
    caller: Caller,
    stream: Option<Reflection>,
    http1: Option<TlsStream<TcpStream>>,
    /// Connections that [`Line::Http1`] and streams that [`Line::Stream`] opened.
    pub opened: usize,
}

fn broken(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Session {
    /// A session that connects with its first request.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn new(line: Line, entrance: &Entrance) -> Result<Self> {
        let caller = entrance.caller()?;
        let entrance = entrance.clone();
        Ok(Self { line, entrance, caller, stream: None, http1: None, opened: 0 })
    }

    /// Makes one request.
    ///
    /// # Errors
    /// The status of the answer, or UNAVAILABLE where none came.
    pub async fn make(&mut self, target: Target<'_>) -> Result<(), Status> {
        match self.line {
            Line::Kept(call) => call.make(&self.caller, target).await,
            Line::New(call) => {
                let caller = self.entrance.caller().map_err(broken)?;
                call.make(&caller, target).await
            }
            Line::Http1 => {
                let made = self.over_http1(target).await;
                if made.as_ref().is_err_and(|s| {
                    matches!(Decision::of(&Err::<(), _>(s.clone())), Decision::None(_))
                }) {
                    self.http1 = None; // Broken.
                }
                made
            }
            Line::Stream => {
                let made = self.over_stream().await;
                if made.is_err() {
                    self.stream = None;
                }
                made
            }
        }
    }

    /// Whether a stream is open, as far as this client knows.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.stream.is_some()
    }

    /// Closes the stream and the HTTP/1.1 connection. To be done where a request was given up: its answer would pass for
    /// the answer of the next one.
    pub fn forget(&mut self) {
        self.stream = None;
        self.http1 = None;
    }

    async fn over_stream(&mut self) -> Result<(), Status> {
        if self.stream.is_none() {
            let (sender, requests) = mpsc::unbounded();
            let mut client = ServerReflectionClient::new(self.caller.channel.clone());
            let answers = client.server_reflection_info(requests).await?.into_inner();
            self.opened += 1;
            self.stream = Some((sender, answers));
        }
        let (sender, answers) = self.stream.as_mut().ok_or_else(|| broken("no stream"))?;
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        sender.unbounded_send(request).map_err(broken)?;
        answers.message().await?.map(drop).ok_or_else(|| broken("the stream has ended"))
    }

    async fn over_http1(&mut self, target: Target<'_>) -> Result<(), Status> {
        if self.http1.is_none() {
            let tls = Tls { alpn: vec![b"http/1.1".to_vec()], ..Tls::default() };
            let config = tls.config(&self.entrance.server, Some(&self.entrance.identity));
            let config = Arc::new(config.map_err(broken)?);
            let stream = connection::connect(self.entrance.address, config).await;
            self.http1 = Some(stream.map_err(broken)?);
            self.opened += 1;
        }
        let stream = self.http1.as_mut().ok_or_else(|| broken("no connection"))?;
        let request = GetDocumentRequest {
            database: target.database.to_owned(),
            id: target.id.to_owned(),
            stale_ok: false,
        };
        let message = request.encode_to_vec();
        let mut bytes = format!(
            "POST /rookery.document.v1.DocumentService/GetDocument HTTP/1.1\r\nhost: rookery\r\n\
             content-type: application/grpc\r\nte: trailers\r\ncontent-length: {}\r\n\r\n",
            message.len() + 5
        )
        .into_bytes();
        bytes.push(0); // Not compressed (gRPC over HTTP/2, "Length-Prefixed-Message").
        bytes.extend_from_slice(&u32::try_from(message.len()).map_err(broken)?.to_be_bytes());
        bytes.extend_from_slice(&message);
        stream.write_all(&bytes).await.map_err(broken)?;
        let headers = answer_headers(stream).await.map_err(broken)?;
        // A refusal has its status among the headers and no body.
        match Status::from_header_map(&headers) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status),
            Some(_) | None => Ok(()),
        }
    }
}

/// Reads one answer to its end and gives its headers.
async fn answer_headers(stream: &mut TlsStream<TcpStream>) -> Result<HeaderMap> {
    let mut read = Vec::new();
    let mut headers = None;
    loop {
        if headers.is_none()
            && let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n")
        {
            headers = Some((parse_headers(&read[..end])?, end + 4));
        }
        if let Some((parsed, end)) = &headers {
            let body = &read[*end..];
            let length = parsed.get("content-length").and_then(|value| value.to_str().ok());
            let is_whole = match length {
                Some(length) => body.len() >= length.parse::<usize>()?,
                None => body.ends_with(b"0\r\n\r\n") || body.ends_with(b"\r\n\r\n"),
            };
            if is_whole {
                return Ok(parsed.clone());
            }
        }
        anyhow::ensure!(read.len() < HTTP1_BYTES_MAX, "an answer without end");
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await?;
        anyhow::ensure!(count > 0, "the connection was closed");
        read.extend_from_slice(&buffer[..count]);
    }
}

fn parse_headers(bytes: &[u8]) -> Result<HeaderMap> {
    let text = std::str::from_utf8(bytes)?;
    let mut headers = HeaderMap::new();
    for line in text.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").context("a header line")?;
        headers.insert(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(headers)
}

/// What one line to one node was told.
#[derive(Debug)]
pub struct Told {
    /// The line.
    pub line: Line,
    /// What was decided.
    pub requests: Vec<Request>,
    /// The last refusal, or answer without a decision.
    pub last: Option<Status>,
}

/// Many sessions at work.
pub struct Watch {
    began: Instant,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Told>>,
}

impl Watch {
    /// Opens `lines` to the nodes at `places` as `identity`, and makes requests with `pause` between them.
    ///
    /// # Errors
    /// The first request of a session is not allowed.
    pub async fn start(
        cluster: &Cluster,
        places: &[usize],
        identity: &Identity,
        target: Target<'_>,
        lines: &[Line],
        pause: Duration,
    ) -> Result<Self> {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut tasks = Vec::new();
        for &node in places {
            let entrance = Entrance::of(&cluster.nodes[node], identity);
            for &line in lines {
                let mut session = Session::new(line, &entrance)?;
                let first = session.make(target).await;
                first.with_context(|| format!("the first of {line:?} on n{}", node + 1))?;
                let (database, id) = (target.database.to_owned(), target.id.to_owned());
                let stop = Arc::clone(&stop);
                tasks.push(tokio::spawn(async move {
                    let target = Target { database: &database, id: &id };
                    repeat(session, node, target, began, &stop, pause).await
                }));
            }
        }
        Ok(Self { began, stop, tasks })
    }

    /// The time of this watch.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Ends it and gives what each session was told.
    ///
    /// # Errors
    /// A session panicked.
    pub async fn finish(self) -> Result<Vec<Told>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for task in self.tasks {
            told.push(task.await?);
        }
        Ok(told)
    }
}

async fn repeat(
    mut session: Session,
    node: usize,
    target: Target<'_>,
    began: Instant,
    stop: &AtomicBool,
    pause: Duration,
) -> Told {
    let mut told = Told { line: session.line, requests: Vec::new(), last: None };
    while !stop.load(Ordering::Relaxed) {
        let start = began.elapsed();
        let made = tokio::time::timeout(ANSWER_LIMIT, session.make(target)).await;
        let end = began.elapsed();
        let outcome = made.unwrap_or_else(|_| {
            session.forget();
            Err(Status::deadline_exceeded("no answer"))
        });
        let allowed = match Decision::of(&outcome) {
            Decision::Allowed(_) => Some(true),
            Decision::Denied(_) | Decision::Unauthenticated(_) => Some(false),
            Decision::None(_) => None,
        };
        told.requests.extend(allowed.map(|allowed| Request { node, start, end, allowed }));
        told.last = outcome.err().or(told.last);
        tokio::time::sleep(pause).await;
    }
    told
}

/// The requests of all sessions, by line.
#[must_use]
pub fn by_line(told: Vec<Told>) -> BTreeMap<Line, Vec<Request>> {
    let mut lines: BTreeMap<Line, Vec<Request>> = BTreeMap::new();
    for one in told {
        lines.entry(one.line).or_default().extend(one.requests);
    }
    lines
}
