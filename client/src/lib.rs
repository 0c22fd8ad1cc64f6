//! The Rust client of Rookery: mutual TLS, topology, retries with request ids, typed errors.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rookery_client::{Client, Context};
//!
//! let context = Context::load("alice/context.toml".as_ref())?;
//! let client = Client::new(&context)?;
//! client.put("sales", "orders/1", "Orders", br#"{"total":12}"#.to_vec()).await?;
//! let document = client.get("sales", "orders/1").await?;
//! # Ok(()) }
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`context`] | who calls, where, and what the server is verified with; packages |
//! | [`error`] | what went wrong, one variant for each thing a caller would do differently |
//! | [`retry`] | how often, how long, and after which pause a call is tried again |
//! | [`session`] | the second-factor session of a context |
//! | [`Client`] | the calls |
//! | [`admin`] | the admin socket of a node on this machine |
//!
//! **A write is never applied twice**: every write carries a request id, and a retry carries the same one. Where the
//! deadline ends before the outcome is known the error is [`Error::Unknown`], with the id to ask again with.

pub mod admin;
mod api;
mod client;
mod connect;
pub mod context;
pub mod error;
pub mod retry;
pub mod session;
mod tls;

pub use api::Request;
pub use client::{Client, Options};
pub use context::Context;
pub use error::{Error, Failure};
pub use rookery_proto as proto;
pub use session::Session;
