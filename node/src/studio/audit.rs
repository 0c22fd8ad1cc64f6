//! The audit trail: a table with filters, the newest as they come, verification, export.

use std::{convert::Infallible, str::FromStr as _};

use askama::Template;
use axum::{
    body::Body,
    extract::Query,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response, Sse, sse::Event},
};
use futures::{Stream, StreamExt as _};
use rookery_proto::{
    audit::v1::{
        ExportRequest, Filter, ListRecordsRequest, TailRecordsRequest, VerifyRequest,
        VerifyResponse,
    },
    log::v1::{AuditOutcome, AuditRecord},
};
use serde::Deserialize;

use super::{
    answer::{self, Answer, Refused},
    visit::{Frame, Visit},
    words,
};
use crate::names::Thumbprint;

/// Records a page.
const PAGE_SIZE: u32 = 100;

/// What is asked for.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Asked {
    actor: String,
    operation: String,
    target: String,
    outcome: String,
    /// First and last day (UTC), as `2026-11-22`.
    from: String,
    to: String,
    page: String,
}

/// Milliseconds of the beginning of a day, of the last millisecond of it, in UTC; 0, which leaves the side open, where
/// it is no day.
fn bounds_of(day: &str) -> (i64, i64) {
    let day = Some(day.trim()).filter(|day| day.len() == "2026-11-22".len());
    let day: Option<jiff::civil::Date> = day.and_then(|day| day.parse().ok());
    let begin = day.and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok());
    begin.map_or((0, 0), |begin| {
        let first = begin.timestamp().as_millisecond();
        (first, first.saturating_add(24 * 3_600_000 - 1))
    })
}

impl Asked {
    fn filter(&self) -> Filter {
        let outcome = match self.outcome.as_str() {
            "applied" => AuditOutcome::Applied,
            "refused" => AuditOutcome::Refused,
            "denied" => AuditOutcome::Denied,
            "started" => AuditOutcome::Started,
            _ => AuditOutcome::Unspecified,
        };
        Filter {
            actor: self.actor.trim().to_owned(),
            operation: self.operation.trim().to_owned(),
            target: self.target.trim().to_owned(),
            outcome: outcome.into(),
            from_unix_ms: bounds_of(&self.from).0,
            to_unix_ms: bounds_of(&self.to).1,
            ..Filter::default()
        }
    }

    fn is_filtered(&self) -> bool {
        let fields =
            [&self.actor, &self.operation, &self.target, &self.outcome, &self.from, &self.to];
        fields.into_iter().any(|field| !field.is_empty())
    }

    fn at(&self, path: &str, page: &str) -> String {
        let pairs = [
            ("actor", self.actor.as_str()),
            ("operation", &self.operation),
            ("target", &self.target),
            ("outcome", &self.outcome),
            ("from", &self.from),
            ("to", &self.to),
            ("page", page),
        ];
        format!("{path}{}", words::query(&pairs))
    }
}

/// A record as a row shows it.
pub struct Row {
    /// The record.
    pub it: AuditRecord,
}

impl Row {
    /// From a record.
    #[must_use]
    pub fn of(it: AuditRecord) -> Self {
        Self { it }
    }

    /// When, in UTC.
    #[must_use]
    pub fn at(&self) -> String {
        words::date(self.it.at_unix_ms)
    }

    /// What came of it.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match AuditOutcome::try_from(self.it.outcome) {
            Ok(AuditOutcome::Applied) => "applied",
            Ok(AuditOutcome::Refused) => "refused",
            Ok(AuditOutcome::Denied) => "denied",
            Ok(AuditOutcome::Started) => "started",
            Ok(AuditOutcome::Unspecified) | Err(_) => words::NONE,
        }
    }

    /// The class of the outcome's tag.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self.outcome() {
            "denied" => "bad",
            "refused" => "warn",
            _ => "",
        }
    }

    /// Who did it.
    #[must_use]
    pub fn actor(&self) -> String {
        match (self.it.actor_name.as_str(), self.it.actor.as_slice()) {
            ("", []) => words::NONE.to_owned(),
            ("", actor) => words::short(&hex::encode(actor)).to_owned(),
            (name, _) => name.to_owned(),
        }
    }

    /// The actor's thumbprint; empty for a node that acts for itself.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        hex::encode(&self.it.actor)
    }

    /// What it was done to, without the thumbprint of a certificate.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self.certificate() {
            Some(thumbprint) => &self.it.target[..self.it.target.len() - thumbprint.len()],
            None => &self.it.target,
        }
    }

    /// The thumbprint of the certificate that it was done to: the last word of the target.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        let (_, last) = self.it.target.rsplit_once(' ')?;
        (Thumbprint::from_str(last).is_ok() && self.it.target.starts_with("certificate "))
            .then_some(last)
    }

    /// The beginning of that thumbprint.
    #[must_use]
    pub fn short(&self) -> &str {
        words::short(self.certificate().unwrap_or_default())
    }

    /// Why not, and how many times.
    #[must_use]
    pub fn why(&self) -> String {
        let times =
            if self.it.count > 1 { format!(" ({} times)", self.it.count) } else { String::new() };
        format!("{}{times}", self.it.reason)
    }

    /// Whether there is more to it than its row says.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.it.asked.is_empty()
            || !self.it.changes.is_empty()
            || !self.it.details.is_empty()
            || !self.it.remote.is_empty()
    }
}

