//! Generate: a form, and once, the package with its key. Clone: the same with the rights of another certificate.

use askama::Template;
use axum::extract::Query;
use base64::Engine as _;
use rookery_proto::security::v1::{
    Certificate, CloneCertificateRequest, GenerateCertificateRequest, GetCertificateRequest,
};
use serde::Deserialize;
use tonic::Status;

use super::{
    Shown,
    fields::{ACCESSES, Fields, Sheet},
    show::Which,
};
use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    posted::Posted,
    second_factor,
    visit::{Frame, Visit},
    words,
};

/// Days that a client certificate lives unless something else is said: five years.
const DAYS: &str = "1825";

#[derive(Template)]
#[template(path = "certificates/generate.html")]
struct FormPage {
    frame: Frame,
    sheet: Sheet,
    days: String,
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
    /// A second factor that was asked for: itself, or why there is none.
    second_factor: Option<Result<second_factor::Made, String>>,
}

impl Generated {
    fn new(
        frame: Frame,
        certificate: Option<Certificate>,
        package: &[u8],
        file_name: String,
        password: String,
    ) -> Self {
        let package = base64::engine::general_purpose::STANDARD.encode(package);
        let (certificate, second_factor) = (certificate.unwrap_or_default(), None);
        Self { frame, certificate, file_name, package, password, second_factor }
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
    let sheet = Sheet::new(&calls, &frame, Fields::default()).await?;
    Ok(answer::page(&FormPage { frame, sheet, days: DAYS.to_owned() }))
}

/// `POST /studio/certificates/generate`.
pub async fn submit(visit: Visit, Posted(fields): Posted<Fields>) -> Answer {
    let Visit { calls, frame } = visit;
    let made = match request(&fields) {
        Ok(request) => calls.security().generate_certificate(request).await,
        Err(status) => Err(status),
    };
    match made {
        Ok(made) => {
            let made = made.into_inner();
            let mut page = Generated::new(
                frame,
                made.certificate,
                &made.package,
                made.file_name,
                made.password,
            );
            if !fields.other("second-factor").is_empty() {
                page = page.with_second_factor(&calls).await;
            }
            Ok(answer::page(&page))
        }
        Err(status) => {
            let days = fields.other("days").to_owned();
            let mut sheet = Sheet::new(&calls, &frame, fields).await?;
            sheet.wrong = Some(answer::field(&status));
            let (code, _) = answer::as_http(status.code());
            Ok(answer::page_with(code, &FormPage { frame, sheet, days }))
        }
    }
}

fn request(fields: &Fields) -> Result<GenerateCertificateRequest, Status> {
    Ok(GenerateCertificateRequest {
        name: fields.name.clone(),
        clearance: fields.clearance().into(),
        grants: fields.grants(),
        lifetime_seconds: lifetime(fields.other("days"))?,
        password: fields.other("password").to_owned(),
        note: fields.note.clone(),
        owner: fields.owner.clone(),
        csr: fields.other("csr").trim().as_bytes().to_vec(),
        pfx_compat: !fields.other("compat").is_empty(),
        ..GenerateCertificateRequest::default()
    })
}

fn lifetime(days: &str) -> Result<u64, Status> {
    let days: u64 = days
        .trim()
        .parse()
        .map_err(|_| Status::invalid_argument("The days are not a whole number."))?;
    Ok(days.saturating_mul(24 * 3600))
}

#[derive(Template)]
#[template(path = "certificates/clone.html")]
struct ClonePage {
    frame: Frame,
    c: Shown,
    name: String,
    days: String,
    wrong: Option<(String, String)>,
}

/// `GET /studio/certificate/clone?t=`.
pub async fn clone_form(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = GetCertificateRequest { thumbprint: which.t };
    let found =
        calls.security().get_certificate(asked).await.map_err(Refused::on(&frame))?.into_inner();
    let c = Shown::new(found.certificate.unwrap_or_default(), &frame);
    let name = format!("{}, copy", c.it.name);
    Ok(answer::page(&ClonePage { frame, c, name, days: DAYS.to_owned(), wrong: None }))
}

/// What the form of a clone holds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CloneFields {
    t: String,
    name: String,
    days: String,
    password: String,
}

/// `POST /studio/certificate/clone`.
pub async fn clone_submit(visit: Visit, Posted(fields): Posted<CloneFields>) -> Answer {
    let Visit { calls, frame } = visit;
    let made = match lifetime(&fields.days) {
        Ok(lifetime_seconds) => {
            let asked = CloneCertificateRequest {
                thumbprint: fields.t.clone(),
                name: fields.name.clone(),
                lifetime_seconds,
                password: fields.password,
                request_id: String::new(),
            };
            calls.security().clone_certificate(asked).await
        }
        Err(status) => Err(status),
    };
    match made {
        Ok(made) => {
            let made = made.into_inner();
            Ok(answer::page(&Generated::new(
                frame,
                made.certificate,
                &made.package,
                made.file_name,
                made.password,
            )))
        }
        Err(status) => {
            let asked = GetCertificateRequest { thumbprint: fields.t };
            let found = calls
                .security()
                .get_certificate(asked)
                .await
                .map_err(Refused::on(&frame))?
                .into_inner();
            let c = Shown::new(found.certificate.unwrap_or_default(), &frame);
            let (code, _) = answer::as_http(status.code());
            let wrong = Some(answer::field(&status));
            Ok(answer::page_with(
                code,
                &ClonePage { frame, c, name: fields.name, days: fields.days, wrong },
            ))
        }
    }
}
