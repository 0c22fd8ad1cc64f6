//! What every request of the Studio passes: a change comes from a page of this origin, every answer is a page, and every
//! answer carries the headers that keep other sites out.
//!
//! A browser sends its client certificate with every request to this host, also with one that a page of another site
//! makes. So a change has to prove where it comes from: by `Sec-Fetch-Site: same-origin`, which pages cannot forge (W3C
//! Fetch Metadata), and by an `Origin` that is this very host (RFC 6454). A browser sends at least one of the two; who
//! sends neither is no browser and has the gRPC contract.
//!
//! | header | against |
//! | --- | --- |
//! | `Content-Security-Policy` | script, style and frames from elsewhere, and every inline one; forms that post elsewhere; another base |
//! | `X-Frame-Options` (all of the listener), `frame-ancestors` | being framed: a click that was meant for another page |
//! | `Cross-Origin-Opener-Policy`, `Cross-Origin-Resource-Policy` | a window or a resource in another site's hands |
//! | `X-Content-Type-Options` | a file taken for a script |
//! | `Referrer-Policy: same-origin` | thumbprints in addresses that other sites see. Not `no-referrer`: browsers would send `Origin: null` with forms |
//! | `Cache-Control: no-store` | pages in a cache after a log-out; only assets are kept |
//! | `Strict-Transport-Security` | a later visit without TLS, which somebody on the way answers. A year, for this name and none below it. Browsers do not take it from an address without a name, nor over a certificate that they warn of (RFC 6797, 8.1) |
//! | `Permissions-Policy` | devices, which no page here needs |

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};

use super::{answer, compress, contract::Contract, visit::Visit};

const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Headers of every answer; caching only where the answer itself says nothing.
const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), payment=(), serial=(), usb=()",
    ),
];

/// The layer around all pages.
pub async fn guard(State(contract): State<Contract>, request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && let Err(why) = same_origin(&request) {
        let why = format!("{why} Nothing was changed.");
        return with_headers(answer::alone(StatusCode::FORBIDDEN, "Not taken", &why));
    }
    let (parts, body) = request.into_parts();
    let asked = parts.clone();
    let response = next.run(Request::from_parts(parts, body)).await;
    let response = match Bare::of(&response) {
        Some(bare) => bare.page(asked.clone(), &contract).await,
        None => response,
    };
    with_headers(compress::where_harmless(&asked, response).await)
}

/// An error without a page: bare words of ours, or of the library that could not read the request.
struct Bare {
    status: StatusCode,
    why: Option<&'static str>,
    allow: Option<HeaderValue>,
}

impl Bare {
    fn of(response: &Response) -> Option<Self> {
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let has_page = kind.is_some_and(|kind| kind.starts_with(b"text/html"));
        let why = response.extensions().get::<answer::Why>().map(|why| why.0);
        let allow = response.headers().get(header::ALLOW).cloned();
        (is_error && !has_page).then_some(Self { status, why, allow })
    }

    /// The page in its place; for who is not let in, the page that says so.
    async fn page(self, mut asked: Parts, contract: &Contract) -> Response {
        let mut page = match Visit::from_request_parts(&mut asked, contract).await {
            Err(refusal) => refusal,
            Ok(visit) => {
                let (title, why) = words(self.status);
                answer::in_frame(&visit.frame, self.status, title, self.why.unwrap_or(why))
            }
        };
        if let Some(allow) = self.allow {
            page.headers_mut().insert(header::ALLOW, allow);
        }
        page
    }
}

/// A headline and a sentence for what has none of its own.
fn words(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::NOT_FOUND => ("No such page", "There is no page at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("Not taken", "This address takes no such request. Open it from its page.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            ("Too large", "What was sent is larger than any form or file that is taken here.")
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => (
            "Not understood",
            "A part of the address or of the form is missing or cannot be read. Open the page again and send it from there.",
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            "Not understood",
            "This is no form of the page. Open the page again and send it from there.",
        ),
        status if status.is_client_error() => ("Not taken", "This request cannot be answered."),
        _ => ("Failed", "This page failed. The node's log has the reason."),
    }
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
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
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
