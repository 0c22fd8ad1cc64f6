//! Forms read within their bound, with a page for one that is larger.
//!
//! A browser that is still sending when its connection is closed shows an error of the network and not the answer. So what
//! is over the bound is read on and thrown away, within a second bound, and answered then.

use askama::Template;
use axum::{
    Form,
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::StatusCode,
    response::Response,
};
use futures::StreamExt as _;
use serde::{Deserialize, de::DeserializeOwned};

use super::{answer, contract::Contract, words};
use crate::limits;

/// Fields of a form at most: the grants of a certificate, twice.
const FIELDS_MAX: usize = 2 * limits::GRANTS_MAX;

/// A form (`application/x-www-form-urlencoded`) of at most `limits::STUDIO_FORM_BYTES_MAX` bytes.
pub struct Posted<T>(pub T);

#[derive(Template)]
#[template(path = "too-large.html")]
struct TooLarge {
    style: String,
    icon: String,
    title: &'static str,
    bound: String,
}

impl<T: DeserializeOwned> FromRequest<Contract> for Posted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _contract: &Contract) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let content = match whole(body).await {
            // Counted before anything is made of them: each field costs many times its bytes.
            Ok(content) if content.iter().filter(|it| **it == b'&').count() >= FIELDS_MAX => {
                let why = "This form has too many fields.";
                return Err(answer::plain_refusal(StatusCode::BAD_REQUEST, why));
            }
            Ok(content) => content,
            Err(Unread::TooLarge) => return Err(too_large()),
            Err(Unread::Broken) => {
                let why = "The form did not arrive as a whole.";
                return Err(answer::plain_refusal(StatusCode::BAD_REQUEST, why));
            }
        };
        let request = Request::from_parts(parts, Body::from(content));
        let Form(form) = Form::from_request(request, &()).await.map_err(|_| {
            let why =
                "This form cannot be read: a field is missing or has another kind of content.";
            answer::plain_refusal(StatusCode::BAD_REQUEST, why)
        })?;
        Ok(Self(form))
    }
}

/// What a form switches a certificate or a database to.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// In force.
    Enabled,
    /// Switched off.
    Disabled,
}

/// The page about a form over its bound.
fn too_large() -> Response {
    let (style, _, icon) = answer::files();
    let bound = words::bytes(limits::STUDIO_FORM_BYTES_MAX as u64);
    let page = TooLarge { style, icon, title: "Too large", bound };
    answer::page_with(StatusCode::PAYLOAD_TOO_LARGE, &page)
}

/// Why there is no body to look at.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is over its bound.
    TooLarge,
    /// It ended early, or did not come in time.
    Broken,
}

/// The body of a form, within the bounds of any form.
///
/// # Errors
/// It is too large, or did not arrive.
pub async fn whole(body: Body) -> Result<Vec<u8>, Unread> {
    let reading = read(body, limits::STUDIO_FORM_BYTES_MAX, limits::STUDIO_FORM_BYTES_DRAINED);
    let read = tokio::time::timeout(limits::STUDIO_FORM_TIME_MAX, reading).await;
    read.unwrap_or(Err(Unread::Broken))
}

/// Reads a body of at most `bytes_max` bytes. Of a larger one it reads on up to `drained_max`, and keeps nothing.
async fn read(body: Body, bytes_max: usize, drained_max: usize) -> Result<Vec<u8>, Unread> {
    let mut kept = Vec::new();
    let mut seen = 0usize;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let Ok(piece): Result<Bytes, _> = piece else { return Err(Unread::Broken) };
        seen = seen.saturating_add(piece.len());
        if seen > drained_max {
            return Err(Unread::TooLarge);
        }
        if seen <= bytes_max {
            kept.extend_from_slice(&piece);
        } else {
            kept = Vec::new();
        }
    }
    if seen <= bytes_max { Ok(kept) } else { Err(Unread::TooLarge) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_its_bound_is_read_to_its_end_and_not_kept() {
        let body = |sizes: &[usize]| {
            let pieces: Vec<Result<Bytes, std::io::Error>> =
                sizes.iter().map(|size| Ok(Bytes::from(vec![b'a'; *size]))).collect();
            Body::from_stream(futures::stream::iter(pieces))
        };
        for (sizes, expected) in [
            (&[][..], Ok(Vec::new())),
            (&[4, 6], Ok(vec![b'a'; 10])),
            (&[4, 7], Err(Unread::TooLarge)),
            (&[11], Err(Unread::TooLarge)),
            (&[4, 7, 9], Err(Unread::TooLarge)),
            (&[4, 7, 90, 4_000_000], Err(Unread::TooLarge)),
        ] {
            assert_eq!(read(body(sizes), 10, 100).await, expected, "{sizes:?}");
        }
        let broken = futures::stream::iter([
            Ok(Bytes::from_static(b"a=")),
            Err(std::io::Error::other("reset")),
        ]);
        assert_eq!(read(Body::from_stream(broken), 10, 100).await, Err(Unread::Broken));
    }
}
