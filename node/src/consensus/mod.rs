//! Raft groups: the only place that names openraft.

pub mod applied;
pub mod committer;
pub mod log_store;
pub mod snapshot;
pub mod state_machine;
pub mod types;

#[cfg(test)]
mod raft_tests;
#[cfg(test)]
mod storage_tests;
