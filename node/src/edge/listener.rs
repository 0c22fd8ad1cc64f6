//! The accept loops of the client and the peer listener: from a TCP connection to requests that know who asks.
//!
//! ```text
//! accept -> counted -> first byte is TLS? -> handshake -> admitted? -> HTTP/2 or HTTP/1.1 -> router
//!    |         |              |                  |             |            |
//!    |       full:         else:             5 s over,     peer port:     bounded streams, headers, rest;
//!    |       closed        closed, not       evicted:      no member:     ends when its certificate loses rights
//!    |                     a byte sent       closed        closed
//!    out of descriptors: rest and go on
//! ```
//!
//! **Invariant:** a request reaches the router only with its [`Connection`] among its extensions, and that comes from
//! the handshake alone: no header of a client is ever taken for an identity.
//!
//! Absent: plaintext, session resumption, upgrades, CONNECT.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use crate::{
    edge::{
        connections::{Connection, Connections, Full, Slot},
        metrics::Metrics,
    },
    limits,
    tls::PeerCertificate,
};

/// The first byte of a TLS record that holds a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    /// gRPC and pages for clients.
    Client,
    /// Members among themselves.
    Peer,
}

impl Surface {
    /// The name in metrics and log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }
}

/// Decides after the handshake whether a connection may stay; on the peer listener: whether it is a member's.
pub type Admission = Arc<dyn Fn(Option<&PeerCertificate>) -> bool + Send + Sync>;

/// Hears of connections that were refused: by [`Admission`], or for want of a proven certificate.
pub type Refusals = Arc<dyn Fn(Option<&PeerCertificate>, SocketAddr) + Send + Sync>;

/// A bound listener and what it serves.
pub struct Listener {
    /// Which one.
    pub surface: Surface,
    /// The socket; see [`bind`].
    pub tcp: TcpListener,
    /// How it shakes hands; asked again for each connection.
    pub tls: Arc<ServerConfig>,
    /// What it serves.
    pub router: Router,
    /// Its connections.
    pub connections: Arc<Connections>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Who may stay; `None`: everybody, and each request is decided.
    pub admission: Option<Admission>,
    /// Who hears of connections that are refused for who they are.
    pub refusals: Option<Refusals>,
}

/// Binds a listening socket with keep-alive, which accepted connections inherit.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_BACKLOG)
}

/// Serves until `shutdown`, then lets open calls finish for a bounded time.
pub async fn serve(listener: Listener, shutdown: CancellationToken) {
    let Listener { surface, tcp, tls, router, connections, metrics, admission, refusals } =
        listener;
    let shared = Arc::new(Shared {
        surface,
        acceptor: TlsAcceptor::from(tls),
        router,
        http: http(surface),
        metrics,
        admission,
        refusals,
        handshake_timeout: connections.bounds().handshake_timeout,
        shutdown: shutdown.clone(),
    });
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, remote)) => match connections.admit(remote) {
                Ok(slot) => drop(tasks.spawn(connection(shared.clone(), slot, stream, remote))),
                Err(full) => shared.refuse(full_name(full)),
            },
            Err(error) => after_failed_accept(surface, &error).await,
        }
    }
    drop(tcp);
    tasks.close();
    if timeout(limits::SHUTDOWN_GRACE, tasks.wait()).await.is_err() {
        tracing::info!(listener = surface.name(), "calls were cut off by the shutdown");
    }
}

fn full_name(full: Full) -> &'static str {
    match full {
        Full::Listener => "listener-full",
        Full::Address => "address-full",
    }
}

/// A connection that its client gave up is nothing; without descriptors or memory the loop rests and goes on.
async fn after_failed_accept(surface: Surface, error: &io::Error) {
    let gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !gone {
        tracing::warn!(listener = surface.name(), %error, "cannot accept connections");
        sleep(limits::ACCEPT_BACKOFF).await;
    }
}

struct Shared {
    surface: Surface,
    acceptor: TlsAcceptor,
    router: Router,
    http: auto::Builder<TokioExecutor>,
    metrics: Arc<Metrics>,
    admission: Option<Admission>,
    refusals: Option<Refusals>,
    handshake_timeout: Duration,
    shutdown: CancellationToken,
}

impl Shared {
    fn refuse(&self, why: &'static str) {
        self.metrics.refused(self.surface, why);
    }

    fn refuse_whom(&self, why: &'static str, who: Option<&PeerCertificate>, remote: SocketAddr) {
        self.refuse(why);
        if let Some(heard) = &self.refusals {
            heard(who, remote);
        }
    }
}

