//! One certificate: what it is, what it may, what was done with it.

use std::collections::BTreeMap;

use askama::Template;
use axum::{Form, extract::Query};
use rookery_proto::{
    audit::v1::{Filter, ListRecordsRequest},
    security::v1::{ExplainRequest, Explanation, GetCertificateRequest},
};
use serde::Deserialize;

use super::{
    Shown,
    connections::{Cut, Done, Open},
};
use crate::studio::{
    answer::{Answer, Refused, page as answer_page},
    audit::Row,
    visit::{Frame, Visit},
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
}

/// `GET /studio/certificate?t=`.
pub async fn page(visit: Visit, Query(which): Query<Which>) -> Answer {
    show(visit, which, None).await
}

/// `POST /studio/certificate/cut`: cuts connections, and shows what is left.
pub async fn cut(visit: Visit, Form(cut): Form<Cut>) -> Answer {
    let which = Which { t: cut.t.clone() };
    let done = cut.done(&visit.calls).await.map_err(Refused::on(&visit.frame))?;
    show(visit, which, Some(done)).await
}

async fn show(visit: Visit, which: Which, cut: Option<Done>) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let asked = GetCertificateRequest { thumbprint: which.t };
    let found = calls.security().get_certificate(asked).await.map_err(&refused)?.into_inner();
    let certificate = found.certificate.unwrap_or_default();
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
    let mut audit = Vec::new();
    if frame.may("view-audit") {
        let filter = Filter { target: certificate.thumbprint.clone(), ..Filter::default() };
        let asked = ListRecordsRequest {
            filter: Some(filter),
            page_size: AUDIT_ROWS,
            ..ListRecordsRequest::default()
        };
        let records =
            calls.audit().list_records(asked).await.map_err(&refused)?.into_inner().records;
        audit = records.into_iter().map(Row::of).collect();
    }
    let open = Open::of(&calls, &frame, &certificate).await.map_err(&refused)?;
    drop(refused);
    let pem = crate::studio::certificates::pem(&certificate.der);
    let databases_left_out = certificate.grants.len().saturating_sub(EXPLAINED_MAX);
    let c = Shown::new(certificate, &frame);
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
    }))
}
