//! What a node whose own certificate has expired still answers: what it takes to replace it.
//!
//! Clients that check dates turn away by themselves; one that does not is told why here, instead of being served under a
//! certificate that stands for nothing any more. The admin socket and the peer listener do not pass here.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use tonic::Code;

use crate::edge::{Edge, call, convert};

const MESSAGE: &str = "The certificate of this node has expired, so it serves no clients. An administrator can replace \
                       it: with new files on the node, or with `rookery cert server replace`.";

/// Calls that are answered all the same: the replacement, and what leads to it, a session of who needs one among it.
const ANSWERED: [&str; 10] = [
    "/rookery.security.v1.ServerCertificateService/",
    "/rookery.security.v1.SecurityService/WhoAmI",
    "/rookery.cluster.v1.ClusterService/GetTopology",
    "/rookery.cluster.v1.ClusterService/GetStatus",
    "/rookery.security.v1.SecondFactorService/LogIn",
    "/rookery.security.v1.SecondFactorService/LogOut",
    "/rookery.security.v1.SecondFactorService/GetSecondFactorStatus",
    "/rookery.security.v1.SecondFactorService/Enrol",
    "/rookery.security.v1.SecondFactorService/Confirm",
    "/grpc.health.v1.Health/",
];

/// The layer around the router of the client listener.
pub async fn refuse(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let expired = edge.node.identity.load().not_after() < edge.clock.wall();
    let path = request.uri().path();
    if !expired || is_answered(path) {
        return next.run(request).await;
    }
    if call::is_grpc(request.headers()) {
        let answer = convert::Answer::new(Code::Unavailable, "SERVER_CERTIFICATE_EXPIRED", MESSAGE);
        return answer.status().into_http();
    }
    (StatusCode::SERVICE_UNAVAILABLE, MESSAGE).into_response()
}

/// Services by what their paths begin with, methods by their whole path.
fn is_answered(path: &str) -> bool {
    let is = |answered: &str| {
        if answered.ends_with('/') { path.starts_with(answered) } else { path == answered }
    };
    ANSWERED.iter().any(|answered| is(answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_another_certificate_is_answered_and_nothing_else() {
        for (path, expected) in [
            ("/rookery.security.v1.ServerCertificateService/ReplaceServerCertificates", true),
            ("/rookery.security.v1.SecurityService/WhoAmI", true),
            ("/rookery.security.v1.SecondFactorService/LogIn", true),
            ("/rookery.security.v1.SecondFactorService/LogOut", true),
            ("/rookery.security.v1.SecondFactorService/GetSecondFactorStatus", true),
            ("/rookery.security.v1.SecondFactorService/Enrol", true),
            ("/rookery.security.v1.SecondFactorService/Confirm", true),
            ("/rookery.security.v1.SecondFactorService/Remove", false),
            ("/rookery.security.v1.SecondFactorService/LogInElsewhere", false),
            ("/rookery.security.v1.SecurityService/GenerateCertificate", false),
            ("/rookery.document.v1.DocumentService/Get", false),
        ] {
            assert_eq!(is_answered(path), expected, "{path}");
        }
    }
}
