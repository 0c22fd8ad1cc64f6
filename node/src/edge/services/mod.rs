//! The RPCs of clients, one file an area. Each method reads like this:
//!
//! 1. `authorize_*`: who asks, and may they. Nothing of the message is looked at before, except a database's name.
//! 2. Parse every field once; the command is held to the rules that `apply` will hold it to, so nothing invalid reaches
//!    the log.
//! 3. Consensus, with the permit.
//! 4. Convert.

mod admin;
mod audit;
mod cluster;
mod databases;
mod documents;
mod keys;
mod monitoring;
mod second_factor;
mod security;
mod server_certificates;
mod trust;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use rookery_proto::{
    admin::v1::admin_service_server::AdminServiceServer,
    audit::v1::audit_service_server::AuditServiceServer,
    cluster::v1::cluster_service_server::ClusterServiceServer,
    database::v1::database_service_server::DatabaseServiceServer,
    document::v1::document_service_server::DocumentServiceServer,
    log::v1::{
        Applied, ClusterCommand, ClusterOutcome, Refusal, applied, cluster_command, cluster_outcome,
    },
    monitoring::v1::monitoring_service_server::MonitoringServiceServer,
    security::v1::{
        key_service_server::KeyServiceServer,
        second_factor_service_server::SecondFactorServiceServer,
        security_service_server::SecurityServiceServer,
        server_certificate_service_server::ServerCertificateServiceServer,
        trust_service_server::TrustServiceServer,
    },
};
use tonic::{Status, codec::CompressionEncoding, server::NamedService};
use tower::Service;

use crate::{
    authz::Permit,
    cluster::check,
    consensus,
    database::page_token::Binding,
    edge::{Edge, call, convert, peer_identity::CallContext},
    limits,
    names::RequestId,
};

/// Sets what every service accepts and sends: 16 MiB a message after decompression, gzip and zstd.
macro_rules! bounded {
    ($server:ident, $service:expr) => {
        $server::new($service)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
    };
}

/// The services of the client listener.
pub fn of_clients(edge: &Arc<Edge>) -> Router {
    let router = Router::new();
    let router = with(router, bounded!(DocumentServiceServer, documents::Documents(edge.clone())));
    let router = with(router, bounded!(DatabaseServiceServer, databases::Databases(edge.clone())));
    let router = with(router, bounded!(SecurityServiceServer, security::Security(edge.clone())));
    let service = server_certificates::ServerCertificates(edge.clone());
    let router = with(router, bounded!(ServerCertificateServiceServer, service));
    let router = with(router, bounded!(AuditServiceServer, audit::Audit::new(edge.clone())));
    let router = with(router, bounded!(TrustServiceServer, trust::Trust(edge.clone())));
    let router = with(router, bounded!(KeyServiceServer, keys::KeysOfNode(edge.clone())));
    let monitoring = monitoring::Monitoring(edge.clone());
    let router = with(router, bounded!(MonitoringServiceServer, monitoring));
    let second_factors = second_factor::SecondFactors(edge.clone());
    let router = with(router, bounded!(SecondFactorServiceServer, second_factors));
    with(router, bounded!(ClusterServiceServer, cluster::Cluster(edge.clone())))
}

/// The service of the admin socket.
pub fn of_admin_socket(edge: &Arc<Edge>) -> Router {
    with(Router::new(), bounded!(AdminServiceServer, admin::Admin(edge.clone())))
}

/// The service of the admin socket, without a socket.
#[cfg(test)]
pub fn admin_service(edge: &Arc<Edge>) -> admin::Admin {
    admin::Admin(edge.clone())
}

/// Adds a gRPC service under its full name.
pub fn with<S>(router: Router, service: S) -> Router
where
    S: Service<axum::extract::Request, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    let methods = Router::new().route_service(&format!("/{}/{{*method}}", S::NAME), service);
    router.merge(methods.route_layer(middleware::from_fn(only_grpc)))
}

