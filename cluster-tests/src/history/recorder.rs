//! The recorder that workloads share, and the history it gives.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    finals::NodeState,
    operation::{Group, Key, Kind, Moment, Operation, Outcome, Seen},
};

/// Most operations that a recorder takes by default: some 150 MB.
pub const OPERATIONS_MAX: usize = 1_000_000;
/// Most documents: names of some 20 bytes.
const KEYS_MAX: usize = 1_000_000;

/// How the operations on a document look, and so which checkers it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// Unconditional puts and reads: the zone check.
    Register,
    /// Conditional writes and deletes too: the search.
    Conditional,
    /// Written by batches over the group: the check of batches.
    Member(Group),
}

/// A document of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its id in the database.
    pub id: String,
    /// What is done to it.
    pub shape: Shape,
}

/// From this moment on the run is in this mode, such as "healthy" or "partition".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// When it begins.
    pub from: Moment,
    /// What it is called.
    pub name: String,
}

/// What one node said of one document after everything had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalRead {
    /// The node.
    pub node: u8,
    /// The document.
    pub key: Key,
    /// What it holds.
    pub seen: Option<Seen>,
}

/// Everything that was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In the order in which they ended.
    pub operations: Vec<Operation>,
    /// By [`Key`].
    pub keys: Vec<KeyInfo>,
    /// Documents by [`Group`].
    pub groups: Vec<Vec<Key>>,
    /// In the order of time; before the first one the mode is "healthy".
    pub modes: Vec<Mode>,
    /// Every document on every node, after the end.
    pub finals: Vec<FinalRead>,
    /// The state of every group on every node, after the end.
    pub states: Vec<NodeState>,
    /// Reads that got no answer.
    pub reads_dropped: u64,
    /// Operations that found the recorder full: the history is not whole.
    pub overflowed: u64,
}

/// The place of an operation, for [`Recorder::resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(usize);

/// Takes what workloads did. Shared by all of them; bounded.
pub struct Recorder {
    began: Instant,
    operations_max: usize,
    clients: AtomicU32,
    reads_dropped: AtomicU64,
    known: AtomicU64,
    history: Mutex<History>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(OPERATIONS_MAX)
    }
}

impl Recorder {
    /// A recorder for at most `operations_max` operations; more make the history one that no verdict passes.
    #[must_use]
    pub fn new(operations_max: usize) -> Self {
        Self {
            began: Instant::now(),
            operations_max,
            clients: AtomicU32::new(1),
            reads_dropped: AtomicU64::new(0),
            known: AtomicU64::new(0),
            history: Mutex::new(History::default()),
        }
    }

    /// The moment it is.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::after(self.began.elapsed())
    }

    /// When the clock of this history began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// A client number that nobody had.
    #[must_use]
    pub fn client(&self) -> u32 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// A new document outside of groups; `None` where there are too many.
    #[must_use]
    pub fn key(&self, id: String, shape: Shape) -> Option<Key> {
        let keys = &mut self.history.lock().keys;
        let key = Key(u32::try_from(keys.len()).ok()?);
        (keys.len() < KEYS_MAX).then(|| keys.push(KeyInfo { id, shape }))?;
        Some(key)
    }

    /// A new group of documents with these ids; `None` where there are too many.
    #[must_use]
    pub fn group(&self, ids: Vec<String>) -> Option<(Group, Vec<Key>)> {
        let history = &mut *self.history.lock();
        let group = Group(u32::try_from(history.groups.len()).ok()?);
        let first = u32::try_from(history.keys.len()).ok()?;
        if history.keys.len() + ids.len() > KEYS_MAX {
            return None;
        }
        let keys: Vec<Key> = (first..).take(ids.len()).map(Key).collect();
        let shape = Shape::Member(group);
        history.keys.extend(ids.into_iter().map(|id| KeyInfo { id, shape }));
        history.groups.push(keys.clone());
        Some((group, keys))
    }

    /// From now on the run is in the mode `name`, until the next call.
    pub fn mode(&self, name: &str) {
        let mode = Mode { from: self.now(), name: name.to_owned() };
        self.history.lock().modes.push(mode);
    }

    /// Notes an operation. A read must have an answer: see [`Recorder::dropped`].
    pub fn note(&self, operation: Operation) -> Option<Ticket> {
        let is_known = operation.outcome.is_known();
        let history = &mut *self.history.lock();
        if history.operations.len() >= self.operations_max {
            history.overflowed += 1;
            return None;
        }
        history.operations.push(operation);
        self.known.fetch_add(u64::from(is_known), Ordering::Relaxed);
        Some(Ticket(history.operations.len() - 1))
    }

    /// A read that got no answer: it says nothing and is only counted.
    pub fn dropped(&self) {
        self.reads_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The outcome of a write that was unknown, learned later by its request id.
    pub fn resolve(&self, ticket: Ticket, outcome: Outcome) {
        let ret = self.now();
        if let Some(operation) = self.history.lock().operations.get_mut(ticket.0) {
            (operation.outcome, operation.ret) = (outcome, ret);
        }
    }

    /// What a node said of a document after everything had ended.
    pub fn final_read(&self, read: FinalRead) {
        self.history.lock().finals.push(read);
    }

    /// What a node said of the state of a group after everything had ended.
    pub fn state(&self, state: NodeState) {
        self.history.lock().states.push(state);
    }

    /// Operations with a known outcome until now.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// The documents until now, by [`Key`].
    #[must_use]
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.history.lock().keys.clone()
    }

    /// Everything that was recorded; the recorder is empty afterwards.
    #[must_use]
    pub fn finish(&self) -> History {
        let mut history = std::mem::take(&mut *self.history.lock());
        history.reads_dropped = self.reads_dropped.swap(0, Ordering::Relaxed);
        history
    }
}

impl History {
    /// The mode that an operation which began at `at` belongs to.
    #[must_use]
    pub fn mode_at(&self, at: Moment) -> &str {
        let next = self.modes.partition_point(|mode| mode.from <= at);
        next.checked_sub(1).map_or("healthy", |last| &self.modes[last].name)
    }

    /// The keys that an operation touches.
    #[must_use]
    pub fn keys_of(&self, operation: &Operation) -> Vec<Key> {
        match &operation.kind {
            Kind::Read(key) | Kind::StaleRead(key) => vec![*key],
            Kind::Write(write) => vec![write.key],
            Kind::Batch(writes) => writes.iter().map(|write| write.key).collect(),
            Kind::List(group) => self.groups.get(group.0 as usize).cloned().unwrap_or_default(),
        }
    }
}
