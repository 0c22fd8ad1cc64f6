//! The dialling side of the peer protocol: one long stream to each member, on which the calls of all groups travel.
//!
//! 1. Dial the member's address (or its override), resolve the name anew, and accept one certificate alone.
//! 2. Send Hello, and check the answering Hello against the member's record.
//! 3. Send calls with rising numbers; answers come in any order and find their caller by number.
//! 4. When the stream ends, every caller that waits is told at once, and step 1 begins again after a pause.
//!
//! A call that failed with [`CallError::Unreachable`] was never sent. After [`CallError::Closed`] and
//! [`CallError::Timeout`] nobody knows whether the peer has carried it out.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use rookery_proto::peer::v1::{
    self as peer, ChannelRequest, ChannelResponse, Hello, channel_request, channel_response,
    peer_service_client::PeerServiceClient,
};
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{self, Endpoint};

use super::types::{Malformed, Member};
use crate::{
    limits,
    names::{Incarnation, NodeId, Thumbprint},
    tls::{self, CurrentIdentity},
};

/// Version of the peer protocol; another one is refused.
pub const PROTOCOL_VERSION: u32 = 1;

/// Who this node is to its peers.
#[derive(Debug)]
pub struct PeerIdentity {
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// Its own id.
    pub node_id: NodeId,
    /// The incarnation of its data folder.
    pub incarnation: Incarnation,
    /// Its certificate and key.
    pub tls: Arc<CurrentIdentity>,
}

impl PeerIdentity {
    /// The first frame of every stream.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.0,
            incarnation: self.incarnation.as_bytes().to_vec(),
            version: PROTOCOL_VERSION,
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// There is no channel to the peer; the call was not sent.
    #[error("the peer is unreachable: {0}")]
    Unreachable(Arc<str>),
    /// The deadline passed; the call may have been carried out.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The peer answered that it could not serve the call.
    #[error("the peer refused the call: {}", .0.message)]
    Refused(peer::PeerError),
    /// The channel ended before the answer; the call may have been carried out.
    #[error("the channel to the peer closed before it answered")]
    Closed,
}

fn unreachable(why: impl Into<Arc<str>>) -> CallError {
    CallError::Unreachable(why.into())
}

/// Opens a connection to the holder of one certificate's key, whatever its address is called.
///
/// # Errors
/// The address cannot be reached, or somebody else answers there.
pub async fn connect(
    address: &str,
    identity: &Arc<CurrentIdentity>,
    expected: Thumbprint,
) -> io::Result<transport::Channel> {
    let stream = dial(address, identity, expected).await?;
    let once = Mutex::new(Some(TokioIo::new(stream)));
    // The connection is used until it ends and never replaced behind the caller's back.
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().take().ok_or_else(|| io::Error::other("the connection has ended"));
        async move { stream }
    });
    Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(limits::PEER_PING_INTERVAL)
        .keep_alive_timeout(limits::PEER_PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(limits::PEER_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)
}

