//! Peers over real TLS: who is heard, in which order calls are answered, and what ends a channel.

#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]
//! Two nodes that talk over real TLS on the loopback: who is heard, what is refused, and what a broken line does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use openraft::{
    RaftNetworkFactory as _, RaftNetworkV2 as _,
    impls::leader_id_adv::LeaderId,
    network::RPCOption,
    raft::{AppendEntriesRequest, StreamAppendError, VoteRequest},
};
use parking_lot::Mutex;
use rookery_proto::{
    log::v1 as log,
    peer::v1::{
        self as peer, ChannelRequest, ChannelResponse, FolderAgeRequest, Hello,
        channel_request::Body as Ask, channel_response::Body as Answer, peer_error::Kind,
        peer_service_server::PeerService as Service,
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceExt as _;

use super::{
    applied::GroupState,
    channel::{self, CallError, Channel, Channels, PROTOCOL_VERSION, PeerIdentity},
    folder_age::Ages,
    network::GroupNetwork,
    peer_service::{self, PeerHandler, PeerRefused},
    purge::SnapshotsSent,
    snapshot::SnapshotSink,
    types::{Entry, LogId, Member, Raft, Types, Vote},
};
use crate::{
    names::{GroupId, Incarnation, NodeId, Thumbprint},
    tls::{CurrentIdentity, PeerCertificate, TlsIdentity, peer_port_config, testing::identity},
};

const CLUSTER: &str = "2f5e0d57-4d31-4c5a-9a8f-0e6f4c1f7a10";
/// A group whose read index is never answered.
const SILENT: u64 = 999;
const SOON: Duration = Duration::from_secs(10);

pub(super) fn incarnation(node: u64) -> Incarnation {
    Incarnation::from_bytes(&[u8::try_from(node).unwrap(); 16]).unwrap()
}

pub(super) fn peer_identity(node: u64, tls: TlsIdentity) -> Arc<PeerIdentity> {
    Arc::new(PeerIdentity {
        cluster_id: CLUSTER.into(),
        node_id: NodeId(node),
        incarnation: incarnation(node),
        tls: CurrentIdentity::new(tls),
        ages: Ages::fresh(),
    })
}

/// A node with members and at most one group; counts what reaches it.
pub(super) struct Fake {
    pub(super) identity: Arc<PeerIdentity>,
    pub(super) members: Mutex<BTreeMap<Thumbprint, NodeId>>,
    pub(super) group: Mutex<Option<(Raft, Arc<GroupState>)>>,
    raft_asked: AtomicUsize,
    read_indexes: AtomicUsize,
}

impl Fake {
    pub(super) fn new(
        identity: Arc<PeerIdentity>,
        members: impl IntoIterator<Item = (Thumbprint, NodeId)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity,
            members: Mutex::new(members.into_iter().collect()),
            group: Mutex::default(),
            raft_asked: AtomicUsize::new(0),
            read_indexes: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl PeerHandler for Fake {
    fn raft(&self, _: GroupId) -> Option<Raft> {
        self.raft_asked.fetch_add(1, Ordering::Relaxed);
        self.group.lock().as_ref().map(|(raft, _)| raft.clone())
    }

    fn is_member(&self, thumbprint: &Thumbprint) -> bool {
        self.members.lock().contains_key(thumbprint)
    }

    fn admit(&self, thumbprint: &Thumbprint, hello: &Hello) -> Result<NodeId, PeerRefused> {
        let members = self.members.lock();
        let node = *members.get(thumbprint).ok_or(PeerRefused::NotAMember)?;
        if hello.cluster_id != CLUSTER {
            return Err(PeerRefused::OtherCluster);
        }
        if hello.node_id != node.0 {
            return Err(PeerRefused::OtherNode);
        }
        if hello.incarnation != incarnation(node.0).as_bytes() {
            return Err(PeerRefused::OtherIncarnation);
        }
        Ok(node)
    }

    fn still_member(&self, node: NodeId, thumbprint: &Thumbprint) -> bool {
        self.members.lock().get(thumbprint) == Some(&node)
    }

    fn refused(&self, _: &Thumbprint, _: &PeerRefused) {}

    fn folder_age(&self, _: NodeId, _: &FolderAgeRequest) {}

    fn takes_entries(&self, _: GroupId, _: bool) -> bool {
        true
    }

    async fn audit_hash(
        &self,
        request: peer::AuditHashRequest,
    ) -> Result<peer::AuditHashResponse, peer::PeerError> {
        Ok(peer::AuditHashResponse { hash: request.sequence.to_be_bytes().to_vec() })
    }

    fn hello(&self) -> Hello {
        self.identity.hello()
    }

    async fn read_index(&self, group: GroupId) -> Result<u64, peer::PeerError> {
        self.read_indexes.fetch_add(1, Ordering::Relaxed);
        match group.0 {
            SILENT => std::future::pending().await,
            group if group % 10 == 7 => {
                Err(peer::PeerError { leader_id: group, ..peer::PeerError::default() })
            }
            group => Ok(group * 2),
        }
    }

    async fn freshness(
        &self,
        _: NodeId,
        _: peer::FreshnessRequest,
    ) -> Result<peer::FreshnessResponse, peer::PeerError> {
        Ok(peer::FreshnessResponse::default())
    }

    async fn confirm(
        &self,
        request: peer::ConfirmRequest,
    ) -> Result<peer::ConfirmResponse, peer::PeerError> {
        Ok(peer::ConfirmResponse { applied_index: request.index })
    }

    async fn forward(&self, from: NodeId, _: peer::ForwardRequest) -> peer::ForwardResponse {
        let read = peer::forward_response::Result::Read(vec![u8::try_from(from.0).unwrap()]);
        peer::ForwardResponse { result: Some(read) }
    }

    async fn status(&self) -> peer::StatusResponse {
        peer::StatusResponse::default()
    }

    fn snapshot_sink(&self, _: GroupId) -> Option<SnapshotSink> {
        self.raft_asked.fetch_add(1, Ordering::Relaxed);
        let group = self.group.lock();
        SnapshotSink::begin(&group.as_ref()?.1).ok()
    }

    fn probe(
        &self,
        thumbprint: &Thumbprint,
        _: peer::ProbeRequest,
    ) -> Result<peer::ProbeResponse, Status> {
        let incarnation = thumbprint.as_bytes().to_vec();
        Ok(peer::ProbeResponse { formed: true, incarnation, ..Default::default() })
    }
}

/// A peer listener; dropping it ends every connection.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    accepting: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(super) async fn listen<S>(at: &str, tls: &Arc<CurrentIdentity>, service: S) -> Listener
where
    S: tower::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(peer_port_config(tls).unwrap());
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), service.clone());
            connections.spawn(async move {
                tcp.set_nodelay(true).unwrap();
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let certificate = PeerCertificate::of(stream.get_ref().1).unwrap();
                let service = service.map_request(move |mut request: http::Request<_>| {
                    request.extensions_mut().insert(certificate.clone());
                    request
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                    .await;
            });
        }
    });
    Listener { address, accepting: accepting.abort_handle() }
}

