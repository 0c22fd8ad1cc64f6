//! What is to be confirmed before it is changed, on a page without a field to change.
//!
//! 1. The page shows what changes, and carries the form as it was sent.
//! 2. Its confirmation is the digest of who looks, of the version that the change is held against, of every field, and of
//!    whether it said that the visitor loses rights of their own.
//! 3. A form that comes back with another field, against another version, or by somebody else is asked again.
//!
//! The digest is no secret: it does not keep anybody from confirming, but nobody confirms what was not shown.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use sha2::{Digest as _, Sha256};

use super::{
    Shown,
    actions::{Act, forbids},
    fields::{Difference, Fields},
};
use crate::studio::{answer, visit::Frame};

/// The field that carries a confirmation.
const CONFIRMED: &str = "confirmed";
/// The button that leads back to the form.
const CHANGE: &str = "change";
/// The version that the form was opened with.
const FROM: &str = "from";
/// The version that the change is held against.
const ETAG: &str = "etag";

/// Fields of a form that say nothing of the registration.
const CONTROL: [&str; 5] = [CONFIRMED, CHANGE, FROM, ETAG, super::once::FIELD];

/// Why something is to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The holder gets more rights.
    Widens,
    /// Somebody else changed it meanwhile.
    Stale,
    /// An entry is overwritten.
    Overwrites,
    /// The visitor loses rights.
    OwnLoss,
}

/// What a form came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Nothing that was asked for this.
    Nothing,
    /// What was shown, confirmed.
    Yes,
    /// The same, by somebody who was told that they lose rights of their own.
    YesToOwnLoss,
}

impl Answered {
    /// Reads the confirmation of a form against the version that there is.
    pub fn of(frame: &Frame, version: &str, fields: &Fields) -> Self {
        let given = fields.other(CONFIRMED);
        let is = |own_loss| given == digest(&frame.who().thumbprint, version, fields, own_loss);
        match (is(true), is(false)) {
            (true, _) => Self::YesToOwnLoss,
            (false, true) => Self::Yes,
            (false, false) => Self::Nothing,
        }
    }
}

/// Whether the visitor wants the form back instead.
pub fn is_to_change(fields: &Fields) -> bool {
    !fields.other(CHANGE).is_empty()
}

/// The version that the form was opened with: of what the visitor saw before anything was to be confirmed.
pub fn opened_with(fields: &Fields) -> &str {
    match fields.other(FROM) {
        "" => fields.other(ETAG),
        from => from,
    }
}

/// Everything that was entered, by the names of the fields.
fn entered(fields: &Fields) -> Vec<(&str, &str)> {
    let named = [
        ("name", &fields.name),
        ("clearance", &fields.clearance),
        ("note", &fields.note),
        ("owner", &fields.owner),
    ];
    let others = fields.others.iter().map(|(field, value)| (field.as_str(), value));
    let others = others.filter(|(field, _)| !CONTROL.contains(field));
    let all = named.into_iter().chain(others).map(|(field, value)| (field, value.as_str()));
    all.filter(|(_, value)| !value.is_empty()).collect()
}

/// What a confirmation is of, in hexadecimal digits (SHA-256). Each part goes in with its length before it.
fn digest(visitor: &str, version: &str, fields: &Fields, own_loss: bool) -> String {
    let mut sum = Sha256::new();
    let mut add = |part: &str| {
        let part = part.replace("\r\n", "\n"); // Browsers send line ends so, whatever a page had.
        sum.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        sum.update(part.as_bytes());
    };
    for part in [visitor, version, if own_loss { "own loss" } else { "" }] {
        add(part);
    }
    for (field, value) in entered(fields) {
        add(field);
        add(value);
    }
    hex::encode(sum.finalize())
}

#[derive(Template)]
#[template(path = "certificates/confirm.html")]
struct ConfirmPage<'a> {
    frame: &'a Frame,
    c: &'a Shown,
    action: &'a str,
    /// What the page before it is called.
    title: &'a str,
    why: Why,
    differences: &'a [Difference],
    hidden: Vec<(&'a str, &'a str)>,
    confirmed: String,
    from: &'a str,
    request_id: String,
    /// Why the visitor cannot confirm it; empty where they can.
    why_not: String,
}

