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
//! | [`guard`] | changes only from pages of this origin; a page for every error; headers of every answer |
//! | [`compress`] | gzip, where lengths tell nobody anything |
//! | [`visible`] | the escaper behind every `{{ … }}`: what hides or turns text is written out |
//! | [`log_in`], [`second_factor`] | sessions of those who have a second factor; making and removing one |
//! | [`answer`], [`outcome`] | pages and refusals as HTTP; how a page ends that could not do what was asked |
//! | [`assets`] | stylesheet, script and icon, in the binary |
//! | [`words`] | dates, names and numbers as people read them |
//! | [`charts`], [`health`] | the last hour as drawings, and what is wrong, for the overview |
//! | [`odd`] | text of documents, with what cannot be seen made visible |
//! | [`rights`] | what the visitor may do to one database |
//! | [`posted`] | forms within their bound |
//! | the others | an area each: a handler reads its query or form, calls, and fills a template |
//!
//! **Invariant:** whatever came from outside reaches a page through askama's escaping; no template marks text as safe.
//!
//! **Invariant:** no page keeps state between requests. A private key that was generated is in the answer that shows it
//! and nowhere else.

pub mod answer;
pub mod assets;
mod audit;
mod certificates;
mod charts;
mod cluster;
mod compress;
pub mod contract;
mod databases;
mod documents;
mod form;
mod guard;
mod health;
mod log_in;
mod members;
mod membership;
mod not_let_in;
mod odd;
mod outcome;
mod overview;
mod posted;
mod rights;
mod second_factor;
mod visible;
mod visit;
mod words;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    routing::{any, get, post},
};

use self::contract::Contract;
use crate::limits;

/// The pages, as a client of `contract`: the router of the gRPC services, with the layers that every call passes.
pub fn router(contract: Router) -> Router {
    let contract = Contract::new(contract);
    Router::new()
        .route("/studio", get(overview::page))
        .merge(certificate_pages())
        .merge(database_pages())
        .merge(cluster_pages())
        .merge(session_pages())
        .route("/studio/assets/{name}", get(assets::serve))
        .route("/studio/", any(unknown))
        .route("/studio/{*rest}", any(unknown))
        .layer(middleware::from_fn_with_state(contract.clone(), guard::guard))
        .layer(DefaultBodyLimit::max(limits::STUDIO_FORM_BYTES_MAX))
        .with_state(contract)
}

/// Addresses that nothing stands at.
async fn unknown() -> StatusCode {
    StatusCode::NOT_FOUND
}

fn session_pages() -> Router<Contract> {
    Router::new()
        .route(log_in::PATH, get(log_in::form).post(log_in::submit))
        .route("/studio/log-out", post(log_in::log_out))
        .route(second_factor::PATH, get(second_factor::page))
        .route("/studio/second-factor/enrol", post(second_factor::enrol))
        .route("/studio/second-factor/confirm", post(second_factor::confirm))
        .route(
            "/studio/second-factor/remove",
            get(second_factor::remove_form).post(second_factor::remove),
        )
}

fn certificate_pages() -> Router<Contract> {
    use certificates as of;
    Router::new()
        .route("/studio/certificates", get(of::list::page))
        .route("/studio/certificates/generate", get(of::generate::form).post(of::generate::submit))
        .route("/studio/certificates/upload", get(of::upload::form).post(of::upload::file))
        .route("/studio/certificates/register", post(of::upload::register))
        .route("/studio/certificates/export", get(of::export::form).post(of::export::file))
        .route("/studio/certificates/purge", get(of::purge::form).post(of::purge::purge))
        .route("/studio/certificates/server", get(of::server::page).post(of::server::replace))
        .route("/studio/certificates/server/abort", post(of::server::abort))
        .route("/studio/certificates/server/live", get(of::server::live))
        .route("/studio/certificate", get(of::show::page))
        .route("/studio/certificate/edit", get(of::edit::form).post(of::edit::submit))
        .route(
            "/studio/certificate/clone",
            get(of::generate::clone_form).post(of::generate::clone_submit),
        )
        .route("/studio/certificate/cut", post(of::show::cut))
        .route("/studio/certificate/state", post(of::change::set_state))
        .route("/studio/certificate/delete", get(of::change::delete_form).post(of::change::delete))
}

fn database_pages() -> Router<Contract> {
    Router::new()
        .route("/studio/databases", get(databases::list::page))
        .route(
            "/studio/databases/create",
            get(databases::create::form).post(databases::create::submit),
        )
        .route("/studio/database", get(databases::show::page))
        .route("/studio/database/state", post(databases::change::set_state))
        .route("/studio/database/grant", get(databases::access::search))
        .route("/studio/database/access", post(databases::access::submit))
        .route(
            "/studio/database/delete",
            get(databases::change::delete_form).post(databases::change::delete),
        )
        .route("/studio/documents", get(documents::list::page))
        .route("/studio/documents/create", get(documents::show::create_form))
        .route("/studio/documents/export", get(documents::list::export))
        .route("/studio/document", get(documents::show::page).post(documents::change::put))
        .route("/studio/document/download", get(documents::show::download))
        .route("/studio/document/delete", post(documents::change::delete))
}

fn cluster_pages() -> Router<Contract> {
    Router::new()
        .route("/studio/cluster", get(cluster::page))
        .route("/studio/cluster/token", post(cluster::create_token))
        .route("/studio/cluster/token/revoke", post(cluster::revoke_token))
        .route("/studio/cluster/node", get(membership::form).post(membership::submit))
        .route("/studio/audit", get(audit::page))
        .route("/studio/audit/live", get(audit::live))
        .route("/studio/audit/verify", post(audit::verify))
        .route("/studio/audit/export", post(audit::export))
}
