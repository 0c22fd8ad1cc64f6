//! Applies committed entries of one group to its state.
//!
//! Entries are taken in bounded runs. A run goes through the machine on top of an overlay, then:
//! 1. one batch writes its changes, the new position, the membership and the state hash;
//! 2. the machine publishes what it shows to others, and those who wait for an index are told;
//! 3. the proposers get their answers.
//!
//! The batch is not synced. The log, which is, stands before it in the same write-ahead log, and so does the state
//! before the purge of the entries that made it: what survives a power cut is a prefix of all writes, so the state is
//! never without the entries that follow it.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use futures::{FutureExt, Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use prost::Message;
use rookery_proto::log::v1 as log;

use super::{
    applied::{Applied, GroupState},
    snapshot::{self, Snapshot, SnapshotData, SnapshotSource},
    types::{CommandBytes, Entry, LogId, Outcome, SnapshotMeta, StoredMembership, Types},
};
use crate::{
    fault::fault_point,
    limits,
    names::GroupId,
    results::COMMAND_VERSION,
    storage::{self, Batch, Overlay, Read, Space},
};

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
    /// The record of what was applied cannot be understood.
    #[error("the record of what group {group} has applied {why}")]
    Record {
        /// The group.
        group: GroupId,
        /// What is wrong with it, in words that continue the sentence.
        why: &'static str,
    },
}

impl From<MachineError> for io::Error {
    fn from(error: MachineError) -> Self {
        match &error {
            MachineError::Storage(_) => Self::other(error),
            MachineError::Entry { .. } | MachineError::Record { .. } => {
                Self::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
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
pub struct StateMachine {
    machine: Arc<dyn Machine>,
    state: Arc<GroupState>,
    applied: Applied,
}

impl StateMachine {
    /// Takes up where the state of the group stands; `machine` has loaded the same state.
    ///
    /// # Errors
    /// A store that fails, or a record that is none.
    pub fn new(state: Arc<GroupState>, machine: Arc<dyn Machine>) -> Result<Self, MachineError> {
        let applied = state.record()?;
        Ok(Self { machine, state, applied })
    }

    /// Applies a run of entries: steps 1 to 3 of the module's text.
    fn apply_run(&mut self, run: Vec<EntryResponder<Types>>) -> Result<(), MachineError> {
        fault_point!("apply-before").map_err(storage::Error::file)?;
        let store = Arc::clone(self.state.store());
        let mut overlay = Overlay::new(&*store, self.state.space(), self.applied.hash);
        let mut membership = None;
        let mut log_id = self.applied.log_id;
        let mut replies = Vec::with_capacity(run.len());
        for (entry, responder) in run {
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome::default(),
                EntryPayload::Normal(command) => {
                    self.apply_command(entry.log_id.index, &command, &mut overlay)?
                }
                EntryPayload::Membership(new) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), new));
                    Outcome::default()
                }
            };
            log_id = Some(entry.log_id);
            replies.push((responder, outcome));
        }
        self.applied.hash = overlay.hash();
        self.applied.log_id = log_id;
        if let Some(membership) = membership {
            self.applied.membership = membership;
        }
        self.write(overlay.into_batch())?;
        self.machine.publish();
        self.state.publish(&self.applied);
        answer(replies);
        fault_point!("apply-after").map_err(storage::Error::file)?;
        Ok(())
    }

    fn write(&self, changes: Batch) -> Result<(), storage::Error> {
        let registry = self.state.group() == GroupId::CLUSTER;
        if registry {
            fault_point!("registry-write-before").map_err(storage::Error::file)?;
        }
        self.state.advance(changes, &self.applied)?;
        if registry {
            fault_point!("registry-write-after").map_err(storage::Error::file)?;
        }
        Ok(())
    }

    fn apply_command(
        &self,
        index: u64,
        command: &CommandBytes,
        overlay: &mut Overlay<'_>,
    ) -> Result<Outcome, MachineError> {
        let Ok(command) = log::Command::decode(command.0.clone()) else {
            return Ok(self.poison(index, "it is no command"));
        };
        if command.version != COMMAND_VERSION {
            let why = format!(
                "it has version {}, and this program knows version {COMMAND_VERSION} only; install the program that \
                 the other nodes run",
                command.version
            );
            return Err(MachineError::Entry { index, why });
        }
        overlay.mark();
        let applying = AssertUnwindSafe(|| self.machine.apply(index, &command, overlay));
        if let Ok(applied) = panic::catch_unwind(applying) {
            return Ok(Outcome(Some(Box::new(applied?))));
        }
        overlay.undo();
        Ok(self.poison(index, "applying it panicked"))
    }

    /// The reply to an entry that no node can apply. It changes nothing, here and on every other node: they have the same
    /// bytes and the same program. A node that stopped for it would stop again at every start, and so would all others.
    fn poison(&self, index: u64, why: &str) -> Outcome {
        let group = self.state.group();
        tracing::error!(%group, index, why, "an entry of the log cannot be applied; it is refused on every node");
        let refusal = log::Refusal {
            reason: "ENTRY_REFUSED".to_owned(),
            message: "The entry could not be applied; nothing was changed.".to_owned(),
            ..log::Refusal::default()
        };
        let outcome = Some(log::applied::Outcome::Refusal(refusal));
        Outcome(Some(Box::new(log::Applied { index, registry_revision: 0, outcome })))
    }

    /// The state as it is now.
    ///
    /// The state itself is the snapshot, so it is always the newest one. Purging the log by the position of the last
    /// one that was *built* stays right: the state covers that position and more, it was written before the purge into
    /// the same write-ahead log, and a follower that needs what was purged gets the state of a later position.
    fn snapshot(&self) -> Snapshot {
        let (view, space) = self.state.view();
        let source = SnapshotSource::new(view, space, self.applied.clone());
        Snapshot { meta: self.applied.meta(), snapshot: SnapshotData::Outgoing(source) }
    }

    fn install(&mut self, data: SnapshotData) -> Result<(), snapshot::Error> {
        let staged = match data {
            SnapshotData::Incoming(staged) => staged,
            SnapshotData::Outgoing(source) => snapshot::copy(source, &self.state)?,
        };
        self.applied = staged.install(&self.state)?;
        Ok(())
    }
}

