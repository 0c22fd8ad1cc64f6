//! Create, change, delete: each held to the version that its form was made from. Where that is not the stored one any more, both are
//! shown, and the visitor chooses.

use rookery_proto::document::v1::{
    DeleteDocumentRequest, Document, Precondition, PutDocumentRequest, precondition::Condition,
};
use serde::Deserialize;
use tonic::{Code, Status};

use super::{
    compare, layout,
    pages::Asked,
    show::{self, Conflict, Show, Shown, Which},
};
use crate::{
    limits,
    studio::{
        answer::{self, Answer, Refused, reason},
        contract::Calls,
        outcome::Wrong,
        posted::Posted,
        rights::Rights,
        visit::Visit,
    },
};

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
    /// Not empty where the text was stored on one line, and only the page spread it over many.
    #[serde(default)]
    one_line: String,
    #[serde(default)]
    request_id: String,
}

impl Entered {
    fn is_one_line(&self) -> bool {
        !self.one_line.is_empty()
    }

    /// The document. A form carries every line end as CR LF (URL Standard, 5.2); it is stored as LF. Within a string JSON
    /// has them escaped, so no value changes.
    fn document(&self) -> Document {
        let text = self.json.replace("\r\n", "\n");
        let one_line = self.is_one_line().then(|| layout::on_one_line(&text)).flatten();
        Document {
            id: self.id.clone(),
            collection: self.collection.clone(),
            json: one_line.unwrap_or(text).into_bytes(),
            etag: self.etag.clone(),
            ..Document::default()
        }
    }

    fn condition(&self) -> Condition {
        match self.etag.as_str() {
            "" => Condition::MustNotExist(true),
            etag => Condition::Etag(etag.to_owned()),
        }
    }
}

/// `POST /studio/document`: creates it, or changes the version that was read.
pub async fn put(visit: Visit, Posted(entered): Posted<Entered>) -> Answer {
    let document = entered.document();
    let request = PutDocumentRequest {
        database: entered.db.clone(),
        id: document.id.clone(),
        collection: document.collection.clone(),
        json: document.json.clone(),
        precondition: Some(Precondition { condition: Some(entered.condition()) }),
        request_id: entered.request_id.clone(),
    };
    match visit.calls.documents().put_document(request).await {
        Ok(_) => Ok(answer::see(&super::path(&entered.db, &entered.id))),
        Err(status) => refused(visit, &entered, document, &status).await,
    }
}

/// The form again, with what was entered, what was wrong with it, and what is stored where that is the reason.
async fn refused(
    visit: Visit,
    entered: &Entered,
    mut document: Document,
    status: &Status,
) -> Answer {
    let Visit { calls, frame } = visit;
    let db = entered.db.clone();
    let wrong = Wrong::of(&frame, status, &entered.request_id);
    // Where there is no page to be had, what came of the change is not to be lost.
    let alone = || Refused::told(&frame, status, wrong.clone());
    let rights = Rights::on(&calls, &frame, &db).await.map_err(|_| alone())?;
    let conflict = match is_conflict(status) {
        true => Some(conflict(&calls, &db, &document).await.map_err(|_| alone())?),
        false => None,
    };
    if let Some(conflict) = &conflict {
        // Whoever saves from here on has seen this version.
        document.etag = conflict.now.as_ref().map_or_else(String::new, |it| it.etag.clone());
    }
    let request_id = wrong.request_id(&frame, &entered.request_id);
    let wrong = conflict.is_none().then_some(wrong);
    let one_line = entered.is_one_line();
    let page = Show { frame, rights, db, document, one_line, wrong, conflict, request_id };
    Ok(answer::page_with(answer::as_http(status.code()).0, &page))
}

async fn conflict(calls: &Calls, db: &str, ours: &Document) -> Result<Conflict, Status> {
    let now = match show::found(calls, db, &ours.id).await {
        Ok(now) => Some(now),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => return Err(status),
    };
    let (differences, more) = now.as_ref().map_or_else(Default::default, |now| compared(ours, now));
    let differences = differences.into_iter().map(Shown::of).collect();
    Ok(Conflict { now, differences, more })
}

