//! Upload: a file first, then what is in it, then what it may. Between the two steps the page holds the public
//! certificates alone; a private key that was in the file is dropped by the first.
//!
//! Where the first certificate is registered already, and its entry is to be overwritten, what that changes is shown and
//! confirmed as an edit is. The call is held against the version that was shown, so that nothing is overwritten unseen.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use rookery_proto::security::v1::{
    Certificate, GetCertificateRequest, InspectCertificateRequest, InspectCertificateResponse,
    UploadCertificateRequest, UploadCertificateResponse,
};
use tonic::Code;

use super::{
    Shown,
    confirm::{self, Answered, Question, Why},
    fields::{ACCESSES, Difference, Fields, Sheet, differences},
    found, once, pem,
    wrong::{self, Wrong},
};
use crate::studio::{
    answer::{self, Answer, Refused, reason},
    contract::Calls,
    form::WithFiles,
    outcome,
    posted::Posted,
    visit::{Frame, Visit},
    words,
};

const REGISTER: &str = "/studio/certificates/register";

#[derive(Template)]
#[template(path = "certificates/upload.html")]
struct FilePage {
    frame: Frame,
    wrong: Option<Wrong>,
}

impl FilePage {
    fn is_wrong(&self, id: &str) -> bool {
        self.wrong.as_ref().is_some_and(|wrong| wrong.id == id)
    }
}

#[derive(Template)]
#[template(path = "certificates/uploading.html")]
struct RightsPage {
    frame: Frame,
    sheet: Sheet,
    certificates: Vec<Seen>,
    request_id: String,
}

/// A certificate of an upload, and whether it is registered.
struct Seen {
    c: Shown,
    registered: Registered,
}

/// What the registry knows of a certificate.
enum Registered {
    /// Nothing.
    No,
    /// It belongs to an entry.
    In(Box<Shown>),
    /// Why it cannot be told, or that nodes declare it.
    Untold(String),
}

impl Seen {
    async fn of(it: Certificate, calls: &Calls, frame: &Frame) -> Self {
        let asked = GetCertificateRequest { thumbprint: it.thumbprint.clone() };
        let registered = match calls.security().get_certificate(asked).await {
            Ok(found) => {
                let entry = found.into_inner().certificate.unwrap_or_default();
                Registered::In(Box::new(Shown::new(entry, frame)))
            }
            Err(status) if status.code() == Code::NotFound => Registered::No,
            Err(status) => Registered::Untold(status.message().to_owned()),
        };
        Self { c: Shown::new(it, frame), registered }
    }

    /// What its dates mean for who is registered with it; empty where it is in force.
    fn warning(&self) -> String {
        match self.c.it.state.as_str() {
            "expired" => format!(
                "It expired {} and cannot be registered.",
                self.c.relative(&self.c.it.not_after_unix_ms)
            ),
            "not yet valid" => format!(
                "It is not valid yet: it lets its holder in from {} UTC on.",
                self.c.date(&self.c.it.not_before_unix_ms)
            ),
            _ => String::new(),
        }
    }
}

impl RightsPage {
    fn key_was_dropped(&self) -> bool {
        !self.sheet.fields.other(KEY_DROPPED).is_empty()
    }

    /// Certificates of issuers that were left out, counted; empty: none.
    fn issuers(&self) -> String {
        match self.sheet.fields.other(ISSUERS).parse::<usize>() {
            Ok(0) | Err(_) => String::new(),
            Ok(1) => "1 certificate of an issuer was".to_owned(),
            Ok(more) => format!("{more} certificates of issuers were"),
        }
    }

    /// Warnings about single certificates.
    fn warnings(&self) -> Vec<(&str, String)> {
        let all = self.certificates.iter().map(|it| (it.c.short(), it.warning()));
        all.filter(|(_, warning)| !warning.is_empty()).collect()
    }
}

#[derive(Template)]
#[template(path = "certificates/uploaded.html")]
struct Uploaded {
    frame: Frame,
    c: Shown,
    /// Further certificates of the entry, counted; empty: none.
    others: String,
}

/// Fields that the second step keeps from the first: what was in the file and is not in what was left of it.
const KEY_DROPPED: &str = "key-dropped";
const ISSUERS: &str = "issuers";
/// The certificates.
const PEM: &str = "pem";

/// `GET /studio/certificates/upload`.
pub async fn form(visit: Visit) -> Answer {
    Ok(answer::page(&FilePage { frame: visit.frame, wrong: None }))
}

