//! The serving side of the peer protocol: who is heard, what a frame must say, and who answers it.
//!
//! 1. The certificate of the connection and Hello, the first frame, must fit a current member.
//! 2. Every frame asks again whether that member still is one; the stream of a removed member ends.
//! 3. A frame is checked in full before consensus sees any of it: a leader speaks for itself alone, entries follow
//!    each other without a gap, snapshots come whole and with the digest that was announced.
//! 4. Appends of one group go in the order of their arrival; all other calls are served side by side, up to a bound.
//!
//! What breaks a rule of 3 is answered with `KIND_MALFORMED`; what breaks the order of frames ends the stream.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use openraft::{
    EntryPayload,
    async_runtime::watch::WatchReceiver as _,
    errors::Fatal,
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult},
};
use parking_lot::Mutex;
use rookery_proto::peer::v1::{
    self as peer, ChannelRequest, ChannelResponse, Hello, InstallSnapshotRequest,
    InstallSnapshotResponse, channel_request, channel_response,
    install_snapshot_request::Part,
    peer_error::Kind as ErrorKind,
    peer_service_server::{PeerService as Service, PeerServiceServer},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue, server::NamedService};

use super::{
    channel::{PROTOCOL_VERSION, SEEN_FOLDER},
    folder_age::{Ages, Seen},
    snapshot::{self, Snapshot, SnapshotData, SnapshotSink},
    types::{
        Entry, Malformed, Raft, SnapshotMeta, Types, Vote, append_from, log_id_from, log_id_to,
        snapshot_meta_from, vote_from, vote_to,
    },
};
use crate::{
    limits,
    names::{GroupId, NodeId, Thumbprint},
    tls::PeerCertificate,
};

/// Why a peer is not heard; for this node's log. The peer learns only that it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// No member has this certificate.
    #[error("its certificate belongs to no member")]
    NotAMember,
    /// Hello names another cluster.
    #[error("it says it belongs to another cluster")]
    OtherCluster,
    /// Hello names another node than the certificate.
    #[error("it says it is another node than its certificate's")]
    OtherNode,
    /// The node's folder is not the one that the cluster knows.
    #[error("its data folder is not the one that the cluster knows for this node")]
    OtherIncarnation,
    /// This node belongs to no cluster.
    #[error("this node belongs to no cluster")]
    NotFormed,
    /// The node's folder is an older copy of itself.
    #[error("its data folder is an older copy of itself: it was seen at {0}")]
    RolledBack(Seen),
}

/// What the serving side asks of the node.
#[async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    /// The Raft handle of a group; `None` where this node does not hold it.
    fn raft(&self, group: GroupId) -> Option<Raft>;
    /// Whether any current member has this certificate; asked before anything that the peer sends is read.
    fn is_member(&self, thumbprint: &Thumbprint) -> bool;
    /// Whether this certificate is a current member's, and Hello fits it (cluster, node, incarnation).
    ///
    /// # Errors
    /// Why not; it is logged, and the peer is told nothing of it.
    fn admit(&self, thumbprint: &Thumbprint, hello: &Hello) -> Result<NodeId, PeerRefused>;
    /// Whether the node still is a member with this certificate. Asked for every frame, so it must be cheap.
    fn still_member(&self, node: NodeId, thumbprint: &Thumbprint) -> bool;
    /// Hears of every peer that is refused.
    fn refused(&self, thumbprint: &Thumbprint, why: &PeerRefused);
    /// This node's own Hello.
    fn hello(&self) -> Hello;
    /// An index that a linearizable read must have applied; asked of the group's leader.
    async fn read_index(&self, group: GroupId) -> Result<u64, peer::PeerError>;
    /// How fresh a registry must be; asked of the cluster group's leader.
    async fn freshness(
        &self,
        from: NodeId,
        request: peer::FreshnessRequest,
    ) -> Result<peer::FreshnessResponse, peer::PeerError>;
    /// Answers once this node's cluster group has applied an index.
    async fn confirm(
        &self,
        request: peer::ConfirmRequest,
    ) -> Result<peer::ConfirmResponse, peer::PeerError>;
    /// The hash of one record of the audit chain.
    async fn audit_hash(
        &self,
        request: peer::AuditHashRequest,
    ) -> Result<peer::AuditHashResponse, peer::PeerError>;
    /// Serves a client's call that another node took.
    async fn forward(&self, from: NodeId, request: peer::ForwardRequest) -> peer::ForwardResponse;
    /// This node as an administrator sees it.
    async fn status(&self) -> peer::StatusResponse;
    /// Hears how old a peer's folder is now.
    fn folder_age(&self, from: NodeId, request: &peer::FolderAgeRequest);
    /// Whether entries of a group are taken; false while this node's disk has no room for them. `commands`: whether any
    /// of them is a command.
    fn takes_entries(&self, group: GroupId, commands: bool) -> bool;
    /// Where to put a snapshot of a group; `None` where this node does not hold it or is receiving one already.
    fn snapshot_sink(&self, group: GroupId) -> Option<SnapshotSink>;
    /// Answers a node that asks before the cluster is formed.
    ///
    /// # Errors
    /// What the asking node is told.
    fn probe(
        &self,
        thumbprint: &Thumbprint,
        request: peer::ProbeRequest,
    ) -> Result<peer::ProbeResponse, Status>;
}

