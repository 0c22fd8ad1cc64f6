//! Rookery: a document database cluster whose product is its security.

pub mod limits;
pub mod names;
pub mod clock;
pub mod authz;
pub mod certificates;
pub mod storage;
pub mod results;
pub mod database;
pub mod cluster;
