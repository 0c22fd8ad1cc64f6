//! One database, as far as the visitor may see it.

use askama::Template;
use axum::{extract::Query, http::StatusCode};
use rookery_proto::{
    database::v1::{
        CollectionStatistics, Database, DatabaseRecord, GetDatabaseRecordRequest,
        GetDatabaseRequest, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse,
    },
    security::v1::{Certificate, Clearance, ListCertificatesRequest},
};
use serde::Deserialize;
use tonic::Status;

use super::{Replica, counted, is_enabled, nodes, replicas};
use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    odd::{self, Piece},
    outcome::Wrong,
    rights::Rights,
    visit::{Frame, Visit},
    words,
};

/// Certificates with access that the page names.
const HOLDERS_MAX: u32 = 200;
/// Collections a page.
const COLLECTIONS_MAX: u32 = 50;

/// Which database, and from which of its collections on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    /// Its name.
    pub db: String,
    /// The token of a page of collections.
    pub page: String,
}

#[derive(Template)]
#[template(path = "databases/show.html")]
struct Show {
    frame: Frame,
    it: Database,
    /// For Operators.
    record: Option<DatabaseRecord>,
    rights: Rights,
    enabled: bool,
    created: String,
    counted: Option<Result<Counted, String>>,
    replicas: Vec<Replica>,
    /// `None` for those who may not see certificates.
    holders: Option<Vec<Holder>>,
    more_holders: bool,
    wrong: Option<Wrong>,
}

impl Show {
    /// The operation of the button that changes the state.
    fn change(&self) -> &'static str {
        if self.enabled { "disable-database" } else { "enable-database" }
    }

    fn documents(&self) -> String {
        super::documents_path(&self.it.name)
    }

    fn grant(&self) -> String {
        format!("/studio/database/grant{}", words::query(&[("db", &self.it.name)]))
    }
}

/// How much there is, and in which collections.
struct Counted {
    documents: String,
    /// Document or documents.
    called: String,
    bytes: String,
    applied: String,
    node: String,
    collections: Vec<Collection>,
    first: bool,
    next: String,
}

struct Collection {
    name: Vec<Piece>,
    /// Empty: the documents of no collection.
    path: String,
    documents: String,
    bytes: String,
}

impl Counted {
    fn of(answer: GetDatabaseStatisticsResponse, which: &Which) -> Self {
        let collection = |it: CollectionStatistics| {
            let pairs = [("db", which.db.as_str()), ("collection", &it.name)];
            let path = format!("/studio/documents{}", words::query(&pairs));
            Collection {
                path: if it.name.is_empty() { String::new() } else { path },
                name: odd::pieces(&it.name, 128),
                documents: words::count(it.documents),
                bytes: words::bytes(it.bytes),
            }
        };
        let next = match answer.next_page_token.as_str() {
            "" => String::new(),
            token => {
                let pairs = [("db", which.db.as_str()), ("page", token)];
                format!("/studio/database{}", words::query(&pairs))
            }
        };
        Self {
            documents: words::count(answer.documents),
            called: words::plural(answer.documents, "document"),
            bytes: words::bytes(answer.bytes),
            applied: words::count(answer.applied_index),
            node: answer.node,
            collections: answer.collections.into_iter().map(collection).collect(),
            first: which.page.is_empty(),
            next,
        }
    }
}

/// Somebody with access to the database.
struct Holder {
    thumbprint: String,
    name: String,
    access: &'static str,
    etag: String,
    state: String,
}

impl Holder {
    fn of(it: Certificate, database: &str) -> Option<Self> {
        let grant = it.grants.iter().find(|grant| grant.database.eq_ignore_ascii_case(database))?;
        let access = words::access(grant.access);
        Some(Self {
            access,
            thumbprint: it.thumbprint,
            name: it.name,
            etag: it.etag,
            state: it.state,
        })
    }

    fn path(&self) -> String {
        format!("/studio/certificate{}", words::query(&[("t", &self.thumbprint)]))
    }
}