/// An error that tells a peer why its call has no answer.
#[must_use]
pub fn peer_error(kind: ErrorKind, message: impl Into<String>) -> peer::PeerError {
    peer::PeerError { kind: kind.into(), message: message.into(), leader_id: 0 }
}

/// The peer service as the listener mounts it. Requests must carry the connection's [`PeerCertificate`] as an extension.
///
/// A probe may come from anybody who has a certificate, so its messages are bounded apart from those of members.
pub fn service<H: PeerHandler>(handler: Arc<H>) -> Peers<H> {
    let service = Arc::new(PeerService {
        handler,
        streams: Mutex::default(),
        installs: Arc::new(Semaphore::new(limits::SNAPSHOTS_RECEIVED_MAX)),
    });
    let bounded = |bytes_max| {
        PeerServiceServer::from_arc(service.clone())
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max)
    };
    Peers {
        members: bounded(limits::PEER_MESSAGE_BYTES_MAX),
        anybody: bounded(limits::PROBE_BYTES_MAX),
    }
}

/// The peer service with the bounds of each of its methods.
pub struct Peers<H> {
    members: PeerServiceServer<PeerService<H>>,
    anybody: PeerServiceServer<PeerService<H>>,
}

impl<H> Clone for Peers<H> {
    fn clone(&self) -> Self {
        Self { members: self.members.clone(), anybody: self.anybody.clone() }
    }
}

impl<H: PeerHandler> NamedService for Peers<H> {
    const NAME: &'static str = <PeerServiceServer<PeerService<H>> as NamedService>::NAME;
}

impl<H: PeerHandler, B> tower::Service<http::Request<B>> for Peers<H>
where
    PeerServiceServer<PeerService<H>>: tower::Service<http::Request<B>>,
{
    type Response =
        <PeerServiceServer<PeerService<H>> as tower::Service<http::Request<B>>>::Response;
    type Error = <PeerServiceServer<PeerService<H>> as tower::Service<http::Request<B>>>::Error;
    type Future = <PeerServiceServer<PeerService<H>> as tower::Service<http::Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.members.poll_ready(context))?;
        self.anybody.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The methods for members admit them before they read; every other path gets the narrow bound.
        let path = request.uri().path();
        if path.ends_with("/Channel") || path.ends_with("/InstallSnapshot") {
            return self.members.call(request);
        }
        self.anybody.call(request)
    }
}

/// Serves peers.
pub struct PeerService<H> {
    handler: Arc<H>,
    /// The one stream of each member; a newer one ends the older.
    streams: Mutex<BTreeMap<NodeId, CancellationToken>>,
    installs: Arc<Semaphore>,
}

impl<H: PeerHandler> PeerService<H> {
    fn member<T>(&self, request: &Request<T>) -> Result<PeerCertificate, Status> {
        let certificate = certificate(request)?;
        if self.handler.is_member(&certificate.thumbprint) {
            return Ok(certificate);
        }
        self.handler.refused(&certificate.thumbprint, &PeerRefused::NotAMember);
        Err(Status::permission_denied("not a member"))
    }

