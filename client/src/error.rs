//! What went wrong: one variant for each thing a caller would do differently.

use std::{collections::BTreeMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{connect, context};

/// What a node answered instead of a result, taken from `google.rpc.Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The gRPC code.
    pub code: Code,
    /// Stable and `UPPER_SNAKE`, such as `CLEARANCE_TOO_LOW`; empty where the answer came from no node.
    pub reason: String,
    /// For people.
    pub message: String,
    /// More facts, such as `required`, `have` and `rule`.
    pub metadata: BTreeMap<String, String>,
    /// Which fields of the request are wrong.
    pub violations: Vec<FieldViolation>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

/// How a stream ended, which is retried by nobody.
impl From<&Status> for Error {
    fn from(status: &Status) -> Self {
        Attempt::of(status).into_error()
    }
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `writes[3].id`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Failure {
    /// Reads the details of a status.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let violations = details.bad_request().map(|b| b.field_violations.as_slice());
        Self {
            code: status.code(),
            reason: info.map(|i| i.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            metadata: info.map(|i| i.metadata.clone().into_iter().collect()).unwrap_or_default(),
            violations: violations
                .unwrap_or_default()
                .iter()
                .map(|v| FieldViolation {
                    field: v.field.clone(),
                    description: v.description.clone(),
                })
                .collect(),
            retry_after: details.retry_info().and_then(|r| r.retry_delay),
        }
    }

    /// The right that the call needs, where a right was missing.
    #[must_use]
    pub fn required(&self) -> Option<&str> {
        self.metadata.get("required").map(String::as_str)
    }

    /// The right that the caller has, where a right was missing.
    #[must_use]
    pub fn have(&self) -> Option<&str> {
        self.metadata.get("have").map(String::as_str)
    }

    /// The row of the permission matrix that decided, where a right was missing.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        self.metadata.get("rule").map(String::as_str)
    }

    fn local(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: String::new(),
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.reason.is_empty() {
            write!(f, " ({}", self.reason)?;
            for (word, value) in
                [("required", self.required()), ("have", self.have()), ("rule", self.rule())]
            {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    write!(f, ", {word} {value}")?;
                }
            }
            f.write_str(")")?;
        }
        for violation in &self.violations {
            write!(f, "\n  {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The context cannot be used; nothing was sent.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// The TLS handshake failed: one side does not accept the other's certificate.
    #[error("{0}")]
    Tls(String),
    /// The node does not know the caller, or its certificate is expired or disabled.
    #[error("{0}")]
    Unauthenticated(Box<Failure>),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(Box<Failure>),
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(Box<Failure>),
    /// What was to be made exists already.
    #[error("{0}")]
    AlreadyExists(Box<Failure>),
    /// Somebody else changed it meanwhile: a precondition did not hold.
    #[error("{0}")]
    Conflict(Box<Failure>),
    /// The request is malformed.
    #[error("{0}")]
    Invalid(Box<Failure>),
    /// The cluster is not in a state that allows it, such as a disabled database.
    #[error("{0}")]
    Precondition(Box<Failure>),
    /// A limit was reached.
    #[error("{0}")]
    Exhausted(Box<Failure>),
    /// No node could serve it; it was not applied.
    #[error("{0}")]
    Unavailable(Box<Failure>),
    /// The time ran out; it was a read, or it was not applied.
    #[error("{0}")]
    Timeout(Box<Failure>),
    /// The write may or may not have been applied. Asking again with the same request id tells, within 24 hours.
    #[error("the outcome of request {request_id} is unknown: {last}")]
    Unknown {
        /// The request id to ask again with.
        request_id: Uuid,
        /// What ended the last attempt.
        last: Box<Failure>,
    },
    /// Anything else a node answers, such as `UNIMPLEMENTED` or `INTERNAL`.
    #[error("{0}")]
    Server(Box<Failure>),
}

impl Error {
    /// The error for a status that ended a call.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        Attempt::of(status).into_error()
    }

    /// What the node answered; `None` for errors of this side.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Context(_) | Self::Tls(_) => None,
            Self::Unauthenticated(f)
            | Self::Denied(f)
            | Self::NotFound(f)
            | Self::AlreadyExists(f)
            | Self::Conflict(f)
            | Self::Invalid(f)
            | Self::Precondition(f)
            | Self::Exhausted(f)
            | Self::Unavailable(f)
            | Self::Timeout(f)
            | Self::Server(f)
            | Self::Unknown { last: f, .. } => Some(f),
        }
    }

    /// The stable reason, such as `DATABASE_ACCESS_DENIED`; empty where no node gave one.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.failure().map_or("", |f| f.reason.as_str())
    }

    /// The gRPC code; `Unknown` for errors of this side.
    #[must_use]
    pub fn code(&self) -> Code {
        self.failure().map_or(Code::Unknown, |f| f.code)
    }

    /// What kind of error it is, in one stable word, for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Context(_) => "context",
            Self::Tls(_) => "tls",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Denied(_) => "denied",
            Self::NotFound(_) => "not-found",
            Self::AlreadyExists(_) => "already-exists",
            Self::Conflict(_) => "conflict",
            Self::Invalid(_) => "invalid",
            Self::Precondition(_) => "precondition",
            Self::Exhausted(_) => "exhausted",
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Unknown { .. } => "unknown-outcome",
            Self::Server(_) => "server",
        }
    }
}

