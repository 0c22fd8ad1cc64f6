//! The state machine of a database group: documents in, documents out, the same on every replica.
//!
//! A command is a batch of writes, applied all or none: first every write is checked (its form, its precondition against
//! the state before the batch), then all are written. A refused batch leaves nothing but its kept result. Every stored
//! document is one valid JSON object, kept byte for byte ([`json`]).
//!
//! Reads ([`get`], [`list`]) take a consistent view of the store and never change it.
//!
//! **Invariant:** deterministic. No clock, no randomness, no environment, no registry: time comes with the entry, and
//! who may write was decided by whoever proposed it.
//!
//! **Invariant:** what [`check`] refuses is a part of the log's format. Entries outlive builds, so a rule or a limit that
//! `apply` holds a command to may only change together with the version of `Command`.

pub mod json;
pub mod page_token;
mod read;
mod records;

use std::collections::BTreeSet;

use prost::Message as _;
use rookery_proto::log::v1::{
    Applied, Command, DatabaseCommand, DatabaseOutcome, DocumentRecord, DocumentResult,
    DocumentWrite, PutDocument, Refusal, applied, command, document_write,
};

pub use crate::results::Error;
pub use read::{Collections, ListQuery, Page, collections, get, list, size};
pub use records::Size;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use records::{after_prefix, collection_key, collection_prefix, document_key};

use crate::{
    authz::DatabaseOperation,
    limits,
    names::{CollectionName, DatabaseId, DocumentId},
    results::{self, Entry, Stop, refusal, refusal_at, with},
    storage::Overlay,
};

/// Which operation a command is, for the permit. Every command of documents requires ReadWrite.
#[must_use]
pub fn operation(command: &DatabaseCommand) -> DatabaseOperation {
    use document_write::Operation;
    match command.writes.as_slice() {
        [write] => match write.operation {
            Some(Operation::Put(_)) => DatabaseOperation::PutDocument,
            Some(Operation::Delete(_)) => DatabaseOperation::DeleteDocument,
            None => DatabaseOperation::BatchWrite,
        },
        _ => DatabaseOperation::BatchWrite,
    }
}

/// Checks what a command says of itself, before it is proposed. `apply` holds it to the same rules.
///
/// A write without an operation is refused here and stops the node in `apply`: in the log it can only be the operation
/// of a newer build.
///
/// # Errors
/// `INVALID_ARGUMENT` or `LIMIT_EXCEEDED`, with the path of the field.
pub fn check(command: &DatabaseCommand) -> Result<(), Refusal> {
    let writes = &command.writes;
    if writes.is_empty() {
        return Err(refusal_at("INVALID_ARGUMENT", "writes", "there is nothing to write"));
    }
    if writes.len() > limits::BATCH_WRITES_MAX {
        let most = limits::BATCH_WRITES_MAX;
        return Err(refusal_at("LIMIT_EXCEEDED", "writes", format!("at most {most} writes")));
    }
    let mut ids = BTreeSet::new();
    let mut bytes = 0usize;
    for (place, write) in writes.iter().enumerate() {
        check_write(place, write)?;
        if !ids.insert(write.id.as_str()) {
            let field = format!("writes[{place}].id");
            let message = "two writes of one batch name the same document";
            return Err(refusal_at("INVALID_ARGUMENT", field, message));
        }
        if let Some(document_write::Operation::Put(put)) = &write.operation {
            bytes = bytes.saturating_add(put.json.len());
        }
    }
    if bytes > limits::BATCH_BYTES_MAX {
        let message =
            format!("a batch holds at most {} bytes of documents", limits::BATCH_BYTES_MAX);
        return Err(refusal_at("LIMIT_EXCEEDED", "writes", message));
    }
    Ok(())
}

fn check_write(place: usize, write: &DocumentWrite) -> Result<(), Refusal> {
    let invalid = |field: &str, message: String| {
        refusal_at("INVALID_ARGUMENT", format!("writes[{place}].{field}"), message)
    };
    DocumentId::parse(&write.id).map_err(|e| invalid("id", e.to_string()))?;
    match &write.operation {
        Some(document_write::Operation::Put(put)) => {
            CollectionName::parse(&put.collection)
                .map_err(|e| invalid("collection", e.to_string()))?;
            json::validate(&put.json).map_err(|e| Refusal {
                reason: if e.rule.is_limit() { "LIMIT_EXCEEDED" } else { "INVALID_ARGUMENT" }
                    .to_owned(),
                ..invalid("json", e.to_string())
            })
        }
        Some(document_write::Operation::Delete(_)) => Ok(()),
        None => Err(invalid("operation", "neither put nor delete".to_owned())),
    }
}

