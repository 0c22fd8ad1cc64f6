//! Compression (gzip, RFC 1952): of files once for the life of the process, of pages only where lengths tell nobody anything.
//!
//! BREACH (Gluck, Harris, Prado, 2013) reads a secret out of the length of compressed answers: a page of another site has
//! the victim's browser ask again and again for a page that holds the secret beside words of the attacker's choice, and
//! whoever sees the encrypted traffic sees it shrink at each right guess. Everything on a page here is secret to somebody
//! (documents, names, and now and then a key), and searches and filters stand on the page that they filtered. So:
//!
//! 1. Only answers to GET are compressed. What is shown once (keys, passwords, tokens, secrets) is always an answer to POST.
//! 2. Only where `Sec-Fetch-Site` is `same-origin`, which another site cannot bring about, or `none`, which is a person at
//!    the address bar. Whatever another site leads to, by a link as by an image, comes as it is. So does what a program asks
//!    that sends no such header.
//! 3. Only whole pages that went well: no refusal, no stream, no file.
//!
//! No page holds the token of a session, and there are no tokens against forgery that could be read out (`guard`).

use std::io::Write as _;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};

/// Shorter pages fit into the first packet as they are.
const BYTES_MIN: usize = 1024;

/// The content in gzip; `None` where it did not become shorter.
#[must_use]
pub fn gzip(content: &[u8], level: Compression) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 3), level);
    encoder.write_all(content).ok()?;
    encoder.finish().ok().filter(|short| short.len() < content.len())
}

/// Whether an answer in gzip is understood (RFC 9110, 12.5.3).
#[must_use]
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|part| {
            part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
        });
        is_gzip && !refused
    })
}

/// Marks an answer whose body is in gzip.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(header::CONTENT_LENGTH);
}

/// A page in gzip where that tells nobody anything; every other answer as it is.
pub async fn where_harmless(asked: &Parts, response: Response) -> Response {
    if !is_harmless(asked, &response) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(content) = axum::body::to_bytes(body, usize::MAX).await else {
        // Pages are whole before they are sent; one that is not ends here.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding, sec-fetch-site"));
    match gzip(&content, Compression::fast()).filter(|_| content.len() >= BYTES_MIN) {
        Some(short) => {
            mark(&mut head.headers);
            Response::from_parts(head, Body::from(short))
        }
        None => Response::from_parts(head, Body::from(content)),
    }
}

fn is_harmless(asked: &Parts, response: &Response) -> bool {
    let site = asked.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    asked.method == Method::GET
        && matches!(site, Some(b"same-origin" | b"none"))
        && accepts_gzip(&asked.headers)
        && response.status() == StatusCode::OK
        && kind.is_some_and(|kind| kind.starts_with(b"text/html"))
        && !response.headers().contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use axum::response::Html;

    use super::*;

    async fn compressed(method: &str, headers: &[(&str, &str)], response: Response) -> bool {
        let mut request = axum::http::Request::builder().method(method).uri("/studio");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (asked, ()) = request.body(()).unwrap().into_parts();
        let answer = where_harmless(&asked, response).await;
        let is = answer.headers().get(header::CONTENT_ENCODING).is_some();
        let content = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        if is {
            let mut text = String::new();
            flate2::read::GzDecoder::new(&*content).read_to_string(&mut text).unwrap();
            assert_eq!(text, page_text());
        }
        is
    }

    fn page_text() -> String {
        "<p>row</p>".repeat(500)
    }

    fn page() -> Response {
        Html(page_text()).into_response()
    }

    #[tokio::test]
    async fn pages_are_compressed_for_pages_of_this_origin_and_people_alone() {
        let gzip = ("accept-encoding", "br, gzip");
        for (site, expected) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
        {
            let headers = [gzip, ("sec-fetch-site", site)];
            assert_eq!(compressed("GET", &headers, page()).await, expected, "{site}");
            assert!(!compressed("POST", &headers, page()).await, "an answer to POST, {site}");
        }
        assert!(!compressed("GET", &[gzip], page()).await, "who does not say where it comes from");
        let own = ("sec-fetch-site", "same-origin");
        assert!(!compressed("GET", &[own], page()).await, "who does not understand it");
        let refusal = (StatusCode::FORBIDDEN, Html(page_text())).into_response();
        assert!(!compressed("GET", &[gzip, own], refusal).await, "a refusal");
        assert!(!compressed("GET", &[gzip, own], page_text().into_response()).await, "a file");
        assert!(
            !compressed("GET", &[gzip, own], Html("short").into_response()).await,
            "a short page"
        );
    }

    #[test]
    fn codings_are_read_with_their_weights() {
        for (text, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("identity", false),
            ("x-gzip-like", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            assert_eq!(accepts_gzip(&headers), expected, "{text}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
