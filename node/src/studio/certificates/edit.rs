//! Edit: what changes is shown first, and confirmed where the holder gets more rights or the editor loses some.

use askama::Template;
use axum::{extract::Query, http::StatusCode};
use rookery_proto::security::v1::{Certificate, EditCertificateRequest, GetCertificateRequest};

use super::{
    Shown,
    fields::{ACCESSES, Difference, Fields, Sheet, differences},
    show::Which,
};
use crate::studio::{
    answer::{self, Answer, Refused, reason},
    contract::Calls,
    posted::Posted,
    visit::{Frame, Visit},
    words,
};

#[derive(Template)]
#[template(path = "certificates/edit.html")]
struct EditPage {
    frame: Frame,
    c: Shown,
    sheet: Sheet,
    /// What is to be confirmed; empty: nothing.
    confirm: Vec<Difference>,
    /// The editor takes rights from themselves.
    own: bool,
    /// Somebody changed the certificate after the form was opened.
    stale: bool,
}

async fn found(
    calls: &Calls,
    frame: &Frame,
    thumbprint: &str,
) -> Result<Certificate, Box<Refused>> {
    let asked = GetCertificateRequest { thumbprint: thumbprint.to_owned() };
    let found = calls.security().get_certificate(asked).await.map_err(Refused::on(frame))?;
    Ok(found.into_inner().certificate.unwrap_or_default())
}

/// `GET /studio/certificate/edit?t=`.
pub async fn form(visit: Visit, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let certificate = found(&calls, &frame, &which.t).await?;
    let sheet = Sheet::new(&calls, &frame, Fields::of(&certificate)).await?;
    let c = Shown::new(certificate, &frame);
    Ok(answer::page(&EditPage { frame, c, sheet, confirm: Vec::new(), own: false, stale: false }))
}

/// `POST /studio/certificate/edit`.
pub async fn submit(visit: Visit, Posted(fields): Posted<Fields>) -> Answer {
    let Visit { calls, frame } = visit;
    let thumbprint = fields.other("t").to_owned();
    let etag = fields.other("etag").to_owned();
    let certificate = found(&calls, &frame, &thumbprint).await?;
    let changed = differences(&certificate, &fields);
    // A confirmation is of the state that was shown; of another one it has to be given again.
    let confirmed = !etag.is_empty() && fields.other("confirmed") == etag;
    // Saved once more, the form would carry the new version and undo what somebody else did meanwhile.
    let stale = etag != certificate.etag;
    if (stale || changed.iter().any(|it| it.widens)) && !confirmed {
        let sheet = Sheet::new(&calls, &frame, fields).await?;
        let c = Shown::new(certificate, &frame);
        let code = if stale { StatusCode::CONFLICT } else { StatusCode::OK };
        let page = EditPage { frame, c, sheet, confirm: changed, own: false, stale };
        return Ok(answer::page_with(code, &page));
    }
    let request = EditCertificateRequest {
        thumbprint: thumbprint.clone(),
        name: fields.name.clone(),
        clearance: fields.clearance().into(),
        grants: fields.grants(),
        set_grants: true,
        expected_etag: etag,
        request_id: String::new(),
        note: Some(fields.note.clone()),
        owner: Some(fields.owner.clone()),
        confirm_self_demotion: confirmed,
    };
    let Err(status) = calls.security().edit_certificate(request).await else {
        return Ok(answer::see(&format!(
            "/studio/certificate{}",
            words::query(&[("t", &thumbprint)])
        )));
    };
    let own = reason(&status) == "CONFIRMATION_REQUIRED";
    let mut sheet = Sheet::new(&calls, &frame, fields).await?;
    let c = Shown::new(certificate, &frame);
    if own {
        return Ok(answer::page(&EditPage {
            frame,
            c,
            sheet,
            confirm: changed,
            own,
            stale: false,
        }));
    }
    sheet.wrong = Some(answer::field(&status));
    let (code, _) = answer::as_http(status.code());
    Ok(answer::page_with(
        code,
        &EditPage { frame, c, sheet, confirm: Vec::new(), own, stale: false },
    ))
}
