//! Enable, disable, delete.

use askama::Template;
use axum::{extract::Query, http::StatusCode};
use rookery_proto::{
    database::v1::{
        DeleteDatabaseRequest, DisableDatabaseRequest, EnableDatabaseRequest, GetDatabaseRequest,
        GetDatabaseStatisticsRequest,
    },
    security::v1::{Clearance, ListCertificatesRequest},
};
use serde::Deserialize;
use tonic::Status;

use super::{counted, path, several, show::Which};
use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    posted::{Posted, To},
    visit::{Frame, Visit},
    words,
};

/// Grants that are counted before a deletion.
const GRANTS_MAX: u32 = 1_000;

/// A new state for a database.
#[derive(Debug, Deserialize)]
pub struct State {
    db: String,
    to: To,
    #[serde(default)]
    request_id: String,
}

/// `POST /studio/database/state`.
pub async fn set_state(visit: Visit, Posted(form): Posted<State>) -> Answer {
    let Visit { calls, frame } = visit;
    let (name, request_id) = (form.db.clone(), form.request_id.clone());
    let done = match form.to {
        To::Enabled => {
            let asked = EnableDatabaseRequest { name, request_id };
            calls.databases().enable_database(asked).await.map(drop)
        }
        To::Disabled => {
            let asked = DisableDatabaseRequest { name, request_id };
            calls.databases().disable_database(asked).await.map(drop)
        }
    };
    done.map_err(Refused::of_form(&frame, &form.request_id))?;
    Ok(answer::see(&path(&form.db)))
}

#[derive(Template)]
#[template(path = "databases/delete.html")]
struct DeletePage {
    frame: Frame,
    name: String,
    lost: Lost,
    wrong: bool,
}

impl DeletePage {
    fn back(&self) -> String {
        path(&self.name)
    }
}

/// What a deletion takes, where it is known.
#[derive(Default)]
struct Lost {
    documents: Option<String>,
    bytes: String,
    nodes: Vec<String>,
    grants: Option<String>,
}

impl Lost {
    async fn with(calls: &Calls, frame: &Frame, name: &str) -> Result<Self, Status> {
        let asked = GetDatabaseRequest { name: name.to_owned() };
        let found = calls.databases().get_database(asked).await?.into_inner();
        let asked = GetDatabaseStatisticsRequest {
            name: name.to_owned(),
            page_size: 1,
            page_token: String::new(),
            stale_ok: true,
        };
        let size = counted(calls, asked).await.ok();
        Ok(Self {
            bytes: size.as_ref().map_or_else(String::new, |size| words::bytes(size.bytes)),
            documents: size.map(|size| several(size.documents, "document")),
            nodes: found.database.unwrap_or_default().nodes,
            grants: grants(calls, frame, name).await,
        })
    }
}

async fn grants(calls: &Calls, frame: &Frame, name: &str) -> Option<String> {
    if !frame.may("list-certificates") {
        return None;
    }
    let asked = ListCertificatesRequest {
        page_size: GRANTS_MAX,
        database: name.to_owned(),
        clearance: Clearance::User.into(),
        ..ListCertificatesRequest::default()
    };
    let found = calls.security().list_certificates(asked).await.ok()?.into_inner();
    let more = if found.next_page_token.is_empty() { "" } else { "more than " };
    Some(format!("{more}{}", several(found.certificates.len() as u64, "User")))
}

/// `GET /studio/database/delete?db=`.
pub async fn delete_form(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let lost = Lost::with(&calls, &frame, &which.db).await.map_err(Refused::on(&frame))?;
    Ok(answer::page(&DeletePage { frame, name: which.db, lost, wrong: false }))
}

/// The name, typed.
#[derive(Debug, Deserialize)]
pub struct Delete {
    db: String,
    #[serde(default)]
    typed: String,
    #[serde(default)]
    request_id: String,
}

/// `POST /studio/database/delete`.
pub async fn delete(visit: Visit, Posted(form): Posted<Delete>) -> Answer {
    let Visit { calls, frame } = visit;
    if form.typed != form.db {
        let lost = Lost::with(&calls, &frame, &form.db).await;
        let lost = lost.map_err(Refused::before_change(&frame))?;
        let page = DeletePage { frame, name: form.db, lost, wrong: true };
        return Ok(answer::page_with(StatusCode::BAD_REQUEST, &page));
    }
    let asked = DeleteDatabaseRequest { name: form.db, request_id: form.request_id.clone() };
    let deleted = calls.databases().delete_database(asked).await;
    deleted.map_err(Refused::of_form(&frame, &form.request_id))?;
    Ok(answer::see("/studio/databases"))
}
