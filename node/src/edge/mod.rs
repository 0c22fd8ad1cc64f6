//! Everything that speaks TLS, gRPC or HTTP to the outside, and the one door from there to the layers below.
//!
//! A request's journey:
//!
//! ```text
//! listener        TCP accepted, counted, TLS shaken, bounded HTTP/2         who is at the other end: a proven key
//! call            deadline, counted, errors in one form
//! services/*      the RPC's handler
//!   peer_identity the fresh registry, the caller, authz's decision           may they: a Permit, for this request only
//!   (parse)       every field once
//!   engine        consensus, with the permit                                 it is done, and stands in the log
//! convert         what came of it, as the client is told
//! ```
//!
//! | way in | serves | who |
//! | --- | --- | --- |
//! | [`listener`], client | services, health, reflection, a page for people | decided per request |
//! | [`listener`], peer | what members say to each other | members |
//! | [`ops`], loopback | `/livez` `/readyz` `/metrics` | the machine |
//! | [`admin_socket`] | node state, bootstrap, join, certificates in an emergency | the owner of the node's files |
//!
//! **Invariant:** a certificate is the only identity, and it comes from the handshake. No header is read for one.
//!
//! **Invariant:** no decision outlives its request. What a connection is allowed is stored nowhere; only that it may be
//! worth closing is ([`connections`]).
//!
//! **Invariant:** every handler of the contract begins with `authorize_server` or `authorize_database`, except `WhoAmI`,
//! which reveals to callers what they are. A test calls every RPC of the contract without a certificate.

pub mod admin_socket;
mod audited;
mod call;
pub mod cluster_secret;
pub mod code_checks;
pub mod connections;
pub mod convert;
mod duties;
pub mod engine;
mod expiry;
mod export;
mod health;
pub mod history;
pub mod join_token;
mod landing;
pub mod listener;
pub mod live;
pub mod metrics;
pub mod node_keys;
pub mod ops;
mod own_expiry;
mod package;
pub mod peer_identity;
pub mod raft_engine;
pub mod recognition;
mod reflection;
pub mod rpcs;
pub mod server;
mod services;
pub mod streams;
mod upload;
mod uses;
mod work;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use tonic_health::pb::health_server::HealthServer;

use crate::{
    clock::Clock,
    crypto::SealingKey,
    edge::{
        code_checks::CodeChecks, engine::Engine, live::Live, metrics::Metrics,
        recognition::Recognition, work::Work,
    },
    studio,
    tls::CurrentIdentity,
};

/// What this node knows of itself without any cluster.
#[derive(Clone)]
pub struct Node {
    /// The name in the configuration.
    pub name: String,
    /// Its certificate and key.
    pub identity: Arc<CurrentIdentity>,
    /// What clients verify this cluster's servers with; goes into packages. `None`: the certificates of the nodes.
    pub ca_pem: Option<String>,
    /// Opens what was sealed to this node.
    pub sealing: Arc<SealingKey>,
}

/// What all handlers share.
pub struct Edge {
    /// The layers below.
    pub engine: Arc<dyn Engine>,
    /// This node.
    pub node: Node,
    /// The time of a node that has no leader to ask.
    pub clock: Arc<dyn Clock>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// Places for what keeps a core busy.
    pub work: Work,
    /// Who is known by more than a registration, and who called lately.
    pub recognition: Recognition,
    /// The codes of second factors that are being checked.
    pub code_checks: Arc<CodeChecks>,
    /// The open connections and the last hour.
    pub live: Arc<Live>,
}

/// What the client listener serves.
///
/// # Errors
/// The contract built into this program cannot be read.
pub fn client_router(edge: &Arc<Edge>) -> Result<Router, tonic_reflection::server::Error> {
    let router = services::of_clients(edge);
    let router = services::with(router, HealthServer::new(health::Health(edge.engine.clone())));
    let router = services::with(router, reflection::v1(edge)?);
    let router = services::with(router, reflection::v1alpha(edge)?);
    let count = middleware::from_fn_with_state(edge.metrics.clone(), call::call);
    // gRPC calls an unknown method of a known service UNIMPLEMENTED itself; `fallback` answers the rest.
    let expiry = middleware::from_fn_with_state(edge.clone(), own_expiry::refuse);
    // The Studio is a client of these services like any other, and its own calls pass the same layers.
    let studio = studio::router(router.clone().layer(count.clone()));
    let router = router.merge(studio).route("/", get(landing::page)).fallback(landing::unknown);
    Ok(router.layer(expiry).layer(count))
}

/// What the admin socket serves.
pub fn admin_router(edge: &Arc<Edge>) -> Router {
    services::of_admin_socket(edge)
}