/// `GET /studio/database?db=`.
pub async fn page(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let it = found(&calls, &which).await.map_err(Refused::on(&frame))?;
    shown(&calls, frame, which, it, None).await
}

/// The page, and what went wrong with a change that was asked for on it. Where there is no page to be had, that alone:
/// what came of the change is not to be lost.
pub(super) async fn after_change(visit: Visit, db: &str, status: &Status, wrong: Wrong) -> Answer {
    let Visit { calls, frame } = visit;
    let which = Which { db: db.to_owned(), page: String::new() };
    if let Ok(it) = found(&calls, &which).await {
        let told = (wrong.clone(), answer::as_http(status.code()).0);
        if let Ok(page) = shown(&calls, frame.clone(), which, it, Some(told)).await {
            return Ok(page);
        }
    }
    Err(Refused::told(&frame, status, wrong))
}

async fn found(calls: &Calls, which: &Which) -> Result<Database, Status> {
    let asked = GetDatabaseRequest { name: which.db.clone() };
    let found = calls.databases().get_database(asked).await?;
    Ok(found.into_inner().database.unwrap_or_default())
}

async fn shown(
    calls: &Calls,
    frame: Frame,
    which: Which,
    it: Database,
    wrong: Option<(Wrong, StatusCode)>,
) -> Answer {
    let rights = Rights::on(calls, &frame, &it.name).await?;
    let enabled = is_enabled(it.state);
    let (counted, record, status, holders) = tokio::join!(
        count(calls, &rights, enabled, &which),
        record(calls, &frame, &it.name),
        nodes(calls, &frame),
        holders(calls, &frame, &it.name),
    );
    let (holders, more_holders) = holders?;
    let (wrong, code) = match wrong {
        Some((wrong, code)) => (Some(wrong), code),
        None => (None, StatusCode::OK),
    };
    let page = Show {
        enabled,
        created: words::date(it.created_unix_ms),
        replicas: replicas(&status, &it.name),
        record,
        rights,
        counted,
        holders,
        more_holders,
        wrong,
        it,
        frame,
    };
    Ok(answer::page_with(code, &page))
}

/// The counts, or why there are none; `None` for those who may not see them.
async fn count(
    calls: &Calls,
    rights: &Rights,
    enabled: bool,
    which: &Which,
) -> Option<Result<Counted, String>> {
    if !rights.may("view-statistics") {
        return None;
    }
    if !enabled {
        return Some(Err("A disabled database is not counted.".to_owned()));
    }
    let asked = GetDatabaseStatisticsRequest {
        name: which.db.clone(),
        page_size: COLLECTIONS_MAX,
        page_token: which.page.clone(),
        stale_ok: false,
    };
    let counted = counted(calls, asked).await;
    Some(counted.map(|it| Counted::of(it, which)).map_err(|status| answer::field(&status).1))
}

async fn record(calls: &Calls, frame: &Frame, name: &str) -> Option<DatabaseRecord> {
    if !frame.may("view-database-record") {
        return None;
    }
    let asked = GetDatabaseRecordRequest { name: name.to_owned() };
    calls.databases().get_database_record(asked).await.ok()?.into_inner().record
}

/// The Users with a grant, and whether there are more; `None` for those who may not see certificates.
async fn holders(
    calls: &Calls,
    frame: &Frame,
    database: &str,
) -> Result<(Option<Vec<Holder>>, bool), Box<Refused>> {
    if !frame.may("list-certificates") {
        return Ok((None, false));
    }
    let asked = ListCertificatesRequest {
        page_size: HOLDERS_MAX,
        database: database.to_owned(),
        clearance: Clearance::User.into(),
        ..ListCertificatesRequest::default()
    };
    let found = calls.security().list_certificates(asked).await.map_err(Refused::on(frame))?;
    let found = found.into_inner();
    let more = !found.next_page_token.is_empty();
    let holders = found.certificates.into_iter().filter_map(|it| Holder::of(it, database));
    Ok((Some(holders.collect()), more))
}
