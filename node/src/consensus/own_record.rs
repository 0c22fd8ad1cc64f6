//! What a member tells the cluster of itself, and whether the others know it: sealing key, certificates.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rookery_proto::{
    log::v1::{ClusterCommand, RegisterSealingKey, cluster_command},
    peer::v1::{ConfirmRequest, channel_request, channel_response},
};

use super::Consensus;
use crate::{
    limits,
    names::{GroupId, NodeId},
};

/// Longest wait for such a command to be applied; it is tried again.
const TELL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a try that failed.
const TELL_AGAIN: Duration = Duration::from_secs(1);

impl Consensus {
    /// Whether this node leads the cluster group, as far as it knows.
    #[must_use]
    pub fn leads_cluster(&self) -> bool {
        self.groups.find(GroupId::CLUSTER).is_some_and(|group| group.is_leader())
    }

    /// Whether all other members have applied the cluster's log up to `index`; those that do not answer have not.
    pub async fn known_to_all(&self, index: u64) -> bool {
        let (me, registry) = (self.node_id(), self.registry());
        let others = registry.nodes().map(|record| NodeId(record.id)).filter(|id| *id != me);
        let asked = others.map(|node| {
            let body = channel_request::Body::Confirm(ConfirmRequest { index });
            self.ask_peer(node, body, limits::PEER_ANSWER_TIMEOUT)
        });
        join_all(asked).await.into_iter().all(|answer| {
            matches!(answer, Ok(channel_response::Body::Confirm(c)) if c.applied_index >= index)
        })
    }

    /// Waits until no channel to another node is open with another certificate than the one in force.
    pub async fn channels_renewed(&self, deadline: Instant) {
        let Ok(channels) = self.channels() else { return };
        while Instant::now() < deadline && !channels.are_current() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps the sealing key in this node's record what it is in this data folder.
    pub(super) async fn keep_sealing_key_registered(&self) {
        let mut changes = self.registry_changes();
        loop {
            if self.sealing_key_is_missing() {
                match self.register_sealing_key().await {
                    Ok(()) => tracing::info!("registered this node's sealing key"),
                    Err(error) => {
                        if error.is_unavailable() {
                            tracing::debug!(%error, "the sealing key is not registered yet");
                        } else {
                            tracing::warn!(%error, "the sealing key cannot be registered; it is tried again");
                        }
                        tokio::time::sleep(TELL_AGAIN).await;
                        continue;
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn sealing_key_is_missing(&self) -> bool {
        let registry = self.registry();
        registry.node(self.node_id()).is_some_and(|record| record.sealing_key != self.sealing_key)
    }

    async fn register_sealing_key(&self) -> Result<(), super::Error> {
        let command =
            RegisterSealingKey { node_id: self.node_id().0, key: self.sealing_key.to_vec() };
        let command = cluster_command::Command::RegisterSealingKey(command);
        let command = ClusterCommand { command: Some(command) };
        self.propose_as_member(command, Instant::now() + TELL_TIMEOUT).await.map(drop)
    }
}
