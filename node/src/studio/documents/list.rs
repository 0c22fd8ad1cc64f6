//! The table of documents, the collections beside it, and the export of exactly the rows that are shown.

use askama::Template;
use axum::{
    extract::Query,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse as _,
};
use rookery_proto::{
    database::v1::{
        Database, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse, ListDatabasesRequest,
    },
    document::v1::{Document, ListDocumentsResponse},
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Status};

use super::{columns, pages::Asked};
use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    databases::{PATIENCE, is_enabled},
    odd::{self, Piece},
    rights::Rights,
    visit::{Frame, Visit},
    words,
};

/// Databases that the page offers to choose from.
const DATABASES_MAX: u32 = 200;
/// Collections that the page names.
const COLLECTIONS_MAX: u32 = 12;
/// Characters of a value in a table; the rest is on the document's own page.
const CELL_CHARS_MAX: usize = 60;
/// Characters of an id in a table.
const ID_CHARS_MAX: usize = 120;

#[derive(Template)]
#[template(path = "documents/list.html")]
struct List {
    frame: Frame,
    rights: Rights,
    asked: Asked,
    databases: Vec<String>,
    counted: Option<Counted>,
    columns: Vec<Column>,
    rows: Vec<Row>,
    next: String,
    export: String,
    wrong: Option<String>,
}

impl List {
    /// The form's value: what was chosen, not what the page chose itself.
    fn placeholder(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|it| it.path.as_str()).collect();
        odd::plain(&names.join(", "), CELL_CHARS_MAX)
    }
}

struct Column {
    path: String,
    title: Vec<Piece>,
}

struct Row {
    id: Vec<Piece>,
    path: String,
    collection: Vec<Piece>,
    modified: String,
    bytes: String,
    cells: Vec<Vec<Piece>>,
}

/// How much there is.
struct Counted {
    documents: String,
    bytes: String,
    collections: Vec<Collection>,
    more: bool,
    all: String,
}

struct Collection {
    name: Vec<Piece>,
    documents: String,
    /// Empty: the documents of no collection, which no list can be narrowed to.
    path: String,
    current: bool,
}

/// `GET /studio/documents`.
pub async fn page(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let mut asked = asked.of_one_database();
    let request = ListDatabasesRequest { page_size: DATABASES_MAX, page_token: String::new() };
    let found = calls.databases().list_databases(request).await.map_err(Refused::on(&frame))?;
    let databases = found.into_inner().databases;
    if asked.db.is_empty() {
        asked.db = first(&databases).unwrap_or_default();
    }
    let mut databases: Vec<String> = databases.into_iter().map(|it| it.name).collect();
    if asked.db.is_empty() {
        return Ok(answer::page(&List::empty(frame, asked, databases)));
    }
    if !databases.iter().any(|it| it.eq_ignore_ascii_case(&asked.db)) {
        databases.push(asked.db.clone());
    }
    let rights = Rights::on(&calls, &frame, &asked.db).await?;
    let listing = async { calls.documents().list_documents(asked.request()).await };
    let (listed, counted) = tokio::join!(listing, counted(&calls, &rights, &asked));
    let (listed, code, wrong) = match listed {
        Ok(listed) => (listed.into_inner(), StatusCode::OK, None),
        Err(status) => {
            let (code, _) = answer::as_http(status.code());
            (ListDocumentsResponse::default(), code, Some(answer::field(&status).1))
        }
    };
    let columns = match columns::chosen(&asked.columns) {
        none if none.is_empty() => {
            columns::of_documents(listed.documents.iter().map(|it| it.json.as_slice()))
        }
        chosen => chosen,
    };
    let export = asked.export(&digest(&listed.documents));
    let page = List {
        next: asked.next(&listed.next_page_token),
        rows: listed.documents.iter().map(|it| row(&asked.db, it, &columns)).collect(),
        columns: columns.into_iter().map(Column::of).collect(),
        frame,
        rights,
        asked,
        databases,
        counted,
        export,
        wrong,
    };
    Ok(answer::page_with(code, &page))
}

impl List {
    fn empty(frame: Frame, asked: Asked, databases: Vec<String>) -> Self {
        Self {
            frame,
            rights: Rights::none(),
            asked,
            databases,
            counted: None,
            columns: Vec::new(),
            rows: Vec::new(),
            next: String::new(),
            export: String::new(),
            wrong: None,
        }
    }
}

/// The database that is shown where none was asked for: the first that answers.
fn first(databases: &[Database]) -> Option<String> {
    let enabled = databases.iter().find(|it| is_enabled(it.state));
    enabled.or(databases.first()).map(|it| it.name.clone())
}

/// The counts, where the visitor may see them and they come soon; the page is about the documents.
async fn counted(calls: &Calls, rights: &Rights, asked: &Asked) -> Option<Counted> {
    if !rights.may("view-statistics") {
        return None;
    }
    let mut request = Request::new(GetDatabaseStatisticsRequest {
        name: asked.db.clone(),
        page_size: COLLECTIONS_MAX,
        page_token: String::new(),
        stale_ok: false,
    });
    request.set_timeout(PATIENCE);
    let answer = calls.databases().get_database_statistics(request).await.ok()?.into_inner();
    Some(Counted::of(answer, asked))
}

