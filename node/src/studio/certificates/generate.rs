//! Generate: a form, and once, the package with its key. Clone: the same with the rights of another certificate.

use askama::Template;
use axum::{extract::Query, http::StatusCode};
use base64::Engine as _;
use rookery_proto::security::v1::{
    Certificate, CloneCertificateRequest, CloneCertificateResponse, GenerateCertificateRequest,
    GenerateCertificateResponse,
};
use serde::Deserialize;

use super::{
    Shown,
    actions::Act,
    fields::{ACCESSES, Fields, Sheet},
    found, once,
    show::Which,
    wrong::{self, Wrong},
};
use crate::{
    limits,
    studio::{
        answer::{self, Answer, Refused},
        contract::Calls,
        outcome,
        posted::Posted,
        second_factor,
        visit::{Frame, Visit},
        words,
    },
};

/// Days that a client certificate lives unless something else is said: five years.
const DAYS: &str = "1825";

const DAY_SECONDS: u64 = 24 * 3600;

/// Days that one may live.
const DAYS_MAX: u64 = limits::CERTIFICATE_LIFE_MAX.as_secs() / DAY_SECONDS;

const GENERATE: &str = "/studio/certificates/generate";

#[derive(Template)]
#[template(path = "certificates/generate.html")]
struct FormPage {
    frame: Frame,
    sheet: Sheet,
    days: String,
    request_id: String,
}

/// A package with its password, shown once.
#[derive(Template)]
#[template(path = "certificates/generated.html")]
struct Generated {
    frame: Frame,
    certificate: Certificate,
    file_name: String,
    /// In base64: the page holds it, the node keeps it nowhere.
    package: String,
    password: String,
    /// The key was made here and is in the package; otherwise it stays where the signing request was made.
    with_key: bool,
    /// A second factor that was asked for: itself, or why there is none.
    second_factor: Option<Result<second_factor::Made, String>>,
}

impl Generated {
    fn new(frame: Frame, made: GenerateCertificateResponse, with_key: bool) -> Self {
        Self {
            frame,
            certificate: made.certificate.unwrap_or_default(),
            file_name: made.file_name,
            package: base64::engine::general_purpose::STANDARD.encode(&made.package),
            password: made.password,
            with_key,
            second_factor: None,
        }
    }

    /// With a second factor for the new certificate.
    async fn with_second_factor(mut self, calls: &Calls) -> Self {
        let made = second_factor::ask(calls, &self.certificate.thumbprint).await;
        self.second_factor = Some(made.map_err(|status| status.message().to_owned()));
        self
    }

    fn expires(&self) -> String {
        words::date(self.certificate.not_after_unix_ms)
    }
}

/// `GET /studio/certificates/generate`.
pub async fn form(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    form_page(&calls, frame, Fields::default(), DAYS, once::fresh(), None).await
}

async fn form_page(
    calls: &Calls,
    frame: Frame,
    fields: Fields,
    days: &str,
    request_id: String,
    wrong: Option<(StatusCode, Wrong)>,
) -> Answer {
    let mut sheet = Sheet::new(calls, &frame, fields).await?;
    let (code, wrong) = wrong.unzip();
    sheet.wrong = wrong;
    let page = FormPage { frame, sheet, days: days.to_owned(), request_id };
    Ok(answer::page_with(code.unwrap_or(StatusCode::OK), &page))
}

/// `POST /studio/certificates/generate`.
pub async fn submit(visit: Visit, Posted(fields): Posted<Fields>) -> Answer {
    let Visit { calls, frame } = visit;
    let (days, id) = (fields.other("days").to_owned(), fields.other(once::FIELD).to_owned());
    let lifetime_seconds = match lifetime(&days) {
        Ok(seconds) => seconds,
        Err(wrong) => {
            let wrong = Some((StatusCode::BAD_REQUEST, wrong));
            return form_page(&calls, frame, fields, &days, once::fresh(), wrong).await;
        }
    };
    let request = request(&fields, lifetime_seconds);
    let with_key = request.csr.is_empty();
    match calls.security().generate_certificate(request).await {
        Ok(made) => {
            let mut page = Generated::new(frame, made.into_inner(), with_key);
            if !fields.other("second-factor").is_empty() {
                page = page.with_second_factor(&calls).await;
            }
            Ok(answer::page(&page))
        }
        Err(status) => {
            if let Some(page) = once::sent_before(&frame, &status, &fields.name, GENERATE, true) {
                return Ok(page);
            }
            let wrong = Some((wrong::code(&status), Wrong::of(&status, &fields)));
            let told = Refused::told(&frame, &status, outcome::Wrong::of(&frame, &status, &id));
            // Where there is no page to be had, what came of the change is not to be lost.
            let id = once::again(&id, &status);
            form_page(&calls, frame, fields, &days, id, wrong).await.map_err(|_| told)
        }
    }
}