async fn dial(
    address: &str,
    identity: &Arc<CurrentIdentity>,
    expected: Thumbprint,
) -> io::Result<TlsStream<TcpStream>> {
    let config = tls::pinned_client_config(identity, expected).map_err(io::Error::other)?;
    let name = ServerName::try_from("peer").map_err(io::Error::other)?; // Neither sent nor checked.
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// The client of the peer service on a connection, with the bounds of the protocol.
pub fn client(connection: transport::Channel) -> PeerServiceClient<transport::Channel> {
    PeerServiceClient::new(connection)
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
}

/// The channels of this node to all other members.
pub struct Channels {
    identity: Arc<PeerIdentity>,
    dial: BTreeMap<String, String>,
    peers: RwLock<BTreeMap<NodeId, Arc<Channel>>>,
}

impl Channels {
    /// No channels yet. `dial` overrides addresses: node id or name to host:port.
    #[must_use]
    pub fn new(identity: Arc<PeerIdentity>, dial: BTreeMap<String, String>) -> Arc<Self> {
        Arc::new(Self { identity, dial, peers: RwLock::default() })
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> &Arc<PeerIdentity> {
        &self.identity
    }

    /// Keeps a channel open to this member from now on; must be called inside the async runtime. A member whose
    /// certificate, address or incarnation changed gets a new channel, and the old one closes.
    ///
    /// # Errors
    /// The member's thumbprint or incarnation is none.
    pub fn set_member(&self, node: NodeId, member: &Member) -> Result<(), Malformed> {
        if node == self.identity.node_id {
            return Ok(());
        }
        let target = self.target(node, member)?;
        let mut peers = self.peers.write();
        if peers.get(&node).is_none_or(|channel| channel.target != target) {
            peers.insert(node, Channel::open(self.identity.clone(), target));
        }
        Ok(())
    }

    /// Closes the channel to a former member at once; calls that wait fail.
    pub fn remove_member(&self, node: NodeId) {
        self.peers.write().remove(&node).inspect(|channel| channel.closed.cancel());
    }

    /// The channel to a member; `None` for this node itself and for strangers.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<Arc<Channel>> {
        self.peers.read().get(&node).cloned()
    }

    /// The members that channels are kept to.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        self.peers.read().keys().copied().collect()
    }

    fn target(&self, node: NodeId, member: &Member) -> Result<Target, Malformed> {
        let by_id = self.dial.get(&node.to_string());
        let address = by_id.or_else(|| self.dial.get(&member.name)).unwrap_or(&member.peer_address);
        let incarnation = match member.incarnation.as_slice() {
            [] => None,
            bytes => Some(
                Incarnation::from_bytes(bytes).map_err(|_| Malformed("member's incarnation"))?,
            ),
        };
        Ok(Target {
            node,
            address: address.clone(),
            thumbprint: Thumbprint::from_bytes(&member.thumbprint)
                .map_err(|_| Malformed("member's thumbprint"))?,
            incarnation,
        })
    }
}

/// What a channel leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    node: NodeId,
    address: String,
    thumbprint: Thumbprint,
    /// `None` while the cluster does not know it yet, as before its formation.
    incarnation: Option<Incarnation>,
}

#[derive(Clone)]
enum State {
    /// Being dialled for the first time, or again after the stream ended: worth a short wait.
    Connecting,
    Up(Arc<Link>),
    /// The last attempt failed; the next one follows without being asked.
    Down(Arc<str>),
    /// The member was removed.
    Closed,
}

/// The channel to one member. It reconnects by itself until it is dropped or the member removed.
pub struct Channel {
    target: Target,
    identity: Arc<PeerIdentity>,
    state: watch::Receiver<State>,
    closed: CancellationToken,
    _close_on_drop: DropGuard,
}

impl Channel {
    fn open(identity: Arc<PeerIdentity>, target: Target) -> Arc<Self> {
        let closed = CancellationToken::new();
        let (sender, state) = watch::channel(State::Connecting);
        tokio::spawn(keep_open(identity.clone(), target.clone(), sender, closed.clone()));
        let _close_on_drop = closed.clone().drop_guard();
        Arc::new(Self { target, identity, state, closed, _close_on_drop })
    }

    /// Whom it leads to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.target.node
    }

    /// Whether calls would be sent now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Sends a call and waits for its answer until `deadline`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        body: channel_request::Body,
        deadline: Instant,
    ) -> Result<channel_response::Body, CallError> {
        let answered = async { self.begin(body).await?.await };
        timeout_at(deadline, answered).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Sends a call; the answer can be awaited later. Calls that one task begins one after the other arrive in this order,
    /// unless the channel is opened anew between them.
    ///
    /// # Errors
    /// The call could not be sent.
    pub async fn begin(&self, body: channel_request::Body) -> Result<Pending, CallError> {
        let link = self.link().await?;
        link.begin(body).await
    }

    /// A connection of its own to the same member, for bulk that must not stand in the way of calls.
    ///
    /// # Errors
    /// The member cannot be reached.
    pub async fn connect_apart(&self) -> Result<transport::Channel, CallError> {
        let Target { address, thumbprint, .. } = &self.target;
        let connected = timeout(
            limits::PEER_CONNECT_TIMEOUT,
            connect(address, &self.identity.tls, *thumbprint),
        );
        tokio::select! {
            connected = connected => connected
                .map_err(|_| CallError::Timeout)?
                .map_err(|error| unreachable(error.to_string())),
            () = self.closed.cancelled() => Err(unreachable("the member was removed")),
        }
    }

    /// Completes when the member is removed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    async fn link(&self) -> Result<Arc<Link>, CallError> {
        if let Some(link) = ready_link(&self.state.borrow()) {
            return link;
        }
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        let settled = settled.map_err(|_| unreachable("the node is stopping"))?;
        ready_link(&settled).unwrap_or_else(|| Err(unreachable("the peer is being dialled")))
    }
}

