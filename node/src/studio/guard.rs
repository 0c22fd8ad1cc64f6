//! What every request of the Studio passes: a change comes from a page of this origin, and every answer carries the
//! headers that keep other sites out.
//!
//! A browser sends its client certificate with every request to this host, also with one that a page of another site
//! makes. So a change has to prove where it comes from: by `Sec-Fetch-Site: same-origin`, which pages cannot forge (W3C
//! Fetch Metadata), and by an `Origin` that is this very host (RFC 6454). A browser sends at least one of the two; who
//! sends neither is no browser and has the gRPC contract.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::answer;

const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

/// The layer around all pages.
pub async fn guard(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && let Err(why) = same_origin(&request) {
        return with_headers(answer::plain_refusal(StatusCode::FORBIDDEN, why));
    }
    with_headers(next.run(request).await)
}

/// Why a change is not taken.
fn same_origin(request: &Request) -> Result<(), &'static str> {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin") {
        return Err(
            "This change came from a page of another site, so it was not made. Open the page here and send it again.",
        );
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return match site {
            Some(_) => Ok(()),
            None => Err(
                "This change does not say which page it came from (no Origin and no Sec-Fetch-Site), so it was \
                         not made. Use a current browser, or the command line.",
            ),
        };
    };
    let host = host(request, headers)
        .ok_or("This request names no host, so its origin cannot be checked.")?;
    let same = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("https://"))
        .is_some_and(|from| from.eq_ignore_ascii_case(&host));
    if same {
        return Ok(());
    }
    Err(
        "This change came from a page of another origin, so it was not made. Open the page here and send it again.",
    )
}

/// The host as the client called it: `:authority` of HTTP/2, `Host` of HTTP/1.1.
fn host(request: &Request, headers: &HeaderMap) -> Option<String> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str().to_owned());
    }
    Some(headers.get(header::HOST)?.to_str().ok()?.to_owned())
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    );
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Body;

    use super::*;

    #[test]
    fn a_change_must_come_from_a_page_of_this_origin() {
        let check = |headers: &[(&str, &str)], expected: bool| {
            let mut request =
                Request::builder().method("POST").uri("/studio/x").header("host", "node1:7441");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(same_origin(&request).is_ok(), expected, "{headers:?}");
        };
        check(&[("origin", "https://node1:7441"), ("sec-fetch-site", "same-origin")], true);
        check(&[("origin", "https://node1:7441")], true);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("origin", "https://NODE1:7441"), ("sec-fetch-site", "same-origin")], true);
        check(&[], false);
        check(&[("origin", "null")], false);
        check(&[("origin", "null"), ("sec-fetch-site", "same-origin")], false);
        check(&[("origin", "http://node1:7441")], false);
        check(&[("origin", "https://node1:7442"), ("sec-fetch-site", "same-site")], false);
        check(&[("origin", "https://node1:7442")], false);
        check(&[("origin", "https://node1:7441.evil.example")], false);
        check(&[("origin", "https://node1:7441"), ("sec-fetch-site", "cross-site")], false);
        check(&[("origin", "https://node1:7441"), ("sec-fetch-site", "same-site")], false);
        check(&[("origin", "https://node1:7441"), ("sec-fetch-site", "none")], false);
    }
}