const OUTCOMES: [(&str, &str); 5] = [
    ("", "any"),
    ("applied", "applied"),
    ("refused", "refused"),
    ("denied", "denied"),
    ("started", "started"),
];

#[derive(Template)]
#[template(path = "audit/list.html")]
struct List {
    frame: Frame,
    asked: Asked,
    rows: Vec<Row>,
    next: String,
    verified: Option<VerifyResponse>,
}

/// Rows alone, for the live table.
#[derive(Template)]
#[template(path = "audit/rows.html")]
struct Rows {
    rows: Vec<Row>,
}

/// `GET /studio/audit`.
pub async fn page(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    list(visit, asked, None).await
}

async fn list(visit: Visit, asked: Asked, verified: Option<VerifyResponse>) -> Answer {
    let Visit { calls, frame } = visit;
    let request = ListRecordsRequest {
        filter: Some(asked.filter()),
        oldest_first: false,
        page_size: PAGE_SIZE,
        page_token: asked.page.clone(),
    };
    let found =
        calls.audit().list_records(request).await.map_err(Refused::on(&frame))?.into_inner();
    let next = match found.next_page_token.as_str() {
        "" => String::new(),
        token => asked.at("/studio/audit", token),
    };
    let rows = found.records.into_iter().map(Row::of).collect();
    Ok(answer::page(&List { frame, asked, rows, next, verified }))
}

/// `POST /studio/audit/verify`.
pub async fn verify(visit: Visit) -> Answer {
    let verified = visit
        .calls
        .audit()
        .verify(VerifyRequest {})
        .await
        .map_err(Refused::on(&visit.frame))?
        .into_inner();
    list(visit, Asked::default(), Some(verified)).await
}

/// `GET /studio/audit/live`: rows as they come (server-sent events, WHATWG HTML 9.2). It ends with the stream beneath: when
/// the certificate loses rights or expires, after an hour at the latest.
pub async fn live(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let newest = ListRecordsRequest { page_size: 1, ..ListRecordsRequest::default() };
    let newest =
        calls.audit().list_records(newest).await.map_err(Refused::on(&frame))?.into_inner().records;
    let after_sequence = newest.first().map_or(0, |record| record.sequence);
    let request = TailRecordsRequest { filter: Some(asked.filter()), after_sequence };
    let tail = calls.audit().tail_records(request).await.map_err(Refused::on(&frame))?.into_inner();
    Ok(Sse::new(events(tail)).keep_alive(axum::response::sse::KeepAlive::default()).into_response())
}

fn events(
    tail: tonic::Streaming<rookery_proto::audit::v1::TailRecordsResponse>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    tail.map(|message| {
        let event = match message {
            Ok(message) => {
                let rows = Rows { rows: message.records.into_iter().rev().map(Row::of).collect() };
                Event::default().data(rows.render().unwrap_or_default())
            }
            Err(status) => Event::default().event("ended").data(status.message()),
        };
        Ok(event)
    })
}

/// `POST /studio/audit/export`: all records as JSON lines, as they are verified offline.
pub async fn export(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let stream = calls.audit().export(ExportRequest { request_id: String::new() }).await;
    let stream = stream.map_err(Refused::on(&frame))?.into_inner();
    let mut response =
        Response::new(Body::from_stream(stream.map(|part| part.map(|part| part.lines))));
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl; charset=utf-8"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"audit.jsonl\""),
    );
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_what_is_no_day_bounds_nothing() {
        assert_eq!(bounds_of("2026-11-22"), (1_795_305_600_000, 1_795_391_999_999));
        for nothing in ["", "yesterday", "2026-13-01", "2026-11-22T10:00"] {
            assert_eq!(bounds_of(nothing), (0, 0), "{nothing}");
        }
    }
}
