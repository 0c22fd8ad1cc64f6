//! The Studio: the pages that people manage a cluster with, on the client port of every node.
//!
//! It is one more client of the contract. A page is a form of the same calls that every other client makes: it goes
//! through [`contract::Calls`] into the router of the gRPC services of this process, with the connection that the
//! browser's request came on, and so meets the same handlers, decisions, bounds and audit. This module holds no right of
//! its own: it imports neither `authz` nor `consensus`.
//!
//! | file | what |
//! | --- | --- |
//! | [`contract`] | calls in this process, in the name of the connection |
//! | [`visit`] | who looks at a page, and what they may: the frame around every page, or the page of a refusal |
//! | [`guard`] | changes only from pages of this origin; headers of every answer |
//! | [`answer`] | pages and refusals as HTTP |
//! | [`assets`] | stylesheet, script and icon, in the binary |
//! | [`words`] | dates, names and numbers as people read them |
//! | the others | an area each: a handler reads its query or form, calls, and fills a template |
//!
//! **Invariant:** whatever came from outside reaches a page through askama's escaping; no template marks text as safe.
//!
//! **Invariant:** no page keeps state between requests. A private key that was generated is in the answer that shows it
//! and nowhere else.

pub mod answer;
pub mod assets;
mod certificates;
pub mod contract;
mod guard;
mod overview;
mod visit;
mod words;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};

use self::contract::Contract;
use crate::limits;

/// The pages, as a client of `contract`: the router of the gRPC services, with the layers that every call passes.
pub fn router(contract: Router) -> Router {
    use certificates as certs;
    Router::new()
        .route("/studio", get(overview::page))
        .route("/studio/certificates", get(certs::list::page))
        .route("/studio/certificate", get(certs::show::page))
        .route(
            "/studio/certificates/generate",
            get(certs::generate::form).post(certs::generate::submit),
        )
        .route("/studio/certificate/state", post(certs::change::set_state))
        .route(
            "/studio/certificate/delete",
            get(certs::change::delete_form).post(certs::change::delete),
        )
        .route("/studio/assets/{name}", get(assets::serve))
        .layer(middleware::from_fn(guard::guard))
        .layer(DefaultBodyLimit::max(limits::STUDIO_FORM_BYTES_MAX))
        .with_state(Contract::new(contract))
}
