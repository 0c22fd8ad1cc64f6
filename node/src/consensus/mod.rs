//! Raft groups: the only place that names openraft.

pub mod applied;
pub mod snapshot;
pub mod state_machine;
pub mod types;
