//! One recorded operation: who asked what of which node, when, and what came back.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Nanoseconds since the recorder began, by one monotonic clock.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Moment(pub u64);

impl Moment {
    /// The beginning.
    pub const ZERO: Self = Self(0);
    /// Later than everything: when an unknown outcome ends.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `since` after the beginning.
    #[must_use]
    pub fn after(since: Duration) -> Self {
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(f, "{:.3}ms", self.0 as f64 / 1e6)
    }
}

/// A document, by its place in [`super::History::keys`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u32);

/// Documents that batches write together, by their place in [`super::History::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group(pub u32);

/// A value that one request wrote: `client:counter`. A batch writes the same value to all its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value(pub u64);

impl Value {
    /// Bytes that no workload writes.
    pub const GARBLED: Self = Self(u64::MAX);

    /// The `counter`-th value of `client`.
    #[must_use]
    pub fn new(client: u32, counter: u32) -> Self {
        Self(u64::from(client) << 32 | u64::from(counter))
    }

    /// The document that holds it.
    #[must_use]
    pub fn json(self) -> String {
        format!("{{\"value\":\"{self}\"}}")
    }

    /// The value of a document; [`Value::GARBLED`] for bytes that [`Value::json`] never makes.
    #[must_use]
    pub fn parse(json: &[u8]) -> Self {
        let parsed = || {
            let text = std::str::from_utf8(json).ok()?;
            let text = text.strip_prefix("{\"value\":\"")?.strip_suffix("\"}")?;
            let (client, counter) = text.split_once(':')?;
            let value = Self::new(client.parse().ok()?, counter.parse().ok()?);
            (value.to_string() == text).then_some(value) // No leading zeros or signs.
        };
        parsed().unwrap_or(Self::GARBLED)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

/// Where a write stands in the log of its database; from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// What a write leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// This value.
    Put(Value),
    /// No document.
    Delete,
}

impl Change {
    /// What is there afterwards.
    #[must_use]
    pub fn state(self) -> Option<Value> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
        }
    }
}

/// What a write demands of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    None,
    /// No document.
    Absent,
    /// The document as it was read: this value, under the etag of this revision.
    Is(Value, Revision),
}

/// One write, alone or in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The document.
    pub key: Key,
    /// What it leaves.
    pub change: Change,
    /// What it demands.
    pub condition: Condition,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A linearizable read.
    Read(Key),
    /// A read of the node's own copy.
    StaleRead(Key),
    /// One write.
    Write(Write),
    /// Several writes of one group, all or none; at most 32.
    Batch(Box<[Write]>),
    /// A linearizable list of a group's documents, from one view.
    List(Group),
}

/// A document as a read or a list showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What it holds.
    pub value: Value,
    /// The write that left it.
    pub revision: Revision,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The write or batch was applied at `revision`. Bit `i` of `existed` says that its `i`-th write is a delete that
    /// found a document.
    Applied {
        /// Its place in the log.
        revision: Revision,
        /// Which deletes found something.
        existed: u32,
    },
    /// The read found a document. `applied` is what the node had applied at least when it looked.
    Found {
        /// The document.
        seen: Seen,
        /// Log position of the answer.
        applied: Revision,
    },
    /// The read found no document.
    Absent,
    /// What the list found, in the order of the group's keys.
    Listed {
        /// Each document, or none.
        seen: Box<[Option<Seen>]>,
        /// Log position of the answer.
        applied: Revision,
    },
    /// A condition did not hold; nothing was written.
    Refused {
        /// The document it was about.
        key: Key,
        /// What was there instead.
        current: Option<Revision>,
    },
    /// Of a write: nobody knows. It may take effect at any time, or never.
    Unknown,
}

impl Outcome {
    /// Whether this is an answer.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Self::Unknown
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client; it has one operation at a time, and none after an unknown outcome.
    pub client: u32,
    /// The node that answered, or was asked last.
    pub node: u8,
    /// Sent again on purpose under the request id of an earlier operation with the same value: nothing new is written.
    pub repeated: bool,
    /// Before it was sent first.
    pub call: Moment,
    /// After its answer came; [`Moment::NEVER`] where none did.
    pub ret: Moment,
    /// What was asked.
    pub kind: Kind,
    /// What was answered.
    pub outcome: Outcome,
}

impl Operation {
    /// Its writes; none for reads.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        match &self.kind {
            Kind::Write(write) => std::slice::from_ref(write),
            Kind::Batch(writes) => writes,
            Kind::Read(_) | Kind::StaleRead(_) | Kind::List(_) => &[],
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, node, repeated, call, ret, kind, outcome } = self;
        let again = if *repeated { " (again)" } else { "" };
        let node = u32::from(*node) + 1;
        write!(f, "client {client} on n{node}, {call} to {ret}{again}: {kind:?} -> {outcome:?}")
    }
}
