//! What a person asks of a cluster: its nodes and groups, as each node sees them.

use futures::future::join_all;
use openraft::{ServerState, async_runtime::WatchReceiver as _};
use rookery_proto::{
    cluster::v1::{GroupStatus, Node, NodeStatus},
    peer::v1::{StatusRequest, channel_request, channel_response},
};

use super::{Consensus, Group};
use crate::{
    limits,
    names::{GroupId, NodeId, Thumbprint},
};

impl Consensus {
    /// Every node of the registry with its groups; a silent one is marked.
    pub async fn status_all(&self) -> Vec<NodeStatus> {
        let registry = self.registry();
        let asked = registry.nodes().map(|record| self.status_of(NodeId(record.id)));
        join_all(asked).await
    }

    async fn status_of(&self, id: NodeId) -> NodeStatus {
        if id == self.node_id() {
            return self.status_local();
        }
        let body = channel_request::Body::Status(StatusRequest {});
        if let Ok(channel_response::Body::Status(answer)) =
            self.ask_peer(id, body, limits::PEER_ANSWER_TIMEOUT).await
            && let Some(status) = answer.status
        {
            return NodeStatus { node: self.node(id), ..status };
        }
        NodeStatus { node: self.node(id), ..NodeStatus::default() }
    }

    /// This node with its groups.
    #[must_use]
    pub fn status_local(&self) -> NodeStatus {
        NodeStatus {
            node: self.node(self.node_id()),
            reachable: true,
            groups: self.groups.all().iter().map(|group| self.group_status(group)).collect(),
            authorization_fresh: self.is_fresh(),
            registry_revision: self.registry().revision,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            resident_bytes: resident_bytes(),
            certificate_not_after_unix_ms: self.certificate_not_after(),
            disk_free_bytes: self.room.free_bytes(),
            disk_full: self.is_full(),
            disk_reserve_held: self.room.reserve_held(),
        }
    }

    /// Last moment of the certificate that this node serves with; 0 where it cannot be read.
    fn certificate_not_after(&self) -> i64 {
        let identity = self.tls();
        let parsed = crate::certificates::parse(identity.certificate_der());
        parsed.map_or(0, |parsed| parsed.not_after.0)
    }

    /// A node as the registry and the cluster group's membership know it.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<Node> {
        let registry = self.registry();
        let record = registry.node(id)?;
        let voter = self
            .groups
            .find(GroupId::CLUSTER)
            .is_some_and(|group| group.raft.voter_ids().any(|voter| voter == id.0));
        let thumbprint = Thumbprint::from_bytes(&record.thumbprint)
            .map(|thumbprint| thumbprint.to_string())
            .unwrap_or_default();
        Some(Node {
            id: id.0,
            name: record.name.clone(),
            client_address: record.client_address.clone(),
            peer_address: record.peer_address.clone(),
            thumbprint,
            role: if voter { "voter" } else { "learner" }.to_owned(),
            incarnation: record.incarnation.clone(),
        })
    }

    /// One group as this node sees it; also for metrics.
    #[must_use]
    pub fn group_status(&self, group: &Group) -> GroupStatus {
        let metrics = group.raft.metrics();
        let metrics = metrics.borrow_watched();
        let registry = self.registry();
        let name = match group.id.database() {
            None => "cluster".to_owned(),
            Some(id) => registry
                .database_by_id(id)
                .map_or_else(|| format!("database {id}"), |record| record.name.clone()),
        };
        let (applied_index, hash) = group.state.applied();
        let membership = metrics.membership_config.membership();
        let role = match (&metrics.running_state, metrics.state) {
            (Err(_), _) => "stopped",
            (Ok(()), ServerState::Leader) => "leader",
            (Ok(()), ServerState::Follower) => "follower",
            (Ok(()), ServerState::Candidate) => "candidate",
            (Ok(()), ServerState::Learner) => "learner",
            (Ok(()), ServerState::Shutdown) => "stopped",
        };
        GroupStatus {
            group: name,
            group_id: group.id.0,
            leader_id: metrics.current_leader.unwrap_or_default(),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            committed_index: metrics.cluster_committed.as_ref().map_or(0, |log_id| log_id.index),
            applied_index,
            snapshot_index: metrics.snapshot.as_ref().map_or(0, |log_id| log_id.index),
            role: role.to_owned(),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            state_hash: hex::encode(hash.to_bytes()),
        }
    }

    /// The groups that run here.
    #[must_use]
    pub fn groups(&self) -> Vec<std::sync::Arc<Group>> {
        self.groups.all()
    }
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
