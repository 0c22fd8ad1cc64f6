//! The nodes' own certificates: which there are, their replacement, and how far it is.

use askama::Template;
use rookery_proto::security::v1::{
    AbortServerCertificateReplacementRequest, GetServerCertificateReplacementRequest,
    ListServerCertificatesRequest, NewServerCertificate, NodeReplacement,
    ReplaceServerCertificatesRequest, ServerCertificate, ServerCertificateReplacement,
};

use super::state_class;
use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    form::WithFiles,
    visit::{Frame, Visit},
    words,
};

#[derive(Template)]
#[template(path = "certificates/server.html")]
struct ServerPage {
    frame: Frame,
    certificates: Vec<ServerCertificate>,
    replacement: Option<ServerCertificateReplacement>,
    wrong: Option<String>,
}

impl ServerPage {
    fn class(&self, it: &ServerCertificate) -> &'static str {
        state_class(&it.state)
    }

    fn date(&self, unix_ms: &i64) -> String {
        words::date(*unix_ms)
    }

    fn relative(&self, unix_ms: &i64) -> String {
        words::relative(*unix_ms, self.frame.now())
    }

    fn short<'a>(&self, thumbprint: &'a str) -> &'a str {
        words::short(thumbprint)
    }

    fn is_under_way(&self) -> bool {
        self.replacement
            .as_ref()
            .is_some_and(|it| matches!(it.phase.as_str(), "installing" | "swapping"))
    }

    fn step(&self, node: &NodeReplacement) -> &'static str {
        match (node.swapped_unix_ms, node.installed_unix_ms) {
            (0, 0) => "waiting",
            (0, _) => "installed",
            (_, _) => "in use",
        }
    }
}

/// `GET /studio/certificates/server`.
pub async fn page(visit: Visit) -> Answer {
    shown(visit.calls, visit.frame, None).await
}

async fn shown(calls: Calls, frame: Frame, wrong: Option<tonic::Status>) -> Answer {
    let refused = Refused::on(&frame);
    let mut servers = calls.server_certificates();
    let listed = servers
        .list_server_certificates(ListServerCertificatesRequest {})
        .await
        .map_err(&refused)?
        .into_inner();
    let asked = GetServerCertificateReplacementRequest {};
    let replacement = servers
        .get_server_certificate_replacement(asked)
        .await
        .map_err(&refused)?
        .into_inner()
        .replacement;
    drop(refused);
    let code = wrong
        .as_ref()
        .map_or(axum::http::StatusCode::OK, |status| answer::as_http(status.code()).0);
    let wrong = wrong.map(|status| answer::field(&status).1);
    Ok(answer::page_with(
        code,
        &ServerPage { frame, certificates: listed.certificates, replacement, wrong },
    ))
}

/// `POST /studio/certificates/server`: a replacement for all nodes.
pub async fn replace(visit: Visit, mut form: WithFiles) -> Answer {
    let Visit { calls, frame } = visit;
    let content = form.files.remove("file").map(|content| content.to_vec()).unwrap_or_default();
    let password = form.take("password");
    let request = ReplaceServerCertificatesRequest {
        certificates: vec![NewServerCertificate { node: form.take("node"), content, password }],
        force: !form.take("force").is_empty(),
        immediately: !form.take("immediately").is_empty(),
        supersede: !form.take("supersede").is_empty(),
        request_id: String::new(),
    };
    match calls.server_certificates().replace_server_certificates(request).await {
        Ok(_started) => Ok(answer::see("/studio/certificates/server")),
        Err(status) => shown(calls, frame, Some(status)).await,
    }
}

/// `POST /studio/certificates/server/abort`.
pub async fn abort(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = AbortServerCertificateReplacementRequest { request_id: String::new() };
    calls
        .server_certificates()
        .abort_server_certificate_replacement(asked)
        .await
        .map_err(Refused::on(&frame))?;
    Ok(answer::see("/studio/certificates/server"))
}
