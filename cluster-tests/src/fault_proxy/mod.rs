//! A TCP proxy that breaks links on request, with the HTTP interface of Toxiproxy 2: the same tests drive this one, or
//! the real one where its image can be had.
//!
//! ```text
//! client ──> listen ─┬─ link "upstream":   toxics of that stream ─┬─> upstream server
//!            (proxy) └─ link "downstream": toxics of that stream ─┘
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | `toxic` | what can be done to a link, as the interface names it |
//! | `link` | one direction of one connection, with its toxics at work |
//! | `proxy` | a listener, its connections, and the changes to them while they run |
//! | `api` | the HTTP interface |
//! | `client` | the calls of tests, to this proxy or to the real one |
//!
//! A toxic that is added, changed or removed acts on open connections too. Its toxicity is the chance that a link gets
//! it at all, drawn once a link.

mod api;
mod client;
mod link;
mod proxy;
mod toxic;

#[cfg(test)]
mod tests;

pub use api::serve;
pub use client::{Toxiproxy, cut, healed};
pub use proxy::{Proxies, ProxySpec};
pub use toxic::{Attributes, Kind, Stream, Toxic};