    fn admit(&self, certificate: &PeerCertificate, hello: &Hello) -> Result<NodeId, Status> {
        if hello.version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition("another version of the peer protocol"));
        }
        let thumbprint = &certificate.thumbprint;
        self.handler.admit(thumbprint, hello).map_err(|why| {
            self.handler.refused(thumbprint, &why);
            let mut status = Status::permission_denied("not a member");
            // A member by its certificate, and nobody else, is shown why.
            if let PeerRefused::RolledBack(seen) = &why {
                let proof = MetadataValue::from_bytes(&Ages::proof(seen));
                status.metadata_mut().insert_bin(SEEN_FOLDER, proof);
            }
            status
        })
    }

    /// The older stream of a node ends: at once, or where certificates changed when its calls are answered.
    fn supersede(&self, node: NodeId, renews: bool) -> CancellationToken {
        let ends = CancellationToken::new();
        let older = self.streams.lock().insert(node, ends.clone());
        match older {
            Some(older) if renews => {
                tokio::spawn(async move {
                    tokio::time::sleep(limits::PEER_DRAIN_TIMEOUT).await;
                    older.cancel();
                });
            }
            Some(older) => older.cancel(),
            None => {}
        }
        ends
    }
}

fn certificate<T>(request: &Request<T>) -> Result<PeerCertificate, Status> {
    let certificate = request.extensions().get::<PeerCertificate>().cloned();
    certificate.ok_or_else(|| Status::unauthenticated("a certificate is required"))
}

async fn next_message<T>(messages: &mut Streaming<T>, limit: Duration) -> Result<T, Status> {
    match timeout(limit, messages.message()).await {
        Ok(message) => message?.ok_or_else(|| Status::invalid_argument("the stream ended early")),
        Err(_) => Err(Status::deadline_exceeded("no message in time")),
    }
}

#[tonic::async_trait]
impl<H: PeerHandler> Service for PeerService<H> {
    type ChannelStream = ReceiverStream<Result<ChannelResponse, Status>>;

    async fn channel(
        &self,
        request: Request<Streaming<ChannelRequest>>,
    ) -> Result<Response<Self::ChannelStream>, Status> {
        let certificate = self.member(&request)?;
        let mut frames = request.into_inner();
        let first = next_message(&mut frames, limits::HANDSHAKE_TIMEOUT).await?;
        let ChannelRequest { call: 0, body: Some(channel_request::Body::Hello(hello)) } = first
        else {
            return Err(Status::invalid_argument("Hello must come first"));
        };
        let node = self.admit(&certificate, &hello)?;
        let renews = hello.renews;
        let (answers, receiver) = mpsc::channel(limits::PEER_QUEUE_FRAMES_MAX);
        let hello = channel_response::Body::Hello(self.handler.hello());
        let _ = answers.try_send(Ok(ChannelResponse { call: 0, body: Some(hello) })); // It is empty.
        let session = Session {
            handler: self.handler.clone(),
            node,
            thumbprint: certificate.thumbprint,
            answers,
            groups: BTreeMap::new(),
            tasks: JoinSet::new(),
            control: Arc::new(Semaphore::new(limits::PEER_CONTROL_SERVED_MAX)),
            forwards: Arc::new(Semaphore::new(limits::PEER_FORWARDS_SERVED_MAX)),
        };
        let ends = self.supersede(node, renews);
        tokio::spawn(session.run(frames, ends));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let certificate = self.member(&request)?;
        let mut messages = request.into_inner();
        let first = next_message(&mut messages, limits::HANDSHAKE_TIMEOUT).await?;
        let Some(Part::Header(header)) = first.part else {
            return Err(Status::invalid_argument("the header must come first"));
        };
        let hello = header.hello.as_ref();
        let hello = hello.ok_or_else(|| Status::invalid_argument("header without Hello"))?;
        let node = self.admit(&certificate, hello)?;
        let header = SnapshotHeader::parse(&header, node)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let _one_of_few = self
            .installs
            .clone()
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many snapshots at once"))?;
        let install = Install {
            handler: self.handler.clone(),
            node,
            thumbprint: certificate.thumbprint,
            header,
        };
        let vote = timeout(limits::SNAPSHOT_TIMEOUT, install.run(messages)).await;
        let vote = vote.map_err(|_| Status::deadline_exceeded("the snapshot took too long"))??;
        Ok(Response::new(InstallSnapshotResponse { vote: Some(vote_to(&vote)) }))
    }

    async fn probe(
        &self,
        request: Request<peer::ProbeRequest>,
    ) -> Result<Response<peer::ProbeResponse>, Status> {
        let certificate = certificate(&request)?;
        self.handler.probe(&certificate.thumbprint, request.into_inner()).map(Response::new)
    }
}

