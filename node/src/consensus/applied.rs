//! What a group has applied, and where its state stands: the part of a state machine that others may look at.
//!
//! A state lives in one generation of its group's space in `Table::State`. One record in `Table::Node` under the group
//! says which generation is current, up to where the log is applied, the membership and the state hash. It is written in
//! the batch that changes the state and stands outside of the hashed state. The keys:
//!
//! | `Table::Node`, the group, generation 0 | value |
//! | --- | --- |
//! | `applied` | 1 (version) ‖ generation (4, big endian) ‖ state hash (32) ‖ `SnapshotMeta` |
//! | `staging` | generation (4, big endian) of a snapshot that is being received, or was when the node stopped |

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prost::Message;
use rookery_proto::log::v1 as log;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
};

use super::{
    snapshot::{self, Staging},
    state_machine::MachineError,
    types::{LogId, SnapshotMeta, StoredMembership, snapshot_meta_from, snapshot_meta_to},
};
use crate::{
    fault::fault_point,
    names::GroupId,
    storage::{self, Batch, Durability, Read, Space, StateHash, Store, Table},
};

const APPLIED: &[u8] = b"applied";
const STAGING: &[u8] = b"staging";
const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;

/// How far a group is, for status and for those who wait for an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedState {
    /// Log index of the last applied entry; 0 where there is none.
    pub index: u64,
    /// The whole position of that entry.
    pub log_id: Option<LogId>,
    /// Hash of the state at that index.
    pub hash: StateHash,
}

/// What the record `applied` says, without the generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Applied {
    pub(super) log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) hash: StateHash,
}

impl Applied {
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.log_id, last_membership: self.membership.clone() }
    }

    pub(super) fn state(&self) -> AppliedState {
        let index = self.log_id.map_or(0, |id| id.index);
        AppliedState { index, log_id: self.log_id, hash: self.hash }
    }

    fn encode(&self, generation: u32) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&generation.to_be_bytes());
        bytes.extend_from_slice(&self.hash.to_bytes());
        bytes.extend_from_slice(&snapshot_meta_to(&self.meta()).encode_to_vec());
        bytes
    }

    /// The current generation, and what it holds.
    fn decode(bytes: &[u8]) -> Result<(u32, Self), &'static str> {
        let (version, rest) = bytes.split_first().ok_or("is empty")?;
        if *version != VERSION {
            return Err("was written by another version of the program");
        }
        let (generation, rest) = rest.split_first_chunk().ok_or("is too short")?;
        let (hash, rest) = rest.split_first_chunk::<HASH_BYTES>().ok_or("is too short")?;
        let meta = log::SnapshotMeta::decode(rest).map_err(|_| "is no message")?;
        let meta = snapshot_meta_from(&meta).map_err(|_| "has a malformed membership")?;
        let applied = Self {
            log_id: meta.last_log_id,
            membership: meta.last_membership,
            hash: StateHash::from_bytes(hash),
        };
        Ok((u32::from_be_bytes(*generation), applied))
    }
}

/// The state of one group, for everybody but its state machine: to read it, and to see how far it is.
pub struct GroupState {
    store: Arc<dyn Store>,
    group: GroupId,
    /// The current generation; locked for writing only while a snapshot takes over.
    generation: RwLock<u32>,
    applied: watch::Sender<AppliedState>,
    staging: Mutex<Slot>,
}

/// The generation of the snapshot that is being received.
#[derive(Debug)]
struct Slot {
    active: Option<u32>,
    /// The highest generation that was ever used by this process.
    highest: u32,
}