/// How one attempt ended, as far as a retry is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// There was no connection: nothing was sent.
    NotSent(Failure),
    /// TLS failed: nothing was sent, and trying again does not help.
    Tls(String),
    /// The connection ended, or the time did, after something may have been sent.
    Lost(Failure),
    /// The node said that it cannot serve this now.
    Busy(Failure),
    /// The node answered for good.
    Answered(Failure),
}

impl Attempt {
    /// Sorts a status by where it came from and what it says.
    pub(crate) fn of(status: &Status) -> Self {
        let failure = Failure::from_status(status);
        match transport(status) {
            Some(Transport::Tls(problem)) => return Self::Tls(problem),
            Some(Transport::Connect(problem)) => {
                return Self::NotSent(Failure::local(Code::Unavailable, problem));
            }
            Some(Transport::Lost(problem)) => {
                return Self::Lost(Failure::local(Code::Unavailable, problem));
            }
            None => {}
        }
        match failure.code {
            Code::Unavailable => Self::Busy(failure),
            Code::ResourceExhausted if failure.retry_after.is_some() => Self::Busy(failure),
            Code::DeadlineExceeded | Code::Cancelled => Self::Lost(failure),
            // Sent by a broken connection, not by a node: those give a reason.
            Code::Unknown | Code::Internal if failure.reason.is_empty() => Self::Lost(failure),
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Answered(failure),
        }
    }

    /// The attempt took longer than it was given.
    pub(crate) fn timed_out(limit: Duration) -> Self {
        let message = format!("no answer within {:.1} s", limit.as_secs_f64());
        Self::Lost(Failure::local(Code::DeadlineExceeded, message))
    }

    /// There is nobody to ask.
    pub(crate) fn no_address(problem: &str) -> Self {
        Self::NotSent(Failure::local(Code::Unavailable, problem))
    }

    /// May the request have been applied?
    pub(crate) fn is_ambiguous(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Busy(failure) => {
                failure.metadata.get("outcome").is_some_and(|outcome| outcome == "unknown")
                    || !matches!(
                        failure.reason.as_str(),
                        "AUTHORIZATION_STALE"
                            | "NOT_LEADER"
                            | "NO_LEADER"
                            | "LIMIT_EXCEEDED"
                            | "CODE_CHECK_UNDER_WAY"
                            | "CLUSTER_SECRET_MISSING"
                    )
            }
            Self::NotSent(_) | Self::Tls(_) | Self::Answered(_) => false,
        }
    }

    /// No node said anything.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::NotSent(failure) | Self::Lost(failure) => failure.reason.is_empty(),
            Self::Tls(_) | Self::Busy(_) | Self::Answered(_) => false,
        }
    }

    /// Was the answer given by the log, so that it tells the outcome even after an ambiguous attempt? What is decided
    /// before the log (rights, limits) tells nothing about an earlier attempt.
    pub(crate) fn settles(&self) -> bool {
        match self {
            Self::Answered(failure) => matches!(
                failure.code,
                Code::Aborted
                    | Code::AlreadyExists
                    | Code::NotFound
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
            ),
            Self::NotSent(_) | Self::Tls(_) | Self::Lost(_) | Self::Busy(_) => false,
        }
    }

    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::NotSent(f) | Self::Lost(f) | Self::Busy(f) | Self::Answered(f) => f,
            Self::Tls(problem) => Failure::local(Code::Unavailable, problem),
        }
    }

    pub(crate) fn into_error(self) -> Error {
        let failure = match self {
            Self::Tls(problem) => return Error::Tls(problem),
            Self::NotSent(f) | Self::Lost(f) | Self::Busy(f) | Self::Answered(f) => Box::new(f),
        };
        match failure.code {
            Code::Unauthenticated => Error::Unauthenticated(failure),
            Code::PermissionDenied => Error::Denied(failure),
            Code::NotFound => Error::NotFound(failure),
            Code::AlreadyExists => Error::AlreadyExists(failure),
            Code::Aborted => Error::Conflict(failure),
            Code::InvalidArgument | Code::OutOfRange => Error::Invalid(failure),
            Code::FailedPrecondition => Error::Precondition(failure),
            Code::ResourceExhausted => Error::Exhausted(failure),
            Code::Unavailable => Error::Unavailable(failure),
            Code::DeadlineExceeded | Code::Cancelled => Error::Timeout(failure),
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Error::Server(failure)
            }
        }
    }
}

enum Transport {
    Connect(String),
    Tls(String),
    Lost(String),
}

