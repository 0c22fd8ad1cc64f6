//! What a member tells the cluster of itself: its public sealing key.

use std::time::{Duration, Instant};

use rookery_proto::log::v1::{ClusterCommand, RegisterSealingKey, cluster_command};

use super::Consensus;

/// Longest wait for such a command to be applied; it is tried again.
const TELL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a try that failed.
const TELL_AGAIN: Duration = Duration::from_secs(1);

impl Consensus {
    /// Keeps the sealing key in this node's record what it is in this data folder.
    pub(super) async fn keep_sealing_key_registered(&self) {
        let mut changes = self.registry_changes();
        loop {
            if self.sealing_key_is_missing() {
                match self.register_sealing_key().await {
                    Ok(()) => tracing::info!("registered this node's sealing key"),
                    Err(error) => {
                        if error.is_transient() {
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
