//! A form that is sent again makes nothing twice: forms that register carry a request id, a fresh one each time that they
//! are shown.
//!
//! The cluster keeps the result of an id for a day and answers it to who sends the same again. A package is no such answer:
//! it is shown once and kept nowhere, so who sends the form of one again is told where to look instead.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use tonic::Status;
use uuid::Uuid;

use crate::studio::{answer, outcome, visit::Frame, words};

/// The field that carries it.
pub const FIELD: &str = "request_id";

/// An id for a form that is shown.
pub fn fresh() -> String {
    Uuid::new_v4().to_string()
}

/// The id for a form that is shown again. One whose outcome is not known stays, so that it happens once however often it is
/// tried; what was refused has used its id up.
pub fn again(id: &str, refused: &Status) -> String {
    if id.is_empty() || !outcome::is_unknown(refused) { fresh() } else { id.to_owned() }
}

#[derive(Template)]
#[template(path = "certificates/sent.html")]
struct SentPage<'a> {
    frame: &'a Frame,
    name: &'a str,
    /// The form to begin again with.
    form: &'a str,
    /// A package was made the first time, if anything was.
    package: bool,
}

impl SentPage<'_> {
    fn search(&self) -> String {
        let pairs = [("q", self.name), ("sort", "-created")];
        format!("/studio/certificates{}", words::query(&pairs))
    }
}

/// The page for a form whose id was used before; `None` where something else was refused.
pub fn sent_before(
    frame: &Frame,
    refused: &Status,
    name: &str,
    form: &str,
    package: bool,
) -> Option<Response> {
    let page = SentPage { frame, name, form, package };
    outcome::is_reused(refused).then(|| answer::page_with(StatusCode::CONFLICT, &page))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn an_id_stays_where_nobody_knows_what_became_of_it() {
        let id = fresh();
        for (code, stays) in [
            (Code::DeadlineExceeded, true),
            (Code::Unavailable, true),
            (Code::InvalidArgument, false),
            (Code::PermissionDenied, false),
            (Code::AlreadyExists, false),
        ] {
            let next = again(&id, &Status::new(code, ""));
            assert_eq!(next == id, stays, "{code:?}");
            assert!(Uuid::try_parse(&next).is_ok(), "{next}");
        }
        assert!(!again("", &Status::unavailable("")).is_empty());
    }
}
