//! Raft groups: the only place that names openraft.

pub mod applied;
pub mod channel;
pub mod committer;
pub mod log_store;
pub mod network;
pub mod peer_service;
pub mod snapshot;
pub mod state_machine;
pub mod types;

#[cfg(test)]
mod peer_tests;
#[cfg(test)]
mod tests;