type Answers = mpsc::Sender<Result<ChannelResponse, Status>>;

/// One stream of one member.
struct Session<H> {
    handler: Arc<H>,
    node: NodeId,
    thumbprint: Thumbprint,
    answers: Answers,
    groups: BTreeMap<GroupId, mpsc::Sender<Append>>,
    /// Ends all that serves this stream when the stream ends.
    tasks: JoinSet<()>,
    control: Arc<Semaphore>,
    forwards: Arc<Semaphore>,
}

impl<H: PeerHandler> Session<H> {
    async fn run(mut self, mut frames: Streaming<ChannelRequest>, ends: CancellationToken) {
        let answers = self.answers.clone();
        let outcome = tokio::select! {
            outcome = self.serve(&mut frames) => outcome,
            () = ends.cancelled() => Err(Status::aborted("superseded by a newer stream")),
            () = answers.closed() => Ok(()),
        };
        if let Err(status) = outcome {
            tracing::info!(peer = %self.node, why = status.message(), "peer stream ended");
            let _ = answers.try_send(Err(status)); // A full queue ends without a word.
        }
    }

    async fn serve(&mut self, frames: &mut Streaming<ChannelRequest>) -> Result<(), Status> {
        let mut reminder = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                frame = frames.message() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    self.check_member()?;
                    self.take(frame).await?;
                }
                Some(_) = self.tasks.join_next() => {}
                _ = reminder.tick() => self.check_member()?,
            }
        }
    }

    fn check_member(&self) -> Result<(), Status> {
        if self.handler.still_member(self.node, &self.thumbprint) {
            return Ok(());
        }
        Err(Status::permission_denied("not a member"))
    }

    async fn take(&mut self, frame: ChannelRequest) -> Result<(), Status> {
        use channel_request::Body;
        let ChannelRequest { call, body } = frame;
        if call == 0 {
            return Err(Status::invalid_argument("a call without number"));
        }
        match body {
            None | Some(Body::Hello(_)) => return Err(Status::invalid_argument("not a call")),
            Some(Body::Append(append)) => self.append(call, append).await,
            Some(Body::Forward(forward)) => {
                let (handler, node) = (self.handler.clone(), self.node);
                let bound = self.forwards.clone();
                self.spawn(call, bound, async move {
                    Ok(channel_response::Body::Forward(handler.forward(node, forward).await))
                })
                .await;
            }
            Some(body) => {
                let (handler, node) = (self.handler.clone(), self.node);
                let bound = self.control.clone();
                self.spawn(call, bound, async move { control(&*handler, node, body).await }).await;
            }
        }
        Ok(())
    }

    async fn append(&mut self, call: u64, request: peer::AppendRequest) {
        let group = GroupId(request.group);
        let request = match check_append(self.node, request) {
            Ok(request) => request,
            Err(error) => return answer(&self.answers, call, Err(malformed(&error))).await,
        };
        let is_command = |entry: &Entry| matches!(entry.payload, EntryPayload::Normal(_));
        let commands = request.entries.iter().any(is_command);
        if !self.handler.takes_entries(group, commands) {
            let error = peer_error(ErrorKind::Unspecified, "the disk of this node is full");
            return answer(&self.answers, call, Err(error)).await;
        }
        let append = Append { call, request };
        let worker = match self.groups.get(&group) {
            Some(worker) if !worker.is_closed() => worker.clone(),
            _ => match self.handler.raft(group) {
                Some(raft) => self.start_appends(group, raft),
                None => return answer(&self.answers, call, Err(no_group(group))).await,
            },
        };
        if worker.try_send(append).is_err() {
            // Waiting here would keep the heartbeats of all other groups waiting too.
            let error = peer_error(ErrorKind::Unspecified, "too many appends wait");
            answer(&self.answers, call, Err(error)).await;
        }
    }

    fn start_appends(&mut self, group: GroupId, raft: Raft) -> mpsc::Sender<Append> {
        let (sender, queue) = mpsc::channel(limits::PEER_APPENDS_TAKEN_MAX);
        self.tasks.spawn(feed_appends(raft, queue, self.answers.clone()));
        self.groups.insert(group, sender.clone());
        sender
    }

    async fn spawn(
        &mut self,
        call: u64,
        bound: Arc<Semaphore>,
        work: impl Future<Output = Result<channel_response::Body, peer::PeerError>> + Send + 'static,
    ) {
        let Ok(permit) = bound.try_acquire_owned() else {
            let error = peer_error(ErrorKind::Unspecified, "too many calls at once");
            return answer(&self.answers, call, Err(error)).await;
        };
        while self.tasks.try_join_next().is_some() {} // Under load nobody else collects them.
        let answers = self.answers.clone();
        self.tasks.spawn(async move {
            let _permit: OwnedSemaphorePermit = permit;
            let result = work.await;
            answer(&answers, call, result).await;
        });
    }
}

