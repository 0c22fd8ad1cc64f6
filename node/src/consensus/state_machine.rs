//! Applies committed entries of one group to its state.

use rookery_proto::log::v1 as log;

use crate::storage::{self, Overlay, Read, Space};

/// Why a state machine cannot go on; never the refusal of a command, which is a reply.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The storage below failed or holds what cannot be authenticated.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The entry cannot be understood: a newer version wrote it, or it is damaged.
    #[error("entry {index} of the log cannot be applied: {why}")]
    Entry {
        /// Log index.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// The deterministic part of a group: what its commands do to its state.
pub trait Machine: Send + Sync + 'static {
    /// Applies one command. A refusal is an `Applied` too.
    ///
    /// # Errors
    /// Only what must stop the group on this node.
    fn apply(
        &self,
        index: u64,
        command: &log::Command,
        state: &mut Overlay<'_>,
    ) -> Result<log::Applied, MachineError>;

    /// The batch with the applied entries is written: its effects may be shown.
    fn publish(&self);

    /// A snapshot replaced the state.
    ///
    /// # Errors
    /// Only what must stop the group on this node.
    fn reload(&self, read: &dyn Read, space: Space) -> Result<(), MachineError>;
}

/// The state machine of one group as openraft sees it.
pub struct StateMachine;