/// Where what was entered differs from what is stored; of large documents only that they do.
fn compared(ours: &Document, now: &Document) -> (Vec<compare::Difference>, bool) {
    let most = limits::STUDIO_EDITED_BYTES_MAX;
    if ours.json.len() > most || now.json.len() > most {
        return (Vec::new(), true);
    }
    let text = |it: &Document| String::from_utf8_lossy(&it.json).into_owned();
    let (mut found, more) = compare::differences(&text(ours), &text(now));
    if ours.collection != now.collection {
        let [ours, theirs] = [ours, now].map(|it| Some(it.collection.clone()));
        found.insert(0, compare::Difference { path: "(collection)".to_owned(), ours, theirs });
    }
    (found, more)
}

fn is_conflict(status: &Status) -> bool {
    status.code() == Code::Aborted && reason(status) == "CONCURRENCY"
}

/// `POST /studio/document/delete`.
pub async fn delete(visit: Visit, Posted(entered): Posted<Entered>) -> Answer {
    let which = Which { db: entered.db.clone(), id: entered.id.clone() };
    if entered.etag.is_empty() {
        let why = "The form names no version.";
        return show::stored(visit, which, Some(Status::invalid_argument(why))).await;
    }
    let request = DeleteDocumentRequest {
        database: entered.db.clone(),
        id: entered.id.clone(),
        precondition: Some(Precondition { condition: Some(entered.condition()) }),
        request_id: entered.request_id.clone(),
    };
    match visit.calls.documents().delete_document(request).await {
        Ok(_) => Ok(answer::see(&Asked { db: entered.db, ..Asked::default() }.first())),
        Err(status) if is_conflict(&status) => {
            let why =
                "Somebody changed this document after you opened it; this is how it reads now.";
            show::stored(visit, which, Some(Status::aborted(why))).await
        }
        Err(status) => Err(Refused::of_form(&visit.frame, &entered.request_id)(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_of_a_form_are_stored_as_lf_and_nothing_else_changes() {
        let entered = |json: &str, etag: &str| Entered {
            db: "sales".to_owned(),
            id: "a".to_owned(),
            collection: "C".to_owned(),
            json: json.to_owned(),
            etag: etag.to_owned(),
            one_line: String::new(),
            request_id: String::new(),
        };
        let check = |json: &str, expected: &str| {
            let document = entered(json, "").document();
            assert_eq!(String::from_utf8_lossy(&document.json), expected);
        };
        check("{\r\n  \"a\": 1.10\r\n}", "{\n  \"a\": 1.10\n}");
        check("{\"a\":\"\\r\\n\"}", "{\"a\":\"\\r\\n\"}");
        let spread = "{\r\n  \"a\": \"\\r x\"\r\n}";
        let one_line = Entered { one_line: "yes".to_owned(), ..entered(spread, "") };
        assert_eq!(String::from_utf8_lossy(&one_line.document().json), r#"{"a":"\r x"}"#);
        assert_eq!(entered("{}", "").condition(), Condition::MustNotExist(true));
        assert_eq!(entered("{}", "7-1-0").condition(), Condition::Etag("7-1-0".to_owned()));
    }

    #[test]
    fn a_conflict_names_the_collection_too_and_large_documents_only_differ() {
        let document = |collection: &str, json: String| Document {
            collection: collection.to_owned(),
            json: json.into_bytes(),
            ..Document::default()
        };
        let (found, more) =
            compared(&document("A", "{\"a\":1}".into()), &document("B", "{\"a\":2}".into()));
        let paths: Vec<_> = found.iter().map(|it| it.path.as_str()).collect();
        assert_eq!((paths, more), (vec!["(collection)", "a"], false));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::STUDIO_EDITED_BYTES_MAX));
        let (found, more) = compared(&document("A", large), &document("A", "{}".into()));
        assert_eq!((found.len(), more), (0, true));
    }
}
