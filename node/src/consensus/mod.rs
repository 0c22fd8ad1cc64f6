//! Raft groups: the only place that names openraft.

pub mod state_machine;
pub mod types;
