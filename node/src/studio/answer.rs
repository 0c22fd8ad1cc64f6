//! Pages and refusals as HTTP.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{assets, visit::Frame};

/// What a handler gives: a page, or a page that says why not.
pub type Answer = Result<Response, Box<Refused>>;

/// A template as a page.
pub fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// A template as a page of this status.
pub fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            let why = "This page could not be written. The node's log has the reason.";
            plain_refusal(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

/// After a change: the page that shows it (303, so that a reload changes nothing again; RFC 9110, 15.4.4).
pub fn see(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// A few words without a frame, for who has none.
pub fn plain_refusal(status: StatusCode, why: &'static str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))],
        format!("{why}\n"),
    )
        .into_response()
}

/// A call that was refused or failed, as a page within the frame.
pub struct Refused {
    frame: Frame,
    status: Status,
}

impl Refused {
    /// For `map_err` on calls.
    pub fn on(frame: &Frame) -> impl Fn(Status) -> Box<Self> + '_ {
        move |status| Box::new(Self { frame: frame.clone(), status })
    }
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    frame: &'a Frame,
    title: &'a str,
    message: &'a str,
    reason: &'a str,
}

impl IntoResponse for Box<Refused> {
    fn into_response(self) -> Response {
        let (status, title) = as_http(self.status.code());
        let message = self.status.message();
        page_with(
            status,
            &RefusedPage { frame: &self.frame, title, message, reason: &reason(&self.status) },
        )
    }
}

/// The stable name of a reason (google.rpc.ErrorInfo), empty where there is none.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The field that a refusal is about and what is wrong with it, for forms; the message where it is about none.
pub fn field(status: &Status) -> (String, String) {
    let violation =
        status.get_details_bad_request().and_then(|bad| bad.field_violations.into_iter().next());
    match violation {
        Some(violation) => (violation.field, violation.description),
        None => (String::new(), status.message().to_owned()),
    }
}

/// The nearest HTTP status, and a headline.
pub fn as_http(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::Ok => (StatusCode::OK, "Done"),
        Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "Not understood"),
        Code::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => {
            (StatusCode::CONFLICT, "Not possible now")
        }
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "Not allowed"),
        Code::Unauthenticated => (StatusCode::FORBIDDEN, "Not let in"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "Too much"),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Not available at the moment"),
        Code::DeadlineExceeded | Code::Cancelled => (StatusCode::GATEWAY_TIMEOUT, "Took too long"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "Not known here"),
        Code::Unknown | Code::Internal | Code::DataLoss => {
            (StatusCode::INTERNAL_SERVER_ERROR, "Failed")
        }
    }
}

/// The files that every page links.
#[must_use]
pub fn files() -> (String, String, String) {
    (assets::style(), assets::script(), assets::icon())
}