/// Looks through the causes of a status for a failure below gRPC.
fn transport(status: &Status) -> Option<Transport> {
    let mut cause = std::error::Error::source(status);
    let mut found = None;
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<connect::Error>() {
            return Some(match error {
                connect::Error::Tls { .. } => Transport::Tls(error.to_string()),
                connect::Error::Address(_)
                | connect::Error::Tcp { .. }
                | connect::Error::Timeout { .. } => Transport::Connect(error.to_string()),
            });
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let inner = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
            // The node refuses the client's certificate after the client's side of the handshake is done.
            if let Some(refused @ rustls::Error::AlertReceived(_)) = inner {
                return Some(Transport::Tls(format!("the node ended the connection: {refused}")));
            }
        }
        if error.is::<tonic::TimeoutExpired>() {
            return None; // The time of the call, not the connection, ended.
        }
        if error.is::<tonic::transport::Error>() {
            found = Some(Transport::Lost(format!("the connection ended: {}", chain(error))));
        }
        cause = error.source();
    }
    found
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause.filter(|_| words.len() < 8) {
        let text = error.to_string();
        if words.last() != Some(&text) {
            words.push(text);
        }
        cause = error.source();
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let mut details = ErrorDetails::new();
        let mut info =
            tonic_types::ErrorInfo::new(reason, "rookery", <[(String, String); 0]>::default());
        info.metadata = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        if !reason.is_empty() {
            details.set_error_info(info.reason, info.domain, info.metadata);
        }
        Status::with_error_details(code, "words", details)
    }

    #[test]
    fn every_code_becomes_its_error() {
        let check = |code: Code, reason: &str, kind: &str| {
            let error = Error::from_status(&status(code, reason, &[]));
            assert_eq!((error.kind(), error.reason(), error.code()), (kind, reason, code));
        };
        check(Code::Unauthenticated, "CERTIFICATE_UNKNOWN", "unauthenticated");
        check(Code::PermissionDenied, "CLEARANCE_TOO_LOW", "denied");
        check(Code::NotFound, "NOT_FOUND", "not-found");
        check(Code::AlreadyExists, "ALREADY_EXISTS", "already-exists");
        check(Code::Aborted, "CONCURRENCY", "conflict");
        check(Code::InvalidArgument, "INVALID_ARGUMENT", "invalid");
        check(Code::FailedPrecondition, "DATABASE_DISABLED", "precondition");
        check(Code::ResourceExhausted, "LIMIT_EXCEEDED", "exhausted");
        check(Code::Unavailable, "NO_QUORUM", "unavailable");
        check(Code::DeadlineExceeded, "", "timeout");
        check(Code::Unimplemented, "", "server");
        check(Code::Internal, "INTERNAL", "server");
    }

    #[test]
    fn details_are_read() {
        let mut details = ErrorDetails::new();
        let metadata = [("required", "Operator"), ("have", "User"), ("rule", "B1.11")];
        details.set_error_info(
            "CLEARANCE_TOO_LOW",
            "rookery",
            metadata.map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        details.add_bad_request_violation("writes[3].id", "must not be empty");
        details.set_retry_info(Some(Duration::from_millis(250)));
        let status = Status::with_error_details(Code::PermissionDenied, "not you", details);
        let failure = Failure::from_status(&status);
        assert_eq!(failure.required(), Some("Operator"));
        assert_eq!(failure.have(), Some("User"));
        assert_eq!(failure.rule(), Some("B1.11"));
        assert_eq!(failure.retry_after, Some(Duration::from_millis(250)));
        assert_eq!(failure.violations.len(), 1);
        assert_eq!(
            failure.to_string(),
            "not you (CLEARANCE_TOO_LOW, required Operator, have User, rule B1.11)\n  \
             writes[3].id: must not be empty"
        );
    }

    #[test]
    fn attempts_are_ambiguous_unless_it_is_certain_that_nothing_was_applied() {
        let check = |status: Status, ambiguous: bool, settles: bool| {
            let attempt = Attempt::of(&status);
            assert_eq!(
                (attempt.is_ambiguous(), attempt.settles()),
                (ambiguous, settles),
                "{attempt:?}"
            );
        };
        check(status(Code::Unavailable, "AUTHORIZATION_STALE", &[]), false, false);
        check(status(Code::Unavailable, "NOT_LEADER", &[]), false, false);
        check(status(Code::Unavailable, "NO_QUORUM", &[]), true, false);
        check(status(Code::Unavailable, "NO_LEADER", &[]), false, false);
        check(status(Code::Unavailable, "NO_LEADER", &[("outcome", "unknown")]), true, false);
        check(status(Code::DeadlineExceeded, "", &[]), true, false);
        check(status(Code::Cancelled, "", &[]), true, false);
        check(Status::unknown("h2 protocol error"), true, false);
        check(status(Code::Aborted, "CONCURRENCY", &[]), false, true);
        check(status(Code::AlreadyExists, "ALREADY_EXISTS", &[]), false, true);
        check(status(Code::PermissionDenied, "CLEARANCE_TOO_LOW", &[]), false, false);
        check(status(Code::ResourceExhausted, "LIMIT_EXCEEDED", &[]), false, false);
    }

    #[test]
    fn a_status_from_garbage_is_still_an_error() {
        let status = Status::with_details(Code::Aborted, "x", vec![0xff; 20].into());
        assert_eq!(Error::from_status(&status).kind(), "conflict");
    }
}
