//! Who looks at a page, and what they may: the frame around every page.
//!
//! | a handler takes | and is reached by |
//! | --- | --- |
//! | [`Visit`] | a registered certificate in force, in a session where it has a second factor |
//! | [`Enrolling`] | the same, and one that may do nothing yet but make its second factor |
//! | [`Arrival`] | a registered certificate in force; nothing is asked of a second factor |
//!
//! Whoever is not let in gets the page of the refusal, or is led to the log-in page, from here. What each handler then does
//! is decided again by every call that it makes.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use axum::{
    extract::FromRequestParts,
    http::{Method, request::Parts},
    response::{IntoResponse, Response},
};
use rookery_proto::security::v1::{
    ExplainRequest, GetSecondFactorStatusRequest, GetSecondFactorStatusResponse, WhoAmIRequest,
    WhoAmIResponse,
};
use tonic::Status;

use super::{
    answer,
    contract::{Calls, Contract},
    log_in,
    not_let_in::{Refusal, is_known},
    second_factor, words,
};

/// Days of the visitor's certificate below which every page warns, and below which it is urgent.
const DAYS_LEFT_WARN: i64 = 30;
const DAYS_LEFT_BAD: i64 = 3;

/// A registered visitor whose certificate is in force.
pub struct Arrival {
    /// Calls in the visitor's name.
    pub calls: Calls,
    /// Who it is.
    pub who: WhoAmIResponse,
}

/// A visitor who is let in, and the calls in their name.
pub struct Visit {
    /// Calls in the visitor's name.
    pub calls: Calls,
    /// What is around the page.
    pub frame: Frame,
}

/// A visitor who is let in, or who has to make a second factor first: then the frame allows nothing.
pub struct Enrolling(pub Visit);

/// What every page shows around its content.
#[derive(Clone)]
pub struct Frame(Arc<Inner>);

struct Inner {
    who: WhoAmIResponse,
    rights: BTreeMap<String, Right>,
    second_factor: GetSecondFactorStatusResponse,
    /// The time of this page, in milliseconds since 1970 (UTC).
    now: i64,
    files: (String, String, String),
    path: String,
    /// Whether the request asks for a change.
    changes: bool,
}

/// Whether an operation is allowed, and by which rule.
struct Right {
    allowed: bool,
    why_not: String,
}

impl Frame {
    /// A frame around nothing, to nobody.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self::around_nothing(false)
    }

    /// The same around the answer to a form.
    #[cfg(test)]
    pub(super) fn of_a_change() -> Self {
        Self::around_nothing(true)
    }

    #[cfg(test)]
    fn around_nothing(changes: bool) -> Self {
        Self::of_one(changes, WhoAmIResponse::default(), &[])
    }

    /// The same to somebody who may do this.
    #[cfg(test)]
    fn of_one(changes: bool, who: WhoAmIResponse, may: &[&str]) -> Self {
        let right =
            |name: &&str| ((*name).to_owned(), Right { allowed: true, why_not: String::new() });
        Self(Arc::new(Inner {
            who,
            rights: may.iter().map(right).collect(),
            second_factor: GetSecondFactorStatusResponse::default(),
            now: now(),
            files: answer::files(),
            path: String::new(),
            changes,
        }))
    }

    /// A frame for this visitor, who may do these operations.
    #[cfg(test)]
    pub(super) fn for_visitor(who: WhoAmIResponse, may: &[&str]) -> Self {
        Self::of_one(false, who, may)
    }

    /// Who looks.
    #[must_use]
    pub fn who(&self) -> &WhoAmIResponse {
        &self.0.who
    }

    /// The beginning of the cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        let id = &self.0.who.cluster_id;
        id.get(..8).unwrap_or(id)
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

    /// What is asked of the visitor's second factor, and what they have.
    #[must_use]
    pub fn second_factor(&self) -> &GetSecondFactorStatusResponse {
        &self.0.second_factor
    }

    /// Whether there is a session to log out of.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.0.second_factor.session_expires_unix_ms != 0
    }

    /// The end of the session.
    #[must_use]
    pub fn session_until(&self) -> String {
        words::date(self.0.second_factor.session_expires_unix_ms)
    }

    /// The time of this page.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.0.now
    }

    /// Whether a change was asked for.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.0.changes
    }

    /// The page on which what was asked for can be seen.
    #[must_use]
    pub fn area(&self) -> &'static str {
        log_in::area(&self.0.path)
    }

    /// A new id for a form, with which it is done once however often it is sent (a UUID, as the contract has it).
    #[must_use]
    pub fn request_id(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }

    /// How many days the visitor's certificate has left, in words.
    #[must_use]
    pub fn days(&self) -> String {
        let days = self.0.who.days_left;
        format!("{days} {} left", words::plural(days.unsigned_abs(), "day"))
    }

    /// How soon the visitor's certificate ends, as the class of a tag.
    #[must_use]
    pub fn days_class(&self) -> &'static str {
        match self.0.who.days_left {
            ..DAYS_LEFT_BAD => "tag bad",
            DAYS_LEFT_BAD..DAYS_LEFT_WARN => "tag warn",
            _ => "soft",
        }
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

impl FromRequestParts<Contract> for Arrival {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, contract: &Contract) -> Result<Self, Response> {
        let calls = contract.calls(&parts.extensions, &parts.headers);
        let who = calls.security().who_am_i(WhoAmIRequest {}).await;
        let who = who.map_err(|status| unreachable(parts, &status))?.into_inner();
        if !who.thumbprint.is_empty() && !is_known(&who) {
            // On a node that belongs to no cluster nobody is known; that is another page.
            second_factor_status(&calls).await.map_err(|status| unreachable(parts, &status))?;
        }
        match Refusal::of(&who) {
            Some(refusal) => Err(refusal.into_response()),
            None => Ok(Self { calls, who }),
        }
    }
}