/// Node 2 listens, with node 1 as a member; node 1 dials.
struct Pair {
    fake: Arc<Fake>,
    listener: Option<Listener>,
    one: Arc<PeerIdentity>,
    channels: Arc<Channels>,
}

impl Pair {
    async fn new() -> Self {
        let (one, two) = (peer_identity(1, identity("n1")), peer_identity(2, identity("n2")));
        let fake = Fake::new(two, [(one.tls.load().thumbprint(), NodeId(1))]);
        let channels = Channels::new(one.clone(), BTreeMap::new());
        let mut pair = Self { fake, listener: None, one, channels };
        pair.listen("127.0.0.1:0").await;
        pair
    }

    async fn listen(&mut self, at: &str) {
        let service = peer_service::service(self.fake.clone());
        self.listener = Some(listen(at, &self.fake.identity.tls, service).await);
    }

    fn address(&self) -> String {
        self.listener.as_ref().unwrap().address.to_string()
    }

    fn two(&self) -> Member {
        Member {
            name: "n2".into(),
            peer_address: self.address(),
            thumbprint: self.fake.identity.tls.load().thumbprint().as_bytes().to_vec(),
            incarnation: incarnation(2).as_bytes().to_vec(),
            ..Member::default()
        }
    }

    fn channel(&self) -> Arc<Channel> {
        self.channels.set_member(NodeId(2), &self.two()).unwrap();
        self.channels.peer(NodeId(2)).unwrap()
    }