fn request(fields: &Fields, lifetime_seconds: u64) -> GenerateCertificateRequest {
    GenerateCertificateRequest {
        name: fields.name.clone(),
        clearance: fields.clearance().into(),
        grants: fields.grants(),
        lifetime_seconds,
        password: fields.other("password").to_owned(),
        request_id: fields.other(once::FIELD).to_owned(),
        note: fields.note.clone(),
        owner: fields.owner.clone(),
        csr: fields.other("csr").trim().as_bytes().to_vec(),
        pfx_compat: !fields.other("compat").is_empty(),
        ..GenerateCertificateRequest::default()
    }
}

/// The seconds of so many days; the contract would take none for five years.
fn lifetime(days: &str) -> Result<u64, Wrong> {
    let days = days.trim().parse::<u64>().ok().filter(|days| (1..=DAYS_MAX).contains(days));
    let seconds = days.map(|days| days.saturating_mul(DAY_SECONDS));
    seconds.ok_or_else(|| Wrong::at("days", format!("must be a whole number, 1 to {DAYS_MAX}.")))
}

#[derive(Template)]
#[template(path = "certificates/clone.html")]
struct ClonePage {
    frame: Frame,
    c: Shown,
    name: String,
    days: String,
    request_id: String,
    wrong: Option<Wrong>,
}

impl ClonePage {
    fn is_wrong(&self, id: &str) -> bool {
        self.wrong.as_ref().is_some_and(|wrong| wrong.id == id)
    }
}

/// `GET /studio/certificate/clone?t=`.
pub async fn clone_form(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let c = found(&calls, &frame, &which.t).await?;
    let (name, days) = (format!("{}, copy", c.it.name), DAYS.to_owned());
    let request_id = once::fresh();
    Ok(answer::page(&ClonePage { frame, c, name, days, request_id, wrong: None }))
}

/// What the form of a clone holds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CloneFields {
    t: String,
    name: String,
    days: String,
    password: String,
    request_id: String,
}

/// `POST /studio/certificate/clone`.
pub async fn clone_submit(visit: Visit, Posted(fields): Posted<CloneFields>) -> Answer {
    let Visit { calls, frame } = visit;
    let (code, wrong, request_id) = match lifetime(&fields.days) {
        Ok(lifetime_seconds) => {
            let asked = CloneCertificateRequest {
                thumbprint: fields.t.clone(),
                name: fields.name.clone(),
                lifetime_seconds,
                password: fields.password.clone(),
                request_id: fields.request_id.clone(),
            };
            match calls.security().clone_certificate(asked).await {
                Ok(made) => {
                    let made = generated(made.into_inner());
                    return Ok(answer::page(&Generated::new(frame, made, true)));
                }
                Err(status) => {
                    let form = format!("/studio/certificate/clone?t={}", fields.t);
                    let sent = once::sent_before(&frame, &status, &fields.name, &form, true);
                    if let Some(page) = sent {
                        return Ok(page);
                    }
                    let wrong = Wrong::of(&status, &Fields::default());
                    let id = once::again(&fields.request_id, &status);
                    (wrong::code(&status), wrong, id)
                }
            }
        }
        Err(wrong) => (StatusCode::BAD_REQUEST, wrong, once::fresh()),
    };
    let c = found(&calls, &frame, &fields.t).await?;
    let CloneFields { name, days, .. } = fields;
    let page = ClonePage { frame, c, name, days, request_id, wrong: Some(wrong) };
    Ok(answer::page_with(code, &page))
}

/// A clone is told like any other certificate that was made.
fn generated(made: CloneCertificateResponse) -> GenerateCertificateResponse {
    let CloneCertificateResponse { certificate, package, password, file_name } = made;
    GenerateCertificateResponse { certificate, package, password, file_name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_bounded_before_anything_is_asked() {
        assert_eq!(DAYS_MAX, 7300);
        for (days, seconds) in
            [("1", Some(86_400)), (" 30 ", Some(2_592_000)), ("7300", Some(630_720_000))]
        {
            assert_eq!(lifetime(days).ok(), seconds, "{days}");
        }
        for days in ["0", "7301", "36500", "-1", "1.5", "", "x", "99999999999999999999"] {
            assert_eq!(lifetime(days).map_err(|it| it.id), Err("days"), "{days}");
        }
    }
}
