//! Page tokens: where the next page begins, bound to who asked and for what.
//!
//! ```text
//! base64url( version 01 ‖ first 16 bytes of SHA-256(binding) ‖ position )
//! ```
//!
//! The binding holds the caller, the scope and the fields of the query, each with its length in front. There is no
//! secret in it, and none is needed: a token grants nothing. Every page is authorized like a first one, and the position
//! only moves the start of a scan inside the range of a query that the caller may make anyway; a forged position skips
//! records that the caller could have read. The binding is there so that a token that ended up in another query is
//! refused and does not quietly return the wrong page.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{
    database::ListQuery,
    limits,
    names::{CollectionName, DatabaseId, DocumentId, Thumbprint},
};

const VERSION: u8 = 1;
const BINDING_BYTES: usize = 16;

/// A token that does not continue this query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No token of this version.
    #[error("this is no page token; take `next_page_token` of the last answer as it is")]
    Malformed,
    /// A token of another caller or another query.
    #[error("this page token continues another query; ask for the first page again")]
    OtherQuery,
}

/// What a token is bound to.
#[derive(Clone)]
pub struct Binding(Sha256);

impl Binding {
    /// Begins a binding: who asks, and in which list, such as "documents".
    #[must_use]
    pub fn new(caller: Option<Thumbprint>, list: &str) -> Self {
        let binding = Self(Sha256::new_with_prefix(b"rookery page token"));
        let caller = caller.map(|caller| *caller.as_bytes());
        binding.field(caller.as_ref().map_or(&[][..], |caller| caller)).field(list.as_bytes())
    }

    /// Binds one more field of the query.
    #[must_use]
    pub fn field(mut self, value: &[u8]) -> Self {
        self.0.update((value.len() as u64).to_be_bytes());
        self.0.update(value);
        self
    }

    /// The token that continues after `position`.
    #[must_use]
    pub fn encode(&self, position: &[u8]) -> String {
        let bytes = [&[VERSION], self.short().as_slice(), position].concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a token.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn decode(&self, token: &str) -> Result<Vec<u8>, Refused> {
        if token.len() > limits::PAGE_TOKEN_CHARS_MAX {
            return Err(Refused::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refused::Malformed)?;
        let (&version, rest) = bytes.split_first().ok_or(Refused::Malformed)?;
        let (binding, position) = rest.split_at_checked(BINDING_BYTES).ok_or(Refused::Malformed)?;
        if version != VERSION {
            return Err(Refused::Malformed);
        }
        if binding != self.short() {
            return Err(Refused::OtherQuery);
        }
        Ok(position.to_vec())
    }

    fn short(&self) -> [u8; BINDING_BYTES] {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        let mut short = [0; BINDING_BYTES];
        short.copy_from_slice(&digest[..BINDING_BYTES]);
        short
    }
}

/// What a page of documents is bound to. The page size is not: a caller may ask for smaller pages on the way.
fn documents(caller: Option<Thumbprint>, database: DatabaseId, query: &ListQuery) -> Binding {
    let collection = query.collection.as_ref().map_or("", |collection| collection.as_str());
    Binding::new(caller, "documents")
        .field(&database.0.to_be_bytes())
        .field(query.prefix.as_bytes())
        .field(collection.as_bytes())
        .field(&[u8::from(query.ids_only)])
}

/// The token for the page after `after`.
#[must_use]
pub fn encode(
    caller: Option<Thumbprint>,
    database: DatabaseId,
    query: &ListQuery,
    after: &str,
) -> String {
    documents(caller, database, query).encode(after.as_bytes())
}

/// The id after which the page of a token begins; it lies within the query's range.
///
/// # Errors
/// [`Refused`].
pub fn decode(
    caller: Option<Thumbprint>,
    database: DatabaseId,
    query: &ListQuery,
    token: &str,
) -> Result<DocumentId, Refused> {
    let position = documents(caller, database, query).decode(token)?;
    let position = String::from_utf8(position).map_err(|_| Refused::Malformed)?;
    let after = DocumentId::parse(&position).map_err(|_| Refused::Malformed)?;
    if after.as_str().starts_with(&query.prefix) { Ok(after) } else { Err(Refused::Malformed) }
}

/// What a page of collections is bound to.
fn collections(caller: Option<Thumbprint>, database: DatabaseId) -> Binding {
    Binding::new(caller, "collections").field(&database.0.to_be_bytes())
}

/// The token for the page of collections after `after`.
#[must_use]
pub fn encode_collections(caller: Option<Thumbprint>, database: DatabaseId, after: &str) -> String {
    collections(caller, database).encode(after.as_bytes())
}

/// The collection after which the page of a token begins; `None` for the first page, whose token is empty.
///
/// # Errors
/// [`Refused`].
pub fn decode_collections(
    caller: Option<Thumbprint>,
    database: DatabaseId,
    token: &str,
) -> Result<Option<CollectionName>, Refused> {
    if token.is_empty() {
        return Ok(None);
    }
    let position = collections(caller, database).decode(token)?;
    let position = String::from_utf8(position).map_err(|_| Refused::Malformed)?;
    CollectionName::parse(&position).map(Some).map_err(|_| Refused::Malformed)
}
