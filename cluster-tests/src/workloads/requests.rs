//! Between the history and the wire: requests for kinds, outcomes for answers.

use rookery_proto::document::v1::{
    BatchWriteRequest, DeleteDocumentRequest, DeleteWrite, Document, GetDocumentRequest,
    ListDocumentsRequest, ListDocumentsResponse, Position, Precondition, PutDocumentRequest,
    PutWrite, Write as WireWrite, precondition, write,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::slots::Target;
use crate::{
    caller::{reason, request_id},
    history::{Change, Condition, Outcome, Revision, Seen, Value, Write},
};

/// A write as it is sent, with its request id: sent again it is the same.
#[derive(Debug, Clone)]
pub enum Request {
    /// One document.
    Put(PutDocumentRequest),
    /// One document goes.
    Delete(DeleteDocumentRequest),
    /// Several.
    Batch(BatchWriteRequest),
}

/// What a write demands, on the wire. The etag is the one the document was read with.
fn precondition(condition: Condition, etag: Option<&str>) -> Option<Precondition> {
    let condition = match condition {
        Condition::None => return None,
        Condition::Absent => precondition::Condition::MustNotExist(true),
        Condition::Is(..) => precondition::Condition::Etag(etag.unwrap_or_default().to_owned()),
    };
    Some(Precondition { condition: Some(condition) })
}

impl Request {
    /// One write.
    #[must_use]
    pub fn one(database: &str, target: &Target, write: Write, etag: Option<&str>) -> Self {
        let id = id_of(target, write);
        let precondition = precondition(write.condition, etag);
        let (database, request_id) = (database.to_owned(), request_id());
        match write.change {
            Change::Put(value) => Self::Put(PutDocumentRequest {
                database,
                id,
                collection: String::new(),
                json: value.json().into_bytes(),
                precondition,
                request_id,
            }),
            Change::Delete => {
                Self::Delete(DeleteDocumentRequest { database, id, precondition, request_id })
            }
        }
    }

    /// Several writes of a group; `etags` stand beside them.
    #[must_use]
    pub fn batch(
        database: &str,
        target: &Target,
        writes: &[Write],
        etags: &[Option<String>],
    ) -> Self {
        let wire = |(write, etag): (&Write, &Option<String>)| WireWrite {
            id: id_of(target, *write),
            precondition: precondition(write.condition, etag.as_deref()),
            operation: Some(match write.change {
                Change::Put(value) => write::Operation::Put(PutWrite {
                    collection: String::new(),
                    json: value.json().into_bytes(),
                }),
                Change::Delete => write::Operation::Delete(DeleteWrite {}),
            }),
        };
        Self::Batch(BatchWriteRequest {
            database: database.to_owned(),
            writes: writes.iter().zip(etags).map(wire).collect(),
            request_id: request_id(),
        })
    }
}

fn id_of(target: &Target, write: Write) -> String {
    let place = target.keys.iter().position(|key| *key == write.key);
    place.map(|at| target.ids[at].clone()).unwrap_or_default()
}

/// A linearizable or stale read.
#[must_use]
pub fn get(database: &str, target: &Target, place: usize, stale_ok: bool) -> GetDocumentRequest {
    GetDocumentRequest { database: database.to_owned(), id: target.ids[place].clone(), stale_ok }
}

/// A list of a whole group.
#[must_use]
pub fn list(database: &str, target: &Target) -> ListDocumentsRequest {
    ListDocumentsRequest {
        database: database.to_owned(),
        prefix: target.prefix.to_string(),
        page_size: 100,
        ..Default::default()
    }
}

/// What a document shows.
#[must_use]
pub fn seen(document: &Document) -> Seen {
    Seen { value: Value::parse(&document.json), revision: Revision(document.revision) }
}

/// The outcome of a list of a group.
#[must_use]
pub fn listed(target: &Target, answer: &ListDocumentsResponse) -> Outcome {
    let of = |id: &String| answer.documents.iter().find(|document| document.id == *id).map(seen);
    let applied = position(answer.position);
    Outcome::Listed { seen: target.ids.iter().map(of).collect(), applied }
}

/// The log index of an answer; 0 where it names none.
#[must_use]
pub fn position(position: Option<Position>) -> Revision {
    Revision(position.map_or(0, |position| position.index))
}

/// Whether a status says that there is no such document, rather than no such database.
#[must_use]
pub fn is_absent(status: &Status) -> bool {
    status.code() == Code::NotFound && status.message().contains("no document")
}

/// The outcome of a write that was refused for its condition.
#[must_use]
pub fn refused(status: &Status, target: &Target) -> Option<Outcome> {
    if status.code() != Code::Aborted || reason(status) != "CONCURRENCY" {
        return None;
    }
    let metadata = status.get_details_error_info()?.metadata;
    let id = metadata.get("document_id")?;
    let key = target.keys[target.ids.iter().position(|known| known == id)?];
    let current = match metadata.get("current_etag").filter(|etag| !etag.is_empty()) {
        Some(etag) => Some(revision_of(etag)?),
        None => None,
    };
    Some(Outcome::Refused { key, current })
}

/// The log index that an etag of the server names: `database-index-place`.
fn revision_of(etag: &str) -> Option<Revision> {
    let index = etag.rsplit('-').nth(1)?;
    Some(Revision(index.parse().ok()?))
}