    /// Opens a stream as whoever holds `tls`, and sends `frames` without waiting for anything.
    async fn stream(
        &self,
        tls: TlsIdentity,
        frames: Vec<ChannelRequest>,
    ) -> Result<Streaming<ChannelResponse>, Status> {
        let expected = self.fake.identity.tls.load().thumbprint();
        let tls = CurrentIdentity::new(tls);
        let connection = channel::connect(&self.address(), tls.load(), &[expected]).await.unwrap();
        let frames = stream::iter(frames).chain(stream::pending());
        timeout(SOON, channel::client(connection).channel(frames))
            .await
            .unwrap()
            .map(Response::into_inner)
    }
}

fn frame(call: u64, body: Ask) -> ChannelRequest {
    ChannelRequest { call, body: Some(body) }
}

fn read_index(group: u64) -> Ask {
    Ask::ReadIndex(peer::ReadIndexRequest { group })
}

fn soon() -> Instant {
    Instant::now() + SOON
}

fn index_of(answer: Answer) -> u64 {
    match answer {
        Answer::ReadIndex(answer) => answer.index,
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn ten_thousand_calls_at_once_find_their_callers() {
    let pair = Pair::new().await;
    let channel = pair.channel();
    let calls = stream::iter((0..10_000_u64).filter(|group| *group != SILENT)).map(|group| {
        let channel = channel.clone();
        async move { (group, channel.call(read_index(group), soon()).await) }
    });
    let answers: Vec<_> = calls.buffer_unordered(10_000).collect().await;
    assert_eq!(answers.len(), 9_999);
    for (group, answer) in answers {
        match answer {
            Err(CallError::Refused(error)) => {
                assert_eq!((group % 10, error.leader_id), (7, group));
            }
            answer => assert_eq!(index_of(answer.unwrap()), group * 2),
        }
    }
    let forwarded = channel.call(Ask::Forward(peer::ForwardRequest::default()), soon()).await;
    let Answer::Forward(forwarded) = forwarded.unwrap() else { panic!("not forwarded") };
    assert_eq!(forwarded.result, Some(peer::forward_response::Result::Read(vec![1])));
}

#[tokio::test]
async fn strangers_are_refused_before_consensus_hears_of_them() {
    let pair = Pair::new().await;
    let own = pair.one.tls.load();
    let hello = pair.one.hello();
    let removed = identity("n9");
    pair.fake.members.lock().insert(removed.thumbprint(), NodeId(9));
    pair.fake.members.lock().remove(&removed.thumbprint());
    let unfit = |change: fn(&mut Hello)| {
        let mut hello = hello.clone();
        change(&mut hello);
        hello
    };
    let cases = [
        ("a stranger", identity("n1"), hello.clone(), Some(Code::PermissionDenied)),
        ("a removed member", removed, hello.clone(), Some(Code::PermissionDenied)),
        (
            "another cluster",
            own.as_ref().clone(),
            unfit(|hello| hello.cluster_id = "other".into()),
            Some(Code::PermissionDenied),
        ),
        (
            "another node's name",
            own.as_ref().clone(),
            unfit(|hello| hello.node_id = 2),
            Some(Code::PermissionDenied),
        ),
        (
            "another folder",
            own.as_ref().clone(),
            unfit(|hello| hello.incarnation = vec![9; 16]),
            Some(Code::PermissionDenied),
        ),
        (
            "another protocol",
            own.as_ref().clone(),
            unfit(|hello| hello.version = PROTOCOL_VERSION + 1),
            Some(Code::FailedPrecondition),
        ),
        ("the member itself", own.as_ref().clone(), hello.clone(), None),
    ];
    for (name, tls, hello, expected) in cases {
        let asked = pair.fake.raft_asked.load(Ordering::Relaxed);
        let frames = vec![frame(0, Ask::Hello(hello)), frame(1, Ask::Vote(vote_request(1, false)))];
        let result = pair.stream(tls, frames).await;
        assert_eq!(result.as_ref().err().map(Status::code), expected, "{name}");
        if let Ok(mut answers) = result {
            for _ in 0..2 {
                answers.message().await.unwrap().unwrap();
            }
        }
        let asked = pair.fake.raft_asked.load(Ordering::Relaxed) - asked;
        assert_eq!(asked, usize::from(expected.is_none()), "{name}");
    }
}

#[tokio::test]
async fn snapshots_of_strangers_are_refused_before_consensus_hears_of_them() {
    let pair = Pair::new().await;
    let expected = pair.fake.identity.tls.load().thumbprint();
    let header = peer::SnapshotHeader {
        hello: Some(pair.one.hello()),
        group: 0,
        vote: Some(log::Vote { term: 3, node_id: 1, committed: true }),
        meta: Some(log::SnapshotMeta {
            last_log_id: Some(log_id(2, 10)),
            last_membership: Some(log::StoredMembership {
                log_id: Some(log_id(1, 1)),
                membership: Some(log::Membership {
                    configurations: vec![log::VoterSet { node_ids: vec![1] }],
                    nodes: vec![log::Peer { id: 1, ..Default::default() }],
                }),
            }),
            ..Default::default()
        }),
    };
    let other = |change: fn(&mut peer::SnapshotHeader)| {
        let mut header = header.clone();
        change(&mut header);
        header
    };
    let own = || pair.one.tls.load().as_ref().clone();
    let cases = [
        ("a stranger", identity("n1"), header.clone(), Code::PermissionDenied),
        ("no Hello", own(), other(|header| header.hello = None), Code::InvalidArgument),
        (
            "another leader's vote",
            own(),
            other(|header| header.vote.as_mut().unwrap().node_id = 2),
            Code::InvalidArgument,
        ),
        (
            "a candidate's vote",
            own(),
            other(|header| header.vote.as_mut().unwrap().committed = false),
            Code::InvalidArgument,
        ),
        ("no meta", own(), other(|header| header.meta = None), Code::InvalidArgument),
        (
            "no membership",
            own(),
            other(|header| header.meta.as_mut().unwrap().last_membership = None),
            Code::InvalidArgument,
        ),
        (
            "a later term than the leader's",
            own(),
            other(|header| header.meta.as_mut().unwrap().last_log_id = Some(log_id(4, 10))),
            Code::InvalidArgument,
        ),
    ];
    let send = async |tls, header| {
        let tls = CurrentIdentity::new(tls);
        let connection = channel::connect(&pair.address(), tls.load(), &[expected]).await.unwrap();
        let part = peer::install_snapshot_request::Part::Header(header);
        let parts = stream::iter([peer::InstallSnapshotRequest { part: Some(part) }]);
        channel::client(connection).install_snapshot(parts).await.unwrap_err().code()
    };
    for (name, tls, header, expected) in cases {
        assert_eq!(send(tls, header).await, expected, "{name}");
    }
    assert_eq!(pair.fake.raft_asked.load(Ordering::Relaxed), 0);
    assert_eq!(send(own(), header.clone()).await, Code::NotFound, "a member, but no such group");
    assert_eq!(pair.fake.raft_asked.load(Ordering::Relaxed), 1);
}

fn log_id(term: u64, index: u64) -> log::LogId {
    log::LogId { term, node_id: 1, index }
}

fn vote_request(node_id: u64, committed: bool) -> peer::VoteRequest {
    let vote = Some(log::Vote { term: 3, node_id, committed });
    peer::VoteRequest { group: 5, vote, ..Default::default() }
}

fn append(entries: &[(u64, u64)], change: fn(&mut peer::AppendRequest)) -> Ask {
    let entry = |(term, index): &(u64, u64)| log::Entry {
        log_id: Some(log_id(*term, *index)),
        payload: Some(log::entry::Payload::Blank(log::Blank {})),
    };
    let mut append = peer::AppendRequest {
        group: 5,
        vote: Some(log::Vote { term: 3, node_id: 1, committed: true }),
        previous: Some(log_id(2, 10)),
        committed: None,
        entries: entries.iter().map(entry).collect(),
    };
    change(&mut append);
    Ask::Append(append)
}

#[tokio::test]
async fn malformed_calls_are_answered_as_such_and_never_reach_consensus() {
    let pair = Pair::new().await;
    let channel = pair.channel();
    let transfer = |node_id, committed| {
        let from_leader = Some(log::Vote { term: 3, node_id, committed });
        Ask::TransferLeader(peer::TransferLeaderRequest { from_leader, ..Default::default() })
    };
    let malformed = [
        ("append without vote", append(&[], |append| append.vote = None)),
        ("append of another", append(&[], |append| append.vote.as_mut().unwrap().node_id = 2)),
        (
            "append of a candidate",
            append(&[], |append| append.vote.as_mut().unwrap().committed = false),
        ),
        ("append with a gap", append(&[(3, 12)], |_| {})),
        ("append that repeats", append(&[(3, 11), (3, 11)], |_| {})),
        ("append with falling terms", append(&[(3, 11), (2, 12)], |_| {})),
        ("append of a later term", append(&[(4, 11)], |_| {})),
        (
            "append at the end of numbers",
            append(&[(3, 0)], |append| {
                append.previous = Some(log_id(2, u64::MAX));
            }),
        ),
        ("append not from the start", append(&[(3, 1)], |append| append.previous = None)),
        ("entry without payload", append(&[(3, 11)], |append| append.entries[0].payload = None)),
        ("entry without position", append(&[(3, 11)], |append| append.entries[0].log_id = None)),
        (
            "membership without nodes",
            append(&[(3, 11)], |append| {
                let configurations = vec![log::VoterSet { node_ids: vec![1] }];
                let membership = log::Membership { configurations, nodes: Vec::new() };
                append.entries[0].payload = Some(log::entry::Payload::Membership(membership));
            }),
        ),
        ("vote for another", Ask::Vote(vote_request(2, false))),
        ("vote that is committed", Ask::Vote(vote_request(1, true))),
        ("no vote", Ask::Vote(peer::VoteRequest::default())),
        ("pre-vote for another", Ask::PreVote(vote_request(2, false))),
        ("transfer by another", transfer(2, true)),
        ("transfer by a candidate", transfer(1, false)),
    ];
    let kind = async |body| match channel.call(body, soon()).await {
        Err(CallError::Refused(error)) => error.kind(),
        answer => panic!("{answer:?}"),
    };
    for (name, body) in malformed {
        assert_eq!(kind(body).await, Kind::Malformed, "{name}");
    }
    assert_eq!(pair.fake.raft_asked.load(Ordering::Relaxed), 0);
    let well_formed = [
        append(&[], |_| {}),
        append(&[(2, 11), (3, 12)], |_| {}),
        append(&[(3, 0)], |append| append.previous = None),
        Ask::Vote(vote_request(1, false)),
        Ask::PreVote(vote_request(1, false)),
        transfer(1, true),
    ];
    let count = well_formed.len();
    for body in well_formed {
        assert_eq!(kind(body).await, Kind::NoGroup);
    }
    assert_eq!(pair.fake.raft_asked.load(Ordering::Relaxed), count);
}

#[tokio::test]
async fn frames_out_of_order_end_the_stream() {
    let pair = Pair::new().await;
    let own = || pair.one.tls.load().as_ref().clone();
    let hello = || frame(0, Ask::Hello(pair.one.hello()));
    let first = [
        ("a call before Hello", frame(1, read_index(1))),
        ("Hello with a number", frame(1, Ask::Hello(pair.one.hello()))),
        ("nothing", ChannelRequest { call: 0, body: None }),
    ];
    for (name, first) in first {
        let result = pair.stream(own(), vec![first, frame(2, read_index(1))]).await;
        assert_eq!(result.err().map(|status| status.code()), Some(Code::InvalidArgument), "{name}");
    }
    let second = [
        ("a second Hello", frame(1, Ask::Hello(pair.one.hello()))),
        ("a call without number", frame(0, read_index(1))),
        ("an empty call", ChannelRequest { call: 1, body: None }),
    ];
    for (name, second) in second {
        let mut answers = pair.stream(own(), vec![hello(), second]).await.unwrap();
        assert!(matches!(answers.message().await.unwrap().unwrap().body, Some(Answer::Hello(_))));
        let error = answers.message().await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name}");
    }
    assert_eq!(pair.fake.read_indexes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_line_that_breaks_fails_what_waits_and_heals_by_itself() {
    let mut pair = Pair::new().await;
    let channel = pair.channel();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { channel.call(read_index(SILENT), soon()).await })
        })
        .collect();
    until(|| pair.fake.read_indexes.load(Ordering::Relaxed) == 100).await;
    let address = pair.address();
    pair.listener = None;
    let broken = Instant::now();
    for call in waiting {
        assert_eq!(call.await.unwrap(), Err(CallError::Closed));
    }
    assert!(broken.elapsed() < Duration::from_secs(1), "{:?}", broken.elapsed());
    until(|| !channel.is_up()).await;
    let error = channel.call(read_index(1), soon()).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");

    pair.listen(&address).await;
    until(|| channel.is_up()).await;
    assert_eq!(index_of(channel.call(read_index(1), soon()).await.unwrap()), 2);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let pair = Pair::new().await;
    let channel = pair.channel();
    let deadline = Instant::now() + Duration::from_millis(200);
    assert_eq!(channel.call(read_index(SILENT), deadline).await, Err(CallError::Timeout));
    assert!(deadline.elapsed() < Duration::from_secs(2));
    assert_eq!(index_of(channel.call(read_index(1), soon()).await.unwrap()), 2);
}

