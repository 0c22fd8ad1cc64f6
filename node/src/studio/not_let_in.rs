//! Why somebody is not let in: five reasons, each in its own words, with what would help.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use rookery_proto::security::v1::WhoAmIResponse;

use super::{answer, words};

/// Why somebody is not let in, and what would help.
#[derive(Template)]
#[template(path = "not-let-in.html")]
pub struct Refusal<'a> {
    style: String,
    icon: String,
    title: &'static str,
    why: String,
    what_to_do: &'static str,
    who: &'a WhoAmIResponse,
}

impl<'a> Refusal<'a> {
    /// `None` for whoever is let in.
    #[must_use]
    pub fn of(who: &'a WhoAmIResponse) -> Option<Self> {
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
            format!("Your certificate “{}” expired at {}.", who.name, at(who.not_after_unix_ms)),
            "Ask an administrator for a new one, and tell them the thumbprint below. Nothing can prolong this one: its last \
             moment stands in it.",
        )),
        "not yet valid" => Some((
            "Certificate not valid yet",
            format!(
                "Your certificate “{}” is valid from {} on.",
                who.name,
                at(who.not_before_unix_ms)
            ),
            "Come back then. If the date is wrong, ask an administrator for another certificate, and tell them the \
             thumbprint below.",
        )),
        "disabled" => Some((
            "Disabled certificate",
            format!("Your certificate “{}” was disabled by an administrator.", who.name),
            "Ask an administrator to enable it, and tell them the thumbprint below. Your rights were kept.",
        )),
        _ => None,
    }
}

/// Registered here, or declared as an administrator by the configuration of a node.
#[must_use]
pub fn is_known(who: &WhoAmIResponse) -> bool {
    who.registered || who.well_known
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
