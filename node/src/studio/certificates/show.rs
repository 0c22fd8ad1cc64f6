//! One certificate: what it is, what it may, what was done with it.

use std::collections::BTreeMap;

use askama::Template;
use axum::{Form, extract::Query};
use rookery_proto::{
    audit::v1::{Filter, ListRecordsRequest},
    security::v1::{ExplainRequest, Explanation, GetCertificateRequest},
};
use serde::Deserialize;
use tonic::Status;

use super::{
    Shown,
    actions::Act,
    connections::{Cut, Done, Open},
    found,
};
use crate::studio::{
    answer::{self, Answer, Refused, page as answer_page},
    audit::Row,
    contract::Calls,
    visit::{Frame, Visit},
    words,
};

/// Rows of the audit log on the page.
const AUDIT_ROWS: u32 = 20;
/// Databases whose operations the page lists, each by a call of its own.
const EXPLAINED_MAX: usize = 20;

/// Which one.
#[derive(Debug, Deserialize)]
pub struct Which {
    /// Its thumbprint.
    pub t: String,
}

#[derive(Template)]
#[template(path = "certificates/show.html")]
struct Show {
    frame: Frame,
    c: Shown,
    pem: String,
    server: Vec<Explanation>,
    databases: Vec<(String, Vec<Explanation>)>,
    /// Databases of which no operations are listed: beyond [`EXPLAINED_MAX`].
    databases_left_out: usize,
    audit: Vec<Row>,
    open: Option<Open>,
    cut: Option<Done>,
    /// Who registered it: the name of the certificate, where it is still there.
    author: Option<String>,
}

impl Show {
    fn operations(&self, allowed: &[Explanation]) -> String {
        words::several(allowed.len() as u64, "operation")
    }

    fn left_out(&self) -> String {
        words::several(self.databases_left_out as u64, "more database")
    }

    fn author_path(&self) -> String {
        format!("/studio/certificate{}", words::query(&[("t", &self.c.it.created_by)]))
    }

    fn author_short(&self) -> &str {
        words::short(&self.c.it.created_by)
    }
}

/// The name of the certificate that registered this one; `None` where it is not registered any more.
async fn author(calls: &Calls, thumbprint: &str) -> Option<String> {
    let asked = GetCertificateRequest { thumbprint: thumbprint.to_owned() };
    let told = calls.security().get_certificate(asked).await.ok()?.into_inner();
    Some(told.certificate?.name)
}

/// What was done with it; nothing for visitors who may not see the log.
async fn records(calls: &Calls, frame: &Frame, thumbprint: &str) -> Result<Vec<Row>, Status> {
    if !frame.may("view-audit") {
        return Ok(Vec::new());
    }
    let filter = Filter { target: thumbprint.to_owned(), ..Filter::default() };
    let asked = ListRecordsRequest {
        filter: Some(filter),
        page_size: AUDIT_ROWS,
        ..ListRecordsRequest::default()
    };
    let found = calls.audit().list_records(asked).await?.into_inner();
    Ok(found.records.into_iter().map(Row::of).collect())
}

/// `GET /studio/certificate?t=`.
pub async fn page(visit: Visit, Query(which): Query<Which>) -> Answer {
    show(visit, which, None).await
}

/// `POST /studio/certificate/cut`: cuts connections, and shows what is left.
pub async fn cut(visit: Visit, Form(cut): Form<Cut>) -> Answer {
    let which = Which { t: cut.t.clone() };
    let done = cut.done(&visit.calls).await.map_err(Refused::on(&visit.frame))?;
    let path = format!("/studio/certificate{}", words::query(&[("t", &which.t)]));
    // It was done, whatever becomes of the page that tells it.
    show(visit, which, Some(done)).await.or_else(|_| Ok(answer::see(&path)))
}

async fn show(visit: Visit, which: Which, cut: Option<Done>) -> Answer {
    let Visit { calls, frame } = visit;
    let c = found(&calls, &frame, &which.t).await?;
    let certificate = &c.it;
    let refused = Refused::on(&frame);
    let explain = |database: &str| ExplainRequest {
        thumbprint: certificate.thumbprint.clone(),
        operation: String::new(),
        database: database.to_owned(),
    };
    let told = calls.trust().explain(explain("")).await.map_err(&refused)?.into_inner();
    let server = told.explanations.into_iter().filter(|it| it.allowed).collect();
    let mut databases = BTreeMap::new();
    for grant in certificate.grants.iter().take(EXPLAINED_MAX) {
        let told =
            calls.trust().explain(explain(&grant.database)).await.map_err(&refused)?.into_inner();
        let allowed =
            told.explanations.into_iter().filter(|it| it.allowed && it.scope == "database");
        databases.insert(grant.database.clone(), allowed.collect());
    }
    let audit = records(&calls, &frame, &certificate.thumbprint).await.map_err(&refused)?;
    let open = Open::of(&calls, &frame, &c).await.map_err(&refused)?;
    drop(refused);
    let author = match certificate.created_by.as_str() {
        "" => None,
        by => author(&calls, by).await,
    };
    let pem = crate::studio::certificates::pem(&certificate.der);
    let databases_left_out = certificate.grants.len().saturating_sub(EXPLAINED_MAX);
    Ok(answer_page(&Show {
        frame,
        c,
        pem,
        server,
        databases: databases.into_iter().collect(),
        databases_left_out,
        audit,
        open,
        cut,
        author,
    }))
}
