//! Errors of the layers below as the client is told them: one `google.rpc.Status` with a stable reason.
//!
//! | code | reasons | the client |
//! | --- | --- | --- |
//! | UNAUTHENTICATED | `CERTIFICATE_*` | presents another certificate |
//! | PERMISSION_DENIED | `CLEARANCE_TOO_LOW`, `DATABASE_ACCESS_DENIED`, rules about certificates, `JOIN_TOKEN_REFUSED`, `SECOND_FACTOR_WRONG_CODE` | asks an administrator |
//! | INVALID_ARGUMENT | `INVALID_ARGUMENT`, `REQUEST_ID_REUSED`, `MALFORMED_REQUEST`; field path in `BadRequest` | corrects the call |
//! | NOT_FOUND, ALREADY_EXISTS | `NOT_FOUND`; `ALREADY_EXISTS`, `NAME_IN_USE` | names something else |
//! | ABORTED | `CONCURRENCY` | reads again and decides anew |
//! | FAILED_PRECONDITION | `DATABASE_DISABLED`, `NOT_FORMED`, `ALREADY_FORMED`, `NODE_ID_REUSED`, `SECONDARY_CERTIFICATE`, `CONFIRMATION_REQUIRED`, `WELL_KNOWN`, `LAST_VOTER`, `CHANGE_UNDER_WAY` | changes that first, or waits |
//! | FAILED_PRECONDITION | `SECOND_FACTOR_REQUIRED`, `SECOND_FACTOR_NOT_ENROLLED` (the RPC to call under `call`), `SECOND_FACTOR_CODE_USED`, `SECOND_FACTOR_LOCKED` (`RetryInfo`) | logs in, or waits |
//! | RESOURCE_EXHAUSTED | `LIMIT_EXCEEDED`, `MESSAGE_TOO_LARGE` | sends less |
//! | RESOURCE_EXHAUSTED | `DISK_FULL` | makes room on the disk that the message names |
//! | UNAVAILABLE | `NO_LEADER`, `NO_QUORUM`, `NOT_LEADER`, `AUTHORIZATION_STALE`, `NODE_STOPPED`; `RetryInfo` | tries again, here or on another node |
//! | DEADLINE_EXCEEDED | `DEADLINE_EXCEEDED` with `outcome = unknown` | sends the same `request_id` again |
//!
//! Messages say what happened, why, and what to do. Causes from inside the node go to its log and nowhere else.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use rookery_proto::log::v1::Refusal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{authz::Denied, consensus, storage};

/// The domain of every reason.
pub const DOMAIN: &str = "rookery";
/// How long a client waits before it tries again where the cluster is electing or catching up.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Metadata of a refusal: when the same call may succeed.
const RETRY_AFTER_MS: &str = "retry_after_ms";
/// Longest message: it travels in a header, and the details in another.
const MESSAGE_CHARS_MAX: usize = 1_024;
/// Longest metadata value.
const VALUE_CHARS_MAX: usize = 256;
/// Most metadata entries of a refusal.
const METADATA_MAX: usize = 16;

/// A status under construction.
pub struct Answer {
    code: Code,
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
    retry: Option<Duration>,
    field: Option<String>,
}

impl Answer {
    /// A status of `code` with a stable `reason` and a sentence for people.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            metadata: BTreeMap::new(),
            retry: None,
            field: None,
        }
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(cut(key, VALUE_CHARS_MAX), cut(&value.to_string(), VALUE_CHARS_MAX));
        self
    }

    /// Blames one field of the request, by its path.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.field = (!path.is_empty()).then_some(path);
        self
    }

    /// Says that the same call may succeed in a moment.
    #[must_use]
    pub fn retry(mut self) -> Self {
        self.retry = Some(RETRY_DELAY);
        self
    }

    /// Says when the same call may succeed.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    /// The status.
    #[must_use]
    pub fn status(self) -> Status {
        let message = cut(&self.message, MESSAGE_CHARS_MAX);
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason, DOMAIN, entries(self.metadata));
        if self.retry.is_some() {
            details.set_retry_info(self.retry);
        }
        if let Some(path) = self.field {
            let why = message.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": "));
            details.add_bad_request_violation(path, why.unwrap_or(&message));
        }
        Status::with_error_details(self.code, message, details)
    }
}

