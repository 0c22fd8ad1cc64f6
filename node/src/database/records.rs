//! Where a database's records stand inside its space, and how they are read.
//!
//! | key | value |
//! | --- | --- |
//! | `10` id | `DocumentRecord` |
//! | `11` length of collection (1 byte) collection id | empty; documents of no collection are not in it |
//! | `12` | [`Size`] of the database: number of documents, their bytes; 8 bytes each, big endian |
//! | `13` collection | [`Size`] of a collection that has documents; the empty name stands for the documents of none |
//!
//! The last component of a key stands as it is, so that documents are in the byte order of their ids; every one before
//! it has its length in front, so no id can pass for a part of another collection. `00` to `0f` belong to the layer
//! above (applied position, membership); `70` and `71` to [`crate::results`].

use std::{borrow::Cow, collections::BTreeMap};

use prost::Message as _;
use rookery_proto::{document::v1::Document, log::v1::DocumentRecord};

use crate::{
    names::DatabaseId,
    results::Error,
    storage::{Overlay, Space},
};

pub(super) const DOCUMENT: u8 = 0x10;
pub(super) const BY_COLLECTION: u8 = 0x11;
pub(super) const SIZE: u8 = 0x12;
pub(super) const COLLECTION_SIZE: u8 = 0x13;

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Documents.
    pub documents: u64,
    /// The length of their JSON as it was written; ids, collections and metadata are not in it.
    pub bytes: u64,
}

impl Size {
    /// One document with this many bytes of JSON.
    pub(super) fn of_one(bytes: u64) -> Self {
        Self { documents: 1, bytes }
    }

    /// `None` where it is more than can be counted.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            documents: self.documents.checked_add(other.documents)?,
            bytes: self.bytes.checked_add(other.bytes)?,
        })
    }

    /// `None` where `other` is more than there is.
    pub(super) fn minus(self, other: Self) -> Option<Self> {
        Some(Self {
            documents: self.documents.checked_sub(other.documents)?,
            bytes: self.bytes.checked_sub(other.bytes)?,
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let number = |half: &[u8]| half.try_into().map(u64::from_be_bytes);
        let (documents, size) = bytes.split_at_checked(8).unwrap_or_default();
        match (number(documents), number(size)) {
            (Ok(documents), Ok(bytes)) => Ok(Self { documents, bytes }),
            (Err(_), _) | (_, Err(_)) => Err(Error::corrupt("size", "not 16 bytes")),
        }
    }

    fn encode(self) -> Vec<u8> {
        [self.documents.to_be_bytes(), self.bytes.to_be_bytes()].concat()
    }
}

/// What a batch adds and takes away, by collection. It reaches the state once, with the batch, whose writes are at most
/// `limits::BATCH_WRITES_MAX`.
#[derive(Debug, Default)]
pub(super) struct Recount<'b>(BTreeMap<Cow<'b, str>, Change>);

/// Two sums, because numbers that never go below zero hold either.
#[derive(Debug, Default)]
struct Change {
    added: Size,
    removed: Size,
}

impl Change {
    fn is_none(&self) -> bool {
        self.added == self.removed
    }
}

impl<'b> Recount<'b> {
    /// A document that is stored from now on.
    pub(super) fn add(&mut self, collection: &'b str, bytes: u64) -> Result<(), Error> {
        let change = self.0.entry(Cow::Borrowed(collection)).or_default();
        sum(&mut change.added, Size::of_one(bytes))
    }

    /// A document that was stored until now.
    pub(super) fn remove(&mut self, collection: String, bytes: u64) -> Result<(), Error> {
        let change = self.0.entry(Cow::Owned(collection)).or_default();
        sum(&mut change.removed, Size::of_one(bytes))
    }

    /// Writes the sizes that the batch leads to. A collection that has none left has no record either.
    pub(super) fn write(self, state: &mut Overlay<'_>) -> Result<(), Error> {
        let mut all = Change::default();
        for (collection, change) in self.0 {
            sum(&mut all.added, change.added)?;
            sum(&mut all.removed, change.removed)?;
            resize(state, &collection_size_key(&collection), &change)?;
        }
        resize(state, &[SIZE], &all)
    }
}

fn sum(to: &mut Size, size: Size) -> Result<(), Error> {
    *to = to.plus(size).ok_or_else(|| Error::corrupt("size", "it is more than can be counted"))?;
    Ok(())
}

fn resize(state: &mut Overlay<'_>, key: &[u8], change: &Change) -> Result<(), Error> {
    if change.is_none() {
        return Ok(());
    }
    let old = state.get(key)?;
    let mut size = size(old.as_deref())?;
    sum(&mut size, change.added)?;
    let left = size
        .minus(change.removed)
        .ok_or_else(|| Error::corrupt("size", "it is less than what was deleted"))?;
    let new = (left != Size::default()).then(|| left.encode());
    state.replace(key, old, new);
    Ok(())
}

/// The size in a record; nothing where there is none.
pub(super) fn size(record: Option<&[u8]>) -> Result<Size, Error> {
    record.map_or(Ok(Size::default()), Size::decode)
}

/// The key of a collection's size, or of the first one whose name starts with `collection`.
pub(super) fn collection_size_key(collection: &str) -> Vec<u8> {
    [&[COLLECTION_SIZE], collection.as_bytes()].concat()
}

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
