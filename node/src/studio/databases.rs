//! Databases: which there are, where they are, who has access.

use std::collections::BTreeMap;

use askama::Template;
use axum::{Form, extract::Query};
use rookery_proto::{
    cluster::v1::{GetStatusRequest, GroupStatus, NodeStatus},
    database::v1::{
        CreateDatabaseRequest, Database, DatabaseRecord, DatabaseState, DeleteDatabaseRequest,
        DisableDatabaseRequest, EnableDatabaseRequest, GetDatabaseRecordRequest,
        ListDatabasesRequest,
    },
    security::v1::{
        Access, Certificate, Clearance, EditCertificateRequest, GetCertificateRequest, Grant,
        ListCertificatesRequest,
    },
};
use serde::Deserialize;
use tonic::Status;

use super::{
    answer::{self, Answer, Refused},
    contract::Calls,
    visit::{Frame, Visit},
    words,
};

/// Databases a page.
const PAGE_SIZE: u32 = 100;

/// Certificates with access that the page of a database names.
const HOLDERS_MAX: u32 = 200;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    page: String,
}

#[derive(Template)]
#[template(path = "databases/list.html")]
struct List {
    frame: Frame,
    databases: Vec<Row>,
    next: String,
}

struct Row {
    it: Database,
    enabled: bool,
    created: String,
}

impl Row {
    fn of(it: Database) -> Self {
        Self {
            enabled: it.state == i32::from(DatabaseState::Enabled),
            created: words::date(it.created_unix_ms),
            it,
        }
    }

    fn path(&self) -> String {
        path(&self.it.name)
    }

    fn documents(&self) -> String {
        format!("/studio/documents{}", words::query(&[("db", &self.it.name)]))
    }
}

fn path(database: &str) -> String {
    format!("/studio/database{}", words::query(&[("db", database)]))
}

/// `GET /studio/databases`.
pub async fn page(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let request = ListDatabasesRequest { page_size: PAGE_SIZE, page_token: asked.page };
    let found =
        calls.databases().list_databases(request).await.map_err(Refused::on(&frame))?.into_inner();
    let next = match found.next_page_token.as_str() {
        "" => String::new(),
        token => format!("/studio/databases{}", words::query(&[("page", token)])),
    };
    let databases = found.databases.into_iter().map(Row::of).collect();
    Ok(answer::page(&List { frame, databases, next }))
}

#[derive(Template)]
#[template(path = "databases/create.html")]
struct CreatePage {
    frame: Frame,
    nodes: Vec<String>,
    entered: Create,
    wrong: Option<(String, String)>,
}

/// A new database as it was entered.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Create {
    name: String,
    replicas: String,
}

async fn nodes(calls: &Calls, frame: &Frame) -> Result<Vec<NodeStatus>, Box<Refused>> {
    if !frame.may("view-cluster-status") {
        return Ok(Vec::new());
    }
    let status = calls
        .cluster()
        .get_status(GetStatusRequest { local_only: false })
        .await
        .map_err(Refused::on(frame))?;
    Ok(status.into_inner().nodes)
}

fn name(status: &NodeStatus) -> String {
    status.node.as_ref().map_or_else(String::new, |node| node.name.clone())
}

/// `GET /studio/databases/create`.
pub async fn create_form(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let nodes: Vec<String> = nodes(&calls, &frame).await?.iter().map(name).collect();
    let entered = Create { replicas: nodes.len().clamp(1, 3).to_string(), ..Create::default() };
    Ok(answer::page(&CreatePage { frame, nodes, entered, wrong: None }))
}

