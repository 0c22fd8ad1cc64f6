//! Connections: TCP and TLS with time limits, and the HTTP/2 channel on top.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

/// Longest time for the name's resolution and the TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for the TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// A node accepts keepalive pings from this interval on.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Silence after a ping that ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive window of one stream, and of a connection: a page of documents fits.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Why there is no connection. Nothing of the call has left this process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address is not `host:port`.
    #[error("{0:?} is not host:port")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}")]
    Tcp {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates do not fit, or the other side speaks no TLS.
    #[error("TLS with {address}: {problem}")]
    Tls {
        /// `host:port`.
        address: String,
        /// What the TLS library says.
        problem: String,
    },
    /// No answer in time.
    #[error("{address} did not answer within {seconds} s ({step})")]
    Timeout {
        /// `host:port`.
        address: String,
        /// "TCP" or "TLS".
        step: &'static str,
        /// The limit.
        seconds: u64,
    },
}

/// A channel to one node; it connects when it is first used and again after a loss. The server is verified as
/// `server_name`, or as the host of the address.
pub(crate) fn channel(
    address: &str,
    server_name: Option<&str>,
    tls: &Arc<ClientConfig>,
) -> Result<Channel, Error> {
    let bad = || Error::Address(address.to_owned());
    // The scheme of the endpoint is http because TLS is this module's and not tonic's; requests say https.
    let origin: Uri = format!("https://{address}").parse().map_err(|_| bad())?;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    let (host, port) = (origin.host(), origin.port_u16());
    let (Some(host), Some(_)) = (host, port) else { return Err(bad()) };
    let host = server_name.unwrap_or(host);
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| bad())?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let target: Arc<str> = Arc::from(address);
    let service = tower::service_fn(move |_: Uri| {
        let (connector, name, target) = (connector.clone(), name.clone(), Arc::clone(&target));
        async move { connect(&target, &connector, name).await.map(TokioIo::new) }
    });
    Ok(tuned(endpoint).origin(origin).connect_with_connector_lazy(service))
}

/// A channel to a unix socket.
pub(crate) fn unix_channel(path: PathBuf) -> Channel {
    let service = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    tuned(Endpoint::from_static("http://admin.socket")).connect_with_connector_lazy(service)
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
}

async fn connect(
    address: &str,
    connector: &TlsConnector,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, Error> {
    let timeout = |step, limit: Duration| Error::Timeout {
        address: address.to_owned(),
        step,
        seconds: limit.as_secs(),
    };
    let tcp = tokio::time::timeout(TCP_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| timeout("TCP", TCP_TIMEOUT))?
        .map_err(|source| Error::Tcp { address: address.to_owned(), source })?;
    let _ = tcp.set_nodelay(true); // Slower without it, and nothing worse.
    tokio::time::timeout(TLS_TIMEOUT, connector.connect(name, tcp))
        .await
        .map_err(|_| timeout("TLS", TLS_TIMEOUT))?
        .map_err(|e| tls_error(address, e))
}

/// A refusal of certificates is for people to mend; a connection that broke is to be tried again.
fn tls_error(address: &str, error: std::io::Error) -> Error {
    let address = address.to_owned();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(problem) => Error::Tls { address, problem: problem.to_string() },
        None => Error::Tcp { address, source: error },
    }
}