impl GroupState {
    /// Finds the state of a group, and deletes what an interrupted snapshot left. The group has its data key already.
    ///
    /// # Errors
    /// A store that fails, or a record that is none.
    pub fn open(store: Arc<dyn Store>, group: GroupId) -> Result<Arc<Self>, MachineError> {
        let (generation, applied) = read_record(&*store, group)?;
        let leftover = staged_generation(&*store, group)?;
        let state = Self {
            store,
            group,
            generation: RwLock::new(generation),
            applied: watch::Sender::new(applied.state()),
            staging: Mutex::new(Slot {
                active: leftover.filter(|leftover| *leftover != generation),
                highest: generation.max(leftover.unwrap_or_default()),
            }),
        };
        if let Some(leftover) = leftover {
            state.discard(leftover)?;
        }
        Ok(Arc::new(state))
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Where the state stands now. A snapshot may move it: reads go through [`GroupState::read`].
    #[must_use]
    pub fn space(&self) -> Space {
        self.space_of(*self.generation.read())
    }

    /// Reads the state while no snapshot can take it away. For short reads: it holds up a snapshot.
    ///
    /// `read` must not come back to this `GroupState`: a snapshot that waits in between would lock both out.
    pub fn read<T>(&self, read: impl FnOnce(&dyn Read, Space) -> T) -> T {
        let generation = self.generation.read();
        read(&*self.store, self.space_of(*generation))
    }

    /// A consistent view of the state at this moment, which later entries and snapshots do not change.
    #[must_use]
    pub fn view(&self) -> (Arc<dyn Read>, Space) {
        let generation = self.generation.read();
        (self.store.view(), self.space_of(*generation))
    }

    /// A view with what it says of itself: where its state stands and which hash was kept with it.
    pub(super) fn view_with_record(&self) -> Result<(Arc<dyn Read>, Space, Applied), MachineError> {
        let view = self.store.view();
        let (generation, applied) = read_record(&*view, self.group)?;
        Ok((view, self.space_of(generation), applied))
    }

    /// Index of the last applied entry, and the hash of the state there; they belong together.
    #[must_use]
    pub fn applied(&self) -> (u64, StateHash) {
        let applied = self.progress();
        (applied.index, applied.hash)
    }

    /// As [`GroupState::applied`], with the whole log position.
    #[must_use]
    pub fn progress(&self) -> AppliedState {
        *self.applied.borrow()
    }

    /// Tells of each step; for waiting until an index is applied.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<AppliedState> {
        self.applied.subscribe()
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(super) fn record(&self) -> Result<Applied, MachineError> {
        read_record(&*self.store, self.group).map(|(_, applied)| applied)
    }

    /// Writes the changes of some entries together with the new position, then tells of it.
    ///
    /// Not synced: the log, which is, stands before it in the same write-ahead log.
    pub(super) fn advance(
        &self,
        mut batch: Batch,
        applied: &Applied,
    ) -> Result<(), storage::Error> {
        let generation = *self.generation.read();
        batch.put(record_space(self.group), APPLIED, applied.encode(generation));
        where_it_may_block(|| self.store.write(batch, Durability::Buffered))
    }

    pub(super) fn publish(&self, applied: &Applied) {
        self.applied.send_replace(applied.state());
    }

    fn space_of(&self, generation: u32) -> Space {
        Space { table: Table::State, group: self.group, generation }
    }

    // ---- snapshots that are being received ----

    /// Begins a fresh generation; one that was being received before is given up.
    pub(super) fn stage(self: &Arc<Self>) -> Result<Staging, snapshot::Error> {
        let mut slot = self.staging.lock();
        let generation =
            slot.highest.checked_add(1).ok_or(snapshot::Error::Refused("no generation is left"))?;
        let mut batch = Batch::default();
        if let Some(superseded) = slot.active {
            batch.delete_range(self.space_of(superseded), [], None);
        }
        batch.put(record_space(self.group), STAGING, generation.to_be_bytes());
        self.store.write(batch, Durability::Buffered)?;
        *slot = Slot { active: Some(generation), highest: generation };
        Ok(Staging::new(Arc::clone(self), generation))
    }

    /// Stores records in a generation that is being received.
    pub(super) fn write_staged(
        &self,
        generation: u32,
        records: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), snapshot::Error> {
        let slot = self.staging.lock();
        if slot.active != Some(generation) {
            return Err(snapshot::Error::Superseded);
        }
        let mut batch = Batch::default();
        for (key, value) in records {
            batch.put(self.space_of(generation), key, value);
        }
        fault_point!("snapshot-receive-before").map_err(storage::Error::file)?;
        self.store.write(batch, Durability::Buffered)?;
        Ok(fault_point!("snapshot-receive-after").map_err(storage::Error::file)?)
    }

    /// Deletes what was received, unless another snapshot has done so.
    pub(super) fn discard(&self, generation: u32) -> Result<(), storage::Error> {
        let mut slot = self.staging.lock();
        let mut batch = Batch::default();
        if slot.active == Some(generation) {
            batch.delete_range(self.space_of(generation), [], None);
        } else if slot.active.is_some() {
            return Ok(());
        }
        batch.delete(record_space(self.group), STAGING);
        self.store.write(batch, Durability::Buffered)?;
        slot.active = None;
        Ok(())
    }

    /// Makes a received generation the current one and deletes the one before: one synced batch.
    pub(super) fn switch(&self, generation: u32, applied: &Applied) -> Result<(), snapshot::Error> {
        let mut current = self.generation.write();
        let mut slot = self.staging.lock();
        if slot.active != Some(generation) {
            return Err(snapshot::Error::Superseded);
        }
        let mut batch = Batch::default();
        batch.put(record_space(self.group), APPLIED, applied.encode(generation));
        batch.delete(record_space(self.group), STAGING);
        batch.delete_range(self.space_of(*current), [], None);
        fault_point!("snapshot-install-before").map_err(storage::Error::file)?;
        self.store.write(batch, Durability::Synced)?;
        fault_point!("snapshot-install-after").map_err(storage::Error::file)?;
        *current = generation;
        slot.active = None;
        Ok(())
    }
}

/// Does what waits behind an fsync of the log without keeping the runtime's thread from other tasks: a disk that stands
/// still must not take the decisions, the readiness and the answers of the whole node with it.
fn where_it_may_block<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A runtime of one thread, as in tests, or none.
        Ok(_) | Err(_) => work(),
    }
}

fn record_space(group: GroupId) -> Space {
    Space { table: Table::Node, group, generation: 0 }
}

fn read_record(read: &dyn Read, group: GroupId) -> Result<(u32, Applied), MachineError> {
    let Some(bytes) = read.get(record_space(group), APPLIED)? else {
        return Ok(Default::default());
    };
    Applied::decode(&bytes).map_err(|why| MachineError::Record { group, why })
}

fn staged_generation(read: &dyn Read, group: GroupId) -> Result<Option<u32>, MachineError> {
    let Some(bytes) = read.get(record_space(group), STAGING)? else { return Ok(None) };
    let bytes = bytes
        .try_into()
        .map_err(|_| MachineError::Record { group, why: "has a malformed staging generation" })?;
    Ok(Some(u32::from_be_bytes(bytes)))
}