/// `POST /studio/certificates/upload`: the file.
pub async fn file(visit: Visit, mut form: WithFiles) -> Answer {
    let Visit { calls, frame } = visit;
    let certificate = form.files.remove("file").map(|content| content.to_vec()).unwrap_or_default();
    let asked = InspectCertificateRequest { certificate, password: form.take("password") };
    match calls.security().inspect_certificate(asked).await {
        Ok(found) => {
            let found = found.into_inner();
            let fields = kept(&found);
            rights(&calls, frame, fields, found.certificates, once::fresh(), None).await
        }
        Err(status) => {
            let wrong = Some(Wrong::of(&status, &Fields::default()).unsent());
            Ok(answer::page_with(wrong::code(&status), &FilePage { frame, wrong }))
        }
    }
}

/// The fields of the second step that come from the file.
fn kept(found: &InspectCertificateResponse) -> Fields {
    let pem: String = found.certificates.iter().map(|it| pem(&it.der)).collect();
    let dropped = if found.private_key_dropped { "yes" } else { "" };
    let others = [
        (PEM, pem),
        (KEY_DROPPED, dropped.to_owned()),
        (ISSUERS, found.authorities_skipped.to_string()),
    ];
    let others = others.into_iter().map(|(field, value)| (field.to_owned(), value));
    Fields { others: others.collect(), ..Fields::default() }
}

/// The page of the second step.
async fn rights(
    calls: &Calls,
    frame: Frame,
    fields: Fields,
    certificates: Vec<Certificate>,
    request_id: String,
    wrong: Option<(StatusCode, Wrong)>,
) -> Answer {
    let mut seen = Vec::with_capacity(certificates.len());
    for it in certificates {
        seen.push(Seen::of(it, calls, &frame).await);
    }
    let mut sheet = Sheet::new(calls, &frame, fields).await?;
    sheet.nodes_too = true;
    let (code, wrong) = wrong.unzip();
    sheet.wrong = wrong;
    let page = RightsPage { frame, sheet, certificates: seen, request_id };
    Ok(answer::page_with(code.unwrap_or(StatusCode::OK), &page))
}

/// `POST /studio/certificates/register`: the rights.
pub async fn register(visit: Visit, Posted(fields): Posted<Fields>) -> Answer {
    let Visit { calls, frame } = visit;
    let id = fields.other(once::FIELD).to_owned();
    let asked = InspectCertificateRequest {
        certificate: fields.other(PEM).as_bytes().to_vec(),
        password: String::new(),
    };
    let inspected = calls.security().inspect_certificate(asked).await;
    let certificates = inspected.map_err(Refused::on(&frame))?.into_inner().certificates;
    if confirm::is_to_change(&fields) {
        return rights(&calls, frame, fields, certificates, once::fresh(), None).await;
    }
    let entry = match fields.other("overwrite") {
        "" => None,
        _ => overwritten(&calls, &frame, &certificates).await?,
    };
    let changed = entry.as_ref().map(|c| changes(&c.it, &fields, &certificates));
    let overwrite = entry.as_ref().zip(changed.as_deref());
    let confirmed =
        overwrite.map_or(Answered::Nothing, |(c, _)| Answered::of(&frame, &c.it.etag, &fields));
    if let Some((c, changed)) = overwrite
        && confirmed == Answered::Nothing
        && !changed.is_empty()
    {
        return Ok(asked_about(c, &fields, changed, Why::Overwrites, &frame));
    }
    let own_loss = confirmed == Answered::YesToOwnLoss;
    let request = request(&fields, entry.as_ref().map(|c| &c.it), own_loss);
    let status = match calls.security().upload_certificate(request).await {
        Ok(registered) => return Ok(shown(frame, registered.into_inner())),
        Err(status) => status,
    };
    if let Some((c, changed)) = overwrite
        && reason(&status) == "CONFIRMATION_REQUIRED"
    {
        return Ok(asked_about(c, &fields, changed, Why::OwnLoss, &frame));
    }
    let form = "/studio/certificates/upload";
    if let Some(page) = once::sent_before(&frame, &status, &fields.name, form, false) {
        return Ok(page);
    }
    let wrong = Some((wrong::code(&status), Wrong::of(&status, &fields)));
    let told = Refused::told(&frame, &status, outcome::Wrong::of(&frame, &status, &id));
    // Where there is no page to be had, what came of the change is not to be lost.
    let page = rights(&calls, frame, fields, certificates, once::again(&id, &status), wrong).await;
    page.map_err(|_| told)
}