impl Counted {
    fn of(answer: GetDatabaseStatisticsResponse, asked: &Asked) -> Self {
        let collection = |it: rookery_proto::database::v1::CollectionStatistics| Collection {
            current: !it.name.is_empty() && it.name == asked.collection,
            path: if it.name.is_empty() { String::new() } else { asked.of_collection(&it.name) },
            name: odd::pieces(&it.name, CELL_CHARS_MAX),
            documents: words::count(it.documents),
        };
        Self {
            documents: words::count(answer.documents),
            bytes: words::bytes(answer.bytes),
            collections: answer.collections.into_iter().map(collection).collect(),
            more: !answer.next_page_token.is_empty(),
            all: format!("/studio/database{}", words::query(&[("db", &asked.db)])),
        }
    }
}

impl Column {
    fn of(path: String) -> Self {
        Self { title: odd::pieces(&path, CELL_CHARS_MAX), path }
    }
}

fn row(database: &str, document: &Document, columns: &[String]) -> Row {
    let cell = |path: &String| odd::pieces(&columns::cell(&document.json, path), CELL_CHARS_MAX);
    Row {
        id: odd::pieces(&document.id, ID_CHARS_MAX),
        path: super::path(database, &document.id),
        collection: odd::pieces(&document.collection, CELL_CHARS_MAX),
        modified: words::date(document.modified_unix_ms),
        bytes: words::bytes(document.json.len() as u64),
        cells: columns.iter().map(cell).collect(),
    }
}

/// What rows were shown: their ids and versions.
fn digest(documents: &[Document]) -> String {
    let mut digest = Sha256::new();
    for document in documents {
        for part in [&document.id, &document.etag] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    let digest = hex::encode(digest.finalize());
    digest.get(..32).unwrap_or_default().to_owned()
}

/// `GET /studio/documents/export`: the shown rows as JSON lines, in the form that `rookery doc bulk` takes.
pub async fn export(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let listed = calls.documents().list_documents(asked.request()).await.map_err(&refused)?;
    let documents = listed.into_inner().documents;
    if !asked.rows.is_empty() && asked.rows != digest(&documents) {
        let why = "These rows have changed since they were shown. Load the page again, then export what it shows.";
        return Err(refused(Status::aborted(why)));
    }
    let mut response = lines(documents).into_response();
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl; charset=utf-8"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"documents.jsonl\""),
    );
    Ok(response)
}

fn lines(documents: Vec<Document>) -> Vec<u8> {
    let mut lines = Vec::new();
    for document in documents {
        let head = serde_json::json!({ "id": document.id, "collection": document.collection });
        let head = head.to_string();
        // The document's own bytes, which stand for themselves: they were checked when they were written. A line end is
        // layout there, because within a string JSON has it escaped.
        lines.extend_from_slice(head.trim_end_matches('}').as_bytes());
        lines.extend_from_slice(b",\"document\":");
        lines.extend(document.json.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        lines.extend_from_slice(b"}\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn document(id: &str, etag: &str, json: &str) -> Document {
        let collection = "C}".to_owned();
        Document {
            id: id.to_owned(),
            etag: etag.to_owned(),
            json: json.as_bytes().to_vec(),
            collection,
            ..Document::default()
        }
    }

    #[test]
    fn an_exported_line_holds_the_document_as_it_is_stored() {
        let json = "{\r\n \"n\": 12345678901234567890123,\n \"s\": \"a\\nb}\" }";
        let exported = lines(vec![document("a\"}", "1", json), document("b", "1", "{}")]);
        let text = String::from_utf8(exported).unwrap();
        assert_eq!(
            text,
            "{\"id\":\"a\\\"}\",\"collection\":\"C}\",\"document\":{ \"n\": 12345678901234567890123, \"s\": \"a\\nb}\" }}\n\
             {\"id\":\"b\",\"collection\":\"C}\",\"document\":{}}\n"
        );
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn the_shown_rows_are_told_apart_by_ids_and_versions() {
        let of = |rows: &[(&str, &str)]| {
            let rows: Vec<_> = rows.iter().map(|(id, etag)| document(id, etag, "{}")).collect();
            digest(&rows)
        };
        let shown = of(&[("a", "7-1-0"), ("b", "7-2-0")]);
        assert_eq!(shown, of(&[("a", "7-1-0"), ("b", "7-2-0")]));
        for other in [
            &[("a", "7-1-0")][..],
            &[("a", "7-1-0"), ("b", "7-3-0")],
            &[("b", "7-2-0"), ("a", "7-1-0")],
            &[("a", "7-1-0"), ("b7", "-2-0")],
            &[],
        ] {
            assert_ne!(shown, of(other), "{other:?}");
        }
    }

    #[test]
    fn a_row_is_bounded_and_shows_what_cannot_be_seen() {
        let long = format!("{{\"s\":\"{}\",\"x\":\"a\u{202e}b\"}}", "y".repeat(100_000));
        let row = row("sales", &document(&"i".repeat(512), "1", &long), &["s".into(), "x".into()]);
        let chars =
            |pieces: &[Piece]| pieces.iter().map(|it| it.text.chars().count()).sum::<usize>();
        assert_eq!(chars(&row.cells[0]), CELL_CHARS_MAX + 1);
        assert_eq!(row.cells[1].iter().filter(|piece| piece.odd).count(), 1);
        assert_eq!(chars(&row.id), ID_CHARS_MAX + 1);
        assert!(row.path.ends_with(&"i".repeat(512)), "the link is whole");
        assert_eq!(row.bytes, "97.7 KiB");
    }
}