#[tokio::test]
async fn a_removed_member_loses_its_stream_with_the_next_frame() {
    let pair = Pair::new().await;
    let channel = pair.channel();
    let asking = { channel.clone() };
    let waiting = tokio::spawn(async move { asking.call(read_index(SILENT), soon()).await });
    until(|| pair.fake.read_indexes.load(Ordering::Relaxed) == 1).await;
    pair.fake.members.lock().clear();
    assert_eq!(channel.call(read_index(1), soon()).await, Err(CallError::Closed));
    assert_eq!(waiting.await.unwrap(), Err(CallError::Closed));
    assert_eq!(pair.fake.read_indexes.load(Ordering::Relaxed), 1, "the frame was not served");
    let error = channel.call(read_index(1), soon()).await.unwrap_err();
    assert!(error.to_string().contains("refused this node"), "{error}");
}

#[tokio::test]
async fn a_removed_member_is_no_longer_called() {
    let pair = Pair::new().await;
    let channel = pair.channel();
    let asking = { channel.clone() };
    let waiting = tokio::spawn(async move { asking.call(read_index(SILENT), soon()).await });
    until(|| pair.fake.read_indexes.load(Ordering::Relaxed) == 1).await;
    pair.channels.remove_member(NodeId(2));
    assert_eq!(timeout(SOON, waiting).await.unwrap().unwrap(), Err(CallError::Closed));
    assert!(pair.channels.peer(NodeId(2)).is_none());
    let error = channel.call(read_index(1), soon()).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
    assert!(channel.connect_apart().await.is_err());
}

