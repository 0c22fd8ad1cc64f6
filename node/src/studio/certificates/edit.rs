//! Edit: what changes is shown first, and confirmed where the holder gets more rights or the editor loses some.
//!
//! Only what differs is sent: whoever may change a name and nothing else is not refused for the fields that stay.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use rookery_proto::security::v1::{Certificate, Clearance, EditCertificateRequest};

use super::{
    Shown,
    actions::Act,
    confirm::{self, Answered, Question, Why},
    fields::{ACCESSES, Difference, Fields, Sheet, accesses, differences},
    found,
    show::Which,
    wrong::{self, Wrong},
};
use crate::studio::{
    answer::{self, Answer, Refused, reason},
    contract::Calls,
    outcome,
    posted::Posted,
    visit::{Frame, Visit},
};

const PATH: &str = "/studio/certificate/edit";

#[derive(Template)]
#[template(path = "certificates/edit.html")]
struct EditPage {
    frame: Frame,
    c: Shown,
    sheet: Sheet,
    /// The version that the form is about.
    etag: String,
    /// Somebody changed the certificate after the form was opened, to what the form has.
    stale: bool,
}

impl EditPage {
    async fn of(
        calls: &Calls,
        frame: Frame,
        c: Shown,
        fields: Fields,
        etag: String,
    ) -> Result<Self, Box<Refused>> {
        let mut sheet = Sheet::new(calls, &frame, fields).await?;
        // Nobody makes one here; one that is there keeps its clearance.
        sheet.nodes_too = c.it.clearance == i32::from(Clearance::ClusterNode);
        Ok(Self { frame, c, sheet, etag, stale: false })
    }

    fn refused(mut self, code: StatusCode, wrong: Wrong) -> Response {
        self.sheet.wrong = Some(wrong);
        answer::page_with(code, &self)
    }
}

/// `GET /studio/certificate/edit?t=`.
pub async fn form(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let c = found(&calls, &frame, &which.t).await?;
    let (fields, etag) = (Fields::of(&c.it), c.it.etag.clone());
    Ok(answer::page(&EditPage::of(&calls, frame, c, fields, etag).await?))
}

/// `POST /studio/certificate/edit`.
pub async fn submit(visit: Visit, Posted(fields): Posted<Fields>) -> Answer {
    let Visit { calls, frame } = visit;
    let c = found(&calls, &frame, fields.other("t")).await?;
    // A form that is shown again keeps its version: what it has was not held against a newer one.
    let opened = confirm::opened_with(&fields).to_owned();
    if confirm::is_to_change(&fields) {
        return Ok(answer::page(&EditPage::of(&calls, frame, c, fields, opened).await?));
    }
    if let Some(wrong) = fields.missing() {
        let page = EditPage::of(&calls, frame, c, fields, opened).await?;
        return Ok(page.refused(StatusCode::BAD_REQUEST, wrong));
    }
    let changed = differences(&c.it, &fields);
    let confirmed = Answered::of(&frame, &c.it.etag, &fields);
    if let Some(why) = doubt(&c.it, &fields, &changed, confirmed) {
        if changed.is_empty() {
            let etag = c.it.etag.clone();
            let page = EditPage::of(&calls, frame, c, fields, etag).await?;
            let page = EditPage { stale: true, ..page };
            return Ok(answer::page_with(StatusCode::CONFLICT, &page));
        }
        return Ok(asked(&c, &fields, &changed, why, &frame));
    }
    let request = request(&c.it, &fields, confirmed == Answered::YesToOwnLoss);
    let Err(status) = calls.security().edit_certificate(request).await else {
        return Ok(answer::see(&c.path("")));
    };
    if reason(&status) == "CONFIRMATION_REQUIRED" {
        return Ok(asked(&c, &fields, &changed, Why::OwnLoss, &frame));
    }
    let wrong = Wrong::of(&status, &fields);
    let told = Refused::told(&frame, &status, outcome::Wrong::of(&frame, &status, ""));
    // Where there is no page to be had, what came of the change is not to be lost.
    let page = EditPage::of(&calls, frame, c, fields, opened).await.map_err(|_| told)?;
    Ok(page.refused(wrong::code(&status), wrong))
}

/// Why a change is asked about before it is made.
fn doubt(
    before: &Certificate,
    fields: &Fields,
    changed: &[Difference],
    confirmed: Answered,
) -> Option<Why> {
    if confirmed != Answered::Nothing {
        return None;
    }
    // Saved as it is, the form would undo what somebody else did meanwhile.
    if fields.other("etag") != before.etag {
        return Some(Why::Stale);
    }
    changed.iter().any(|it| it.widens).then_some(Why::Widens)
}

fn asked(
    c: &Shown,
    fields: &Fields,
    differences: &[Difference],
    why: Why,
    frame: &Frame,
) -> Response {
    let title = format!("Edit {}", c.it.name);
    Question { c, action: PATH, title: &title, why, differences, fields }.page(frame)
}

/// What differs from the certificate as it is, held to that version.
fn request(before: &Certificate, after: &Fields, own_loss: bool) -> EditCertificateRequest {
    let clearance = i32::from(after.clearance());
    let grants = after.grants();
    let set_grants = accesses(&before.grants) != accesses(&grants);
    let text = |before: &str, after: &str| (before != after).then(|| after.to_owned());
    EditCertificateRequest {
        thumbprint: before.thumbprint.clone(),
        name: text(&before.name, &after.name).unwrap_or_default(),
        clearance: if clearance == before.clearance { 0 } else { clearance },
        grants: if set_grants { grants } else { Vec::new() },
        set_grants,
        expected_etag: before.etag.clone(),
        request_id: String::new(),
        note: text(&before.note, &after.note),
        owner: text(&before.owner, &after.owner),
        confirm_self_demotion: own_loss,
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::security::v1::{Access, Grant};

    use super::*;

    #[test]
    fn what_stays_is_not_sent() {
        let grant = Grant { database: "sales".to_owned(), access: Access::Read.into() };
        let before = Certificate {
            name: "alice".to_owned(),
            clearance: Clearance::User.into(),
            grants: vec![grant],
            note: "a note".to_owned(),
            etag: "7".to_owned(),
            ..Certificate::default()
        };
        type Change = fn(&mut Fields);
        let check = |change: Change, expected: (&str, i32, bool, Option<&str>, Option<&str>)| {
            let mut fields = Fields::of(&before);
            change(&mut fields);
            let sent = request(&before, &fields, false);
            assert_eq!(sent.expected_etag, "7");
            assert!(sent.set_grants || sent.grants.is_empty(), "{sent:?}");
            let (note, owner) = (sent.note.as_deref(), sent.owner.as_deref());
            let found = (sent.name.as_str(), sent.clearance, sent.set_grants, note, owner);
            assert_eq!(found, expected);
        };
        check(|_| {}, ("", 0, false, None, None));
        check(|it| it.name = "bob".to_owned(), ("bob", 0, false, None, None));
        check(|it| it.note.clear(), ("", 0, false, Some(""), None));
        check(|it| it.owner = "ops".to_owned(), ("", 0, false, None, Some("ops")));
        check(|it| it.clearance = "operator".to_owned(), ("", 2, true, None, None));
        check(
            |it| {
                it.others.insert("grant:sales".to_owned(), String::new());
            },
            ("", 0, true, None, None),
        );
    }
}
