//! Disable, enable, delete.

use askama::Template;
use axum::{Form, extract::Query};
use rookery_proto::security::v1::{
    DeleteCertificateRequest, DisableCertificateRequest, EnableCertificateRequest,
};
use serde::Deserialize;

use super::{Shown, actions::Act, found, show::Which};
use crate::studio::{
    answer::{self, Answer, Refused},
    posted::To,
    visit::{Frame, Visit},
    words,
};

/// A new state for a certificate.
#[derive(Debug, Deserialize)]
pub struct State {
    t: String,
    etag: String,
    to: To,
}

/// `POST /studio/certificate/state`.
pub async fn set_state(visit: Visit, Form(form): Form<State>) -> Answer {
    let Visit { calls, frame } = visit;
    let path = format!("/studio/certificate{}", words::query(&[("t", &form.t)]));
    let (thumbprint, expected_etag, request_id) = (form.t, form.etag, String::new());
    match form.to {
        To::Enabled => {
            let asked = EnableCertificateRequest { thumbprint, expected_etag, request_id };
            calls.security().enable_certificate(asked).await.map_err(Refused::on(&frame))?;
        }
        To::Disabled => {
            let asked = DisableCertificateRequest { thumbprint, expected_etag, request_id };
            calls.security().disable_certificate(asked).await.map_err(Refused::on(&frame))?;
        }
    }
    Ok(answer::see(&path))
}

#[derive(Template)]
#[template(path = "certificates/delete.html")]
struct DeletePage {
    frame: Frame,
    c: Shown,
}

/// `GET /studio/certificate/delete?t=`.
pub async fn delete_form(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let c = found(&calls, &frame, &which.t).await?;
    Ok(answer::page(&DeletePage { frame, c }))
}

/// `POST /studio/certificate/delete`.
pub async fn delete(visit: Visit, Form(which): Form<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = DeleteCertificateRequest { thumbprint: which.t, request_id: String::new() };
    calls.security().delete_certificate(asked).await.map_err(Refused::on(&frame))?;
    // The name of what is gone would be anybody's words in an address, so the list says it without.
    Ok(answer::see("/studio/certificates?done=deleted"))
}
