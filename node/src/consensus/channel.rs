//! The dialling side of the peer protocol: one long stream to each member, on which the calls of all groups travel.
//!
//! 1. Dial the member's address (or its override), resolve the name anew, and accept one certificate alone.
//! 2. Send Hello, and check the answering Hello against the member's record.
//! 3. Send calls with rising numbers; answers come in any order and find their caller by number.
//! 4. When one of the two sides has another certificate in force, a second stream takes the place of the first, which ends
//!    when its calls are answered.
//! 5. When the stream ends, every caller that waits is told at once, and step 1 begins again after a pause.
//!
//! A call that failed with [`CallError::Unreachable`] was never sent. After [`CallError::Closed`] and
//! [`CallError::Timeout`] nobody knows whether the peer has carried it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
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

use super::{
    folder_age::Ages,
    types::{Malformed, Member},
};
use crate::{
    limits,
    names::{Incarnation, NodeId, Thumbprint},
    tls::{self, CurrentIdentity, TlsIdentity},
};

/// With the refusal of a folder that was rolled back: what was seen of it before.
pub const SEEN_FOLDER: &str = "rookery-seen-folder-bin";

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
    /// How old the folders are, its own and those of the others.
    pub ages: Arc<Ages>,
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
            renews: false,
            age: Some(self.ages.own()),
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

/// Opens a connection to the holder of the key of one of the `expected` certificates, whatever its address is called;
/// the first of them is asked for.
///
/// # Errors
/// The address cannot be reached, or somebody else answers there.
pub async fn connect(
    address: &str,
    identity: Arc<TlsIdentity>,
    expected: &[Thumbprint],
) -> io::Result<transport::Channel> {
    Ok(connect_seen(address, identity, expected).await?.0)
}

/// [`connect`], and which certificate was presented.
async fn connect_seen(
    address: &str,
    identity: Arc<TlsIdentity>,
    expected: &[Thumbprint],
) -> io::Result<(transport::Channel, Option<Thumbprint>)> {
    let stream = dial(address, identity, expected).await?;
    let seen = tls::leaf_thumbprint(stream.get_ref().1);
    let once = Mutex::new(Some(TokioIo::new(stream)));
    // The connection is used until it ends and never replaced behind the caller's back.
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().take().ok_or_else(|| io::Error::other("the connection has ended"));
        async move { stream }
    });
    let connection = Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(limits::PEER_PING_INTERVAL)
        .keep_alive_timeout(limits::PEER_PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(limits::PEER_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)?;
    Ok((connection, seen))
}

