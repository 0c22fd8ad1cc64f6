//! Upload: a file first, then what is in it, then what it may. Between the two steps the page holds the public
//! certificates alone; a private key that was in the file is dropped by the first.

use askama::Template;
use rookery_proto::security::v1::{
    Certificate, InspectCertificateRequest, UploadCertificateRequest, UploadCertificateResponse,
};
use tonic::Status;

use super::{
    Shown,
    fields::{ACCESSES, Fields, Sheet},
    pem,
};
use crate::studio::{
    answer::{self, Answer, Refused},
    form::WithFiles,
    posted::Posted,
    visit::{Frame, Visit},
};

#[derive(Template)]
#[template(path = "certificates/upload.html")]
struct FilePage {
    frame: Frame,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "certificates/uploading.html")]
struct RightsPage {
    frame: Frame,
    sheet: Sheet,
    certificates: Vec<Shown>,
    /// The public certificates of the upload.
    pem: String,
    private_key_dropped: bool,
    authorities_skipped: u32,
}

#[derive(Template)]
#[template(path = "certificates/uploaded.html")]
struct Uploaded {
    frame: Frame,
    c: Shown,
    others: usize,
}

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
            let mut sheet = Sheet::new(&calls, &frame, Fields::default()).await?;
            sheet.nodes_too = true;
            let pem = found.certificates.iter().map(|it| pem(&it.der)).collect();
            let certificates =
                found.certificates.into_iter().map(|it| Shown::new(it, &frame)).collect();
            let (private_key_dropped, authorities_skipped) =
                (found.private_key_dropped, found.authorities_skipped);
            Ok(answer::page(&RightsPage {
                frame,
                sheet,
                certificates,
                pem,
                private_key_dropped,
                authorities_skipped,
            }))
        }
        Err(status) => {
            let (code, _) = answer::as_http(status.code());
            let (_, why) = answer::field(&status);
            Ok(answer::page_with(code, &FilePage { frame, wrong: Some(why) }))
        }
    }
}

/// `POST /studio/certificates/register`: the rights.
pub async fn register(visit: Visit, Posted(fields): Posted<Fields>) -> Answer {
    let Visit { calls, frame } = visit;
    let pem = fields.other("pem").to_owned();
    let request = UploadCertificateRequest {
        name: fields.name.clone(),
        clearance: fields.clearance().into(),
        grants: fields.grants(),
        certificate: pem.clone().into_bytes(),
        overwrite: !fields.other("overwrite").is_empty(),
        note: fields.note.clone(),
        owner: fields.owner.clone(),
        ..UploadCertificateRequest::default()
    };
    let status = match calls.security().upload_certificate(request).await {
        Ok(registered) => return Ok(shown(frame, registered.into_inner())),
        Err(status) => status,
    };
    let asked = InspectCertificateRequest {
        certificate: pem.clone().into_bytes(),
        password: String::new(),
    };
    let found = calls
        .security()
        .inspect_certificate(asked)
        .await
        .map_err(Refused::on(&frame))?
        .into_inner();
    let mut sheet = Sheet::new(&calls, &frame, fields).await?;
    sheet.nodes_too = true;
    sheet.wrong = Some(answer::field(&status));
    let certificates = found.certificates.into_iter().map(|it| Shown::new(it, &frame)).collect();
    let page = RightsPage {
        frame,
        sheet,
        certificates,
        pem,
        private_key_dropped: false,
        authorities_skipped: 0,
    };
    Ok(answer::page_with(code(&status), &page))
}

fn code(status: &Status) -> axum::http::StatusCode {
    answer::as_http(status.code()).0
}

fn shown(frame: Frame, registered: UploadCertificateResponse) -> axum::response::Response {
    let certificate: Certificate = registered.certificate.unwrap_or_default();
    let others = registered.thumbprints.len().saturating_sub(1);
    let c = Shown::new(certificate, &frame);
    answer::page(&Uploaded { frame, c, others })
}