impl From<Answer> for Status {
    fn from(answer: Answer) -> Self {
        answer.status()
    }
}

#[allow(clippy::disallowed_types)] // What tonic-types takes; a protobuf map has no order either.
fn entries(metadata: BTreeMap<String, String>) -> std::collections::HashMap<String, String> {
    metadata.into_iter().collect()
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// A decision against the caller: which rule, what it requires, what the caller has.
#[must_use]
pub fn denied(denied: &Denied) -> Status {
    let code = code_of(denied.reason.code());
    let answer = Answer::new(code, denied.reason.code(), denied.message.as_str());
    let answer = match denied.reason.remedy() {
        Some(call) => answer.with("call", call),
        None => answer,
    };
    answer
        .with("operation", denied.operation)
        .with("required", &denied.required)
        .with("have", &denied.have)
        .with("rule", denied.rule)
        .with("registry_revision", denied.revision)
        .status()
}

/// The code that a reason of the state machines belongs to.
fn code_of(reason: &str) -> Code {
    match reason {
        "INVALID_ARGUMENT" | "REQUEST_ID_REUSED" => Code::InvalidArgument,
        "ALREADY_EXISTS" | "NAME_IN_USE" => Code::AlreadyExists,
        "NOT_FOUND" => Code::NotFound,
        "CONCURRENCY" => Code::Aborted,
        "LIMIT_EXCEEDED" | "MESSAGE_TOO_LARGE" | "DISK_FULL" => Code::ResourceExhausted,
        "CLEARANCE_TOO_LOW"
        | "DATABASE_ACCESS_DENIED"
        | "MANAGE_FORBIDDEN"
        | "NOT_A_MEMBER"
        | "LAST_CLUSTER_ADMIN"
        | "OWN_CERTIFICATE"
        | "JOIN_TOKEN_REFUSED"
        | "SECOND_FACTOR_WRONG_CODE"
        | "SETUP_OVER" => Code::PermissionDenied,
        "ENTRY_REFUSED" => Code::Internal,
        other if other.starts_with("CERTIFICATE_") => Code::Unauthenticated,
        // WELL_KNOWN, DATABASE_DISABLED, NOT_FORMED, ALREADY_FORMED, NODE_ID_REUSED, SECONDARY_CERTIFICATE,
        // CONFIRMATION_REQUIRED, LAST_VOTER, SECOND_FACTOR_*, and reasons of newer nodes: the cluster is not in the state
        // that the call needs.
        _ => Code::FailedPrecondition,
    }
}

/// A deterministic refusal by a state machine.
#[must_use]
pub fn refusal(refusal: Refusal) -> Status {
    let code = code_of(&refusal.reason);
    let mut answer = Answer::new(code, refusal.reason, refusal.message).field(refusal.field);
    if let Some(after) = refusal.metadata.get(RETRY_AFTER_MS).and_then(|ms| ms.parse().ok()) {
        answer = answer.retry_after(Duration::from_millis(after));
    }
    for (key, value) in refusal.metadata.into_iter().take(METADATA_MAX) {
        answer = answer.with(&key, value);
    }
    answer.status()
}

/// A field of the request that cannot be accepted.
#[must_use]
pub fn invalid(path: &str, why: impl Display) -> Status {
    let message = format!("{path}: {why}.");
    Answer::new(Code::InvalidArgument, "INVALID_ARGUMENT", message).field(path).status()
}

/// Something that was named and does not exist; only for callers who may know that.
#[must_use]
pub fn not_found(what: &str, name: impl Display) -> Status {
    let message =
        format!("There is no {what} “{name}”. Check the spelling, or list what there is.");
    Answer::new(Code::NotFound, "NOT_FOUND", message).with("kind", what).status()
}

/// A failure of the node itself; `cause` goes to the log, not to the client.
#[must_use]
pub fn internal(what: &str, cause: impl Display) -> Status {
    tracing::error!(%cause, "{what}");
    let message = format!("{what}. The node's log has the cause; other nodes may serve the call.");
    Answer::new(Code::Internal, "INTERNAL", message).status()
}

/// A node that belongs to no cluster, or not any more.
#[must_use]
pub fn not_serving(state: &consensus::State) -> Status {
    match state {
        // Why it is passive is for its owner, on the admin socket.
        consensus::State::Passive(_) | consensus::State::Joining => Answer::new(
            Code::FailedPrecondition,
            "NOT_FORMED",
            "This node does not belong to a cluster yet, so it knows nobody. Whoever owns its files bootstraps it or \
             makes it join, on the machine itself.",
        )
        .status(),
        consensus::State::Removed => Answer::new(
            Code::Unavailable,
            "NODE_REMOVED",
            "This node was removed from its cluster and serves nobody. Ask another node.",
        )
        .status(),
        consensus::State::Member => stale(),
    }
}

fn stale() -> Status {
    Answer::new(
        Code::Unavailable,
        "AUTHORIZATION_STALE",
        "This node cannot be sure that its registry of certificates is current, because it hears no leader, so it \
         decides nothing. Try again, or ask another node.",
    )
    .retry()
    .status()
}

/// The deadline passed before the cluster answered.
#[must_use]
pub fn deadline_exceeded() -> Status {
    Answer::new(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "The deadline passed before the cluster answered. A write may or may not have been applied: send it again \
         with the same request_id, and it is applied once.",
    )
    .with("outcome", "unknown")
    .status()
}

/// Every error of consensus.
#[must_use]
pub fn status(error: consensus::Error) -> Status {
    let unavailable = |reason: &str, message: &str| {
        Answer::new(Code::Unavailable, reason, message).retry().status()
    };
    match error {
        consensus::Error::Refused(why) => refusal(*why),
        consensus::Error::Denied(why) => denied(&why),
        consensus::Error::NoLeader => unavailable(
            "NO_LEADER",
            "The group has no leader at the moment; nothing was written. Try again in a moment.",
        ),
        consensus::Error::NoQuorum => unavailable(
            "NO_QUORUM",
            "Too few nodes of the group answer to agree on anything. Try again, or ask another node.",
        ),
        consensus::Error::NotLeader => unavailable(
            "NOT_LEADER",
            "Leadership of the group moved during the call; nothing was written. Try again.",
        ),
        consensus::Error::Timeout => deadline_exceeded(),
        consensus::Error::Stale => stale(),
        consensus::Error::NotMember(_) => not_serving(&consensus::State::Joining),
        consensus::Error::Storage(storage::Error::Corrupt { .. }) => {
            tracing::error!(cause = %error, "a call needed a record that cannot be authenticated");
            Answer::new(
                Code::DataLoss,
                "RECORD_DAMAGED",
                "A record that the answer needs was changed or damaged on this node's disk, so nothing is answered \
                 rather than something wrong. Ask another node; an administrator replaces this node's data folder, and \
                 its log says where the record stands.",
            )
            .status()
        }
        consensus::Error::Stopped(_) | consensus::Error::Storage(_) => {
            tracing::error!(cause = %error, "a call found its group stopped");
            Answer::new(
                Code::Unavailable,
                "NODE_STOPPED",
                "This node cannot serve the group: it stopped because of a fault that stands in its log. Ask another \
                 node.",
            )
            .status()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        authz::{DeniedReason, ServerOperation},
        consensus::{Error, State},
        names::{Thumbprint, Timestamp},
    };

    fn refused(reason: &str) -> Error {
        Error::refused(reason, "What happened.")
    }

    /// Code, reason and whether a retry is advised.
    fn check(error: Error, code: Code, reason: &str, retry: bool) {
        let told = status(error);
        let details = told.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((told.code(), info.reason.as_str()), (code, reason));
        assert_eq!(info.domain, DOMAIN);
        assert_eq!(details.retry_info().is_some(), retry, "{reason}");
        assert!(!told.message().is_empty());
        for secret in ["/var/lib", "sst", "panicked"] {
            assert!(!told.message().contains(secret), "{reason}: {}", told.message());
        }
    }

    #[test]
    fn every_error_has_its_code_and_reason() {
        let inside = "/var/lib/rookery/store/000007.sst: corrupted".to_owned();
        check(Error::NoLeader, Code::Unavailable, "NO_LEADER", true);
        check(Error::NoQuorum, Code::Unavailable, "NO_QUORUM", true);
        check(Error::NotLeader, Code::Unavailable, "NOT_LEADER", true);
        check(Error::Stale, Code::Unavailable, "AUTHORIZATION_STALE", true);
        check(Error::Timeout, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", false);
        check(Error::NotMember(inside.clone()), Code::FailedPrecondition, "NOT_FORMED", false);
        check(Error::Stopped(inside.clone()), Code::Unavailable, "NODE_STOPPED", false);
        let storage = Error::Storage(storage::Error::Engine(inside));
        check(storage, Code::Unavailable, "NODE_STOPPED", false);
        let space = storage::Space {
            table: storage::Table::State,
            group: crate::names::GroupId::CLUSTER,
            generation: 0,
        };
        let damaged = Error::Storage(storage::Error::Corrupt { space, why: "its tag is wrong" });
        check(damaged, Code::DataLoss, "RECORD_DAMAGED", false);
        for (reason, code) in [
            ("INVALID_ARGUMENT", Code::InvalidArgument),
            ("REQUEST_ID_REUSED", Code::InvalidArgument),
            ("ALREADY_EXISTS", Code::AlreadyExists),
            ("NAME_IN_USE", Code::AlreadyExists),
            ("NOT_FOUND", Code::NotFound),
            ("CONCURRENCY", Code::Aborted),
            ("DATABASE_DISABLED", Code::FailedPrecondition),
            ("NOT_FORMED", Code::FailedPrecondition),
            ("ALREADY_FORMED", Code::FailedPrecondition),
            ("NODE_ID_REUSED", Code::FailedPrecondition),
            ("SECONDARY_CERTIFICATE", Code::FailedPrecondition),
            ("CONFIRMATION_REQUIRED", Code::FailedPrecondition),
            ("LIMIT_EXCEEDED", Code::ResourceExhausted),
            ("DISK_FULL", Code::ResourceExhausted),
            ("ENTRY_REFUSED", Code::Internal),
            ("JOIN_TOKEN_REFUSED", Code::PermissionDenied),
            ("A_REASON_OF_TOMORROW", Code::FailedPrecondition),
        ] {
            check(refused(reason), code, reason, false);
        }
    }

    #[test]
    fn denials_mean_the_same_from_the_edge_and_from_the_log() {
        for reason in DeniedReason::ALL {
            let code = match (reason.is_unauthenticated(), reason.remedy()) {
                (true, _) => Code::Unauthenticated,
                (false, Some(_)) => Code::FailedPrecondition,
                (false, None) => Code::PermissionDenied,
            };
            check(refused(reason.code()), code, reason.code(), false);
        }
        let at = Timestamp(0);
        let stranger = crate::authz::Caller::Unknown(Thumbprint::of(b"stranger"));
        let denied = crate::authz::decide_server(stranger, ServerOperation::ViewTopology, at, 7);
        let told = status(denied.unwrap_err().into());
        let info = told.get_error_details().error_info().unwrap().clone();
        assert_eq!(info.reason, "CERTIFICATE_UNKNOWN");
        assert_eq!(info.metadata["registry_revision"], "7");
        assert!(info.metadata.contains_key("rule") && info.metadata.contains_key("required"));
    }

    #[test]
    fn a_refusal_names_its_field_and_stays_small() {
        let mut why = Refusal {
            reason: "INVALID_ARGUMENT".into(),
            message: "x".repeat(100_000),
            field: "writes[3].json".into(),
            ..Refusal::default()
        };
        for n in 0..1_000 {
            why.metadata.insert(format!("key{n}"), "y".repeat(10_000));
        }
        let told = refusal(why);
        let details = told.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "writes[3].json");
        assert_eq!(told.message().len(), MESSAGE_CHARS_MAX);
        assert_eq!(details.error_info().unwrap().metadata.len(), METADATA_MAX);
        assert!(told.details().len() < limits_of_a_header());
    }

    fn limits_of_a_header() -> usize {
        crate::limits::HEADER_LIST_BYTES_MAX as usize
    }

    #[test]
    fn a_node_without_a_cluster_says_why_it_serves_nobody() {
        for (state, reason) in [
            (State::Passive("waiting for n2".into()), "NOT_FORMED"),
            (State::Joining, "NOT_FORMED"),
            (State::Removed, "NODE_REMOVED"),
            (State::Member, "AUTHORIZATION_STALE"),
        ] {
            let told = not_serving(&state);
            assert_eq!(told.get_error_details().error_info().unwrap().reason, reason);
            assert!(!told.message().contains("n2"));
        }
    }
}