#[tokio::test]
async fn a_newer_stream_of_a_member_ends_its_older_one() {
    let pair = Pair::new().await;
    let hello = || vec![frame(0, Ask::Hello(pair.one.hello()))];
    let own = || pair.one.tls.load().as_ref().clone();
    let mut older = pair.stream(own(), hello()).await.unwrap();
    older.message().await.unwrap();
    let mut newer = pair.stream(own(), hello()).await.unwrap();
    newer.message().await.unwrap();
    assert_eq!(older.message().await.unwrap_err().code(), Code::Aborted);
    assert!(timeout(Duration::from_millis(200), newer.message()).await.is_err());
}

#[tokio::test]
async fn a_channel_opens_to_the_expected_node_alone() {
    let pair = Pair::new().await;
    let check = async |change: fn(&mut Member), expected: &str| {
        let mut member = pair.two();
        change(&mut member);
        pair.channels.set_member(NodeId(2), &member).unwrap();
        let channel = pair.channels.peer(NodeId(2)).unwrap();
        let answer = channel.call(read_index(1), soon()).await;
        let text = answer.map_or_else(|error| error.to_string(), |_| "served".into());
        assert!(text.contains(expected), "{text}");
    };
    check(|_| {}, "served").await;
    check(|member| member.thumbprint = vec![7; 32], "not the expected").await;
    check(|member| member.incarnation = vec![7; 16], "data folder").await;
    check(|member| member.incarnation = Vec::new(), "served").await;
    check(|member| member.peer_address = "127.0.0.1:1".into(), "unreachable").await;
    let other = Member { thumbprint: vec![1; 31], ..pair.two() };
    assert!(pair.channels.set_member(NodeId(2), &other).is_err());

    pair.channels.set_member(NodeId(3), &pair.two()).unwrap();
    let error = pair.channels.peer(NodeId(3)).unwrap().call(read_index(1), soon()).await;
    assert!(error.unwrap_err().to_string().contains("another member"));
}

