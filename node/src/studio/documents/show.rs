//! One document: its text, its metadata, and the forms that change it.

use askama::Template;
use axum::{
    extract::Query,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse as _,
};
use rookery_proto::document::v1::{Document, GetDocumentRequest};
use serde::Deserialize;
use tonic::Status;

use super::{compare::Difference, layout, pages::Asked};
use crate::{
    limits,
    studio::{
        answer::{self, Answer, Refused},
        contract::Calls,
        odd::{self, Hidden, Piece},
        outcome::Wrong,
        rights::Rights,
        visit::{Frame, Visit},
        words,
    },
};

/// Characters of a document that is shown and not edited.
const PREVIEW_CHARS_MAX: usize = 4_000;
/// Bytes of a text that is spread over lines, mostly by white space; a longer one is edited as it is stored.
const SPREAD_BYTES_MAX: usize = 4 * limits::STUDIO_EDITED_BYTES_MAX;
/// Characters that nobody sees, of which a page tells the places.
const HIDDEN_MAX: usize = 20;
/// Characters of an id in a headline: all that it can have.
const ID_CHARS_MAX: usize = limits::DOCUMENT_ID_BYTES_MAX;

/// Which document.
#[derive(Debug, Deserialize)]
pub struct Which {
    /// The database.
    pub db: String,
    /// Its id.
    pub id: String,
}

/// The page of a document, stored or not yet.
#[derive(Template)]
#[template(path = "documents/show.html")]
pub(super) struct Show {
    pub frame: Frame,
    pub rights: Rights,
    pub db: String,
    /// What the form holds; its etag is that of the version that a save is held to. Empty: it must not exist.
    pub document: Document,
    /// The text is stored on one line, and spread over many for whoever edits it.
    pub one_line: bool,
    pub wrong: Option<Wrong>,
    /// What happened meanwhile.
    pub conflict: Option<Conflict>,
    /// What the form is sent with.
    pub request_id: String,
}

/// Somebody else was faster.
pub(super) struct Conflict {
    /// What stands there now; `None`: it was deleted.
    pub now: Option<Document>,
    pub differences: Vec<Shown>,
    pub more: bool,
}

/// A difference as it is shown.
pub(super) struct Shown {
    path: Vec<Piece>,
    ours: Vec<Piece>,
    theirs: Vec<Piece>,
}

impl Shown {
    pub(super) fn of(it: Difference) -> Self {
        let value = |it: Option<String>| odd::pieces(it.as_deref().unwrap_or(words::NONE), 120);
        Self { path: odd::pieces(&it.path, 120), ours: value(it.ours), theirs: value(it.theirs) }
    }
}

impl Conflict {
    fn text(&self) -> Vec<Piece> {
        self.now.as_ref().map_or_else(Vec::new, |it| {
            let text = String::from_utf8_lossy(&it.json);
            let spread = layout::spread(&text, SPREAD_BYTES_MAX);
            odd::pieces(spread.as_deref().unwrap_or(&text), PREVIEW_CHARS_MAX)
        })
    }

    fn modified(&self) -> String {
        words::date(self.now.as_ref().map_or(0, |it| it.modified_unix_ms))
    }

    fn etag(&self) -> &str {
        self.now.as_ref().map_or("", |it| &it.etag)
    }

    fn collection(&self) -> Vec<Piece> {
        self.now.as_ref().map_or_else(Vec::new, |it| odd::pieces(&it.collection, ID_CHARS_MAX))
    }
}

fn preview(json: &[u8]) -> Vec<Piece> {
    odd::pieces(&String::from_utf8_lossy(json), PREVIEW_CHARS_MAX)
}

impl Show {
    /// A document that the form creates.
    fn is_new(&self) -> bool {
        self.document.etag.is_empty()
    }

    /// What is shown is what was read, and not what was entered.
    fn is_stored(&self) -> bool {
        self.document.revision > 0
    }

