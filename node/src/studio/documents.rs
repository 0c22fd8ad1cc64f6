//! Documents: a table of them, one of them, and changes held to what was read.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Form,
    extract::Query,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse as _,
};
use rookery_proto::{
    database::v1::ListDatabasesRequest,
    document::v1::{
        DeleteDocumentRequest, Document, GetDocumentRequest, ListDocumentsRequest, Precondition,
        PutDocumentRequest, precondition::Condition,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::Status;

use super::{
    answer::{self, Answer, Refused, reason},
    visit::{Frame, Visit},
    words,
};

/// Documents a page.
const PAGE_SIZE: u32 = 50;

/// Columns of the table besides id, collection and date.
const COLUMNS_MAX: usize = 5;

/// Characters of a value in a table; the rest is on the document's own page.
const CELL_CHARS_MAX: usize = 60;

/// What is asked for.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Asked {
    db: String,
    prefix: String,
    collection: String,
    /// Names of fields, with commas between them; empty: those that occur most.
    columns: String,
    page: String,
}

impl Asked {
    fn path(&self, page: &str) -> String {
        self.at("/studio/documents", page)
    }

    fn at(&self, path: &str, page: &str) -> String {
        let pairs = [
            ("db", self.db.as_str()),
            ("prefix", &self.prefix),
            ("collection", &self.collection),
            ("columns", &self.columns),
            ("page", page),
        ];
        format!("{path}{}", words::query(&pairs))
    }

    fn request(&self) -> ListDocumentsRequest {
        ListDocumentsRequest {
            database: self.db.clone(),
            prefix: self.prefix.clone(),
            collection: self.collection.clone(),
            page_size: PAGE_SIZE,
            page_token: self.page.clone(),
            stale_ok: false,
            ids_only: false,
        }
    }
}

#[derive(Template)]
#[template(path = "documents/list.html")]
struct List {
    frame: Frame,
    asked: Asked,
    databases: Vec<String>,
    columns: Vec<String>,
    rows: Vec<Row>,
    next: String,
    export: String,
}

struct Row {
    id: String,
    path: String,
    collection: String,
    modified: String,
    cells: Vec<String>,
}

/// `GET /studio/documents`.
pub async fn page(visit: Visit, Query(mut asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let request = ListDatabasesRequest { page_size: 200, page_token: String::new() };
    let found = calls.databases().list_databases(request).await.map_err(&refused)?.into_inner();
    let databases: Vec<String> = found.databases.into_iter().map(|it| it.name).collect();
    if asked.db.is_empty() {
        asked.db = databases.first().cloned().unwrap_or_default();
    }
    let mut documents = Vec::new();
    let mut next = String::new();
    if !asked.db.is_empty() {
        let listed =
            calls.documents().list_documents(asked.request()).await.map_err(&refused)?.into_inner();
        documents = listed.documents;
        if !listed.next_page_token.is_empty() {
            next = asked.path(&listed.next_page_token);
        }
    }
    drop(refused);
    let read: Vec<(Document, Map<String, Value>)> =
        documents.into_iter().map(|it| (fields(&it), it)).map(|(a, b)| (b, a)).collect();
    let columns = columns(&asked, &read);
    let rows = read
        .into_iter()
        .map(|(document, fields)| row(&asked, document, &fields, &columns))
        .collect();
    let export = asked.at("/studio/documents/export", &asked.page);
    Ok(answer::page(&List { frame, asked, databases, columns, rows, next, export }))
}

fn fields(document: &Document) -> Map<String, Value> {
    serde_json::from_slice(&document.json).unwrap_or_default()
}

/// The columns that were chosen, or the fields that occur most.
fn columns(asked: &Asked, read: &[(Document, Map<String, Value>)]) -> Vec<String> {
    let chosen: Vec<String> = asked
        .columns
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect();
    if !chosen.is_empty() {
        return chosen.into_iter().take(3 * COLUMNS_MAX).collect();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in read.iter().flat_map(|(_, fields)| fields.keys()) {
        *counts.entry(name).or_default() += 1;
    }
    let mut most: Vec<(&str, usize)> = counts.into_iter().collect();
    most.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    most.into_iter().take(COLUMNS_MAX).map(|(name, _)| name.to_owned()).collect()
}

fn row(asked: &Asked, document: Document, fields: &Map<String, Value>, columns: &[String]) -> Row {
    Row {
        path: document_path(&asked.db, &document.id),
        cells: columns
            .iter()
            .map(|column| fields.get(column).map(cell).unwrap_or_default())
            .collect(),
        modified: words::date(document.modified_unix_ms),
        collection: document.collection,
        id: document.id,
    }
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn document_path(database: &str, id: &str) -> String {
    format!("/studio/document{}", words::query(&[("db", database), ("id", id)]))
}

/// `GET /studio/documents/export`: the shown rows as JSON lines.
pub async fn export(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let listed = calls
        .documents()
        .list_documents(asked.request())
        .await
        .map_err(Refused::on(&frame))?
        .into_inner();
    let mut lines = Vec::new();
    for document in listed.documents {
        let head = serde_json::json!({ "id": document.id, "collection": document.collection, "etag": document.etag });
        let head = head.to_string();
        // The document's own bytes, which stand for themselves: they were checked when they were written.
        lines.extend_from_slice(head.trim_end_matches('}').as_bytes());
        lines.extend_from_slice(b",\"document\":");
        lines.extend(document.json.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        lines.extend_from_slice(b"}\n");
    }
    let mut response = lines.into_response();
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl; charset=utf-8"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"documents.jsonl\""),
    );
    Ok(response)
}

/// Which document.
#[derive(Debug, Deserialize)]
pub struct Which {
    db: String,
    id: String,
}

#[derive(Template)]
#[template(path = "documents/show.html")]
struct Show {
    frame: Frame,
    db: String,
    document: Document,
    text: String,
    is_new: bool,
    wrong: Option<String>,
    /// What stands there now, where it was changed meanwhile.
    conflict: Option<Conflict>,
}

struct Conflict {
    text: String,
    etag: String,
    modified: String,
}

impl Show {
    fn list(&self) -> String {
        format!("/studio/documents{}", words::query(&[("db", &self.db)]))
    }

    fn modified(&self) -> String {
        words::date(self.document.modified_unix_ms)
    }

    fn bytes(&self) -> String {
        words::bytes(self.document.json.len() as u64)
    }
}

/// The document as it was stored: a change of layout would be a change of the document.
fn text(document: &Document) -> String {
    String::from_utf8_lossy(&document.json).into_owned()
}

/// `GET /studio/document?db=&id=`.
pub async fn show(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = GetDocumentRequest { database: which.db.clone(), id: which.id, stale_ok: false };
    let found =
        calls.documents().get_document(asked).await.map_err(Refused::on(&frame))?.into_inner();
    let document = found.document.unwrap_or_default();
    let text = text(&document);
    Ok(answer::page(&Show {
        frame,
        db: which.db,
        document,
        text,
        is_new: false,
        wrong: None,
        conflict: None,
    }))
}

/// `GET /studio/documents/create?db=`.
pub async fn create_form(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let document = Document { collection: asked.collection, ..Document::default() };
    let page = Show {
        frame: visit.frame,
        db: asked.db,
        document,
        text: "{\n  \n}".to_owned(),
        is_new: true,
        wrong: None,
        conflict: None,
    };
    Ok(answer::page(&page))
}

/// A document as it was entered.
#[derive(Debug, Deserialize)]
pub struct Entered {
    db: String,
    id: String,
    #[serde(default)]
    collection: String,
    #[serde(default)]
    json: String,
    /// What was read; empty: it must not exist yet.
    #[serde(default)]
    etag: String,
}

/// `POST /studio/document`: creates it, or changes the version that was read.
pub async fn put(visit: Visit, Form(entered): Form<Entered>) -> Answer {
    let Visit { calls, frame } = visit;
    let is_new = entered.etag.is_empty();
    let condition =
        if is_new { Condition::MustNotExist(true) } else { Condition::Etag(entered.etag.clone()) };
    let request = PutDocumentRequest {
        database: entered.db.clone(),
        id: entered.id.clone(),
        collection: entered.collection.clone(),
        json: entered.json.clone().into_bytes(),
        precondition: Some(Precondition { condition: Some(condition) }),
        request_id: String::new(),
    };
    let status = match calls.documents().put_document(request).await {
        Ok(_) => return Ok(answer::see(&document_path(&entered.db, &entered.id))),
        Err(status) => status,
    };
    let conflict = match is_conflict(&status) {
        true => {
            let asked = GetDocumentRequest {
                database: entered.db.clone(),
                id: entered.id.clone(),
                stale_ok: false,
            };
            let now = calls
                .documents()
                .get_document(asked)
                .await
                .ok()
                .and_then(|found| found.into_inner().document);
            now.map(|it| Conflict {
                text: text(&it),
                modified: words::date(it.modified_unix_ms),
                etag: it.etag,
            })
        }
        false => None,
    };
    let document = Document {
        id: entered.id,
        collection: entered.collection,
        etag: entered.etag,
        ..Document::default()
    };
    let wrong = Some(answer::field(&status).1);
    let page =
        Show { frame, db: entered.db, document, text: entered.json, is_new, wrong, conflict };
    Ok(answer::page_with(answer::as_http(status.code()).0, &page))
}

fn is_conflict(status: &Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::Aborted | tonic::Code::AlreadyExists | tonic::Code::FailedPrecondition
    ) && !reason(status).is_empty()
}

/// `POST /studio/document/delete`.
pub async fn delete(visit: Visit, Form(entered): Form<Entered>) -> Answer {
    let Visit { calls, frame } = visit;
    let precondition = match entered.etag.as_str() {
        "" => {
            return Ok(answer::plain_refusal(
                StatusCode::BAD_REQUEST,
                "The form names no version. Nothing was deleted.",
            ));
        }
        etag => Some(Precondition { condition: Some(Condition::Etag(etag.to_owned())) }),
    };
    let request = DeleteDocumentRequest {
        database: entered.db.clone(),
        id: entered.id,
        precondition,
        request_id: String::new(),
    };
    calls.documents().delete_document(request).await.map_err(Refused::on(&frame))?;
    Ok(answer::see(&format!("/studio/documents{}", words::query(&[("db", &entered.db)]))))
}
