//! Ordered keys, atomic batches, durability. The only place that names RocksDB.
//!
//! Everything above speaks [`Read`], [`Batch`] and [`Store`]. A key belongs to a [`Space`]: a table, a Raft group and a
//! generation of that group's state, so no scan can leave its group. Values are sealed on their way in and opened on
//! their way out, with the data key of the group and associated data that names the purpose, the table and the whole
//! key: a record that was moved, swapped or changed is an error and never an answer.
//!
//! | table | holds | synced |
//! | --- | --- | --- |
//! | `Node` | what this node knows of itself: identity, generations | yes |
//! | `Raft` | log entries, votes, committed and purged positions of every group | appends and votes |
//! | `State` | what the groups' entries made: registry, databases, documents | no; the Raft log is its journal |

#![allow(clippy::type_complexity)] // The closure of a scan says more written out than behind a name.

mod env;
mod overlay;
mod rocks;
mod rotation;
mod sentinel;

use std::{ops::Bound, sync::Arc};

pub use overlay::{Overlay, StateHash};
pub use rocks::{Failure, FilesByKey, Named, Rocks, Step, Unused, Verified, Walk, verify};
pub use rotation::{Phase, Progress, Rotation, Subject};
pub use sentinel::Sentinel;

use crate::names::GroupId;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What this node knows of itself.
    Node,
    /// Raft logs and votes.
    Raft,
    /// Replicated state.
    State,
}

/// Where keys live: one table, one group, one generation of its state.
///
/// A snapshot is installed into a new generation, and one batch makes that generation the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space {
    /// The column family.
    pub table: Table,
    /// The Raft group; `GroupId::CLUSTER` for the node's own table.
    pub group: GroupId,
    /// 0 in tables without generations.
    pub generation: u32,
}

/// A failure of the storage, or of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine or the file system failed; the node must stop.
    #[error("storage failed: {0}")]
    Engine(String),
    /// A record does not open under its key and place: it was changed, moved, or sealed with a lost key.
    #[error("a record of {space:?} cannot be authenticated: {why}")]
    Corrupt {
        /// Where the record stands.
        space: Space,
        /// Which check failed; no content.
        why: &'static str,
    },
    /// The data key of a group is missing or destroyed.
    #[error("no data key for group {0}")]
    NoKey(GroupId),
    /// The folder is not what it should be; says what to do.
    #[error("{0}")]
    Folder(String),
}

/// A result of this layer.
pub type Result<T> = std::result::Result<T, Error>;

/// What `visit` of a scan answers.
pub use std::ops::ControlFlow;

/// Reads plaintext values by key, and scans in the byte order of keys.
pub trait Read: Send + Sync {
    /// The value under a key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the record does not authenticate; [`Error::Engine`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Visits the records from `from` (inclusive) to `to`, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// As [`Read::get`].
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The last record of a space.
    ///
    /// # Errors
    /// As [`Read::get`].
    fn last(&self, space: Space) -> Result<Option<(Vec<u8>, Vec<u8>)>>;
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Stores a value.
    Put(Space, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Space, Vec<u8>),
    /// Removes the keys from the first (inclusive) to the second (exclusive; `None`: the end of the space).
    DeleteRange(Space, Vec<u8>, Option<Vec<u8>>),
}

/// Changes that become visible and durable together, in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The changes, first to last.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Adds a put.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put(space, key.into(), value.into()));
    }

    /// Adds a delete.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.changes.push(Change::Delete(space, key.into()));
    }

    /// Adds a delete of a range; `to` is exclusive, `None` means the end of the space.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Vec<u8>>, to: Option<Vec<u8>>) {
        self.changes.push(Change::DeleteRange(space, from.into(), to));
    }
}

/// Whether a write must survive a power cut when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written to the write-ahead log and fsynced.
    Synced,
    /// Written to the write-ahead log in order, not fsynced: a power cut may lose it together with all that follows.
    Buffered,
}

/// The encrypted store of a node.
pub trait Store: Read + 'static {
    /// Applies a batch atomically.
    ///
    /// # Errors
    /// [`Error::Engine`]: nothing may be assumed of the batch, and the node must stop.
    fn write(&self, batch: Batch, durability: Durability) -> Result<()>;

    /// A consistent view of this moment that later writes do not change.
    fn view(&self) -> Arc<dyn Read>;

    /// Whether a group has a data key.
    fn has_key(&self, group: GroupId) -> bool;

    /// Removes the records of a database group from every table, in all generations; needs no key.
    ///
    /// # Errors
    /// The cluster group is refused: its records include the node's own. Otherwise as [`Store::write`].
    fn clear_group(&self, group: GroupId) -> Result<()>;

    /// Makes a data key for a group that has none.
    ///
    /// # Errors
    /// [`Error::Folder`] where the keyring cannot be written.
    fn create_key(&self, group: GroupId) -> Result<()>;

    /// Destroys a group's data key: nothing sealed with it can be opened again.
    ///
    /// # Errors
    /// [`Error::Folder`] where the keyring cannot be written.
    fn destroy_key(&self, group: GroupId) -> Result<()>;
}