/// A change that is to be confirmed.
pub struct Question<'a> {
    /// The entry as it is.
    pub c: &'a Shown,
    /// Where the form goes.
    pub action: &'a str,
    /// What is done, in a heading.
    pub title: &'a str,
    /// Why it is asked.
    pub why: Why,
    /// What changes.
    pub differences: &'a [Difference],
    /// The form as it was sent.
    pub fields: &'a Fields,
}

impl Question<'_> {
    /// The page that asks it.
    pub fn page(&self, frame: &Frame) -> Response {
        let Self { c, fields, .. } = self;
        let of_target = c.why_not(Act::Edit);
        let of_request = forbids(frame, Act::Edit, fields.clearance().into());
        let visitor = &frame.who().thumbprint;
        let page = ConfirmPage {
            frame,
            c,
            action: self.action,
            title: self.title,
            why: self.why,
            differences: self.differences,
            hidden: entered(fields),
            confirmed: digest(visitor, &c.it.etag, fields, self.why == Why::OwnLoss),
            from: opened_with(fields),
            request_id: super::once::fresh(),
            why_not: if of_target.is_empty() { of_request } else { of_target },
        };
        let code = if self.why == Why::Stale { StatusCode::CONFLICT } else { StatusCode::OK };
        answer::page_with(code, &page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rookery_proto::security::v1::WhoAmIResponse;

    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let own = |(field, value): &(&str, &str)| ((*field).to_owned(), (*value).to_owned());
        let mut others: BTreeMap<String, String> = pairs.iter().map(own).collect();
        let mut take = |field: &str| others.remove(field).unwrap_or_default();
        let (name, clearance) = (take("name"), take("clearance"));
        let (note, owner) = (take("note"), take("owner"));
        Fields { name, clearance, note, owner, others }
    }

    const SHOWN: [(&str, &str); 5] = [
        ("t", "ab"),
        ("name", "alice"),
        ("clearance", "user"),
        ("note", "a\r\nb"),
        ("grant:sales", "admin"),
    ];

    #[test]
    fn a_confirmation_is_of_what_was_shown_and_of_nothing_else() {
        let frame = |thumbprint: &str| {
            let thumbprint = thumbprint.to_owned();
            Frame::for_visitor(WhoAmIResponse { thumbprint, ..Default::default() }, &[])
        };
        let (root, own_loss) = (frame("root"), true);
        let of = |own| ("confirmed", digest("root", "7", &fields(&SHOWN), own));
        let check = |who: &Frame, version: &str, changed: &[(&str, &str)], expected: Answered| {
            let (field, given) = of(false);
            let mut pairs = [&SHOWN[..], changed].concat();
            pairs.push((field, &given));
            assert_eq!(Answered::of(who, version, &fields(&pairs)), expected, "{changed:?}");
        };
        check(&root, "7", &[], Answered::Yes);
        // What a form carries besides, and line ends.
        check(&root, "7", &[("etag", "7"), ("from", "6"), ("grant:stock", "")], Answered::Yes);
        check(&root, "7", &[("request_id", "x"), ("note", "a\nb")], Answered::Yes);
        check(&root, "8", &[], Answered::Nothing);
        check(&frame("other"), "7", &[], Answered::Nothing);
        for changed in [
            ("t", "cd"),
            ("name", "alicf"),
            ("clearance", "cluster-admin"),
            ("note", ""),
            ("owner", "x"),
            ("grant:sales", "read"),
            ("grant:stock", "read"),
            ("pem", "x"),
        ] {
            check(&root, "7", &[changed], Answered::Nothing);
        }
        let (_, given) = of(own_loss);
        let pairs = [&SHOWN[..], &[("confirmed", given.as_str())]].concat();
        assert_eq!(Answered::of(&root, "7", &fields(&pairs)), Answered::YesToOwnLoss);
        for given in ["", "7", "yes"] {
            let pairs = [&SHOWN[..], &[("confirmed", given)]].concat();
            assert_eq!(Answered::of(&root, "7", &fields(&pairs)), Answered::Nothing);
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let digest = |pairs: &[(&str, &str)]| digest("v", "7", &fields(pairs), false);
        assert_ne!(
            digest(&[("name", "ab"), ("owner", "c")]),
            digest(&[("name", "abowner"), ("owner", "c")])
        );
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(digest(&[("name", "x")]), digest(&[("note", "x")]));
    }
}