/// `POST /studio/databases/create`.
pub async fn create(visit: Visit, Form(entered): Form<Create>) -> Answer {
    let Visit { calls, frame } = visit;
    let made = match entered.replicas.trim().parse() {
        Ok(replicas) => {
            let name = entered.name.clone();
            let request = CreateDatabaseRequest {
                name,
                replicas,
                nodes: Vec::new(),
                request_id: String::new(),
            };
            calls.databases().create_database(request).await
        }
        Err(_) => Err(Status::invalid_argument("The number of replicas is not a whole number.")),
    };
    match made {
        Ok(made) => Ok(answer::see(&path(&made.into_inner().record.unwrap_or_default().name))),
        Err(status) => {
            let nodes = nodes(&calls, &frame).await?.iter().map(name).collect();
            let (code, _) = answer::as_http(status.code());
            let wrong = Some(answer::field(&status));
            Ok(answer::page_with(code, &CreatePage { frame, nodes, entered, wrong }))
        }
    }
}

/// Which database.
#[derive(Debug, Deserialize)]
pub struct Which {
    db: String,
}

#[derive(Template)]
#[template(path = "databases/show.html")]
struct Show {
    frame: Frame,
    record: DatabaseRecord,
    enabled: bool,
    created: String,
    replicas: Vec<Replica>,
    holders: Vec<Holder>,
    more_holders: bool,
    wrong: Option<String>,
}

impl Show {
    /// The operation of the button that changes the state.
    fn change(&self) -> &'static str {
        if self.enabled { "disable-database" } else { "enable-database" }
    }

    fn documents(&self) -> String {
        format!("/studio/documents{}", words::query(&[("db", &self.record.name)]))
    }
}

/// A node of the database's group.
struct Replica {
    node: String,
    role: String,
    leads: bool,
    applied: String,
    lag: u64,
    hash: String,
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

fn replicas(nodes: &[NodeStatus], database: &str) -> Vec<Replica> {
    let group = |node: &NodeStatus| -> Option<GroupStatus> {
        node.groups.iter().find(|it| it.group.eq_ignore_ascii_case(database)).cloned()
    };
    let groups: Vec<(String, u64, GroupStatus)> = nodes
        .iter()
        .filter_map(|node| Some((name(node), node.node.as_ref()?.id, group(node)?)))
        .collect();
    let newest = groups.iter().map(|(_, _, group)| group.last_log_index).max().unwrap_or(0);
    let replica = |(node, id, group): (String, u64, GroupStatus)| Replica {
        node,
        leads: group.leader_id == id,
        applied: words::count(group.applied_index),
        lag: newest.saturating_sub(group.applied_index),
        hash: words::short(&group.state_hash).to_owned(),
        role: group.role,
    };
    groups.into_iter().map(replica).collect()
}

/// `GET /studio/database?db=`.
pub async fn show(visit: Visit, Query(which): Query<Which>) -> Answer {
    shown(visit, which.db, None).await
}

async fn shown(visit: Visit, database: String, wrong: Option<Status>) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let asked = GetDatabaseRecordRequest { name: database };
    let record = calls
        .databases()
        .get_database_record(asked)
        .await
        .map_err(&refused)?
        .into_inner()
        .record
        .unwrap_or_default();
    let asked = ListCertificatesRequest {
        page_size: HOLDERS_MAX,
        database: record.name.clone(),
        clearance: Clearance::User.into(),
        ..ListCertificatesRequest::default()
    };
    let found = calls.security().list_certificates(asked).await.map_err(&refused)?.into_inner();
    drop(refused);
    let nodes = nodes(&calls, &frame).await?;
    let code = wrong
        .as_ref()
        .map_or(axum::http::StatusCode::OK, |status| answer::as_http(status.code()).0);
    let page = Show {
        enabled: record.state == i32::from(DatabaseState::Enabled),
        created: words::date(record.created_unix_ms),
        replicas: replicas(&nodes, &record.name),
        more_holders: !found.next_page_token.is_empty(),
        holders: found
            .certificates
            .into_iter()
            .filter_map(|it| Holder::of(it, &record.name))
            .collect(),
        wrong: wrong.map(|status| answer::field(&status).1),
        record,
        frame,
    };
    Ok(answer::page_with(code, &page))
}