#[tokio::test]
async fn addresses_can_be_overridden_by_name_or_id() {
    let pair = Pair::new().await;
    for key in ["n2", "2"] {
        let dial = [(key.to_owned(), pair.address())].into();
        let channels = Channels::new(pair.one.clone(), dial);
        let member = Member { peer_address: "unreachable.invalid:1".into(), ..pair.two() };
        channels.set_member(NodeId(2), &member).unwrap();
        let channel = channels.peer(NodeId(2)).unwrap();
        assert_eq!(index_of(channel.call(read_index(1), soon()).await.unwrap()), 2);
    }
}

#[tokio::test]
async fn a_silent_line_is_noticed_by_its_pings() {
    let pair = Pair::new().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = Member { peer_address: proxy.local_addr().unwrap().to_string(), ..pair.two() };
    let (stall, stalled) = watch::channel(false);
    let behind = pair.address();
    tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
        let mut stalled = stalled;
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = stalled.wait_for(|stalled| *stalled) => {}
        }
        // Both ends stay open and hear nothing any more.
        std::future::pending::<()>().await;
    });
    pair.channels.set_member(NodeId(2), &member).unwrap();
    let channel = pair.channels.peer(NodeId(2)).unwrap();
    assert_eq!(index_of(channel.call(read_index(1), soon()).await.unwrap()), 2);
    stall.send(true).unwrap();
    let since = Instant::now();
    let deadline = since + Duration::from_secs(20);
    assert_eq!(channel.call(read_index(1), deadline).await, Err(CallError::Closed));
    assert!(since.elapsed() < Duration::from_secs(7), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_probe_is_answered_by_the_certificate_it_came_with() {
    let pair = Pair::new().await;
    let stranger = CurrentIdentity::new(identity("n5"));
    let expected = pair.fake.identity.tls.load().thumbprint();
    let connection = channel::connect(&pair.address(), stranger.load(), &[expected]).await.unwrap();
    let answer = channel::client(connection).probe(peer::ProbeRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().incarnation, stranger.load().thumbprint().as_bytes());

    let large = peer::ProbeRequest { node_name: "n".repeat(5_000), ..Default::default() };
    let connection = channel::connect(&pair.address(), stranger.load(), &[expected]).await.unwrap();
    let error = channel::client(connection).probe(large).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
}

pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Takes appends until `batch` of them wait, then answers them, last first; conflicts at the indexes given.
struct LastFirst {
    hello: Hello,
    batch: usize,
    conflicts: BTreeSet<u64>,
}

#[tonic::async_trait]
impl Service for LastFirst {
    type ChannelStream = ReceiverStream<Result<ChannelResponse, Status>>;

    async fn channel(
        &self,
        request: Request<Streaming<ChannelRequest>>,
    ) -> Result<Response<Self::ChannelStream>, Status> {
        let mut frames = request.into_inner();
        frames.message().await?;
        let (answers, receiver) = mpsc::channel(1_000);
        let hello = Some(Answer::Hello(self.hello.clone()));
        answers.send(Ok(ChannelResponse { call: 0, body: hello })).await.unwrap();
        let (batch, conflicts) = (self.batch, self.conflicts.clone());
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Ok(Some(frame)) = frames.message().await {
                let Some(Ask::Append(append)) = frame.body else { panic!("not an append") };
                let index = append.entries.last().map_or(0, |e| e.log_id.as_ref().unwrap().index);
                let result = if conflicts.contains(&index) {
                    peer::append_response::Result::Conflict
                } else {
                    peer::append_response::Result::Success
                };
                waiting.push((frame.call, result));
                if waiting.len() == batch {
                    for (call, result) in waiting.drain(..).rev() {
                        let result = result.into();
                        let body = peer::AppendResponse { result, ..Default::default() };
                        let body = Some(Answer::Append(body));
                        let _ = answers.send(Ok(ChannelResponse { call, body })).await;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn install_snapshot(
        &self,
        _: Request<Streaming<peer::InstallSnapshotRequest>>,
    ) -> Result<Response<peer::InstallSnapshotResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn probe(
        &self,
        _: Request<peer::ProbeRequest>,
    ) -> Result<Response<peer::ProbeResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn raft_log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 3, node_id: 1 }, index)
}

fn raft_append(index: u64) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote { leader_id: LeaderId { term: 3, node_id: 1 }, committed: true },
        prev_log_id: Some(raft_log_id(index - 1)),
        entries: vec![Entry { log_id: raft_log_id(index), payload: openraft::EntryPayload::Blank }],
        leader_commit: None,
    }
}

async fn last_first(batch: usize, conflicts: &[u64]) -> (Pair, Listener) {
    let pair = Pair::new().await;
    let service = LastFirst {
        hello: pair.fake.hello(),
        batch,
        conflicts: conflicts.iter().copied().collect(),
    };
    let service = peer::peer_service_server::PeerServiceServer::new(service);
    let listener = listen("127.0.0.1:0", &pair.fake.identity.tls, service).await;
    let member = Member { peer_address: listener.address.to_string(), ..pair.two() };
    pair.channels.set_member(NodeId(2), &member).unwrap();
    (pair, listener)
}

#[tokio::test]
async fn appends_are_pipelined_and_answered_in_their_order() {
    let (pair, _listener) = last_first(16, &[]).await;
    let mut network =
        GroupNetwork::new(pair.channels.clone(), GroupId(5), SnapshotsSent::default());
    let mut network = network.new_client(2, &Member::default()).await;
    let input = stream::iter((1..=64).map(raft_append));
    let option = RPCOption::new(Duration::from_millis(150));
    let answers = network.stream_append(input, option).await.unwrap();
    let answers: Vec<_> = timeout(SOON, answers.collect::<Vec<_>>()).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    let expected: Vec<_> = (1..=64).map(|index| Some(raft_log_id(index))).collect();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn a_conflict_ends_the_pipeline_where_it_happened() {
    let (pair, _listener) = last_first(8, &[5]).await;
    let mut network =
        GroupNetwork::new(pair.channels.clone(), GroupId(5), SnapshotsSent::default());
    let mut network = network.new_client(2, &Member::default()).await;
    // A leader's input stays open, which must not keep the answers waiting.
    let input = stream::iter((1..=8).map(raft_append)).chain(stream::pending());
    let option = RPCOption::new(Duration::from_millis(150));
    let answers = network.stream_append(input, option).await.unwrap();
    let answers: Vec<_> = timeout(SOON, answers.collect::<Vec<_>>()).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let mut expected: Vec<_> = (1..=4).map(|index| Ok(Some(raft_log_id(index)))).collect();
    expected.push(Err(StreamAppendError::Conflict(raft_log_id(4))));
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn appends_that_nobody_answers_end_in_an_error() {
    let (pair, listener) = last_first(1_000, &[]).await;
    let mut network =
        GroupNetwork::new(pair.channels.clone(), GroupId(5), SnapshotsSent::default());
    let mut network = network.new_client(2, &Member::default()).await;
    let option = || RPCOption::new(Duration::from_millis(150));
    let input = || stream::iter((1..=8).map(raft_append)).chain(stream::pending());
    let mut answers = network.stream_append(input(), option()).await.unwrap();
    assert!(timeout(SOON, answers.next()).await.unwrap().unwrap().is_err());
    drop(answers);
    let mut answers = network.stream_append(input(), option()).await.unwrap();
    let channel = pair.channels.peer(NodeId(2)).unwrap();
    until(|| channel.is_up()).await;
    drop(listener);
    let broken = Instant::now();
    assert!(timeout(SOON, answers.next()).await.unwrap().unwrap().is_err());
    assert!(broken.elapsed() < Duration::from_secs(1), "{:?}", broken.elapsed());
}

#[tokio::test]
async fn an_unreachable_peer_grants_nothing() {
    let pair = Pair::new().await;
    let member = Member { peer_address: "127.0.0.1:1".into(), ..pair.two() };
    let mut network =
        GroupNetwork::new(pair.channels.clone(), GroupId(5), SnapshotsSent::default());
    let vote = Vote { leader_id: LeaderId { term: 3, node_id: 1 }, committed: false };
    for known in [false, true] {
        if known {
            pair.channels.set_member(NodeId(2), &member).unwrap();
        }
        let mut network = network.new_client(2, &member).await;
        let option = || RPCOption::new(Duration::from_millis(500));
        assert!(network.pre_vote(VoteRequest::new(vote, None), option()).await.is_err());
        assert!(network.vote(VoteRequest::new(vote, None), option()).await.is_err());
    }
    // Reached, but without the group: no grant either.
    pair.channels.set_member(NodeId(2), &pair.two()).unwrap();
    let mut network = network.new_client(2, &member).await;
    let option = RPCOption::new(SOON);
    assert!(network.pre_vote(VoteRequest::new(vote, None), option).await.is_err());
    assert_eq!(pair.fake.raft_asked.load(Ordering::Relaxed), 1);
}
