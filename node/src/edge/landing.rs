//! The page at `/` of the client listener: what stands here and how to come in, for people without a certificate.
//!
//! It holds no state of the cluster, not even its name, and no byte of the request.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rookery</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { padding: .75rem 1rem; overflow-x: auto; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
h2 { font-size: 1.1rem; margin-top: 2rem; }
</style>
<h1>Rookery</h1>
<p>This is a node of a Rookery document database. It knows callers by their client certificate and by nothing else:
there is no password and no sign-up.</p>
<p><a href="/studio">Open the Studio</a> if your browser has a certificate of this cluster.</p>
<h2>With a certificate package</h2>
<p>An administrator of the cluster generates a package for you, <code>&lt;name&gt;.zip</code>, and tells you its password.</p>
<pre>rookery context import alice.zip
rookery whoami</pre>
<h2>With another program</h2>
<pre>curl --cacert ca.crt --cert alice.crt --key alice.key https://…/</pre>
<h2>With a browser</h2>
<ol>
<li>Unpack the package and import <code>&lt;name&gt;.pfx</code>: in Firefox under Settings, Privacy &amp; Security, View
Certificates, Your Certificates; in Chromium under Settings, Privacy and security, Security, Manage certificates;
elsewhere into the certificate store of the system.</li>
<li>Open this address again and choose the certificate. A browser remembers the choice, also the choice of none: use a
new private window to be asked again.</li>
</ol>
<h2>Refused all the same?</h2>
<p>The certificate may be unknown to this cluster, expired, not yet valid, or disabled; each call says which. Ask the
administrator who gave it to you.</p>
</html>
"#;

/// `GET /`.
pub async fn page() -> Response {
    let mut response = PAGE.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    );
    response
}

/// Whatever has no handler: UNIMPLEMENTED for gRPC, 404 for the rest.
pub async fn unknown(request: axum::extract::Request) -> Response {
    if super::call::is_grpc(request.headers()) {
        let status = tonic::Status::unimplemented(
            "This server has no such service or method. Compare the client's .proto files with the server's version.",
        );
        return status.into_http();
    }
    (StatusCode::NOT_FOUND, "There is no such page here.\n").into_response()
}
