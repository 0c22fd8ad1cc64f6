//! openraft itself on top of the log, the state machine and the snapshots; messages go from node to node in memory.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{
    AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::watch::WatchReceiver,
    errors::{RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;

use super::{
    applied::GroupState,
    committer::Committer,
    log_store::LogStore,
    snapshot::{Snapshot, SnapshotData, SnapshotSink},
    storage_tests::{Data, GROUP, command, hash_of, open_state, records},
    types::{CommandBytes, Member, Raft, Types, Vote},
};
use crate::storage::Store;

type Nodes = Arc<Mutex<BTreeMap<u64, (Raft, Arc<GroupState>)>>>;

#[derive(Clone)]
struct InMemory {
    nodes: Nodes,
    target: u64,
}

impl InMemory {
    fn target(&self) -> Result<(Raft, Arc<GroupState>), Unreachable<Types>> {
        let found = self.nodes.lock().get(&self.target).cloned();
        found.ok_or_else(|| unreachable("no such node"))
    }
}

fn unreachable(why: impl ToString) -> Unreachable<Types> {
    Unreachable::new(&AnyError::error(why))
}

fn rpc_error(error: RaftError<Types>) -> RPCError<Types> {
    RPCError::Unreachable(unreachable(error))
}

impl RaftNetworkFactory<Types> for InMemory {
    type Network = Self;

    async fn new_client(&mut self, target: u64, _: &Member) -> Self {
        Self { target, ..self.clone() }
    }
}

impl RaftNetworkV2<Types> for InMemory {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.target()?.0.append_entries(request).await.map_err(rpc_error)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.target()?.0.vote(request).await.map_err(rpc_error)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let (raft, state) = self.target()?;
        let SnapshotData::Outgoing(mut source) = snapshot.snapshot else { panic!("not a view") };
        let mut sink = SnapshotSink::begin(&state).unwrap();
        while let Some(chunk) = source.next_chunk().unwrap() {
            sink.write(&chunk).unwrap();
        }
        let (chunks, digest) = source.trailer();
        let data = sink.finish(chunks, &digest, &snapshot.meta).unwrap();
        let received = Snapshot { meta: snapshot.meta, snapshot: data };
        raft.install_full_snapshot(vote, received)
            .await
            .map_err(|error| StreamingError::Unreachable(unreachable(error)))
    }
}

async fn start(nodes: &Nodes, id: u64, data: &Data) -> Raft {
    let config = openraft::Config {
        cluster_name: "test".to_owned(),
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        max_in_snapshot_log_to_keep: 0,
        ..openraft::Config::default()
    };
    let store: Arc<dyn Store> = data.open();
    let committer = Committer::start(Arc::clone(&store), (), |why| panic!("{why}")).unwrap();
    let log = LogStore::open(Arc::clone(&store), GROUP, committer).unwrap();
    let (state, machine) = open_state(&store);
    let network = InMemory { nodes: Arc::clone(nodes), target: 0 };
    let config = Arc::new(config.validate().unwrap());
    let raft = Raft::new(id, config, network, log, machine).await.unwrap();
    nodes.lock().insert(id, (raft.clone(), state));
    raft
}

async fn stop(nodes: &Nodes, id: u64, raft: Raft, data: &Data) {
    nodes.lock().remove(&id);
    raft.shutdown().await.unwrap();
    drop(raft);
    // Tasks of openraft let go of the store a little later.
    until("closed", || data.is_closed()).await;
}

/// Waits until something is so; for at most ten seconds.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn write(raft: &Raft, count: u64) {
    for document in 0..count {
        let json = vec![b'1'; 50_000];
        let bytes = command(1, &format!("document {document}"), &json);
        // A new leader answers with an error until its quorum has answered.
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = loop {
            match raft.client_write(CommandBytes(bytes.clone().into())).await {
                Ok(answer) => break answer,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(answer.data.0.unwrap().index, answer.log_id.index);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_after_a_purge_gets_the_state_and_restarts_go_on_from_it() {
    let (first_data, second_data) = (Data::new(), Data::new());
    let nodes = Nodes::default();
    let state = |id| Arc::clone(&nodes.lock()[&id].1);
    let first = start(&nodes, 1, &first_data).await;
    first.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    write(&first, 60).await;
    first.trigger().snapshot().await.unwrap();
    let metrics = first.metrics();
    until("purged", || metrics.borrow_watched().purged.is_some_and(|purged| purged.index >= 60))
        .await;

    let second = start(&nodes, 2, &second_data).await;
    first.add_learner(2, Member::default(), true).await.unwrap();
    write(&first, 10).await;
    until("equal", || state(1).progress() == state(2).progress()).await;
    assert!(state(2).space().generation > 0, "came by a snapshot");
    assert_eq!(hash_of(&state(2).read(records)), state(1).applied().1);

    drop(metrics);
    stop(&nodes, 1, first, &first_data).await;
    stop(&nodes, 2, second, &second_data).await;
    let first = start(&nodes, 1, &first_data).await;
    let second = start(&nodes, 2, &second_data).await;
    write(&first, 3).await;
    until("equal again", || state(1).progress() == state(2).progress()).await;
    assert_eq!(state(2).read(records).len(), 60);
    assert!(metrics_are_healthy(&first) && metrics_are_healthy(&second));
    stop(&nodes, 1, first, &first_data).await;
    stop(&nodes, 2, second, &second_data).await;
}

fn metrics_are_healthy(raft: &Raft) -> bool {
    raft.metrics().borrow_watched().running_state.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_newer_version_stops_the_group_with_its_reason() {
    let data = Data::new();
    let nodes = Nodes::default();
    let raft = start(&nodes, 1, &data).await;
    raft.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    write(&raft, 1).await;
    raft.client_write(CommandBytes(command(9, "a", b"1").into())).await.unwrap_err();
    let metrics = raft.metrics();
    until("stopped", || metrics.borrow_watched().running_state.is_err()).await;
    let why = metrics.borrow_watched().running_state.clone().unwrap_err().to_string();
    assert!(why.contains("it has version 9"), "{why}");
}