/// The HTTP of every connection, with every bound set.
fn http(surface: Surface) -> auto::Builder<TokioExecutor> {
    // Peers send snapshots and appends over few streams; clients have many connections.
    let (stream_window, window) = match surface {
        Surface::Client => (1024 * 1024, 4 * 1024 * 1024),
        Surface::Peer => (limits::PEER_WINDOW_BYTES, 2 * limits::PEER_WINDOW_BYTES),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(window)
        .max_send_buf_size(1024 * 1024)
        .keep_alive_interval(limits::PING_INTERVAL)
        .keep_alive_timeout(limits::PING_TIMEOUT);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_TIMEOUT)
        .max_buf_size(limits::HEADER_LIST_BYTES_MAX as usize);
    builder
}

/// One connection from accept to close. Dropping the slot takes it out of the table.
async fn connection(shared: Arc<Shared>, mut slot: Slot, stream: TcpStream, remote: SocketAddr) {
    let shaken = tokio::select! {
        shaken = timeout(shared.handshake_timeout, handshake(&shared.acceptor, stream)) => shaken,
        () = slot.evicted() => return shared.refuse("handshake-evicted"),
        () = shared.shutdown.cancelled() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(failed @ Failed::Refused)) => {
            return shared.refuse_whom(failed.name(), None, remote);
        }
        Ok(Err(failed)) => return shared.refuse(failed.name()),
        Err(_elapsed) => return shared.refuse("handshake-timeout"),
    };
    let certificate = PeerCertificate::of(stream.get_ref().1);
    if shared.admission.as_ref().is_some_and(|admits| !admits(certificate.as_ref())) {
        return shared.refuse_whom("not-admitted", certificate.as_ref(), remote);
    }
    let connection = slot.connected(certificate);
    let _open = shared.metrics.connected(shared.surface);
    http_connection(&shared, connection, stream).await;
}

/// Why a handshake ended.
enum Failed {
    NotTls,
    Closed,
    /// The other side went away, or ended the handshake itself.
    Tls,
    /// This side ended it: no certificate, a malformed one, or no proof of its key.
    Refused,
}

impl Failed {
    fn name(&self) -> &'static str {
        match self {
            Self::NotTls => "not-tls",
            Self::Closed => "closed",
            Self::Tls | Self::Refused => "handshake-failed",
        }
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Failed> {
    let mut first = [0_u8];
    match stream.peek(&mut first).await {
        // rustls would answer plaintext with an alert; whoever speaks no TLS gets not a byte.
        Ok(1) if first[0] == TLS_HANDSHAKE => {}
        Ok(1) => return Err(Failed::NotTls),
        Ok(_) | Err(_) => return Err(Failed::Closed),
    }
    let _ = stream.set_nodelay(true); // Latency only; a socket that refuses still works.
    acceptor.accept(stream).await.map_err(|error| {
        tracing::debug!(%error, "handshake failed");
        let cause = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
                Failed::Refused
            }
            Some(_) | None => Failed::Tls,
        }
    })
}

/// Serves requests until the client leaves, the node shuts down, or the certificate has lost rights or expired.
async fn http_connection(
    shared: &Arc<Shared>,
    connection: Arc<Connection>,
    stream: TlsStream<TcpStream>,
) {
    let asked = Arc::new(Notify::new());
    let service = {
        let (router, connection, asked) =
            (shared.router.clone(), connection.clone(), asked.clone());
        hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            asked.notify_one();
            connection.called();
            request.extensions_mut().insert(connection.clone());
            if let Some(certificate) = &connection.certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            answer(router.clone(), request)
        })
    };
    let serving = shared.http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // 1. Until the first request, for a bounded time.
    tokio::select! {
        _ended = serving.as_mut() => return,
        () = asked.notified() => {}
        () = sleep(limits::FIRST_REQUEST_TIMEOUT) => return,
        () = shared.shutdown.cancelled() => return,
    }
    // 2. Until there is a reason to end.
    tokio::select! {
        _ended = serving.as_mut() => return,
        () = shared.shutdown.cancelled() => {}
        () = lingered(&connection) => {}
    }
    // 3. No new requests; those under way may finish.
    serving.as_mut().graceful_shutdown();
    let _ended = timeout(limits::SHUTDOWN_GRACE, serving).await;
}

async fn lingered(connection: &Connection) {
    connection.ending().token().cancelled().await;
    sleep(limits::REVOKED_CONNECTION_LINGER).await;
}

async fn answer(
    mut router: Router,
    request: http::Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    // A router is always ready.
    router.call(request).await
}
