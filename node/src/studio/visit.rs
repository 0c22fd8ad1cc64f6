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
    http::{StatusCode, request::Parts},
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
    log_in, second_factor, words,
};

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
        Self(Arc::new(Inner {
            who: WhoAmIResponse::default(),
            rights: BTreeMap::new(),
            second_factor: GetSecondFactorStatusResponse::default(),
            now: now(),
            files: answer::files(),
            path: String::new(),
        }))
    }

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
        let who = who.map_err(|status| unreachable(&status))?.into_inner();
        if !who.thumbprint.is_empty() && !is_known(&who) {
            // On a node that belongs to no cluster nobody is known; that is another page.
            second_factor_status(&calls).await.map_err(|status| unreachable(&status))?;
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
        _ => unreachable(status),
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
    let second_factor = second_factor_status(calls).await.map_err(|status| unreachable(&status))?;
    Ok(Frame(Arc::new(Inner {
        who,
        rights,
        second_factor,
        now: now(),
        files: answer::files(),
        path: parts.uri.path().to_owned(),
    })))
}

/// Registered here, or declared as an administrator by the configuration of a node.
fn is_known(who: &WhoAmIResponse) -> bool {
    who.registered || who.well_known
}

fn why_not(rule: &str, required: &str, have: &str) -> String {
    format!("Needs {required}; you have {have} (rule {rule}).")
}

/// The wall clock, for words such as "in 3 days" only; dates that decide are the registry's.
pub fn now() -> i64 {
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
            "Your browser showed no certificate, and this cluster knows people by nothing else: there is no password and \
             no sign-up."
                .to_owned(),
            "Import the certificate that an administrator gave you, as described below. Then quit the browser and open \
             this page again, or use a new private window: a browser remembers that it showed none.",
        ));
    }
    if !is_known(who) {
        return Some((
            "Unknown certificate",
            "The certificate that your browser showed is not registered in this cluster, or not any more. Who issued it \
             says nothing here: only a registration counts."
                .to_owned(),
            "Ask an administrator to register it, and tell them the thumbprint below. If you have another certificate, \
             quit the browser, or open this page in a new private window, to be asked again.",
        ));
    }
    match who.state.as_str() {
        "expired" => Some((
            "Expired certificate",
            format!("Your certificate {} expired at {}.", who.name, at(who.not_after_unix_ms)),
            "Ask an administrator for a new one, and tell them the thumbprint below. Nothing can prolong this one: its last \
             moment stands in it.",
        )),
        "not yet valid" => Some((
            "Certificate not valid yet",
            format!(
                "Your certificate {} is valid from {} on.",
                who.name,
                at(who.not_before_unix_ms)
            ),
            "Come back then. If the date is wrong, ask an administrator for another certificate, and tell them the \
             thumbprint below.",
        )),
        "disabled" => Some((
            "Disabled certificate",
            format!("Your certificate {} was disabled by an administrator.", who.name),
            "Ask an administrator to enable it, and tell them the thumbprint below. Your rights were kept.",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn who(state: &str) -> WhoAmIResponse {
        WhoAmIResponse {
            registered: true,
            thumbprint: "ab".repeat(32),
            name: "alice".to_owned(),
            state: state.to_owned(),
            not_before_unix_ms: 1_795_334_400_000,
            not_after_unix_ms: 1_795_334_400_000,
            ..WhoAmIResponse::default()
        }
    }

    #[test]
    fn every_reason_has_its_own_words() {
        let nobody = WhoAmIResponse { state: "no certificate".to_owned(), ..Default::default() };
        let unknown = WhoAmIResponse { registered: false, ..who("unknown") };
        let cases = [
            (nobody, "No certificate", "no password"),
            (unknown, "Unknown certificate", "not registered"),
            (who("expired"), "Expired certificate", "expired at 2026-11-22 08:00 UTC"),
            (who("not yet valid"), "Certificate not valid yet", "from 2026-11-22 08:00 UTC"),
            (who("disabled"), "Disabled certificate", "by an administrator"),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for (who, title, part) in &cases {
            let (told, why, what_to_do) = refused(who).unwrap_or_default();
            assert_eq!(told, *title);
            assert!(why.contains(part), "{why}");
            assert!(seen.insert(why) && seen.insert(what_to_do.to_owned()), "{title}: said before");
            let tells = what_to_do.contains("thumbprint below");
            assert_eq!(tells, !who.thumbprint.is_empty(), "{title}");
        }
        for let_in in ["valid", "expiring"] {
            assert!(refused(&who(let_in)).is_none(), "{let_in}");
        }
        let declared = WhoAmIResponse { registered: false, well_known: true, ..who("valid") };
        assert!(refused(&declared).is_none(), "an administrator whom a configuration declares");
    }
}
