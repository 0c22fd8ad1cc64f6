//! The nodes' own certificates: which there are, their replacement, and how far it is, as it happens.
//!
//! Without script the page loads itself again while a replacement is under way; with script the same words come as
//! server-sent events ([`live`]).

use std::{collections::BTreeSet, convert::Infallible};

use askama::Template;
use axum::{
    http::StatusCode,
    response::{
        IntoResponse as _, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use rookery_proto::security::v1::{
    AbortServerCertificateReplacementRequest, GetServerCertificateReplacementRequest,
    ListServerCertificatesRequest, NewServerCertificate, NodeReplacement,
    ReplaceServerCertificatesRequest, ServerCertificate, ServerCertificateReplacement,
};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{
    state_class,
    wrong::{self, Wrong},
};
use crate::{
    limits,
    studio::{
        answer::{self, Answer, Refused},
        contract::Calls,
        form::WithFiles,
        outcome,
        visit::{Frame, Visit},
        words,
    },
};

/// How long before the end of a certificate in force the others are not waited for any more (ADR 13).
const LAST_DAYS_MS: i64 = 3 * 24 * 3600 * 1000;

#[derive(Template)]
#[template(path = "certificates/server.html")]
struct ServerPage {
    frame: Frame,
    certificates: Vec<ServerCertificate>,
    progress: Option<Progress>,
    wrong: Option<Wrong>,
    /// The nodes have the certificates already that were to replace theirs.
    unchanged: bool,
}

impl ServerPage {
    /// Names of the nodes, each once.
    fn nodes(&self) -> BTreeSet<&str> {
        self.certificates.iter().map(|it| it.node_name.as_str()).collect()
    }

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

    fn is_wrong(&self, id: &str) -> bool {
        self.wrong.as_ref().is_some_and(|wrong| wrong.id == id)
    }

    fn is_under_way(&self) -> bool {
        self.progress.as_ref().is_some_and(Progress::is_under_way)
    }
}

/// A replacement as the page and the stream show it.
struct Progress {
    frame: Frame,
    it: ServerCertificateReplacement,
    /// When the first certificate in force ends, of those that are to be replaced; 0: none is known.
    first_end: i64,
}

/// The part of the page that changes.
#[derive(Template)]
#[template(path = "certificates/progress.html")]
struct Live<'a> {
    progress: &'a Progress,
}

impl Progress {
    fn is_under_way(&self) -> bool {
        matches!(self.it.phase.as_str(), "installing" | "swapping")
    }

    fn class(&self) -> &'static str {
        match self.it.phase.as_str() {
            "finished" => "good",
            "aborted" => "bad",
            _ => "warn",
        }
    }

    fn date(&self, unix_ms: &i64) -> String {
        words::date(*unix_ms)
    }

    fn short<'a>(&self, thumbprint: &'a str) -> &'a str {
        words::short(thumbprint)
    }

    /// Whether nodes may have been told to swap: then there is no way back.
    fn is_swapping(&self) -> bool {
        self.it.phase == "swapping"
    }

    /// Steps that are done, of all: two a node.
    fn done(&self) -> usize {
        let steps = |node: &NodeReplacement| {
            usize::from(node.installed_unix_ms != 0) + usize::from(node.swapped_unix_ms != 0)
        };
        self.it.nodes.iter().map(steps).sum()
    }

    fn steps(&self) -> usize {
        2 * self.it.nodes.len()
    }

    /// Where a node is, and the class of its tag.
    fn step(&self, node: &NodeReplacement) -> (&'static str, &'static str) {
        match (node.swapped_unix_ms, node.installed_unix_ms) {
            _ if self.it.phase == "aborted" => ("given up", ""),
            (0, 0) => ("not confirmed", "warn"),
            (0, _) if self.is_swapping() => ("told to swap", "warn"),
            (0, _) => ("installed", ""),
            (_, _) => ("in use", "good"),
        }
    }

    /// What the replacement waits for now, in words.
    fn waits_for(&self) -> String {
        let names = |waited: fn(&NodeReplacement) -> bool| -> String {
            let nodes = self.it.nodes.iter().filter(|node| waited(node));
            nodes.map(|node| node.node_name.as_str()).collect::<Vec<_>>().join(", ")
        };
        if self.is_swapping() {
            return format!(
                "It waits for {}: to present the new certificate. Until then the old ones are trusted too.",
                names(|node| node.swapped_unix_ms == 0)
            );
        }
        if self.it.not_before_unix_ms > self.frame.now() {
            return format!(
                "The new certificate is valid from {} UTC on; no node swaps before.",
                words::date(self.it.not_before_unix_ms)
            );
        }
        match names(|node| node.installed_unix_ms == 0).as_str() {
            "" => "All nodes have it; they are told to swap.".to_owned(),
            missing => format!(
                "It waits for {missing}: to confirm that the new certificate and its key are kept."
            ),
        }
    }

    /// The moment from which nobody is waited for any more.
    fn deadline(&self) -> String {
        words::date(self.first_end.saturating_sub(LAST_DAYS_MS))
    }

    fn has_deadline(&self) -> bool {
        self.first_end != 0 && self.it.phase == "installing" && !self.it.immediately
    }
}