fn answer(replies: Vec<(Option<ApplyResponder<Types>>, Outcome)>) {
    for (responder, outcome) in replies {
        if let Some(responder) = responder {
            responder.send(outcome);
        }
    }
}

/// The entries that are ready, at least one and at most a run; empty at the end of the stream.
async fn next_run<S>(entries: &mut S) -> io::Result<Vec<EntryResponder<Types>>>
where
    S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin,
{
    let mut run = Vec::new();
    let mut bytes = 0;
    let mut next = entries.next().await;
    while let Some(entry) = next {
        let entry = entry?;
        bytes += command_bytes(&entry.0);
        run.push(entry);
        if run.len() >= limits::APPLY_ENTRIES_MAX || bytes >= limits::APPLY_BYTES_MAX {
            break;
        }
        next = entries.next().now_or_never().flatten();
    }
    Ok(run)
}

fn command_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.log_id, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        loop {
            let run = next_run(&mut entries).await?;
            if run.is_empty() {
                return Ok(());
            }
            self.apply_run(run)?;
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { snapshot: Some(self.snapshot()) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let carried = match &snapshot {
            SnapshotData::Incoming(staged) => staged.meta(),
            SnapshotData::Outgoing(source) => source.meta(),
        };
        if carried != *meta {
            return Err(
                snapshot::Error::Refused("is not the one that its meta data tell of").into()
            );
        }
        // The synced batch of the installation would hold up other tasks; it is rare enough to do so.
        self.install(snapshot)?;
        self.state.read(|read, space| self.machine.reload(read, space))?;
        self.machine.publish();
        self.state.publish(&self.applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.applied.log_id.map(|_| self.snapshot()))
    }
}

/// Gives the view of the state that was taken when the builder was made.
pub struct SnapshotBuilder {
    snapshot: Option<Snapshot>,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        fault_point!("snapshot-build-before")?;
        let built = self.snapshot.take();
        fault_point!("snapshot-build-after")?;
        built.ok_or_else(|| io::Error::other("a snapshot is built once"))
    }
}
