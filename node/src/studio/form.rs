//! Forms with files (multipart/form-data, RFC 7578), read within bounds: as a whole, so that one over its bound is
//! answered with a page ([`posted`]), and then part by part.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use zeroize::Zeroizing;

use super::{answer, contract::Contract, posted};
use crate::limits;

/// Fields of a form at most.
const FIELDS_MAX: usize = 1000;

/// A form with at most a file a field.
#[derive(Default)]
pub struct WithFiles {
    /// Fields of text.
    pub fields: BTreeMap<String, String>,
    /// Content of files that were chosen. They may hold keys.
    pub files: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl WithFiles {
    /// A field of text; empty where it is missing.
    pub fn take(&mut self, field: &str) -> String {
        self.fields.remove(field).unwrap_or_default()
    }
}

impl FromRequest<Contract> for WithFiles {
    type Rejection = Response;

    async fn from_request(request: Request, contract: &Contract) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let content = match posted::whole(body).await {
            Ok(content) => content,
            Err(posted::Unread::TooLarge) => return Err(Broken::Large.into_response()),
            Err(posted::Unread::Broken) => return Err(Broken::Cut.into_response()),
        };
        let request = Request::from_parts(head, Body::from(content));
        let parts = Multipart::from_request(request, contract).await;
        let mut parts = parts.map_err(|_| Broken::NoForm.into_response())?;
        let mut form = Self::default();
        while let Some(part) = parts.next_field().await.map_err(|error| broken(&error))? {
            form.add(part).await?;
        }
        Ok(form)
    }
}

impl WithFiles {
    async fn add(&mut self, part: Field<'_>) -> Result<(), Response> {
        if self.fields.len() + self.files.len() >= FIELDS_MAX {
            return Err(Broken::Fields.into_response());
        }
        let name = part.name().unwrap_or_default().to_owned();
        let is_file = part.file_name().is_some();
        let content = part.bytes().await.map_err(|error| broken(&error))?;
        let content = Zeroizing::new(content.to_vec());
        if content.len() > limits::UPLOAD_BYTES_MAX {
            return Err(Broken::Large.into_response());
        }
        if is_file {
            if !content.is_empty() {
                self.files.insert(name, content);
            }
            return Ok(());
        }
        let text = std::str::from_utf8(&content).map_err(|_| Broken::Text.into_response())?;
        self.fields.insert(name, text.to_owned());
        Ok(())
    }
}

/// What can be wrong with a form before anything of it is looked at.
#[derive(Debug, Clone, Copy)]
enum Broken {
    NoForm,
    Cut,
    Fields,
    Large,
    Text,
}

fn broken(error: &MultipartError) -> Response {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Broken::Large.into_response(),
        _ => Broken::Cut.into_response(),
    }
}

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::NoForm => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "This is no form with files."),
            Self::Cut => (StatusCode::BAD_REQUEST, "This form ends too early or cannot be read."),
            Self::Fields => (StatusCode::BAD_REQUEST, "This form has too many fields."),
            Self::Large => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "A part of this form is larger than any certificate file.",
            ),
            Self::Text => (StatusCode::BAD_REQUEST, "A field of this form is no UTF-8."),
        };
        answer::plain_refusal(status, why)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Router, body::Bytes, http::header};

    use super::*;

    /// What a form of this many pieces of a mebibyte is answered, and how many of them were read.
    async fn sent(mebibytes: usize) -> (Result<WithFiles, StatusCode>, usize) {
        const HEAD: &str =
            "--b\r\ncontent-disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\n";
        let read = Arc::new(AtomicUsize::new(0));
        let counts = read.clone();
        let pieces = (0..mebibytes).map(move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 20]))
        });
        let pieces = std::iter::once(Ok(Bytes::from_static(HEAD.as_bytes())))
            .chain(pieces)
            .chain([Ok(Bytes::from_static(b"\r\n--b--\r\n"))]);
        let request = Request::post("/")
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=b")
            .body(Body::from_stream(futures::stream::iter(pieces)))
            .unwrap();
        let form = WithFiles::from_request(request, &Contract::new(Router::new())).await;
        (form.map_err(|refused| refused.status()), read.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_form_over_its_bound_is_read_to_its_end_before_it_is_answered() {
        let bound = limits::STUDIO_FORM_BYTES_MAX >> 20;
        for mebibytes in [bound, bound + 5, 2 * bound] {
            let (answer, read) = sent(mebibytes).await;
            assert_eq!(answer.err(), Some(StatusCode::PAYLOAD_TOO_LARGE), "{mebibytes}");
            assert_eq!(read, mebibytes, "a browser is still sending the rest");
        }
        // And not for ever.
        let (answer, read) = sent(limits::STUDIO_FORM_BYTES_DRAINED >> 19).await;
        assert_eq!(answer.err(), Some(StatusCode::PAYLOAD_TOO_LARGE));
        assert!(read <= (limits::STUDIO_FORM_BYTES_DRAINED >> 20) + 1, "{read}");
        let (form, _) = sent(0).await;
        assert!(form.unwrap().files.is_empty(), "an empty file was not chosen");
    }
}
