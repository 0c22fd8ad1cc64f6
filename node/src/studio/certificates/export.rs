//! Export of the nodes' public certificates, to be uploaded into another cluster.

use askama::Template;
use axum::{
    Form,
    http::{HeaderValue, header},
    response::IntoResponse as _,
};
use rookery_proto::security::v1::ExportServerCertificatesRequest;
use serde::Deserialize;

use crate::studio::{
    answer::{self, Answer, Refused},
    visit::{Frame, Visit},
};

#[derive(Template)]
#[template(path = "certificates/export.html")]
struct ExportPage {
    frame: Frame,
}

/// `GET /studio/certificates/export`.
pub async fn form(visit: Visit) -> Answer {
    Ok(answer::page(&ExportPage { frame: visit.frame }))
}

/// Which form the file has.
#[derive(Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    format: String,
}

/// `POST /studio/certificates/export`: the file.
pub async fn file(visit: Visit, Form(asked): Form<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let request = ExportServerCertificatesRequest { password: String::new() };
    let exported = calls
        .security()
        .export_server_certificates(request)
        .await
        .map_err(Refused::on(&frame))?
        .into_inner();
    let (content, kind, ending) = match asked.format.as_str() {
        "pem" => (exported.pem.into_bytes(), "application/x-pem-file", "pem"),
        _ => (exported.pfx, "application/x-pkcs12", "pfx"),
    };
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let name = format!("attachment; filename=\"cluster-server-certificates.{ending}\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