fn ready_link(state: &State) -> Option<Result<Arc<Link>, CallError>> {
    match state {
        State::Up(link) => Some(Ok(link.clone())),
        State::Down(why) => Some(Err(CallError::Unreachable(why.clone()))),
        State::Closed => Some(Err(unreachable("the member was removed"))),
        State::Connecting => None,
    }
}

/// Keeps a stream open until `closed`; the one place that changes a channel's state.
async fn keep_open(
    identity: Arc<PeerIdentity>,
    target: Target,
    state: watch::Sender<State>,
    closed: CancellationToken,
) {
    let (pause_min, pause_max) = limits::PEER_RECONNECT_PAUSE;
    let mut pause = pause_min;
    let mut was_down = false;
    let work = async {
        loop {
            let attempt = timeout(limits::PEER_CONNECT_TIMEOUT, Link::open(&identity, &target));
            let why: Arc<str> = match attempt.await {
                Ok(Ok((link, answers))) => {
                    let since = Instant::now();
                    tracing::info!(peer = %target.node, "channel open");
                    was_down = false;
                    state.send_replace(State::Up(link.clone()));
                    let why = link.read(answers).await;
                    tracing::info!(peer = %target.node, why, "channel ended");
                    // Nobody may find this link any more once its callers have been told.
                    state.send_replace(State::Connecting);
                    link.close();
                    if since.elapsed() >= pause_max {
                        pause = pause_min;
                        continue;
                    }
                    why.into()
                }
                Ok(Err(error)) => error.to_string().into(),
                Err(_) => "no answer".into(),
            };
            if !was_down {
                tracing::info!(peer = %target.node, address = target.address, %why, "peer unreachable");
                was_down = true;
            }
            state.send_replace(State::Down(why));
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(pause_max);
        }
    };
    tokio::select! {
        () = work => {}
        () = closed.cancelled() => {}
    }
    if let State::Up(link) = state.send_replace(State::Closed) {
        link.close();
    }
}

/// Between half and all of `pause`, so that nodes that lost each other together do not dial in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// A frame, and its share of the queue's bytes until it is handed to HTTP/2.
struct Frame {
    request: ChannelRequest,
    _bytes: OwnedSemaphorePermit,
}

type Answer = Result<channel_response::Body, peer::PeerError>;

#[derive(Default)]
struct Waiting {
    last_call: u64,
    calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

/// One live stream.
struct Link {
    frames: mpsc::Sender<Frame>,
    bytes: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    closed: CancellationToken,
}

impl Link {
    async fn open(
        identity: &PeerIdentity,
        target: &Target,
    ) -> io::Result<(Arc<Self>, tonic::Streaming<ChannelResponse>)> {
        let connection = connect(&target.address, &identity.tls, target.thumbprint).await?;
        let (frames, queue) = mpsc::channel(limits::PEER_QUEUE_FRAMES_MAX);
        let hello =
            ChannelRequest { call: 0, body: Some(channel_request::Body::Hello(identity.hello())) };
        let requests = futures::stream::once(async { hello })
            .chain(ReceiverStream::new(queue).map(|frame: Frame| frame.request));
        let answers = client(connection).channel(requests).await;
        let mut answers = answers.map_err(refusal)?.into_inner();
        let first = answers.message().await.map_err(refusal)?;
        check_hello(first, identity, target).map_err(io::Error::other)?;
        let link = Self {
            frames,
            bytes: Arc::new(Semaphore::new(limits::PEER_QUEUE_BYTES_MAX)),
            waiting: Mutex::default(),
            closed: CancellationToken::new(),
        };
        Ok((Arc::new(link), answers))
    }