    /// The operation of the form.
    fn save(&self) -> &'static str {
        "put-document"
    }

    fn save_words(&self) -> &'static str {
        match (self.conflict.is_some(), self.is_new()) {
            (false, _) => "Save",
            (true, true) => "Create it again",
            (true, false) => "Save mine over that version",
        }
    }

    fn may_save(&self) -> bool {
        self.rights.may(self.save())
    }

    /// Whether the text fits into a field.
    fn is_edited(&self) -> bool {
        self.document.json.len() <= limits::STUDIO_EDITED_BYTES_MAX
    }

    /// The document's text for the field in which it is edited: its own, and spread over lines where it is stored on one;
    /// the form says so, and a save makes it one line again.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.document.json);
        let spread = self.one_line.then(|| layout::spread(&text, SPREAD_BYTES_MAX));
        spread.flatten().unwrap_or_else(|| text.into_owned())
    }

    fn preview(&self) -> Vec<Piece> {
        preview(&self.document.json)
    }

    fn title(&self) -> Vec<Piece> {
        odd::pieces(&self.document.id, ID_CHARS_MAX)
    }

    fn title_text(&self) -> String {
        odd::plain(&self.document.id, ID_CHARS_MAX)
    }

    fn collection(&self) -> Vec<Piece> {
        odd::pieces(&self.document.collection, ID_CHARS_MAX)
    }

    fn hidden(&self) -> Vec<Hidden> {
        odd::hidden(&self.text(), HIDDEN_MAX).0
    }

    fn more_hidden(&self) -> bool {
        odd::hidden(&self.text(), HIDDEN_MAX).1
    }

    fn list(&self) -> String {
        Asked { db: self.db.clone(), ..Asked::default() }.unfiltered()
    }

    fn path(&self) -> String {
        super::path(&self.db, &self.document.id)
    }

    fn download(&self) -> String {
        super::at("/studio/document/download", &self.db, &self.document.id)
    }

    fn modified(&self) -> String {
        words::date(self.document.modified_unix_ms)
    }

    fn bytes(&self) -> String {
        words::bytes(self.document.json.len() as u64)
    }

    fn edited_max(&self) -> String {
        words::bytes(limits::STUDIO_EDITED_BYTES_MAX as u64)
    }
}

/// A document as it is stored now.
pub(super) async fn found(calls: &Calls, database: &str, id: &str) -> Result<Document, Status> {
    let asked =
        GetDocumentRequest { database: database.to_owned(), id: id.to_owned(), stale_ok: false };
    let found = calls.documents().get_document(asked).await?.into_inner().document;
    found.ok_or_else(|| Status::not_found("The answer holds no document."))
}

/// `GET /studio/document?db=&id=`.
pub async fn page(visit: Visit, Query(which): Query<Which>) -> Answer {
    stored(visit, which, None).await
}

/// The page of a stored document, and why a change of it was refused.
pub(super) async fn stored(visit: Visit, which: Which, wrong: Option<Status>) -> Answer {
    let Visit { calls, frame } = visit;
    let document = found(&calls, &which.db, &which.id).await;
    let document = document.map_err(Refused::before_change(&frame))?;
    let rights = Rights::on(&calls, &frame, &which.db).await?;
    let code = wrong.as_ref().map_or(StatusCode::OK, |it| answer::as_http(it.code()).0);
    let page = Show {
        wrong: wrong.map(|status| Wrong::of(&frame, &status, "")),
        request_id: frame.request_id(),
        one_line: layout::is_one_line(&document.json),
        conflict: None,
        db: which.db,
        document,
        rights,
        frame,
    };
    Ok(answer::page_with(code, &page))
}

/// `GET /studio/document/download?db=&id=`: the document's bytes as a file.
pub async fn download(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let document = found(&calls, &which.db, &which.id).await.map_err(Refused::on(&frame))?;
    let mut response = document.json.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"document.json\""),
    );
    Ok(response)
}

/// `GET /studio/documents/create?db=`.
pub async fn create_form(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let rights = Rights::on(&calls, &frame, &asked.db).await?;
    let request_id = frame.request_id();
    let document = Document {
        collection: asked.collection,
        json: b"{\n  \n}".to_vec(),
        ..Document::default()
    };
    let page = Show {
        frame,
        rights,
        db: asked.db,
        document,
        one_line: false,
        wrong: None,
        conflict: None,
        request_id,
    };
    Ok(answer::page(&page))
}