async fn answer(
    answers: &Answers,
    call: u64,
    result: Result<channel_response::Body, peer::PeerError>,
) {
    let body = Some(result.unwrap_or_else(channel_response::Body::Error));
    let _ = answers.send(Ok(ChannelResponse { call, body })).await; // The peer may have gone.
}

fn malformed(error: &Malformed) -> peer::PeerError {
    peer_error(ErrorKind::Malformed, error.to_string())
}

fn no_group(group: GroupId) -> peer::PeerError {
    peer_error(ErrorKind::NoGroup, format!("no group {group} here"))
}

fn stopped(error: &dyn std::fmt::Display) -> peer::PeerError {
    tracing::debug!(%error, "a group that has stopped was called");
    peer_error(ErrorKind::Stopped, "the group has stopped on this node")
}

struct Append {
    call: u64,
    request: AppendEntriesRequest<Types>,
}

/// Hands the appends of one group to consensus in the order of their arrival, many before the first is durable, and
/// answers them in the same order, until the stream ends or the group stops.
async fn feed_appends(raft: Raft, mut queue: mpsc::Receiver<Append>, answers: Answers) {
    while feed_until_rejected(&raft, &mut queue, &answers).await == Feeding::GoesOn {}
}

#[derive(PartialEq, Eq)]
enum Feeding {
    GoesOn,
    Ended,
}

/// One run of openraft's append stream, which ends at the first append that is rejected. What was handed over behind that
/// one has no answer of its own: the leader that sent it starts anew from the rejection.
async fn feed_until_rejected(
    raft: &Raft,
    queue: &mut mpsc::Receiver<Append>,
    answers: &Answers,
) -> Feeding {
    let (feed, fed) = mpsc::channel(limits::PEER_APPENDS_PER_GROUP_MAX);
    let mut results = pin!(raft.stream_append(ReceiverStream::new(fed)));
    let mut calls = VecDeque::new();
    loop {
        let room = calls.len() < limits::PEER_APPENDS_PER_GROUP_MAX;
        let result = tokio::select! {
            biased;
            result = results.next(), if !calls.is_empty() => result,
            Some(Append { call, request }) = queue.recv(), if room => {
                calls.push_back(call);
                let _ = feed.send(request).await; // There is room; a group that stopped shows in its results.
                continue;
            }
            else => return Feeding::Ended,
        };
        let accepted = matches!(result, Some(Ok(Ok(_))));
        let rejected = matches!(result, Some(Ok(Err(_))));
        if let Some(call) = calls.pop_front() {
            answer(answers, call, append_response(result)).await;
        }
        if !accepted {
            for call in calls {
                let error = peer_error(ErrorKind::Unspecified, "behind a rejected append");
                answer(answers, call, Err(error)).await;
            }
            return if rejected { Feeding::GoesOn } else { Feeding::Ended };
        }
    }
}

fn append_response(
    result: Option<Result<StreamAppendResult<Types>, Fatal<Types>>>,
) -> Result<channel_response::Body, peer::PeerError> {
    use peer::append_response::Result as Kind;
    let (kind, higher_vote) = match result {
        Some(Ok(Ok(_))) => (Kind::Success, None),
        Some(Ok(Err(StreamAppendError::Conflict(_)))) => (Kind::Conflict, None),
        Some(Ok(Err(StreamAppendError::HigherVote(vote)))) => {
            (Kind::HigherVote, Some(vote_to(&vote)))
        }
        Some(Err(error)) => return Err(stopped(&error)),
        None => return Err(stopped(&"its append stream ended")),
    };
    let response = peer::AppendResponse { result: kind.into(), matching: None, higher_vote };
    Ok(channel_response::Body::Append(response))
}

