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

use super::{snapshot::SnapshotData, types::*};
use crate::{
    names::GroupId,
    storage::{StateHash, Store},
};
use futures::Stream;
use openraft::{
    RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{io, sync::Arc};
/// x
pub struct AppliedState {
    pub index: u64,
    pub hash: StateHash,
}
pub struct GroupState;
impl GroupState {
    pub fn space(&self) -> Space {
        todo()
    }
    pub fn applied(&self) -> (u64, StateHash) {
        todo()
    }
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<AppliedState> {
        todo()
    }
}
fn todo<T>() -> T {
    std::process::abort()
}
pub struct StateMachine;
impl StateMachine {
    pub fn open(
        _: Arc<dyn Store>,
        _: GroupId,
        _: Arc<dyn Machine>,
    ) -> Result<(Self, Arc<GroupState>), MachineError> {
        todo()
    }
}
impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::alias::SnapshotOf<Types, SnapshotData>, io::Error> {
        todo()
    }
}
impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;
    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        todo()
    }
    async fn apply<S>(&mut self, _: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        todo()
    }
    async fn get_snapshot_builder(&mut self) -> Self {
        todo()
    }
    async fn install_snapshot(
        &mut self,
        _: &SnapshotMeta,
        _: SnapshotData,
    ) -> Result<(), io::Error> {
        todo()
    }
    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<Types, SnapshotData>>, io::Error> {
        todo()
    }
}
