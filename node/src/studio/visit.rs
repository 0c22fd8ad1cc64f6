//! Who looks at a page, and what they may: the frame around every page.
//!
//! A handler takes a [`Visit`]. Whoever is not let in gets the page of the refusal instead, from here, so no handler is
//! reached without a registered certificate. What each handler then does is decided again by every call that it makes.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use rookery_proto::security::v1::{ExplainRequest, WhoAmIRequest, WhoAmIResponse};
use tonic::Status;

use super::{
    answer,
    contract::{Calls, Contract},
    words,
};

/// A registered visitor, and the calls in their name.
pub struct Visit {
    /// Calls in the visitor's name.
    pub calls: Calls,
    /// What is around the page.
    pub frame: Frame,
}

/// What every page shows around its content.
#[derive(Clone)]
pub struct Frame(Arc<Inner>);

struct Inner {
    who: WhoAmIResponse,
    rights: BTreeMap<String, Right>,
    /// The time of this page, in milliseconds since 1970 (UTC).
    now: i64,
    files: (String, String, String),
    path: String,
}

/// Whether an operation is allowed, and by which rule.
struct Right {
    allowed: bool,
    why_not: String,
}

impl Frame {
    /// Who looks.
    #[must_use]
    pub fn who(&self) -> &WhoAmIResponse {
        &self.0.who
    }

    /// The visitor's clearance in words.
    #[must_use]
    pub fn clearance(&self) -> &'static str {
        words::clearance(self.0.who.clearance)
    }

    /// Whether the visitor may do an operation of the server's table. An unknown one is allowed to nobody.
    #[must_use]
    pub fn may(&self, operation: &str) -> bool {
        self.0.rights.get(operation).is_some_and(|right| right.allowed)
    }

    /// The rule that forbids an operation; empty where it is allowed.
    #[must_use]
    pub fn why_not(&self, operation: &str) -> &str {
        self.0
            .rights
            .get(operation)
            .map_or("This node does not know the operation.", |right| &right.why_not)
    }

    /// The time of this page.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.0.now
    }

    /// The path of the stylesheet.
    #[must_use]
    pub fn style(&self) -> &str {
        &self.0.files.0
    }

    /// The path of the script.
    #[must_use]
    pub fn script(&self) -> &str {
        &self.0.files.1
    }

    /// The path of the icon.
    #[must_use]
    pub fn icon(&self) -> &str {
        &self.0.files.2
    }

    /// Whether this page belongs to a part of the rail: its path begins with this.
    #[must_use]
    pub fn within(&self, part: &str) -> bool {
        self.0.path.strip_prefix("/studio").is_some_and(|rest| {
            if part.is_empty() { rest.is_empty() } else { rest.starts_with(part) }
        })
    }
}

impl FromRequestParts<Contract> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, contract: &Contract) -> Result<Self, Response> {
        let calls = contract.calls(&parts.extensions, &parts.headers);
        let who = calls
            .security()
            .who_am_i(WhoAmIRequest {})
            .await
            .map_err(|status| unreachable(&status))?;
        let who = who.into_inner();
        if let Some(refusal) = Refusal::of(&who) {
            return Err(refusal.into_response());
        }
        let explained = calls.trust().explain(ExplainRequest::default()).await;
        let explained = explained.map_err(|status| unreachable(&status))?.into_inner();
        let rights = explained.explanations.into_iter().map(|told| {
            let why_not = if told.allowed {
                String::new()
            } else {
                why_not(&told.rule, &told.required, &told.have)
            };
            (told.operation, Right { allowed: told.allowed, why_not })
        });
        let inner = Inner {
            rights: rights.collect(),
            now: now(),
            files: answer::files(),
            path: parts.uri.path().to_owned(),
            who,
        };
        Ok(Self { calls, frame: Frame(Arc::new(inner)) })
    }
}

fn why_not(rule: &str, required: &str, have: &str) -> String {
    format!("Needs {required}; you have {have} (rule {rule}).")
}

/// The wall clock, for words such as "in 3 days" only; dates that decide are the registry's.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Why somebody is not let in, and what would help.
#[derive(Template)]
#[template(path = "not-let-in.html")]
struct Refusal<'a> {
    style: String,
    icon: String,
    title: &'static str,
    why: String,
    what_to_do: &'static str,
    who: &'a WhoAmIResponse,
}

impl<'a> Refusal<'a> {
    /// `None` for whoever is let in.
    fn of(who: &'a WhoAmIResponse) -> Option<Self> {
        let (title, why, what_to_do) = refused(who)?;
        let (style, _, icon) = answer::files();
        Some(Self { style, icon, title, why, what_to_do, who })
    }
}

impl IntoResponse for Refusal<'_> {
    fn into_response(self) -> Response {
        answer::page_with(StatusCode::FORBIDDEN, &self)
    }
}

fn refused(who: &WhoAmIResponse) -> Option<(&'static str, String, &'static str)> {
    let at = |unix_ms| format!("{} UTC", words::date(unix_ms));
    if who.thumbprint.is_empty() {
        return Some((
            "No certificate",
            "Your browser showed no certificate, and this cluster knows people by nothing else."
                .to_owned(),
            "Import the certificate that an administrator gave you, then open this page in a new private window: a browser \
             remembers the choice of none until then.",
        ));
    }
    if !who.registered {
        return Some((
            "Unknown certificate",
            "The certificate that your browser showed is not registered in this cluster, or not any more.".to_owned(),
            "Ask an administrator to register it, and tell them the thumbprint below. If you have another certificate, open \
             this page in a new private window to be asked again.",
        ));
    }
    match who.state.as_str() {
        "expired" => Some((
            "Expired certificate",
            format!("Your certificate {} expired at {}.", who.name, at(who.not_after_unix_ms)),
            "Ask an administrator for a new one.",
        )),
        "not yet valid" => Some((
            "Certificate not valid yet",
            format!(
                "Your certificate {} is valid from {} on.",
                who.name,
                at(who.not_before_unix_ms)
            ),
            "Come back then. If the date is wrong, ask an administrator for another certificate.",
        )),
        "disabled" => Some((
            "Disabled certificate",
            format!("Your certificate {} was disabled by an administrator.", who.name),
            "Ask an administrator to enable it.",
        )),
        _ => None,
    }
}

/// The frame itself could not be had: this node serves no calls at the moment.
fn unreachable(status: &Status) -> Response {
    let (code, title) = answer::as_http(status.code());
    let (style, _, icon) = answer::files();
    answer::page_with(code, &Unavailable { style, icon, title, why: status.message() })
}

#[derive(Template)]
#[template(path = "unavailable.html")]
struct Unavailable<'a> {
    style: String,
    icon: String,
    title: &'static str,
    why: &'a str,
}
