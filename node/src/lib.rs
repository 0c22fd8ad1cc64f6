//! Rookery: a document database cluster whose product is its security.

pub mod authz;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod limits;
pub mod names;
pub mod storage;
pub mod results;
pub mod database;
