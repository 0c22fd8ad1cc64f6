//! The contract's clients, inside this process and in the name of a connection.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{Router, routing::future::RouteFuture};
use http::{Extensions, HeaderMap, HeaderValue, header};
use rookery_proto::{
    audit::v1::audit_service_client::AuditServiceClient,
    cluster::v1::cluster_service_client::ClusterServiceClient,
    database::v1::database_service_client::DatabaseServiceClient,
    document::v1::document_service_client::DocumentServiceClient,
    monitoring::v1::monitoring_service_client::MonitoringServiceClient,
    security::v1::{
        second_factor_service_client::SecondFactorServiceClient,
        security_service_client::SecurityServiceClient,
        server_certificate_service_client::ServerCertificateServiceClient,
        trust_service_client::TrustServiceClient,
    },
};
use tower::Service;

use crate::limits;

/// The metadata that carries the token of a second-factor session (proto/rookery/security/v1/second_factor.proto).
const SESSION_HEADER: &str = "rookery-session";

/// The metadata that carries the time a call has (gRPC over HTTP/2).
const TIMEOUT_HEADER: &str = "grpc-timeout";

/// The cookie of a browser that holds the same token. `__Host-`: only over TLS, only for this host (RFC 6265bis, 4.1.3).
pub const SESSION_COOKIE: &str = "__Host-rookery-session";

/// The gRPC services of this process.
#[derive(Clone)]
pub struct Contract(Router);

impl Contract {
    /// From the router of the services.
    #[must_use]
    pub fn new(services: Router) -> Self {
        Self(services)
    }

    /// Calls in the name of the connection that a request came on.
    #[must_use]
    pub fn calls(&self, extensions: &Extensions, headers: &HeaderMap) -> Calls {
        Calls {
            services: self.0.clone(),
            extensions: extensions.clone(),
            session: session(headers),
        }
    }
}

/// A channel for the generated clients: what a call sends goes to the services with the connection of the page's request.
#[derive(Clone)]
pub struct Calls {
    services: Router,
    /// Connection and certificate, as the listener put them on the page's request.
    extensions: Extensions,
    session: Option<HeaderValue>,
}

impl Service<http::Request<tonic::body::Body>> for Calls {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // A router is always ready.
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        request.extensions_mut().extend(self.extensions.clone());
        let timeout = format!("{}S", limits::STUDIO_CALL_TIME_MAX.as_secs());
        if let Ok(timeout) = HeaderValue::from_str(&timeout) {
            request.headers_mut().entry(TIMEOUT_HEADER).or_insert(timeout);
        }
        if let Some(session) = &self.session {
            request.headers_mut().insert(SESSION_HEADER, session.clone());
        }
        Service::call(&mut self.services, request)
    }
}

/// Makes a method that gives the client of a service.
macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {
        impl Calls {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $client<Self> {
                $client::new(self.clone())
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
            })*
        }
    };
}

clients! {
    /// Certificates.
    security: SecurityServiceClient;
    /// Explanations, policy, notices.
    trust: TrustServiceClient;
    /// Second factors and their sessions.
    second_factor: SecondFactorServiceClient;
    /// The nodes' own certificates.
    server_certificates: ServerCertificateServiceClient;
    /// Databases.
    databases: DatabaseServiceClient;
    /// Documents.
    documents: DocumentServiceClient;
    /// Nodes and groups.
    cluster: ClusterServiceClient;
    /// Connections, rates and latencies.
    monitoring: MonitoringServiceClient;
    /// The audit trail.
    audit: AuditServiceClient;
}

/// The session's token among the cookies of a request.
fn session(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == SESSION_COOKIE)?;
    let mut token = HeaderValue::from_str(token).ok()?;
    token.set_sensitive(true); // Neither a log nor the header table of HTTP/2 keeps it.
    Some(token)
}

/// A cookie with the token, for a browser to keep for so many seconds; 0 takes it away.
///
/// No script sees it, no page of another site can have it sent, and it leaves the browser over TLS to this host alone.
#[must_use]
pub fn session_cookie(token: &str, seconds: i64) -> Option<HeaderValue> {
    let kept = seconds.max(0);
    let text = format!(
        "{SESSION_COOKIE}={token}; Path=/; Max-Age={kept}; Secure; HttpOnly; SameSite=Strict"
    );
    let mut cookie = HeaderValue::from_str(&text).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_call_has_less_time_than_its_page_unless_it_asks_for_even_less() {
        let told = axum::routing::any(|headers: HeaderMap| async move {
            headers.get(TIMEOUT_HEADER).unwrap().to_str().unwrap().to_owned()
        });
        let contract = Contract::new(Router::new().route("/a", told));
        let mut calls = contract.calls(&Extensions::new(), &HeaderMap::new());
        for (asked, expected) in [(None, "25S"), (Some("2000000u"), "2000000u")] {
            let mut request = http::Request::new(tonic::body::Body::empty());
            *request.uri_mut() = http::Uri::from_static("/a");
            if let Some(asked) = asked {
                request.headers_mut().insert(TIMEOUT_HEADER, HeaderValue::from_static(asked));
            }
            let answer = calls.call(request).await.unwrap();
            let bytes = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
            assert_eq!(bytes, expected);
        }
        assert!(limits::STUDIO_CALL_TIME_MAX < limits::DEADLINE_DEFAULT);
    }

    #[test]
    fn the_token_is_found_among_other_cookies_and_nowhere_else() {
        let check = |cookies: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for cookie in cookies {
                headers.append(header::COOKIE, HeaderValue::from_static(cookie));
            }
            let found = session(&headers);
            assert_eq!(found.as_ref().map(|it| it.to_str().unwrap()), expected, "{cookies:?}");
        };
        check(&[], None);
        check(&["__Host-rookery-session=abc"], Some("abc"));
        check(&["a=b; __Host-rookery-session=abc;c=d"], Some("abc"));
        check(&["a=b", "__Host-rookery-session=abc"], Some("abc"));
        // A page of a neighbouring host, or one without TLS, can plant these names, and not ours.
        check(&["rookery-session=abc; x__Host-rookery-session=abc"], None);
        check(&["__host-rookery-session=abc"], None);
        check(&["__Host-rookery-session"], None);
    }

    #[test]
    fn the_cookie_stays_on_this_host_and_away_from_scripts() {
        let cookie = session_cookie("abc", 7200).unwrap();
        assert_eq!(
            cookie.to_str().unwrap(),
            "__Host-rookery-session=abc; Path=/; Max-Age=7200; Secure; HttpOnly; SameSite=Strict"
        );
        let gone = session_cookie("", -5).unwrap();
        assert!(gone.to_str().unwrap().contains("Max-Age=0;"));
        assert!(session_cookie("a\nb", 1).is_none());
    }
}