/// Both lists of the contract, as the page shows them.
async fn state(
    calls: &Calls,
    frame: &Frame,
) -> Result<(Vec<ServerCertificate>, Option<Progress>), Status> {
    let mut servers = calls.server_certificates();
    let listed = servers.list_server_certificates(ListServerCertificatesRequest {}).await?;
    let asked = GetServerCertificateReplacementRequest {};
    let found = servers.get_server_certificate_replacement(asked).await?.into_inner();
    let certificates = listed.into_inner().certificates;
    let progress = found.replacement.map(|it| {
        let concerned = |certificate: &&ServerCertificate| {
            certificate.in_force && it.nodes.iter().any(|node| node.node_id == certificate.node_id)
        };
        let ends = certificates.iter().filter(concerned).map(|it| it.not_after_unix_ms);
        Progress { frame: frame.clone(), first_end: ends.min().unwrap_or(0), it }
    });
    Ok((certificates, progress))
}

/// `GET /studio/certificates/server`.
pub async fn page(visit: Visit) -> Answer {
    shown(visit.calls, visit.frame, None, &[], false).await
}

/// `files`: what each file of the form was for that led here.
async fn shown(
    calls: Calls,
    frame: Frame,
    wrong: Option<Status>,
    files: &[String],
    unchanged: bool,
) -> Answer {
    let found = state(&calls, &frame).await;
    let (certificates, progress) = found.map_err(|error| match &wrong {
        // What came of the change is not to be lost.
        Some(status) => Refused::told(&frame, status, outcome::Wrong::of(&frame, status, "")),
        None => Refused::before_change(&frame)(error),
    })?;
    let code = wrong.as_ref().map_or(StatusCode::OK, wrong::code);
    let wrong = wrong.map(|status| Wrong::of_files(&status, files));
    Ok(answer::page_with(code, &ServerPage { frame, certificates, progress, wrong, unchanged }))
}

/// The files that were chosen, each with its password: for all nodes and for single ones.
fn chosen(form: &mut WithFiles) -> Vec<NewServerCertificate> {
    let files = std::mem::take(&mut form.files).into_iter();
    let new = files.filter_map(|(field, mut content)| {
        let node = match field.strip_prefix("file:") {
            Some(node) => node,
            None if field == "file" => "",
            None => return None,
        };
        let password = match node {
            "" => form.take("password"),
            node => form.take(&format!("password:{node}")),
        };
        let content = std::mem::take(&mut *content);
        Some(NewServerCertificate { node: node.to_owned(), content, password })
    });
    new.collect()
}

/// `POST /studio/certificates/server`: a replacement for all nodes, with one certificate or with one for each.
pub async fn replace(visit: Visit, mut form: WithFiles) -> Answer {
    let Visit { calls, frame } = visit;
    let certificates = chosen(&mut form);
    let nodes: Vec<String> = certificates.iter().map(|it| it.node.clone()).collect();
    let request = ReplaceServerCertificatesRequest {
        certificates,
        force: !form.take("force").is_empty(),
        immediately: !form.take("immediately").is_empty(),
        supersede: !form.take("supersede").is_empty(),
        request_id: String::new(),
    };
    match calls.server_certificates().replace_server_certificates(request).await {
        Ok(told) if told.get_ref().unchanged => shown(calls, frame, None, &[], true).await,
        Ok(_started) => Ok(answer::see("/studio/certificates/server")),
        Err(status) => shown(calls, frame, Some(status), &nodes, false).await,
    }
}