async fn dial(
    address: &str,
    identity: Arc<TlsIdentity>,
    expected: &[Thumbprint],
) -> io::Result<TlsStream<TcpStream>> {
    let config = tls::pinned_client_config(identity, expected).map_err(io::Error::other)?;
    let name = expected.first().map(tls::expected_name).unwrap_or_default();
    let name = ServerName::try_from(name).map_err(io::Error::other)?; // Sent, and not checked.
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
    /// address, incarnation or all certificates changed gets a new channel, and the old one closes; otherwise it keeps
    /// its channel, which finds a new stream by itself where the old one was opened under another certificate.
    ///
    /// # Errors
    /// The member's thumbprint or incarnation is none.
    pub fn set_member(&self, node: NodeId, member: &Member) -> Result<(), Malformed> {
        if node == self.identity.node_id {
            return Ok(());
        }
        let target = self.target(node, member)?;
        let mut peers = self.peers.write();
        let certificates = certificates(member)?;
        // Who has no certificate in common with the one that was dialled is somebody else.
        let same = |channel: &&Arc<Channel>| {
            let known = channel.certificates.load();
            channel.target == target && certificates.iter().any(|it| known.contains(it))
        };
        match peers.get(&node).filter(same) {
            Some(channel) => channel.certificates.store(Arc::new(certificates)),
            None => {
                let channel = Channel::open(self.identity.clone(), target, certificates);
                peers.insert(node, channel);
            }
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

    /// Whether every open stream shows the certificate of this node that is in force.
    #[must_use]
    pub fn are_current(&self) -> bool {
        let current = self.identity.tls.load().thumbprint();
        self.peers.read().values().all(|channel| match &*channel.state.borrow() {
            State::Up(link) => link.shown.thumbprint() == current,
            State::Connecting | State::Down(_) | State::Closed => true,
        })
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
        Ok(Target { node, address: address.clone(), incarnation })
    }
}

/// By which certificates a member is known, the one in force first.
fn certificates(member: &Member) -> Result<Vec<Thumbprint>, Malformed> {
    std::iter::once(&member.thumbprint)
        .chain(&member.other_thumbprints)
        .map(|bytes| Thumbprint::from_bytes(bytes).map_err(|_| Malformed("member's thumbprint")))
        .collect()
}

/// What a channel leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    node: NodeId,
    address: String,
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
    certificates: Arc<ArcSwap<Vec<Thumbprint>>>,
    identity: Arc<PeerIdentity>,
    state: watch::Receiver<State>,
    closed: CancellationToken,
    _close_on_drop: DropGuard,
}

impl Channel {
    fn open(
        identity: Arc<PeerIdentity>,
        target: Target,
        certificates: Vec<Thumbprint>,
    ) -> Arc<Self> {
        let closed = CancellationToken::new();
        let (sender, state) = watch::channel(State::Connecting);
        let certificates = Arc::new(ArcSwap::from_pointee(certificates));
        let dialler = Dialler {
            identity: identity.clone(),
            target: target.clone(),
            certificates: certificates.clone(),
        };
        tokio::spawn(keep_open(dialler, sender, closed.clone()));
        let _close_on_drop = closed.clone().drop_guard();
        Arc::new(Self { target, certificates, identity, state, closed, _close_on_drop })
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
        // As whom the peer knows this node: as the one that opened the stream.
        let shown = match &*self.state.borrow() {
            State::Up(link) => link.shown.clone(),
            State::Connecting | State::Down(_) | State::Closed => self.identity.tls.load(),
        };
        let certificates = self.certificates.load_full();
        let connected = timeout(
            limits::PEER_CONNECT_TIMEOUT,
            connect(&self.target.address, shown, &certificates),
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

/// What it takes to open a stream to a member.
struct Dialler {
    identity: Arc<PeerIdentity>,
    target: Target,
    certificates: Arc<ArcSwap<Vec<Thumbprint>>>,
}

impl Dialler {
    /// Opens a stream. A peer that was away may know this node by an older certificate, so attempts take turns.
    async fn open(&self, attempt: usize, renews: bool) -> Result<Opened, Arc<str>> {
        let shown = self.identity.tls.for_attempt(attempt);
        match timeout(limits::PEER_CONNECT_TIMEOUT, Link::open(self, shown, renews)).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Err(error.to_string().into()),
            Err(_) => Err("no answer".into()),
        }
    }

    /// Whether both sides of a stream showed the certificates that are in force.
    fn is_current(&self, link: &Link) -> bool {
        link.shown.thumbprint() == self.identity.tls.load().thumbprint()
            && link.seen.is_none_or(|seen| self.certificates.load().contains(&seen))
    }

    /// Reads answers until the stream ends. Opens another one in its place where certificates changed.
    async fn serve(
        &self,
        (mut link, mut answers): Opened,
        state: &watch::Sender<State>,
    ) -> &'static str {
        loop {
            let (new, new_answers) = tokio::select! {
                biased;
                why = link.read(&mut answers) => {
                    // Nobody may find this link any more once its callers have been told.
                    state.send_replace(State::Connecting);
                    link.close();
                    return why;
                }
                successor = self.successor(&link) => successor,
            };
            // Callers wait for a moment, so that no append overtakes one that is under way on the old stream: a group's
            // leader takes a follower that answers out of order for one that lost its log.
            state.send_replace(State::Connecting);
            match link.settle(&mut answers).await {
                Settled::Yes => {}
                Settled::NotYet => {
                    state.send_replace(State::Up(link.clone()));
                    continue;
                }
                Settled::Ended(why) => {
                    link.close();
                    return why;
                }
            }
            tracing::info!(peer = %self.target.node, "channel renewed after a change of certificates");
            state.send_replace(State::Up(new.clone()));
            let old = std::mem::replace(&mut link, new);
            tokio::spawn(old.drain(std::mem::replace(&mut answers, new_answers)));
        }
    }

    /// Waits until a certificate has changed and a stream with those in force is open, to take the place of `link`.
    async fn successor(&self, link: &Link) -> Opened {
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            if !self.is_current(link)
                && let Ok(opened) = self.open(0, true).await
            {
                return opened;
            }
        }
    }
}

/// Whether the appends of a stream that is to end are answered.
enum Settled {
    Yes,
    NotYet,
    Ended(&'static str),
}

/// How often a stream is compared with the certificates in force.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(200);

type Opened = (Arc<Link>, tonic::Streaming<ChannelResponse>);

/// Keeps a stream open until `closed`; the one place that changes a channel's state.
async fn keep_open(dialler: Dialler, state: watch::Sender<State>, closed: CancellationToken) {
    let (pause_min, pause_max) = limits::PEER_RECONNECT_PAUSE;
    let mut pause = pause_min;
    let mut was_down = false;
    let mut attempt = 0;
    let target = dialler.target.clone();
    let work = async {
        loop {
            let why: Arc<str> = match dialler.open(attempt, false).await {
                Ok(opened) => {
                    let since = Instant::now();
                    tracing::info!(peer = %target.node, "channel open");
                    was_down = false;
                    state.send_replace(State::Up(opened.0.clone()));
                    let why = dialler.serve(opened, &state).await;
                    tracing::info!(peer = %target.node, why, "channel ended");
                    if since.elapsed() >= pause_max {
                        pause = pause_min;
                        continue;
                    }
                    why.into()
                }
                Err(why) => why,
            };
            attempt += 1;
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
    /// Appends that are not answered, whether somebody waits for them or not.
    appends: BTreeSet<u64>,
    closed: bool,
}

/// One live stream.
struct Link {
    frames: mpsc::Sender<Frame>,
    bytes: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    closed: CancellationToken,
    /// As whom this node spoke, and whom it heard.
    shown: Arc<TlsIdentity>,
    seen: Option<Thumbprint>,
}

impl Link {
    async fn open(dialler: &Dialler, shown: Arc<TlsIdentity>, renews: bool) -> io::Result<Opened> {
        let Dialler { identity, target, certificates } = dialler;
        let expected = certificates.load_full();
        let (connection, seen) = connect_seen(&target.address, shown.clone(), &expected).await?;
        let (frames, queue) = mpsc::channel(limits::PEER_QUEUE_FRAMES_MAX);
        let hello = Hello { renews, ..identity.hello() };
        let hello = ChannelRequest { call: 0, body: Some(channel_request::Body::Hello(hello)) };
        let requests = futures::stream::once(async { hello })
            .chain(ReceiverStream::new(queue).map(|frame: Frame| frame.request));
        let answers = client(connection).channel(requests).await;
        let mut answers = answers
            .map_err(|status| {
                if let Some(seen) = status.metadata().get_bin(SEEN_FOLDER)
                    && let Ok(seen) = seen.to_bytes()
                {
                    identity.ages.accused(target.node, &seen, identity.incarnation);
                }
                refusal(status)
            })?
            .into_inner();
        let first = answers.message().await.map_err(refusal)?;
        check_hello(first, identity, target).map_err(io::Error::other)?;
        let link = Self {
            frames,
            bytes: Arc::new(Semaphore::new(limits::PEER_QUEUE_BYTES_MAX)),
            waiting: Mutex::default(),
            closed: CancellationToken::new(),
            shown,
            seen,
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
        let append = matches!(request.body, Some(channel_request::Body::Append(_)));
        let (call, answer) = self.register(append)?;
        request.call = call;
        slot.send(Frame { request, _bytes: bytes });
        Ok(Pending { call, answer, link: self.clone() })
    }

    fn register(&self, append: bool) -> Result<(u64, oneshot::Receiver<Answer>), CallError> {
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
        if append {
            waiting.appends.insert(call);
        }
        Ok((call, answer))
    }

    /// Hands answers to their callers until the stream ends; says why it did.
    async fn read(&self, answers: &mut tonic::Streaming<ChannelResponse>) -> &'static str {
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
            waiting.appends.remove(&call);
            // A caller that gave up has taken its number away; its answer is dropped.
            if let Some(caller) = waiting.calls.remove(&call) {
                let _ = caller.send(answer);
            }
        }
    }

    /// Takes no more calls, and waits until all appends are answered.
    async fn settle(&self, answers: &mut tonic::Streaming<ChannelResponse>) -> Settled {
        self.waiting.lock().closed = true;
        let until = Instant::now() + limits::PEER_APPEND_TIMEOUT;
        while !self.waiting.lock().appends.is_empty() {
            if Instant::now() >= until {
                self.waiting.lock().closed = false;
                return Settled::NotYet;
            }
            if let Ok(why) = timeout(Duration::from_millis(5), self.read(answers)).await {
                return Settled::Ended(why);
            }
        }
        Settled::Yes
    }

    /// Takes no more calls and ends when those under way are answered.
    async fn drain(self: Arc<Self>, mut answers: tonic::Streaming<ChannelResponse>) {
        self.waiting.lock().closed = true;
        let answered = async {
            while !self.waiting.lock().calls.is_empty() {
                let pause = Duration::from_millis(50);
                if timeout(pause, self.read(&mut answers)).await.is_ok() {
                    return;
                }
            }
        };
        let _in_time = timeout(limits::PEER_DRAIN_TIMEOUT, answered).await;
        self.close();
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
    identity
        .ages
        .hear(target.node, &hello.incarnation, hello.age.as_ref())
        .map_err(|_| "the peer's data folder is an older copy of itself")
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