/// Only what speaks gRPC reaches a service, and nothing that a page in a browser sends.
///
/// A browser adds its client certificate to whatever a page of any site has it send, and tonic looks at no Content-Type. A
/// page cannot send this one to another origin without asking that origin first (Fetch, CORS preflight), which is never
/// allowed here; and what a page sends of this origin carries `Sec-Fetch-Site` or `Origin`, which no gRPC client does.
async fn only_grpc(request: axum::extract::Request, next: Next) -> Response {
    let headers = request.headers();
    let from_a_page =
        headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    if from_a_page || !call::is_grpc(headers) {
        let why = "This address speaks gRPC (content-type: application/grpc), and not to pages in a browser. \
                   Nothing was changed.\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into_response();
    }
    next.run(request).await
}

/// The client's request id, or a new one where it gave none.
fn request_id(text: &str) -> Result<RequestId, Status> {
    if text.is_empty() {
        return Ok(RequestId::random());
    }
    text.parse().map_err(|why| convert::invalid("request_id", why))
}

/// How many records a page may hold.
fn page_size(asked: u32) -> Result<usize, Status> {
    match asked as usize {
        0 => Ok(limits::PAGE_SIZE_DEFAULT),
        size if size <= limits::PAGE_SIZE_MAX => Ok(size),
        _ => Err(convert::invalid(
            "page_size",
            format!(
                "must be 1 to {}, or 0 for {}",
                limits::PAGE_SIZE_MAX,
                limits::PAGE_SIZE_DEFAULT
            ),
        )),
    }
}

/// The position in a page token, `None` for the first page.
fn page_start(binding: &Binding, token: &str) -> Result<Option<Vec<u8>>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    binding.decode(token).map(Some).map_err(|why| convert::invalid("page_token", why))
}

/// Checks a command, puts it in the cluster group's log, and waits for what came of it.
async fn propose(
    edge: &Edge,
    permit: Permit,
    context: &CallContext,
    id: RequestId,
    command: cluster_command::Command,
) -> Result<cluster_outcome::Outcome, Status> {
    propose_renamed(edge, permit, context, id, command, |field| field).await
}

/// [`propose`] of a command whose fields have other names than those of the request: `renamed` gives the latter, for
/// refusals.
async fn propose_renamed(
    edge: &Edge,
    permit: Permit,
    context: &CallContext,
    id: RequestId,
    command: cluster_command::Command,
    renamed: impl Fn(String) -> String + Send,
) -> Result<cluster_outcome::Outcome, Status> {
    let refused = |refusal: Refusal| {
        let field = match refusal.field.as_str() {
            "expected_revision" => "expected_etag".to_owned(), // What callers know it by.
            _ => renamed(refusal.field),
        };
        convert::refusal(Refusal { field, ..refusal })
    };
    let command = ClusterCommand { command: Some(command) };
    check(&command).map_err(refused)?;
    let proposed = edge.engine.propose_cluster(permit, id, command, context.deadline).await;
    let applied = match proposed {
        Ok(applied) => applied,
        Err(consensus::Error::Refused(refusal)) => return Err(refused(*refusal)),
        Err(other) => return Err(convert::status(other)),
    };
    outcome_or(applied, refused)
}

/// What came of a command that was applied.
fn outcome(applied: Applied) -> Result<cluster_outcome::Outcome, Status> {
    outcome_or(applied, convert::refusal)
}

fn outcome_or(
    applied: Applied,
    refused: impl Fn(Refusal) -> Status,
) -> Result<cluster_outcome::Outcome, Status> {
    match applied.outcome {
        Some(applied::Outcome::Cluster(ClusterOutcome { outcome: Some(outcome) })) => Ok(outcome),
        Some(applied::Outcome::Refusal(refusal)) => Err(refused(refusal)),
        Some(applied::Outcome::Cluster(_) | applied::Outcome::Database(_)) | None => {
            Err(unexpected_outcome())
        }
    }
}

fn unexpected_outcome() -> Status {
    convert::internal("The answer of the log could not be read", "an outcome of another kind")
}