impl FromRequestParts<Contract> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, contract: &Contract) -> Result<Self, Response> {
        let Arrival { calls, who } = Arrival::from_request_parts(parts, contract).await?;
        let rights = rights(&calls).await.map_err(|status| turned_away(parts, &status))?;
        let frame = frame(&calls, who, rights, parts).await?;
        Ok(Self { calls, frame })
    }
}

impl FromRequestParts<Contract> for Enrolling {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, contract: &Contract) -> Result<Self, Response> {
        let Arrival { calls, who } = Arrival::from_request_parts(parts, contract).await?;
        let rights = match rights(&calls).await {
            Ok(rights) => rights,
            Err(status) if answer::reason(&status) == NOT_ENROLLED => BTreeMap::new(),
            Err(status) => return Err(turned_away(parts, &status)),
        };
        let frame = frame(&calls, who, rights, parts).await?;
        Ok(Self(Visit { calls, frame }))
    }
}

/// The reasons for which a certificate in force is not let in yet (`authz::DeniedReason`).
const LOG_IN_FIRST: &str = "SECOND_FACTOR_REQUIRED";
const NOT_ENROLLED: &str = "SECOND_FACTOR_NOT_ENROLLED";

/// What would let a visitor in whose certificate is in force; or that this node serves no calls at the moment.
fn turned_away(parts: &Parts, status: &Status) -> Response {
    match answer::reason(status).as_str() {
        LOG_IN_FIRST => log_in::ask(parts),
        NOT_ENROLLED => answer::see(second_factor::PATH),
        _ => unreachable(parts, status),
    }
}

async fn rights(calls: &Calls) -> Result<BTreeMap<String, Right>, Status> {
    let explained = calls.trust().explain(ExplainRequest::default()).await?.into_inner();
    let rights = explained.explanations.into_iter().map(|told| {
        let why_not = match told.allowed {
            true => String::new(),
            false => why_not(&told.rule, &told.required, &told.have),
        };
        (told.operation, Right { allowed: told.allowed, why_not })
    });
    Ok(rights.collect())
}

async fn second_factor_status(calls: &Calls) -> Result<GetSecondFactorStatusResponse, Status> {
    let asked = GetSecondFactorStatusRequest {};
    Ok(calls.second_factor().get_second_factor_status(asked).await?.into_inner())
}

async fn frame(
    calls: &Calls,
    who: WhoAmIResponse,
    rights: BTreeMap<String, Right>,
    parts: &Parts,
) -> Result<Frame, Response> {
    let second_factor = second_factor_status(calls).await;
    let second_factor = second_factor.map_err(|status| unreachable(parts, &status))?;
    Ok(Frame(Arc::new(Inner {
        who,
        rights,
        second_factor,
        now: now(),
        files: answer::files(),
        path: parts.uri.path().to_owned(),
        changes: asks_for_a_change(&parts.method),
    })))
}

fn why_not(rule: &str, required: &str, have: &str) -> String {
    format!("Needs {required}; you have {have} (rule {rule}).")
}

/// The wall clock, for words such as "in 3 days" only; dates that decide are the registry's.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The frame itself could not be had: this node serves no calls at the moment.
fn unreachable(parts: &Parts, status: &Status) -> Response {
    let (code, title) = answer::as_http(status.code());
    let (style, _, icon) = answer::files();
    let changes = asks_for_a_change(&parts.method);
    answer::page_with(code, &Unavailable { style, icon, title, why: status.message(), changes })
}

fn asks_for_a_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

#[derive(Template)]
#[template(path = "unavailable.html")]
struct Unavailable<'a> {
    style: String,
    icon: String,
    title: &'static str,
    why: &'a str,
    changes: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn the_last_days_of_a_certificate_are_urgent() {
        for (days_left, class, words) in [
            (0, "tag bad", "0 days left"),
            (1, "tag bad", "1 day left"),
            (2, "tag bad", "2 days left"),
            (3, "tag warn", "3 days left"),
            (29, "tag warn", "29 days left"),
            (30, "soft", "30 days left"),
        ] {
            let who = WhoAmIResponse { days_left, ..WhoAmIResponse::default() };
            let frame = Frame::of_one(false, who, &[]);
            assert_eq!((frame.days_class(), frame.days().as_str()), (class, words));
        }
    }

    #[tokio::test]
    async fn who_stands_in_no_registry_is_not_led_to_a_page_of_it() {
        for well_known in [false, true] {
            let who = WhoAmIResponse { well_known, ..WhoAmIResponse::default() };
            let frame = Frame::of_one(false, who, &["view-certificate"]);
            let page = answer::in_frame(&frame, StatusCode::OK, "A title", "Words.");
            let bytes = axum::body::to_bytes(page.into_body(), 1 << 20).await.unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(text.contains("/studio/certificate?t="), !well_known, "{text}");
        }
    }

    #[test]
    fn an_id_of_a_form_is_one_that_the_contract_takes_and_never_the_same() {
        let frame = Frame::for_tests();
        let [one, other] = [frame.request_id(), frame.request_id()];
        assert_ne!(one, other);
        assert!(one.parse::<crate::names::RequestId>().is_ok(), "{one}");
    }
}
