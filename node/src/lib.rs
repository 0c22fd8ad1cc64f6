//! Rookery: a document database cluster whose product is its security.

pub mod audit;
pub mod authz;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod consensus;
pub mod crypto;
pub mod database;
pub mod edge;
pub mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod limits;
pub mod names;
pub mod os;
pub mod own_certificate;
pub mod results;
pub mod second_factor;
pub mod storage;
pub mod studio;
pub mod telemetry;
pub mod tls;
