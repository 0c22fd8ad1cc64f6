//! Forms with files (multipart/form-data, RFC 7578), read within bounds.

use std::collections::BTreeMap;

use axum::{
    extract::{FromRequest, Multipart, Request},
    http::StatusCode,
    response::Response,
};
use zeroize::Zeroizing;

use super::{answer, contract::Contract};
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
        let refused = |_| {
            answer::plain_refusal(
                StatusCode::BAD_REQUEST,
                "This form cannot be read. Nothing was changed.",
            )
        };
        let mut parts = Multipart::from_request(request, contract).await.map_err(|_| {
            answer::plain_refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "This is no form with files. Nothing was changed.",
            )
        })?;
        let mut form = Self::default();
        while let Some(part) = parts.next_field().await.map_err(refused)? {
            if form.fields.len() + form.files.len() >= FIELDS_MAX {
                return Err(answer::plain_refusal(
                    StatusCode::BAD_REQUEST,
                    "This form has too many fields. Nothing was changed.",
                ));
            }
            let name = part.name().unwrap_or_default().to_owned();
            let is_file = part.file_name().is_some();
            let content = Zeroizing::new(part.bytes().await.map_err(refused)?.to_vec());
            if content.len() > limits::UPLOAD_BYTES_MAX {
                return Err(answer::plain_refusal(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "A part of this form is larger than any certificate file. Nothing was changed.",
                ));
            }
            if is_file {
                if !content.is_empty() {
                    form.files.insert(name, content);
                }
                continue;
            }
            let text = std::str::from_utf8(&content).map_err(|_| {
                answer::plain_refusal(
                    StatusCode::BAD_REQUEST,
                    "A field of this form is no UTF-8. Nothing was changed.",
                )
            })?;
            form.fields.insert(name, text.to_owned());
        }
        Ok(form)
    }
}