/// The calls of consensus that do not depend on each other's order.
async fn control<H: PeerHandler>(
    handler: &H,
    node: NodeId,
    body: channel_request::Body,
) -> Result<channel_response::Body, peer::PeerError> {
    use channel_request::Body as Ask;
    use channel_response::Body as Answer;
    match body {
        Ask::Vote(request) => vote(handler, node, request, Round::Vote).await.map(Answer::Vote),
        Ask::PreVote(request) => {
            vote(handler, node, request, Round::PreVote).await.map(Answer::PreVote)
        }
        Ask::TransferLeader(request) => {
            transfer(handler, node, request).await.map(Answer::TransferLeader)
        }
        Ask::ReadIndex(request) => {
            let index = handler.read_index(GroupId(request.group)).await?;
            Ok(Answer::ReadIndex(peer::ReadIndexResponse { index }))
        }
        Ask::Freshness(request) => handler.freshness(node, request).await.map(Answer::Freshness),
        Ask::Confirm(request) => handler.confirm(request).await.map(Answer::Confirm),
        Ask::Status(peer::StatusRequest {}) => Ok(Answer::Status(handler.status().await)),
        Ask::AuditHash(request) => handler.audit_hash(request).await.map(Answer::AuditHash),
        Ask::FolderAge(request) => {
            handler.folder_age(node, &request);
            Ok(Answer::FolderAge(peer::FolderAgeResponse {}))
        }
        Ask::Hello(_) | Ask::Append(_) | Ask::Forward(_) => {
            Err(malformed(&Malformed("a frame in the wrong place")))
        }
    }
}

#[derive(Clone, Copy)]
enum Round {
    Vote,
    PreVote,
}

async fn vote<H: PeerHandler>(
    handler: &H,
    node: NodeId,
    request: peer::VoteRequest,
    round: Round,
) -> Result<peer::VoteResponse, peer::PeerError> {
    let group = GroupId(request.group);
    let vote = check_vote(request.vote.as_ref(), node, Committed::No).map_err(|e| malformed(&e))?;
    let request = openraft::raft::VoteRequest {
        vote,
        last_log_id: request.last_log_id.as_ref().map(log_id_from),
        leadership_transfer: request.leadership_transfer,
    };
    let raft = handler.raft(group).ok_or_else(|| no_group(group))?;
    let answer = match round {
        Round::Vote => raft.vote(request).await,
        Round::PreVote => raft.pre_vote(request).await,
    };
    let answer = answer.map_err(|error| stopped(&error))?;
    Ok(peer::VoteResponse {
        vote: Some(vote_to(&answer.vote)),
        granted: answer.vote_granted,
        last_log_id: answer.last_log_id.as_ref().map(log_id_to),
    })
}

async fn transfer<H: PeerHandler>(
    handler: &H,
    node: NodeId,
    request: peer::TransferLeaderRequest,
) -> Result<peer::TransferLeaderResponse, peer::PeerError> {
    let group = GroupId(request.group);
    let from = check_vote(request.from_leader.as_ref(), node, Committed::Yes)
        .map_err(|error| malformed(&error))?;
    let last_log_id = request.last_log_id.as_ref().map(log_id_from);
    let request = openraft::raft::TransferLeaderRequest::new(from, request.to_node, last_log_id);
    let raft = handler.raft(group).ok_or_else(|| no_group(group))?;
    let answer = raft.handle_transfer_leader(request).await.map_err(|error| stopped(&error))?;
    Ok(peer::TransferLeaderResponse { accepted: answer.is_ok() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    No,
}

/// A vote speaks for the node that sends it: a leader's is committed, a candidate's is not.
fn check_vote(
    vote: Option<&rookery_proto::log::v1::Vote>,
    sender: NodeId,
    committed: Committed,
) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("no vote"))?;
    if vote.node_id != sender.0 {
        return Err(Malformed("a vote of another node than the sender"));
    }
    if vote.committed != (committed == Committed::Yes) {
        return Err(Malformed("a candidate's vote where a leader's belongs, or the reverse"));
    }
    Ok(vote_from(vote))
}

