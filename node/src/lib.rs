//! Rookery: a document database cluster whose product is its security.

pub mod clock;
pub mod consensus;
pub mod crypto;
pub mod limits;
pub mod names;
pub mod storage;
pub mod tls;
