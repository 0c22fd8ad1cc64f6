//! One group on several nodes of one process, with everything between them real: TLS, channels, logs, states, snapshots.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{future::join_all, stream};
use openraft::{ServerState, async_runtime::watch::WatchReceiver as _};
use prost::Message as _;
use rookery_proto::log::v1::{self as log, SentinelGroup};
use tonic::Code;

use super::{
    applied::GroupState,
    channel::{self, Channels},
    committer::{Committer, Watermarks},
    log_store::LogStore,
    network::GroupNetwork,
    peer_service,
    peer_tests::{Fake, Listener, incarnation, listen, peer_identity, until},
    purge::SnapshotsSent,
    snapshot::SnapshotData,
    state_machine::{Machine, MachineError, StateMachine},
    types::{CommandBytes, Member, Raft, snapshot_meta_to, vote_to},
};
use crate::{
    crypto::{Keyring, MasterKey},
    names::{GroupId, NodeId},
    results::COMMAND_VERSION,
    storage::{self, Overlay, Read, Rocks, Space, Store},
    tls::testing::identity,
};

const GROUP: GroupId = GroupId(5);

struct Unwatched;

impl Watermarks for Unwatched {
    fn before_cut(&mut self, _: Vec<SentinelGroup>) -> storage::Result<()> {
        Ok(())
    }

    fn synced(&mut self, _: Vec<SentinelGroup>) -> storage::Result<()> {
        Ok(())
    }
}

/// Keeps every command under its index.
struct Keeping;

impl Machine for Keeping {
    fn apply(
        &self,
        index: u64,
        command: &log::Command,
        state: &mut Overlay<'_>,
    ) -> Result<log::Applied, MachineError> {
        state.put(&index.to_be_bytes(), command.request_id.clone())?;
        Ok(log::Applied { index, ..Default::default() })
    }

    fn publish(&self) {}

    fn reload(&self, _: &dyn Read, _: Space) -> Result<(), MachineError> {
        Ok(())
    }
}

struct Node {
    id: u64,
    raft: Raft,
    state: Arc<GroupState>,
    fake: Arc<Fake>,
    channels: Arc<Channels>,
    listener: Option<Listener>,
    member: Member,
    _data: tempfile::TempDir,
}

impl Node {
    async fn start(id: u64) -> Self {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("data");
        let keyring = Keyring::open(&folder, &MasterKey::random().unwrap()).unwrap();
        let store: Arc<dyn Store> = Rocks::open(&folder, keyring).unwrap();
        store.create_key(GROUP).unwrap();
        let committer = Committer::start(store.clone(), Unwatched, |why| panic!("{why}")).unwrap();
        let state = GroupState::open(store.clone(), GROUP).unwrap();
        let machine = StateMachine::new(state.clone(), Arc::new(Keeping)).unwrap();
        let peer_identity = peer_identity(id, identity(&format!("n{id}")));
        let fake = Fake::new(peer_identity.clone(), []);
        let service = peer_service::service(fake.clone());
        let listener = listen("127.0.0.1:0", &peer_identity.tls, service).await;
        let channels = Channels::new(peer_identity.clone(), BTreeMap::new());
        let config = openraft::Config {
            heartbeat_interval: 100,
            election_timeout_min: 500,
            election_timeout_max: 1_000,
            enable_pre_vote: Some(true),
            max_in_snapshot_log_to_keep: 0,
            ..Default::default()
        };
        let network = GroupNetwork::new(channels.clone(), GROUP, SnapshotsSent::default());
        let log = LogStore::open(store, GROUP, committer).unwrap();
        let config = Arc::new(config.validate().unwrap());
        let raft = Raft::new(id, config, network, log, machine).await.unwrap();
        *fake.group.lock() = Some((raft.clone(), state.clone()));
        let member = Member {
            name: format!("n{id}"),
            peer_address: listener.address.to_string(),
            client_address: String::new(),
            thumbprint: peer_identity.tls.load().thumbprint().as_bytes().to_vec(),
            incarnation: incarnation(id).as_bytes().to_vec(),
            other_thumbprints: Vec::new(),
        };
        let listener = Some(listener);
        Self { id, raft, state, fake, channels, listener, member, _data: data }
    }