pub(crate) fn check_append(
    sender: NodeId,
    request: peer::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, Malformed> {
    check_vote(request.vote.as_ref(), sender, Committed::Yes)?;
    let append = append_from(request)?;
    let mut previous = append.prev_log_id;
    for entry in &append.entries {
        let index = previous.map_or(Some(0), |previous| previous.index.checked_add(1));
        if index != Some(entry.log_id.index) {
            return Err(Malformed("entries with a gap"));
        }
        if previous.is_some_and(|previous| previous.leader_id > entry.log_id.leader_id) {
            return Err(Malformed("entries with falling terms"));
        }
        previous = Some(entry.log_id);
    }
    if previous.is_some_and(|last| last.leader_id > append.vote.leader_id) {
        return Err(Malformed("entries of a later leader than the sender"));
    }
    Ok(append)
}

struct SnapshotHeader {
    group: GroupId,
    vote: Vote,
    meta: SnapshotMeta,
}

impl SnapshotHeader {
    fn parse(header: &peer::SnapshotHeader, sender: NodeId) -> Result<Self, Malformed> {
        let vote = check_vote(header.vote.as_ref(), sender, Committed::Yes)?;
        let meta = header.meta.as_ref().ok_or(Malformed("snapshot without meta"))?;
        let meta = snapshot_meta_from(meta)?;
        snapshot::check_meta(&meta, &vote, None)
            .map_err(|_| Malformed("snapshot's position or membership"))?;
        Ok(Self { group: GroupId(header.group), vote, meta })
    }
}

/// One snapshot on its way in.
struct Install<H> {
    handler: Arc<H>,
    node: NodeId,
    thumbprint: Thumbprint,
    header: SnapshotHeader,
}

impl<H: PeerHandler> Install<H> {
    async fn run(self, messages: Streaming<InstallSnapshotRequest>) -> Result<Vote, Status> {
        let group = self.header.group;
        let missing = || Status::not_found("no such group here, or busy with another snapshot");
        let raft = self.handler.raft(group).ok_or_else(missing)?;
        self.check_against(&raft)?;
        let handler = self.handler.clone();
        let sink = blocking(move || Ok(handler.snapshot_sink(group))).await?.ok_or_else(missing)?;
        let data = self.receive(messages, sink).await?;
        // What was committed meanwhile must not be contradicted either.
        self.check_against(&raft)?;
        let snapshot = Snapshot { meta: self.header.meta, snapshot: data };
        let answer = raft.install_full_snapshot(self.header.vote, snapshot).await;
        let answer = answer.map_err(|error| Status::unavailable(stopped(&error).message))?;
        Ok(answer.vote)
    }

    fn check_against(&self, raft: &Raft) -> Result<(), Status> {
        let committed = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.cluster_committed.max(metrics.local_committed)
        };
        let SnapshotHeader { meta, vote, .. } = &self.header;
        snapshot::check_meta(meta, vote, committed.as_ref())
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Takes the chunks up to the trailer. Nothing of them is visible until the sink has verified the whole; however this
    /// ends before, dropping the sink deletes them.
    async fn receive(
        &self,
        mut messages: Streaming<InstallSnapshotRequest>,
        mut sink: SnapshotSink,
    ) -> Result<SnapshotData, Status> {
        loop {
            match self.next_part(&mut messages).await? {
                Part::Header(_) => return Err(Status::invalid_argument("a second header")),
                Part::Chunk(chunk) => {
                    sink = blocking(move || sink.write(&chunk.data).map(|()| sink)).await?;
                }
                Part::Trailer(peer::SnapshotTrailer { chunks, digest }) => {
                    let meta = self.header.meta.clone();
                    return blocking(move || sink.finish(chunks, &digest, &meta)).await;
                }
            }
        }
    }

    async fn next_part(
        &self,
        messages: &mut Streaming<InstallSnapshotRequest>,
    ) -> Result<Part, Status> {
        let message = next_message(messages, limits::SNAPSHOT_IDLE_TIMEOUT).await?;
        if !self.handler.still_member(self.node, &self.thumbprint) {
            return Err(Status::permission_denied("not a member"));
        }
        message.part.ok_or_else(|| Status::invalid_argument("an empty message"))
    }
}

/// Runs work on the disk where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, snapshot::Error> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::unavailable("stopping"))?.map_err(|error| match error {
        snapshot::Error::Refused(_) | snapshot::Error::Superseded => {
            tracing::warn!(%error, "a snapshot that was sent to this node is not used");
            Status::data_loss(error.to_string())
        }
        snapshot::Error::Storage(_) => {
            tracing::error!(%error, "a snapshot cannot be stored");
            Status::unavailable("the snapshot cannot be stored")
        }
    })
}
