//! How a page ends that could not do what was asked.
//!
//! | what was asked | what came of it | the page says |
//! | --- | --- | --- |
//! | to see something | it cannot be seen | why |
//! | a change | it was refused | why, and that nothing was changed |
//! | a change | nobody knows: no answer came in time, or a node stopped | that it may have been made, and how to find out |
//!
//! A form whose change is not the same when it is made twice carries a `request_id` ([`Frame::request_id`]), which goes
//! with the call: the cluster applies it once and answers every copy of the form alike. So whoever does not know may send
//! the same form again. A form that was refused comes back with a new one, because refusals are kept like results.

use tonic::{Code, Status};

use super::{answer, visit::Frame};

/// What a refusal of a copy is called that holds something else than the first.
const REUSED: &str = "REQUEST_ID_REUSED";

/// Reasons of a node that is not available, of which each says that nothing was written.
const UNWRITTEN: [&str; 3] = ["NO_LEADER", "NOT_LEADER", "AUTHORIZATION_STALE"];

/// What is known of a change that was not answered with success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    Unknown,
}

impl Outcome {
    fn of(status: &Status) -> Self {
        match status.code() {
            Code::InvalidArgument
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Aborted
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::Unimplemented => Self::Refused,
            Code::Unavailable if UNWRITTEN.contains(&answer::reason(status).as_str()) => {
                Self::Refused
            }
            Code::Ok
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::DataLoss => Self::Unknown,
        }
    }
}

/// Whether nobody knows what came of a change that was answered so.
#[must_use]
pub fn is_unknown(status: &Status) -> bool {
    Outcome::of(status) == Outcome::Unknown
}

/// What went wrong, as a page tells it (`wrong.html`).
#[derive(Debug, Clone)]
pub struct Wrong {
    /// The field that is to blame; empty: none.
    pub field: String,
    /// In words.
    pub why: String,
    /// The stable name of the reason; may be empty.
    pub reason: String,
    /// The page that shows what came of it.
    pub look: &'static str,
    /// Whether the same form may be sent again and is done once.
    pub once: bool,
    /// `None`: nothing was to be changed.
    outcome: Option<Outcome>,
}

impl Wrong {
    /// From the answer to a call, for a page of this frame. `request_id` is what the form was sent with; empty: nothing.
    #[must_use]
    pub fn of(frame: &Frame, status: &Status, request_id: &str) -> Self {
        let reason = answer::reason(status);
        let (field, why) = match (status.code(), reason.as_str()) {
            // What the contract says to programs is about fields that a page does not show.
            (Code::DeadlineExceeded, _) => {
                (String::new(), "The cluster did not answer in time.".to_owned())
            }
            (_, REUSED) => (
                String::new(),
                "This form was sent before with other content, and a form is taken once. See how things stand; then send \
                 it from its page as it shall be."
                    .to_owned(),
            ),
            _ => answer::field(status),
        };
        let outcome = frame.changes().then(|| Outcome::of(status));
        Self { field, why, reason, look: frame.area(), once: !request_id.is_empty(), outcome }
    }

    /// Of something that was asked for before anything was to be changed.
    #[must_use]
    pub fn unsent(self) -> Self {
        Self { outcome: self.outcome.map(|_| Outcome::Refused), ..self }
    }

    /// The same on a page without the form.
    #[must_use]
    pub fn without_field(self) -> Self {
        Self { field: String::new(), ..self }
    }

    /// In other words, which say what to do next.
    #[must_use]
    pub fn in_words(self, why: String) -> Self {
        Self { why, once: false, ..self }
    }

    /// In words of the page itself.
    #[must_use]
    pub fn plain(frame: &Frame, why: &str, is_known: bool) -> Self {
        let outcome = if is_known { Outcome::Refused } else { Outcome::Unknown };
        Self {
            field: String::new(),
            why: why.to_owned(),
            reason: String::new(),
            look: frame.area(),
            once: false,
            outcome: frame.changes().then_some(outcome),
        }
    }

    /// Whether a change was asked for and was not made.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.outcome == Some(Outcome::Refused)
    }

    /// Whether a change was asked for and may have been made.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.outcome == Some(Outcome::Unknown)
    }

    /// What the form is sent with next: the same again while nobody knows what came of it.
    #[must_use]
    pub fn request_id(&self, frame: &Frame, sent: &str) -> String {
        match self.is_unknown() && !sent.is_empty() {
            true => sent.to_owned(),
            false => frame.request_id(),
        }
    }
}

/// Whether a status says that a form was sent before with something else in it.
#[must_use]
pub fn is_reused(status: &Status) -> bool {
    answer::reason(status) == REUSED
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "rookery", []);
        Status::with_error_details(code, "words", details)
    }

    #[test]
    fn only_a_change_that_was_surely_not_made_is_said_to_be_none() {
        let change = Frame::of_a_change();
        for (code, reason, refused) in [
            (Code::InvalidArgument, "INVALID_ARGUMENT", true),
            (Code::InvalidArgument, REUSED, true),
            (Code::PermissionDenied, "CLEARANCE_TOO_LOW", true),
            (Code::Aborted, "CONCURRENCY", true),
            (Code::Unavailable, "NO_LEADER", true),
            (Code::Unavailable, "NO_QUORUM", false),
            (Code::Unavailable, "NODE_STOPPED", false),
            (Code::Unavailable, "", false),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", false),
            (Code::Internal, "INTERNAL", false),
            (Code::Cancelled, "", false),
        ] {
            let wrong = Wrong::of(&change, &status(code, reason), "id");
            assert_eq!((wrong.is_refused(), wrong.is_unknown()), (refused, !refused), "{reason}");
            let next = wrong.request_id(&change, "id");
            assert_eq!(next == "id", !refused, "{reason}: {next}");
            assert!(!wrong.request_id(&change, "").is_empty());
            assert!(wrong.unsent().is_refused(), "{reason}: it was only looked");
            let wrong = Wrong::of(&Frame::for_tests(), &status(code, reason), "");
            assert!(!wrong.is_refused() && !wrong.is_unknown(), "{reason}: nothing was asked for");
            assert!(!wrong.unsent().is_refused(), "{reason}: nothing was asked for");
        }
    }

    #[test]
    fn a_page_does_not_speak_of_what_only_programs_send() {
        for (code, reason) in
            [(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"), (Code::InvalidArgument, REUSED)]
        {
            let details = ErrorDetails::with_error_info(reason, "rookery", []);
            let status = Status::with_error_details(code, "the same request_id", details);
            let wrong = Wrong::of(&Frame::of_a_change(), &status, "");
            assert!(!wrong.why.contains("request_id"), "{}", wrong.why);
        }
    }
}