/// A new state for a database.
#[derive(Debug, Deserialize)]
pub struct State {
    db: String,
    to: String,
}

/// `POST /studio/database/state`.
pub async fn set_state(visit: Visit, Form(form): Form<State>) -> Answer {
    let Visit { calls, frame } = visit;
    let (name, request_id) = (form.db.clone(), String::new());
    match form.to.as_str() {
        "enabled" => {
            let asked = EnableDatabaseRequest { name, request_id };
            calls.databases().enable_database(asked).await.map_err(Refused::on(&frame))?;
        }
        _ => {
            let asked = DisableDatabaseRequest { name, request_id };
            calls.databases().disable_database(asked).await.map_err(Refused::on(&frame))?;
        }
    }
    Ok(answer::see(&path(&form.db)))
}

#[derive(Template)]
#[template(path = "databases/delete.html")]
struct DeletePage {
    frame: Frame,
    name: String,
    wrong: bool,
}

/// `GET /studio/database/delete?db=`.
pub async fn delete_form(visit: Visit, Query(which): Query<Which>) -> Answer {
    Ok(answer::page(&DeletePage { frame: visit.frame, name: which.db, wrong: false }))
}

/// The name, typed again.
#[derive(Debug, Deserialize)]
pub struct Delete {
    db: String,
    #[serde(default)]
    typed: String,
}

/// `POST /studio/database/delete`.
pub async fn delete(visit: Visit, Form(form): Form<Delete>) -> Answer {
    let Visit { calls, frame } = visit;
    if form.typed != form.db {
        let page = DeletePage { frame, name: form.db, wrong: true };
        return Ok(answer::page_with(axum::http::StatusCode::BAD_REQUEST, &page));
    }
    let asked = DeleteDatabaseRequest { name: form.db, request_id: String::new() };
    calls.databases().delete_database(asked).await.map_err(Refused::on(&frame))?;
    Ok(answer::see("/studio/databases"))
}

/// Access that is given or taken at the database's side.
#[derive(Debug, Deserialize)]
pub struct Change {
    db: String,
    t: String,
    access: String,
    #[serde(default)]
    etag: String,
}

/// `POST /studio/database/access`: an edit of one certificate, all its other grants kept.
pub async fn set_access(visit: Visit, Form(form): Form<Change>) -> Answer {
    let asked = GetCertificateRequest { thumbprint: form.t.trim().to_owned() };
    let status = match visit.calls.security().get_certificate(asked).await {
        Ok(found) => {
            let certificate = found.into_inner().certificate.unwrap_or_default();
            let edited = visit.calls.security().edit_certificate(edit(certificate, &form)).await;
            match edited {
                Ok(_) => return Ok(answer::see(&path(&form.db))),
                Err(status) => status,
            }
        }
        Err(status) => status,
    };
    shown(visit, form.db, Some(status)).await
}

fn edit(certificate: Certificate, form: &Change) -> EditCertificateRequest {
    let mut grants: BTreeMap<String, Grant> = certificate
        .grants
        .into_iter()
        .map(|grant| (grant.database.to_lowercase(), grant))
        .collect();
    let key = form.db.to_lowercase();
    let access = match form.access.as_str() {
        "read" => Some(Access::Read),
        "read-write" => Some(Access::ReadWrite),
        "admin" => Some(Access::Admin),
        _ => None,
    };
    match access {
        Some(access) => {
            drop(grants.insert(key, Grant { database: form.db.clone(), access: access.into() }))
        }
        None => drop(grants.remove(&key)),
    }
    EditCertificateRequest {
        thumbprint: certificate.thumbprint,
        clearance: certificate.clearance,
        grants: grants.into_values().collect(),
        set_grants: true,
        // What was shown, or for somebody new, what was read a moment ago.
        expected_etag: if form.etag.is_empty() { certificate.etag } else { form.etag.clone() },
        ..EditCertificateRequest::default()
    }
}