    async fn begin(self: Arc<Self>, body: channel_request::Body) -> Result<Pending, CallError> {
        let mut request = ChannelRequest { call: 0, body: Some(body) };
        let length = request.encoded_len();
        if length > limits::PEER_MESSAGE_BYTES_MAX {
            return Err(unreachable("the message is larger than peers accept"));
        }
        let room = async {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let bytes = self.bytes.clone().acquire_many_owned(length).await.ok()?;
            Some((bytes, self.frames.reserve().await.ok()?))
        };
        let room = tokio::select! {
            biased;
            room = room => room,
            () = self.closed.cancelled() => None,
        };
        let (bytes, slot) = room.ok_or_else(|| unreachable("the channel closed"))?;
        let (call, answer) = self.register()?;
        request.call = call;
        slot.send(Frame { request, _bytes: bytes });
        Ok(Pending { call, answer, link: self.clone() })
    }

    fn register(&self) -> Result<(u64, oneshot::Receiver<Answer>), CallError> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(unreachable("the channel closed"));
        }
        if waiting.calls.len() >= limits::PEER_CALLS_MAX {
            return Err(unreachable("too many calls wait for this peer"));
        }
        waiting.last_call += 1;
        let call = waiting.last_call;
        waiting.calls.insert(call, sender);
        Ok((call, answer))
    }

    /// Hands answers to their callers until the stream ends; says why it did.
    async fn read(&self, mut answers: tonic::Streaming<ChannelResponse>) -> &'static str {
        loop {
            let ChannelResponse { call, body } = match answers.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return "the peer closed it",
                Err(status) => return status_text(&status),
            };
            let answer = match body {
                None | Some(channel_response::Body::Hello(_)) => return "a malformed answer",
                Some(channel_response::Body::Error(error)) => Err(error),
                Some(body) => Ok(body),
            };
            let mut waiting = self.waiting.lock();
            if call == 0 || call > waiting.last_call {
                return "an answer to a call that was never made";
            }
            // A caller that gave up has taken its number away; its answer is dropped.
            if let Some(caller) = waiting.calls.remove(&call) {
                let _ = caller.send(answer);
            }
        }
    }

    fn close(&self) {
        self.closed.cancel();
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.calls.clear();
    }
}

fn status_text(status: &tonic::Status) -> &'static str {
    use tonic::Code;
    let code = status.code();
    if matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
        "the peer refused this node"
    } else if code == Code::InvalidArgument {
        "the peer found a frame malformed"
    } else {
        "the connection failed"
    }
}

fn refusal(status: tonic::Status) -> io::Error {
    io::Error::other(format!("{}: {}", status_text(&status), status.message()))
}

fn check_hello(
    first: Option<ChannelResponse>,
    identity: &PeerIdentity,
    target: &Target,
) -> Result<(), &'static str> {
    let Some(ChannelResponse { call: 0, body: Some(channel_response::Body::Hello(hello)) }) = first
    else {
        return Err("the peer did not say Hello first");
    };
    if hello.version != PROTOCOL_VERSION {
        return Err("the peer speaks another version of the protocol");
    }
    if hello.cluster_id != identity.cluster_id {
        return Err("the peer belongs to another cluster");
    }
    if hello.node_id != target.node.0 {
        return Err("another member answers at this address");
    }
    let known = target.incarnation.as_ref();
    if known.is_some_and(|known| known.as_bytes().as_slice() != hello.incarnation) {
        return Err("the peer's data folder is not the one that the cluster knows");
    }
    Ok(())
}

/// A call that was sent. Dropping it gives up the answer, not the call.
pub struct Pending {
    call: u64,
    answer: oneshot::Receiver<Answer>,
    link: Arc<Link>,
}

impl Future for Pending {
    type Output = Result<channel_response::Body, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(match answer {
            Ok(answer) => answer.map_err(CallError::Refused),
            Err(_) => Err(CallError::Closed),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.link.waiting.lock().calls.remove(&self.call);
    }
}
