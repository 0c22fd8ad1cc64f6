//! Where a database's records stand inside its space, and how they are read.
//!
//! | key | value |
//! | --- | --- |
//! | `10` id | `DocumentRecord` |
//! | `11` length of collection (1 byte) collection id | empty; documents of no collection are not in it |
//! | `12` | number of documents, 8 bytes big endian |
//!
//! The last component of a key stands as it is, so that documents are in the byte order of their ids; every one before
//! it has its length in front, so no id can pass for a part of another collection. `00` to `0f` belong to the layer
//! above (applied position, membership); `70` and `71` to [`crate::results`].

use prost::Message as _;
use rookery_proto::{document::v1::Document, log::v1::DocumentRecord};

use crate::{
    names::DatabaseId,
    results::Error,
    storage::{Overlay, Space},
};

pub(super) const DOCUMENT: u8 = 0x10;
pub(super) const BY_COLLECTION: u8 = 0x11;
pub(super) const COUNT: u8 = 0x12;

/// The key of a document, or of the first one whose id starts with `id`.
pub(crate) fn document_key(id: &str) -> Vec<u8> {
    [&[DOCUMENT], id.as_bytes()].concat()
}

/// The key that lists a document under its collection.
pub(crate) fn collection_key(collection: &str, id: &str) -> Vec<u8> {
    let mut key = collection_prefix(collection);
    key.extend_from_slice(id.as_bytes());
    key
}

/// What all keys of a collection start with. Collections have at most 128 bytes: `CollectionName::parse`.
pub(crate) fn collection_prefix(collection: &str) -> Vec<u8> {
    let length = u8::try_from(collection.len()).unwrap_or(u8::MAX);
    [&[BY_COLLECTION, length], collection.as_bytes()].concat()
}

/// The first key after all keys that start with `prefix`; `None` where there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

pub(super) fn decode(bytes: &[u8]) -> Result<DocumentRecord, Error> {
    DocumentRecord::decode(bytes).map_err(|e| Error::corrupt("document", e))
}

pub(super) fn count(bytes: Option<Vec<u8>>) -> Result<u64, Error> {
    let Some(bytes) = bytes else { return Ok(0) };
    let bytes = bytes.try_into().map_err(|_| Error::corrupt("document count", "not 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Adds `added` to the number of documents and takes `removed` from it.
pub(super) fn recount(state: &mut Overlay<'_>, added: u64, removed: u64) -> Result<(), Error> {
    if added == removed {
        return Ok(());
    }
    let documents = count(state.get(&[COUNT])?)?
        .checked_add(added)
        .and_then(|documents| documents.checked_sub(removed))
        .ok_or_else(|| Error::corrupt("document count", "it is less than what was deleted"))?;
    state.put(&[COUNT], documents.to_be_bytes().to_vec())?;
    Ok(())
}

/// The etag of a document: changes with every write, and differs from every etag of a namesake of its database,
/// because database ids are never used again.
pub(super) fn etag(database: DatabaseId, record: &DocumentRecord) -> String {
    format!("{database}-{}-{}", record.revision, record.ordinal)
}

/// The database whose documents stand in a space.
pub(super) fn database_of(space: Space) -> DatabaseId {
    DatabaseId(space.group.0)
}

/// A document as clients see it.
pub(super) fn document(database: DatabaseId, id: String, record: DocumentRecord) -> Document {
    Document {
        id,
        etag: etag(database, &record),
        collection: record.collection,
        json: record.json,
        revision: record.revision,
        modified_unix_ms: record.modified_unix_ms,
    }
}