    fn meet(&self, other: &Self) {
        let thumbprint = other.fake.identity.tls.load().thumbprint();
        self.fake.members.lock().insert(thumbprint, NodeId(other.id));
        self.channels.set_member(NodeId(other.id), &other.member).unwrap();
    }

    async fn listen(&mut self) {
        let service = peer_service::service(self.fake.clone());
        let tls = &self.fake.identity.tls;
        self.listener = Some(listen(&self.member.peer_address, tls, service).await);
    }

    /// Cuts the node off: nobody reaches it, and it reaches nobody.
    fn isolate(&mut self) {
        self.listener = None;
        for node in self.channels.members() {
            self.channels.remove_member(node);
        }
    }

    fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }
}

fn introduce(nodes: &[Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.id != node.id) {
            node.meet(other);
        }
    }
}

fn command(number: u64) -> CommandBytes {
    let command = log::Command {
        version: COMMAND_VERSION,
        request_id: number.to_be_bytes().to_vec(),
        ..Default::default()
    };
    CommandBytes(Bytes::from(command.encode_to_vec()))
}

async fn leader<'n>(nodes: &[&'n Node]) -> &'n Node {
    let mut found = None;
    until(|| {
        found = nodes.iter().find(|node| node.leads()).copied();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Writes until each number is accepted once; a new leader refuses for some milliseconds.
async fn write(nodes: &[&Node], numbers: std::ops::Range<u64>) {
    join_all(numbers.map(|number| async move {
        for _ in 0..200 {
            if leader(nodes).await.raft.client_write(command(number)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("command {number} was never accepted");
    }))
    .await;
}

/// Waits until all have applied the same, and checks that it is the same.
async fn agree(nodes: &[&Node]) {
    let index = nodes.iter().map(|node| node.state.applied().0).max().unwrap();
    until(|| nodes.iter().all(|node| node.state.applied().0 >= index)).await;
    let hashes: BTreeSet<_> = nodes
        .iter()
        .map(|node| node.state.applied())
        .map(|(index, hash)| (index, hash.to_bytes()))
        .collect();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
}

async fn three_nodes() -> Vec<Node> {
    let nodes = vec![Node::start(1).await, Node::start(2).await, Node::start(3).await];
    introduce(&nodes);
    let members: BTreeMap<u64, Member> =
        nodes.iter().map(|node| (node.id, node.member.clone())).collect();
    nodes[0].raft.initialize(members).await.unwrap();
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_and_outlive_their_leader() {
    let mut nodes = three_nodes().await;
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 0..500).await;
    agree(&all).await;

    let lost = leader(&all).await.id;
    let index = nodes.iter().position(|node| node.id == lost).unwrap();
    nodes[index].isolate();
    let left: Vec<_> = nodes.iter().filter(|node| node.id != lost).collect();
    write(&left, 500..700).await;
    agree(&left).await;

    nodes[index].listen().await;
    introduce(&nodes);
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 700..710).await;
    agree(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_hears_nobody_raises_no_term() {
    let mut nodes = three_nodes().await;
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 0..10).await;
    agree(&all).await;
    let leading = leader(&all).await.id;
    let term = |node: &Node| node.raft.metrics().borrow_watched().current_term;
    let before = term(&nodes[0]);
    let index = nodes.iter().position(|node| node.id != leading).unwrap();
    nodes[index].isolate();
    // Longer than any election timeout and lease: without Pre-Vote it would have stood for election by now.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(term(&nodes[index]), before);

    nodes[index].listen().await;
    introduce(&nodes);
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 10..20).await;
    agree(&all).await;
    assert_eq!((leader(&all).await.id, term(all[0])), (leading, before), "nobody was disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_whole_changes_nothing() {
    use peer::install_snapshot_request::Part;
    use rookery_proto::peer::v1 as peer;
    let (sender, receiver) = (Node::start(1).await, Node::start(2).await);
    receiver.meet(&sender);
    sender.meet(&receiver);
    sender
        .raft
        .initialize([(1, sender.member.clone())].into_iter().collect::<BTreeMap<_, _>>())
        .await
        .unwrap();
    write(&[&sender], 0..50).await;

    let whole = || async {
        let snapshot = sender.raft.get_snapshot().await.unwrap().unwrap();
        let SnapshotData::Outgoing(mut source) = snapshot.snapshot else { panic!("not outgoing") };
        let header = peer::SnapshotHeader {
            hello: Some(sender.fake.identity.hello()),
            group: GROUP.0,
            vote: Some(vote_to(&sender.raft.metrics().borrow_watched().vote)),
            meta: Some(snapshot_meta_to(&snapshot.meta)),
        };
        let mut parts = vec![Part::Header(header)];
        while let Some(data) = source.next_chunk().unwrap() {
            parts.push(Part::Chunk(peer::SnapshotChunk { data }));
        }
        let (chunks, digest) = source.trailer();
        parts.push(Part::Trailer(peer::SnapshotTrailer { chunks, digest: digest.to_vec() }));
        parts
    };
    let send = async |parts: Vec<Part>| {
        let thumbprint = receiver.fake.identity.tls.load().thumbprint();
        let (address, tls) = (&receiver.member.peer_address, &sender.fake.identity.tls);
        let connection = channel::connect(address, tls.load(), &[thumbprint]).await.unwrap();
        let parts = parts.into_iter().map(|part| peer::InstallSnapshotRequest { part: Some(part) });
        let answer = channel::client(connection).install_snapshot(stream::iter(parts)).await;
        answer.map(|_| ()).map_err(|status| status.code())
    };
    type Damage = fn(&mut Vec<Part>);
    let cases: [(&str, Damage, Code); 6] = [
        ("no trailer", |parts| drop(parts.pop()), Code::InvalidArgument),
        ("no chunk", |parts| drop(parts.remove(1)), Code::DataLoss),
        ("a chunk twice", |parts| parts.insert(1, parts[1].clone()), Code::DataLoss),
        ("two headers", |parts| parts.insert(1, parts[0].clone()), Code::InvalidArgument),
        (
            "a flipped bit",
            |parts| {
                let Part::Chunk(chunk) = &mut parts[1] else { panic!("not a chunk") };
                *chunk.data.last_mut().unwrap() ^= 1;
            },
            Code::DataLoss,
        ),
        (
            "another digest",
            |parts| {
                let Some(Part::Trailer(trailer)) = parts.last_mut() else { panic!("no trailer") };
                trailer.digest[0] ^= 1;
            },
            Code::DataLoss,
        ),
    ];
    for (name, change, expected) in cases {
        let mut parts = whole().await;
        change(&mut parts);
        assert_eq!(send(parts).await, Err(expected), "{name}");
        assert_eq!(receiver.state.applied().0, 0, "{name}");
        assert!(receiver.raft.metrics().borrow_watched().last_applied.is_none(), "{name}");
    }
    send(whole().await).await.unwrap();
    agree(&[&sender, &receiver]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_sent() {
    let nodes = three_nodes().await;
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 0..10).await;
    agree(&all).await;
    let from = leader(&all).await;
    let to = nodes.iter().find(|node| node.id != from.id).unwrap();
    from.raft.trigger().transfer_leader(to.id).await.unwrap();
    until(|| to.leads()).await;
    write(&all, 10..20).await;
    agree(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_node_catches_up_by_snapshot() {
    let mut nodes = three_nodes().await;
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 0..300).await;
    let leading = leader(&all).await;
    leading.raft.trigger().snapshot().await.unwrap();
    let metrics = || leading.raft.metrics().borrow_watched().clone();
    until(|| metrics().snapshot.is_some()).await;
    let covered = metrics().snapshot.unwrap().index;
    leading.raft.trigger().purge_log(covered).await.unwrap();
    until(|| metrics().purged.is_some_and(|purged| purged.index == covered)).await;
    let leading = leading.id;

    nodes.push(Node::start(4).await);
    introduce(&nodes);
    let late = nodes.last().unwrap();
    let leading = nodes.iter().find(|node| node.id == leading).unwrap();
    leading.raft.add_learner(4, late.member.clone(), true).await.unwrap();
    let all: Vec<_> = nodes.iter().collect();
    write(&all, 300..310).await;
    agree(&all).await;
    // It came by snapshot. The state is there before openraft's metrics tell of it, so they are waited for.
    until(|| late.raft.metrics().borrow_watched().snapshot.is_some()).await;
}
