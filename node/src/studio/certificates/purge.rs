//! Purge: deletes what has expired, as far as the visitor may.

use askama::Template;
use rookery_proto::security::v1::{
    CertificateState, ListCertificatesRequest, PurgeCertificatesRequest, PurgeCertificatesResponse,
};

use super::Shown;
use crate::studio::{
    answer::{self, Answer, Refused},
    visit::{Frame, Visit},
};

/// Certificates that the page names before.
const SHOWN_MAX: u32 = 200;

#[derive(Template)]
#[template(path = "certificates/purge.html")]
struct PurgePage {
    frame: Frame,
    expired: Vec<Shown>,
    more: bool,
    done: Option<PurgeCertificatesResponse>,
}

/// `GET /studio/certificates/purge`.
pub async fn form(visit: Visit) -> Answer {
    page(visit, None).await
}

/// `POST /studio/certificates/purge`.
pub async fn purge(visit: Visit) -> Answer {
    let asked = PurgeCertificatesRequest { limit: 0, request_id: String::new() };
    let done = visit
        .calls
        .security()
        .purge_certificates(asked)
        .await
        .map_err(Refused::on(&visit.frame))?;
    let told = page(visit, Some(done.into_inner())).await;
    // It was done, whatever became of the list beneath it.
    told.or_else(|_| Ok(answer::see("/studio/certificates")))
}

async fn page(visit: Visit, done: Option<PurgeCertificatesResponse>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = ListCertificatesRequest {
        page_size: SHOWN_MAX,
        state: CertificateState::Expired.into(),
        ..ListCertificatesRequest::default()
    };
    let found =
        calls.security().list_certificates(asked).await.map_err(Refused::on(&frame))?.into_inner();
    let more = !found.next_page_token.is_empty();
    let expired = found.certificates.into_iter().map(|it| Shown::new(it, &frame)).collect();
    Ok(answer::page(&PurgePage { frame, expired, more, done }))
}