/// Applies the entry at `index` to the state of its database.
///
/// # Errors
/// Only what must stop the node, see [`Error`]. What the client did wrong is in the reply.
pub fn apply(index: u64, command: &Command, state: &mut Overlay<'_>) -> Result<Applied, Error> {
    let writes = match &command.command {
        Some(command::Command::Database(database)) => database,
        Some(command::Command::Cluster(_)) | None => {
            return Err(Error::UnknownCommand { index, what: "database command" });
        }
    };
    if writes.writes.iter().any(|write| write.operation.is_none()) {
        return Err(Error::UnknownCommand { index, what: "operation of a write" });
    }
    results::once(index, command, state, command.registry_revision, |entry, state| {
        let outcome = batch(entry, writes, state)?;
        Ok((applied::Outcome::Database(outcome), command.registry_revision))
    })
}

/// Steps: 1. the form of all writes, 2. all preconditions, 3. all writes.
fn batch(
    entry: &Entry<'_>,
    command: &DatabaseCommand,
    state: &mut Overlay<'_>,
) -> Result<DatabaseOutcome, Stop> {
    check(command)?;
    let database = records::database_of(state.space());
    let mut stored = Vec::with_capacity(command.writes.len());
    for (place, write) in command.writes.iter().enumerate() {
        let record = state.get(&records::document_key(&write.id))?;
        let record = record.as_deref().map(records::decode).transpose()?;
        precondition(place, write, database, record.as_ref())?;
        stored.push(record.map(|record| (record.collection, record.json.len() as u64)));
    }
    let mut recount = records::Recount::default();
    let mut results = Vec::with_capacity(command.writes.len());
    for ((ordinal, write), old) in (0..).zip(&command.writes).zip(stored) {
        let collection = old.as_ref().map(|(collection, _)| collection.as_str());
        let result = match &write.operation {
            Some(document_write::Operation::Put(document)) => {
                recount.add(&document.collection, document.json.len() as u64)?;
                put(entry, ordinal, &write.id, document, collection, state)?
            }
            // `apply` stopped at writes without an operation.
            Some(document_write::Operation::Delete(_)) | None => {
                delete(&write.id, collection, state)?
            }
        };
        if let Some((collection, bytes)) = old {
            recount.remove(collection, bytes)?;
        }
        results.push(result);
    }
    recount.write(state)?;
    Ok(DatabaseOutcome { results })
}

fn precondition(
    place: usize,
    write: &DocumentWrite,
    database: DatabaseId,
    stored: Option<&DocumentRecord>,
) -> Result<(), Refusal> {
    use document_write::Condition;
    let current = stored.map(|record| records::etag(database, record));
    let (holds, message) = match &write.condition {
        None | Some(Condition::MustNotExist(false)) => return Ok(()),
        Some(Condition::MustNotExist(true)) => (current.is_none(), "the document exists"),
        Some(Condition::ExpectedEtag(expected)) => (
            current.as_ref() == Some(expected),
            "the document has changed since its etag was read, or it is gone",
        ),
    };
    if holds {
        return Ok(());
    }
    let refused = refusal("CONCURRENCY", message);
    let refused = with(refused, "document_id", &write.id);
    let refused = with(refused, "current_etag", current.unwrap_or_default());
    Err(Refusal { field: format!("writes[{place}].precondition"), ..refused })
}

fn put(
    entry: &Entry<'_>,
    ordinal: u32,
    id: &str,
    document: &PutDocument,
    old_collection: Option<&str>,
    state: &mut Overlay<'_>,
) -> Result<DocumentResult, Error> {
    let record = DocumentRecord {
        collection: document.collection.clone(),
        json: document.json.clone(),
        revision: entry.index,
        ordinal,
        modified_unix_ms: entry.at.0,
    };
    if old_collection != Some(record.collection.as_str()) {
        leave_collection(id, old_collection, state)?;
        if !record.collection.is_empty() {
            state.put(&records::collection_key(&record.collection, id), Vec::new())?;
        }
    }
    state.put(&records::document_key(id), record.encode_to_vec())?;
    let etag = records::etag(records::database_of(state.space()), &record);
    Ok(DocumentResult { id: id.to_owned(), etag, deleted: false })
}

fn delete(
    id: &str,
    old_collection: Option<&str>,
    state: &mut Overlay<'_>,
) -> Result<DocumentResult, Error> {
    leave_collection(id, old_collection, state)?;
    let deleted = state.delete(&records::document_key(id))?;
    Ok(DocumentResult { id: id.to_owned(), etag: String::new(), deleted })
}

fn leave_collection(
    id: &str,
    collection: Option<&str>,
    state: &mut Overlay<'_>,
) -> Result<(), Error> {
    if let Some(collection) = collection.filter(|collection| !collection.is_empty()) {
        state.delete(&records::collection_key(collection, id))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
