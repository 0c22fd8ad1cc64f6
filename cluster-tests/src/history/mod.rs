//! Recorded histories of documents, and the checkers that say whether a linearizable store could have produced them.
//!
//! Workloads append what they asked and what they were told to a [`Recorder`]; [`Recorder::finish`] gives a [`History`],
//! and [`judge`] runs every checker over it. Promises: robustness P1 (documents are linearizable, batches atomic and
//! serializable), P2 (what was acknowledged is there), and that a request id is applied once.
//!
//! | module | what it checks | needs | cost |
//! | --- | --- | --- | --- |
//! | [`witness`] | revisions that the server gave: order, real time, preconditions, each write once | revisions | n log n |
//! | [`zone`] | registers with unique values (Gibbons and Korach 1997) | values alone | n log n |
//! | [`search`] | conditional writes and deletes (Wing and Gong 1993, Lowe 2017) | values alone | bounded by steps and time |
//! | [`batches`] | batches are seen whole, or not at all | both | n log n |
//! | [`finals`] | what was acknowledged is there in the end, on every node alike | values | n log n |
//! | [`coverage`] | the run has seen enough to mean something | - | n |
//!
//! Two independent checkers look at each document: one believes the server's revisions, one does not.
//!
//! **Rules of recording.** `call` is taken before a request is sent, `ret` after its answer came, by one monotonic clock.
//! A write without an answer is [`Outcome::Unknown`] and may take effect at any time after its call, or never; a read
//! without an answer is not recorded. A client that does not know what became of its write takes a new client number
//! ([`Recorder::client`]). Every written value is written by one request alone.
//!
//! **Verdicts.** A run that saw too little is [`Verdict::Rejected`], and so is one whose search ran out of time: neither
//! has passed, and neither is a violation.

pub mod batches;
pub mod coverage;
pub mod finals;
mod judge;
mod lines;
mod operation;
mod recorder;
pub mod search;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timeline;
pub mod witness;
pub mod zone;

pub use coverage::{Coverage, Gate};
pub use finals::NodeState;
pub use judge::{Report, Verdict, Violation, judge};
pub use operation::{
    Change, Condition, Group, Key, Kind, Moment, Operation, Outcome, Revision, Seen, Value, Write,
};
pub use recorder::{FinalRead, History, KeyInfo, Mode, Recorder, Shape, Ticket};
