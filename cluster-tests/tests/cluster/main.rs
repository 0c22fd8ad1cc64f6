//! Whole clusters, one module a promise. One binary, so that it is linked once.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says so with a panic.

mod at_rest;
mod audit;
mod bad_input;
mod certificates;
mod cli;
mod documents;
mod durability;
mod durability_folders;
mod durability_full;
mod faults;
mod handshake;
mod histories;
mod keys;
mod lifecycle;
mod lifecycle_matrix;
mod membership;
mod monitoring;
mod peer_port;
mod permissions;
mod pki;
mod pki_bad_input;
mod python;
mod revocation;
mod revocation_faults;
mod revocation_history;
mod revocation_table;
mod second_factor;
mod server_certificates;
mod statistics;
mod studio_sessions;
mod trust;