/// The entry that an upload would overwrite: that of its first certificate.
async fn overwritten(
    calls: &Calls,
    frame: &Frame,
    certificates: &[Certificate],
) -> Result<Option<Shown>, Box<Refused>> {
    let Some(first) = certificates.first() else { return Ok(None) };
    let asked = GetCertificateRequest { thumbprint: first.thumbprint.clone() };
    match calls.security().get_certificate(asked).await {
        Ok(_) => found(calls, frame, &first.thumbprint).await.map(Some),
        // A well-known admin is no entry either; the call says what to do.
        Err(status) if [Code::NotFound, Code::FailedPrecondition].contains(&status.code()) => {
            Ok(None)
        }
        Err(status) => Err(Refused::on(frame)(status)),
    }
}

/// What an overwrite changes: all that an edit can, and the certificates of the entry.
fn changes(entry: &Certificate, fields: &Fields, uploaded: &[Certificate]) -> Vec<Difference> {
    let mut changes = differences(entry, fields);
    let before: Vec<&str> = entry.secondaries.iter().map(|it| it.thumbprint.as_str()).collect();
    let after: Vec<&str> = uploaded.iter().skip(1).map(|it| it.thumbprint.as_str()).collect();
    let adds = after.iter().any(|it| !before.contains(it));
    if adds || before.iter().any(|it| !after.contains(it)) {
        changes.push(Difference {
            field: "Further certificates".to_owned(),
            before: listed(&before),
            after: listed(&after),
            widens: adds,
        });
    }
    changes
}

fn listed(thumbprints: &[&str]) -> String {
    match thumbprints {
        [] => words::NONE.to_owned(),
        some => some.iter().map(|it| words::short(it)).collect::<Vec<_>>().join(", "),
    }
}

fn asked_about(
    c: &Shown,
    fields: &Fields,
    differences: &[Difference],
    why: Why,
    frame: &Frame,
) -> Response {
    let title = format!("Overwrite {}", c.it.name);
    Question { c, action: REGISTER, title: &title, why, differences, fields }.page(frame)
}

/// Overwrites only what was looked at: an entry that somebody makes meanwhile is a reason to ask again.
fn request(
    fields: &Fields,
    overwritten: Option<&Certificate>,
    own_loss: bool,
) -> UploadCertificateRequest {
    UploadCertificateRequest {
        name: fields.name.clone(),
        clearance: fields.clearance().into(),
        grants: fields.grants(),
        certificate: fields.other(PEM).as_bytes().to_vec(),
        request_id: fields.other(once::FIELD).to_owned(),
        overwrite: overwritten.is_some(),
        expected_etag: overwritten.map_or_else(String::new, |it| it.etag.clone()),
        note: fields.note.clone(),
        owner: fields.owner.clone(),
        confirm_self_demotion: own_loss,
        password: String::new(), // The certificates alone are left of the file.
    }
}

fn shown(frame: Frame, registered: UploadCertificateResponse) -> Response {
    let certificate: Certificate = registered.certificate.unwrap_or_default();
    let c = Shown::new(certificate, &frame);
    let others = match c.it.secondaries.len() {
        0 => String::new(),
        _ => c.further(),
    };
    answer::page(&Uploaded { frame, c, others })
}

#[cfg(test)]
mod tests {
    use rookery_proto::security::v1::{Clearance, SecondaryCertificate};

    use super::*;

    #[test]
    fn an_overwrite_tells_which_certificates_come_and_go() {
        let certificate = |thumbprint: &str| Certificate {
            thumbprint: thumbprint.to_owned(),
            ..Default::default()
        };
        let secondary = |thumbprint: &&str| SecondaryCertificate {
            thumbprint: (*thumbprint).to_owned(),
            ..SecondaryCertificate::default()
        };
        let check = |had: &[&str], gets: &[&str], expected: Option<(&str, &str, bool)>| {
            let entry = Certificate {
                name: "alice".to_owned(),
                clearance: Clearance::Operator.into(),
                secondaries: had.iter().map(secondary).collect(),
                ..certificate("a")
            };
            let uploaded: Vec<_> = ["a"].iter().chain(gets).map(|it| certificate(it)).collect();
            let found = changes(&entry, &Fields::of(&entry), &uploaded);
            let found: Vec<_> =
                found.iter().map(|it| (it.before.as_str(), it.after.as_str(), it.widens)).collect();
            assert_eq!(found, Vec::from_iter(expected), "{had:?} {gets:?}");
        };
        check(&[], &[], None);
        check(&["b", "c"], &["c", "b"], None);
        check(&[], &["b"], Some(("–", "b", true)));
        check(&["b", "c"], &["b"], Some(("b, c", "b", false)));
        check(&["b"], &["c"], Some(("b", "c", true)));
    }
}
