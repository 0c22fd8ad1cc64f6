//! The audit trail: a table with filters, the newest as they come, verification, export.

use std::convert::Infallible;

use askama::Template;
use axum::{
    body::Body,
    extract::Query,
    http::{HeaderMap, HeaderValue, header},
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
use tonic::Status;

use super::{
    answer::{self, Answer, Refused},
    contract::Calls,
    posted::Posted,
    visit::{Frame, Visit},
    words,
};

/// Hexadecimal digits of a thumbprint (SHA-256).
const THUMBPRINT_DIGITS: usize = 64;

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
    /// For the records that are followed: the last one that is shown.
    after: String,
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
        self.filters().into_iter().any(|(_, value)| !value.is_empty())
    }

    /// The filters as fields.
    fn filters(&self) -> [(&'static str, &str); 6] {
        [
            ("actor", self.actor.as_str()),
            ("operation", &self.operation),
            ("target", &self.target),
            ("outcome", &self.outcome),
            ("from", &self.from),
            ("to", &self.to),
        ]
    }

    fn at(&self, path: &str, page: &str) -> String {
        let pairs = [&self.filters()[..], &[("page", page)]].concat();
        format!("{path}{}", words::query(&pairs))
    }

    /// Where records that fit and come after this one are followed.
    fn live(&self, after: u64) -> String {
        let after = after.to_string();
        let pairs = [&self.filters()[..], &[("after", after.as_str())]].concat();
        format!("/studio/audit/live{}", words::query(&pairs))
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
        words::moment(self.it.at_unix_ms)
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
        let is_thumbprint =
            last.len() == THUMBPRINT_DIGITS && last.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_thumbprint && self.it.target.starts_with("certificate ")).then_some(last)
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

    /// How many changes of it are not told.
    #[must_use]
    pub fn left_out(&self) -> String {
        words::several(self.it.changes_left_out, "changed record")
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
    /// Where the records that come after these are followed; empty: these are not the newest.
    live: String,
    verified: Option<VerifyResponse>,
}

impl List {
    fn records(&self, verified: &VerifyResponse) -> String {
        words::several(verified.records, "record")
    }

    fn checkpoints(&self, verified: &VerifyResponse) -> String {
        words::several(verified.checkpoints, "signed checkpoint")
    }
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
    let refused = Refused::before_change(&frame); // To verify changes nothing either.
    // The end of the log before the page is read: what comes between the two is on the page.
    let end = match asked.page.is_empty() {
        true => Some(end(&calls).await.map_err(&refused)?),
        false => None,
    };
    let request = ListRecordsRequest {
        filter: Some(asked.filter()),
        oldest_first: false,
        page_size: PAGE_SIZE,
        page_token: asked.page.clone(),
    };
    let found = calls.audit().list_records(request).await.map_err(&refused)?.into_inner();
    drop(refused);
    let next = match found.next_page_token.as_str() {
        "" => String::new(),
        token => asked.at("/studio/audit", token),
    };
    let newest = found.records.first().map_or(0, |record| record.sequence);
    let live = end.map_or_else(String::new, |end| asked.live(end.max(newest)));
    let rows = found.records.into_iter().map(Row::of).collect();
    Ok(answer::page(&List { frame, asked, rows, next, live, verified }))
}

/// The newest sequence of the log.
async fn end(calls: &Calls) -> Result<u64, Status> {
    let newest = ListRecordsRequest { page_size: 1, ..ListRecordsRequest::default() };
    let newest = calls.audit().list_records(newest).await?.into_inner().records;
    Ok(newest.first().map_or(0, |record| record.sequence))
}

/// `POST /studio/audit/verify`: what came of it, above the records that were shown.
pub async fn verify(visit: Visit, Posted(asked): Posted<Asked>) -> Answer {
    let verified = visit.calls.audit().verify(VerifyRequest {}).await;
    let verified = verified.map_err(Refused::before_change(&visit.frame))?.into_inner();
    list(visit, asked, Some(verified)).await
}

/// The last record that a follower has: the id of the last event, which a browser sends when it connects again (WHATWG
/// HTML 9.2), or what the page was made with.
fn last_seen(headers: &HeaderMap, asked: &Asked) -> Option<u64> {
    let sent = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    sent.or_else(|| asked.after.parse().ok())
}

/// `GET /studio/audit/live`: rows as they come (server-sent events), each event with the sequence of its last record. It ends
/// with the stream beneath: when the certificate loses rights or expires, after an hour at the latest.
pub async fn live(visit: Visit, headers: HeaderMap, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let after_sequence = match last_seen(&headers, &asked) {
        Some(sequence) => sequence,
        None => end(&calls).await.map_err(Refused::on(&frame))?,
    };
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
                let last = message.records.last().map_or(0, |record| record.sequence);
                let rows = Rows { rows: message.records.into_iter().rev().map(Row::of).collect() };
                Event::default().id(last.to_string()).data(rows.render().unwrap_or_default())
            }
            // An event without data is not told to a script.
            Err(status) if status.message().is_empty() => ended("The stream has ended."),
            Err(status) => ended(status.message()),
        };
        Ok(event)
    })
}

fn ended(why: &str) -> Event {
    Event::default().event("ended").data(why)
}

/// `POST /studio/audit/export`: all records as JSON lines, as they are verified offline.
pub async fn export(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let stream = calls.audit().export(ExportRequest { request_id: String::new() }).await;
    let stream = stream.map_err(Refused::before_change(&frame))?.into_inner();
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
    fn a_follower_goes_on_after_the_last_record_that_it_has() {
        for (header, after, expected) in [
            (None, "", None),
            (None, "7", Some(7)),
            (Some("9"), "7", Some(9)),
            (Some("9"), "", Some(9)),
            (Some("no number"), "7", Some(7)),
            (Some("-1"), "x", None),
            (None, "18446744073709551616", None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("last-event-id", HeaderValue::from_static(header));
            }
            let asked = Asked { after: after.to_owned(), ..Asked::default() };
            assert_eq!(last_seen(&headers, &asked), expected, "{header:?} {after}");
        }
    }

    #[test]
    fn what_is_followed_is_what_is_shown() {
        let asked = Asked { outcome: "denied".into(), page: "token".into(), ..Asked::default() };
        assert_eq!(asked.live(7), "/studio/audit/live?outcome=denied&after=7");
        assert!(
            asked.is_filtered() && !Asked { page: "x".into(), ..Asked::default() }.is_filtered()
        );
    }

    #[test]
    fn days_are_whole_and_what_is_no_day_bounds_nothing() {
        assert_eq!(bounds_of("2026-11-22"), (1_795_305_600_000, 1_795_391_999_999));
        for nothing in ["", "yesterday", "2026-13-01", "2026-11-22T10:00"] {
            assert_eq!(bounds_of(nothing), (0, 0), "{nothing}");
        }
    }
}
