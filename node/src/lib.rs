//! Rookery: a document database cluster whose product is its security.

pub mod cli;
pub mod clock;
pub mod config;
pub mod limits;
pub mod names;
pub mod server;
pub mod storage;
pub mod telemetry;
