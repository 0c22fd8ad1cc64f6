//! Which Raft groups run on this node: started, stopped and cleaned up after the registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{ReadPolicy, async_runtime::WatchReceiver as _};
use parking_lot::RwLock;

use super::{
    Consensus, Error,
    applied::GroupState,
    identity::NODE_SPACE,
    log_store::LogStore,
    network::GroupNetwork,
    purge,
    reads::ReadRounds,
    state_machine::{Machine, MachineError, StateMachine},
    types::{Member, Raft},
};
use crate::{
    cluster::Registry,
    database,
    names::{DatabaseId, GroupId, NodeId},
    results,
    storage::{Batch, ControlFlow, Durability, Overlay, Read, Space},
};

/// Key prefix of the markers of groups whose data this node holds.
const MARKER: &[u8] = b"group/";

/// One Raft group on this node.
pub struct Group {
    /// Which group it is.
    pub id: GroupId,
    /// openraft's handle.
    pub raft: Raft,
    /// What is applied, and where the state stands.
    pub state: Arc<GroupState>,
    /// Linearizable reads of this group.
    pub reads: ReadRounds,
}

impl Group {
    /// The leader as this node knows it.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Whether this node leads the group, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Waits until this node has applied `index`.
    ///
    /// # Errors
    /// [`Error::Timeout`] at the deadline; [`Error::Stopped`].
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), Error> {
        if self.state.applied().0 >= index {
            return Ok(());
        }
        let mut applied = self.state.subscribe();
        let waited = tokio::time::timeout_at(
            deadline.into(),
            applied.wait_for(|state| state.index >= index),
        );
        match waited.await {
            Err(_) => Err(Error::Timeout),
            Ok(Err(_)) => Err(Error::Stopped("the group was shut down".to_owned())),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

/// The groups of this node by id.
#[derive(Default)]
pub struct Groups {
    running: RwLock<BTreeMap<GroupId, Arc<Group>>>,
}

impl Groups {
    /// A running group.
    pub fn find(&self, id: GroupId) -> Option<Arc<Group>> {
        self.running.read().get(&id).cloned()
    }

    /// All running groups, the cluster group first.
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.running.read().values().cloned().collect()
    }

    fn insert(&self, group: Arc<Group>) {
        self.running.write().insert(group.id, group);
    }

    fn remove(&self, id: GroupId) -> Option<Arc<Group>> {
        self.running.write().remove(&id)
    }
}

/// The state machine of a database group.
struct DatabaseMachine;

impl Machine for DatabaseMachine {
    fn apply(
        &self,
        index: u64,
        command: &rookery_proto::log::v1::Command,
        state: &mut Overlay<'_>,
    ) -> Result<rookery_proto::log::v1::Applied, MachineError> {
        database::apply(index, command, state).map_err(|error| machine_error(index, error))
    }

    fn publish(&self) {}

    fn reload(&self, _: &dyn Read, _: Space) -> Result<(), MachineError> {
        Ok(())
    }
}

fn machine_error(index: u64, error: results::Error) -> MachineError {
    if let results::Error::Storage(error) = error {
        return MachineError::Storage(error);
    }
    MachineError::Entry { index, why: error.to_string() }
}

/// The state machine of the cluster group: it publishes the registry.
struct ClusterMachine {
    consensus: std::sync::Weak<Consensus>,
    cluster: Arc<crate::cluster::Cluster>,
}

impl ClusterMachine {
    fn announce(&self) {
        if let Some(consensus) = self.consensus.upgrade() {
            consensus.registry_changes.send_replace(self.cluster.registry().revision);
        }
    }

    /// Tells those who follow the audit log.
    fn announce_audit(&self) {
        let Some(consensus) = self.consensus.upgrade() else { return };
        let sequence = self.cluster.audit_sequence();
        consensus
            .audit_changes
            .send_if_modified(|known| std::mem::replace(known, sequence) != sequence);
    }
}

impl Machine for ClusterMachine {
    fn apply(
        &self,
        index: u64,
        command: &rookery_proto::log::v1::Command,
        state: &mut Overlay<'_>,
    ) -> Result<rookery_proto::log::v1::Applied, MachineError> {
        self.cluster.apply(index, command, state).map_err(|error| machine_error(index, error))
    }

    fn publish(&self) {
        let before = self.cluster.registry().revision;
        if self.cluster.publish().revision != before {
            self.announce();
        }
        self.announce_audit();
    }

    fn reload(&self, read: &dyn Read, space: Space) -> Result<(), MachineError> {
        self.cluster.reload(read, space).map_err(|error| machine_error(0, error))?;
        self.announce();
        self.announce_audit();
        Ok(())
    }
}

impl Consensus {
    /// A group that runs on this node.
    ///
    /// # Errors
    /// [`Error::NotMember`] for the cluster group of a passive node; [`Error::NotLeader`] for a database that is
    /// held elsewhere.
    pub fn group(&self, id: GroupId) -> Result<Arc<Group>, Error> {
        self.groups.find(id).ok_or_else(|| match (id, &*self.state.borrow()) {
            (GroupId::CLUSTER, super::State::Passive(why)) => Error::NotMember(why.clone()),
            _ => Error::NotLeader,
        })
    }

    /// Starts the cluster group of a member.
    pub(super) async fn start_cluster_group(&self) -> Result<Arc<Group>, Error> {
        let machine =
            ClusterMachine { consensus: self.this.clone(), cluster: self.cluster.clone() };
        self.start_group(GroupId::CLUSTER, Arc::new(machine)).await
    }

    async fn start_group(
        &self,
        id: GroupId,
        machine: Arc<dyn Machine>,
    ) -> Result<Arc<Group>, Error> {
        if let Some(running) = self.groups.find(id) {
            return Ok(running);
        }
        if !self.store.has_key(id) {
            self.store.create_key(id)?;
        }
        let stopped = |e: &dyn std::fmt::Display| Error::Stopped(e.to_string());
        let state = GroupState::open(self.store.clone(), id).map_err(|e| stopped(&e))?;
        machine.reload(self.store.as_ref(), state.space()).map_err(|e| stopped(&e))?;
        let state_machine = StateMachine::new(state.clone(), machine).map_err(|e| stopped(&e))?;
        let log = LogStore::open(self.store.clone(), id, self.committer.clone())
            .map_err(|e| stopped(&e))?;
        let position = log.position();
        self.sentinel.check(id, position.last_log_id.as_ref(), position.vote.as_ref())?;
        let sent = purge::SnapshotsSent::default();
        let network = GroupNetwork::new(self.channels()?, id, sent.clone());
        let config = self.raft_config(id).map_err(|e| stopped(&e))?;
        let raft = Raft::new(self.node_id().0, config, network, log, state_machine)
            .await
            .map_err(|e| stopped(&e))?;
        let times = &self.config.raft;
        let policy = purge::Policy {
            kept: (times.snapshot_after_entries / 2).max(16),
            hold: Duration::from_millis(times.hold_entries_ms),
        };
        let purging = purge::keep_purged(raft.clone(), policy, sent, self.room.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = purging => {}
                () = stop.cancelled() => {}
            }
        });
        let this = self.this.clone();
        let reads = ReadRounds::start(move || {
            let this = this.clone();
            async move {
                let consensus =
                    this.upgrade().ok_or_else(|| Error::Stopped("shut down".to_owned()))?;
                consensus.ask_read_index(id).await
            }
        });
        let group = Arc::new(Group { id, raft, state, reads });
        self.groups.insert(group.clone());
        Ok(group)
    }

    fn raft_config(&self, id: GroupId) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
        let times = &self.config.raft;
        let config = openraft::Config {
            cluster_name: format!("{}/{id}", self.identity().cluster_id),
            heartbeat_interval: times.heartbeat_ms,
            election_timeout_min: times.election_timeout_min_ms,
            election_timeout_max: times.election_timeout_max_ms,
            install_snapshot_timeout: 60_000,
            max_payload_entries: 512,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(times.snapshot_after_entries),
            // Nothing is purged by openraft itself: `purge` tells it what may go.
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: times.snapshot_after_entries.max(1_000),
            enable_pre_vote: Some(true),
            // Who led before a restart stands for election again. Restored as leader of its old term it would not know
            // what was committed, and serve stale reads; and entries that it sent before its own disk had them would
            // be gone, so that it would give their log ids to others.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        Ok(Arc::new(config.validate()?))
    }

    /// Makes the running database groups what the registry says: starts what this node should hold, stops and
    /// shreds what was deleted.
    pub(super) async fn reconcile_groups(&self) -> Result<(), Error> {
        let registry = self.registry();
        if !registry.is_formed() {
            return Ok(());
        }
        let me = self.node_id();
        let wanted: BTreeSet<DatabaseId> = registry
            .databases()
            .filter(|record| record.node_ids.contains(&me.0))
            .map(|record| DatabaseId(record.id))
            .collect();
        for id in &wanted {
            let group = GroupId::from(*id);
            if self.groups.find(group).is_none()
                && let Err(error) = self.start_database(&registry, *id).await
            {
                self.not_started(*id, &error);
            }
        }
        for id in self.held_databases()? {
            if !wanted.contains(&id) && registry.was_deleted(id) {
                self.drop_database(id).await?;
            }
        }
        Ok(())
    }

    /// Storage that is wrong for one database is wrong for the node: it stops, and does not try until it is believed.
    fn not_started(&self, database: DatabaseId, error: &Error) {
        let storage = matches!(error, Error::Storage(_) | Error::Stopped(_));
        if storage && !self.stop.is_cancelled() {
            (self.on_fatal)(format!("database {database} cannot be started: {error}"));
        } else {
            tracing::error!(%database, %error, "a database cannot be started on this node");
        }
    }

    async fn start_database(&self, registry: &Registry, id: DatabaseId) -> Result<(), Error> {
        let Some(record) = registry.database_by_id(id) else { return Ok(()) };
        let mut marker = Batch::default();
        marker.put(NODE_SPACE, marker_key(id), Vec::new());
        self.store.write(marker, Durability::Synced)?;
        let group = self.start_group(id.into(), Arc::new(DatabaseMachine)).await?;
        let members: BTreeMap<u64, Member> = record
            .node_ids
            .iter()
            .filter_map(|id| Some((*id, member_of(registry, NodeId(*id))?)))
            .collect();
        // Every holder begins with the same membership, which openraft takes once; a group that already has a log
        // keeps its own. A holder that comes after the first change of the nodes waits for the others instead: with
        // another first membership it could lead an empty group of its own.
        if record.node_ids != record.founding_node_ids {
            return Ok(());
        }
        match group.raft.initialize(members).await {
            Ok(()) => tracing::info!(database = %id, "database group starts"),
            Err(openraft::errors::RaftError::APIError(_)) => {}
            Err(openraft::errors::RaftError::Fatal(e)) => {
                return Err(Error::Stopped(e.to_string()));
            }
        }
        Ok(())
    }

    async fn drop_database(&self, id: DatabaseId) -> Result<(), Error> {
        let group = GroupId::from(id);
        if let Some(running) = self.groups.remove(group) {
            if let Err(e) = running.raft.shutdown().await {
                tracing::warn!(database = %id, error = %e, "database group ended badly");
            }
            // What still applies holds the state; without its key it would fail and take the node along.
            let patience = Instant::now() + Duration::from_secs(5);
            while Arc::strong_count(&running.state) > 1 && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // Likewise the entries and votes that openraft queued before it stopped: it queues none after.
        self.committer.drained().await.map_err(|error| Error::Stopped(error.to_string()))?;
        // The deletion itself stands unsynced before this in the same write-ahead log. Were it lost with the power, and the
        // key with it that is destroyed next, the node would come back with a database that it cannot open.
        let mut marker = Batch::default();
        marker.put(NODE_SPACE, marker_key(id), Vec::new());
        self.store.write(marker, Durability::Synced)?;
        tracing::info!(database = %id, "shredding a deleted database");
        // The key first: from here on nothing of the database can be read, whatever happens to its records.
        self.sentinel.forget(group)?;
        self.store.destroy_key(group)?;
        self.store.clear_group(group)?;
        let mut marker = Batch::default();
        marker.delete(NODE_SPACE, marker_key(id));
        self.store.write(marker, Durability::Synced)?;
        Ok(())
    }

    fn held_databases(&self) -> Result<Vec<DatabaseId>, Error> {
        let mut held = Vec::new();
        let end = [MARKER, &[0xff; 9]].concat();
        self.store.scan(NODE_SPACE, MARKER, Bound::Excluded(&end), &mut |key, _| {
            if let Some(id) = key.strip_prefix(MARKER).and_then(|rest| rest.try_into().ok()) {
                held.push(DatabaseId(u64::from_be_bytes(id)));
            }
            ControlFlow::Continue(())
        })?;
        Ok(held)
    }

    /// Does `work` on a database, and ends it when the database is deleted meanwhile: its group answers no more.
    pub(super) async fn while_it_stands<T>(
        &self,
        id: DatabaseId,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let gone =
            || Error::refused("NOT_FOUND", "the database was deleted while the call was under way");
        let mut changes = self.registry_changes();
        let deleted = async {
            while !self.registry().was_deleted(id) {
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::pin!(deleted);
        let ended = tokio::select! {
            biased;
            result = work => result,
            () = &mut deleted => return Err(gone()),
        };
        match ended {
            Err(_) if self.registry().was_deleted(id) => Err(gone()),
            // Another node may have stopped the group of a deleted database before this node heard of the deletion.
            Err(stopped @ Error::Stopped(_)) => {
                match tokio::time::timeout(crate::limits::DELETION_NEWS_TIMEOUT, deleted).await {
                    Ok(()) => Err(gone()),
                    Err(_) => Err(stopped),
                }
            }
            ended => ended,
        }
    }

    /// One round of read index: from openraft where this node leads, from the leader where not.
    async fn ask_read_index(&self, id: GroupId) -> Result<u64, Error> {
        let group = self.group(id)?;
        match group.leader() {
            Some(leader) if leader == self.node_id() => self.lead_read_index(&group).await,
            Some(leader) => self.remote_read_index(id, leader).await,
            None => Err(Error::NoLeader),
        }
    }

    /// The read index of a group that this node leads, confirmed by a quorum.
    pub(super) async fn lead_read_index(&self, group: &Group) -> Result<u64, Error> {
        use openraft::errors::{LinearizableReadError, RaftError};
        let asked = group.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let timeout = Duration::from_millis(self.config.raft.election_timeout_max_ms);
        match tokio::time::timeout(timeout, asked).await {
            Err(_) => Err(Error::NoQuorum),
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::Fatal(e))) => Err(Error::Stopped(e.to_string())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                Err(Error::NotLeader)
            }
            Ok(Err(RaftError::APIError(_))) => Err(Error::NoQuorum),
        }
    }

    async fn remote_read_index(&self, id: GroupId, leader: NodeId) -> Result<u64, Error> {
        use rookery_proto::peer::v1::{ReadIndexRequest, channel_request, channel_response};
        let body = channel_request::Body::ReadIndex(ReadIndexRequest { group: id.0 });
        let answer = self.ask_peer(leader, body, crate::limits::PEER_ANSWER_TIMEOUT).await?;
        let channel_response::Body::ReadIndex(answer) = answer else {
            return Err(Error::unexpected_answer());
        };
        Ok(answer.index)
    }
}

/// A node of the registry as consensus needs it.
pub(super) fn member_of(registry: &Registry, id: NodeId) -> Option<Member> {
    registry.node(id).map(|record| Member {
        name: record.name.clone(),
        peer_address: record.peer_address.clone(),
        client_address: record.client_address.clone(),
        thumbprint: record.thumbprint.clone(),
        incarnation: record.incarnation.clone(),
        other_thumbprints: record.other_thumbprints.clone(),
    })
}

fn marker_key(id: DatabaseId) -> Vec<u8> {
    [MARKER, &id.0.to_be_bytes()].concat()
}