/// `POST /studio/certificates/server/abort`.
pub async fn abort(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = AbortServerCertificateReplacementRequest { request_id: String::new() };
    match calls.server_certificates().abort_server_certificate_replacement(asked).await {
        Ok(_aborted) => Ok(answer::see("/studio/certificates/server")),
        Err(status) => shown(calls, frame, Some(status), &[], false).await,
    }
}

/// `GET /studio/certificates/server/live`: the replacement whenever it changes (server-sent events, WHATWG HTML 9.2).
///
/// Each look is a call, decided anew: the stream ends with the first that is refused, when the replacement has ended, and
/// after [`limits::STUDIO_STREAM_LIFE`]. `ended` tells the page to load itself again.
pub async fn live(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    state(&calls, &frame).await.map_err(Refused::on(&frame))?;
    let watch = Watch {
        calls,
        frame,
        last: String::new(),
        until: Instant::now() + limits::STUDIO_STREAM_LIFE,
        ended: false,
    };
    Ok(Sse::new(events(watch)).keep_alive(KeepAlive::default()).into_response())
}

/// A replacement that is watched.
struct Watch {
    calls: Calls,
    frame: Frame,
    /// What was sent last.
    last: String,
    until: Instant,
    ended: bool,
}

fn events(watch: Watch) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let event = watch.next().await;
        Some((Ok(event), watch))
    })
}

impl Watch {
    /// The next change, or the end.
    async fn next(&mut self) -> Event {
        while Instant::now() < self.until {
            let Ok((_, Some(progress))) = state(&self.calls, &self.frame).await else { break };
            let text = Live { progress: &progress }.render().unwrap_or_default();
            if text != self.last {
                self.last.clone_from(&text);
                return Event::default().data(text);
            }
            if !progress.is_under_way() {
                break;
            }
            sleep(limits::STUDIO_LOOK_PAUSE).await;
        }
        self.ended = true;
        Event::default().event("ended").data("reload")
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn node(name: &str, installed: i64, swapped: i64) -> NodeReplacement {
        NodeReplacement {
            node_name: name.to_owned(),
            installed_unix_ms: installed,
            swapped_unix_ms: swapped,
            ..NodeReplacement::default()
        }
    }

    #[test]
    fn files_are_for_the_nodes_that_their_fields_name() {
        let mut form = WithFiles::default();
        for (field, password) in [("file", "password"), ("file:n2", "password:n2"), ("other", "x")]
        {
            form.files.insert(field.to_owned(), Zeroizing::new(field.as_bytes().to_vec()));
            form.fields.insert(password.to_owned(), format!("of {field}"));
        }
        let new = chosen(&mut form);
        let found: Vec<_> =
            new.iter().map(|it| (it.node.as_str(), it.content.as_slice(), &*it.password)).collect();
        assert_eq!(found, [("", &b"file"[..], "of file"), ("n2", &b"file:n2"[..], "of file:n2")]);
        assert!(chosen(&mut form).is_empty(), "nothing was chosen");
    }

    #[test]
    fn every_phase_says_what_it_waits_for() {
        let check = |phase: &str,
                     not_before: i64,
                     nodes: &[NodeReplacement],
                     words: &str,
                     steps: &[&str]| {
            let it = ServerCertificateReplacement {
                phase: phase.to_owned(),
                nodes: nodes.to_vec(),
                not_before_unix_ms: not_before,
                ..ServerCertificateReplacement::default()
            };
            let progress = Progress { frame: Frame::for_tests(), it, first_end: 0 };
            assert!(progress.waits_for().contains(words), "{}", progress.waits_for());
            let found: Vec<_> = nodes.iter().map(|node| progress.step(node).0).collect();
            assert_eq!(found, steps);
        };
        let (n1, n2) = (node("n1", 5, 0), node("n2", 0, 0));
        check(
            "installing",
            0,
            &[n1.clone(), n2.clone()],
            "waits for n2:",
            &["installed", "not confirmed"],
        );
        check(
            "installing",
            i64::MAX,
            &[n1.clone(), n2.clone()],
            "valid from",
            &["installed", "not confirmed"],
        );
        check("installing", 0, std::slice::from_ref(&n1), "All nodes have it", &["installed"]);
        let (n1, n3) = (node("n1", 5, 6), node("n3", 5, 0));
        let swapping = ["in use", "not confirmed", "told to swap"];
        check("swapping", 0, &[n1.clone(), n2.clone(), n3], "waits for n2, n3:", &swapping);
        check("aborted", 0, &[n1, n2], "", &["given up", "given up"]);
    }
}
