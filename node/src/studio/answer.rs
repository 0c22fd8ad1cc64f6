//! Pages and refusals as HTTP.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{assets, outcome::Wrong, visit::Frame};

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
            let why = "This page could not be written. The node's log has the reason.\n";
            (StatusCode::INTERNAL_SERVER_ERROR, Html(why)).into_response()
        }
    }
}

/// After a change: the page that shows it (303, so that a reload changes nothing again; RFC 9110, 15.4.4).
pub fn see(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// A page of a few words without a frame, for whom none can be drawn.
pub fn alone(status: StatusCode, title: &str, why: &str) -> Response {
    let (style, _, icon) = files();
    page_with(status, &Alone { style, icon, title, why })
}

#[derive(Template)]
#[template(path = "words.html")]
struct Alone<'a> {
    style: String,
    icon: String,
    title: &'a str,
    why: &'a str,
}

/// A refusal in a few words, which `guard` puts into the frame.
pub fn plain_refusal(status: StatusCode, why: &'static str) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Why(why));
    response
}

/// The words of an answer that has no page yet.
#[derive(Debug, Clone, Copy)]
pub struct Why(pub &'static str);

/// Words in the frame, in place of a page.
pub fn in_frame(frame: &Frame, status: StatusCode, title: &str, why: &str) -> Response {
    let wrong = Wrong::plain(frame, why, !status.is_server_error());
    page_with(status, &RefusedPage { frame, title, wrong })
}

/// A call that was refused or failed, as a page within the frame.
pub struct Refused {
    frame: Frame,
    code: Code,
    wrong: Wrong,
}

impl Refused {
    /// For `map_err` on calls.
    pub fn on(frame: &Frame) -> impl Fn(Status) -> Box<Self> + '_ {
        move |status| Self::told(frame, &status, Wrong::of(frame, &status, ""))
    }

    /// For `map_err` on calls that only look, before anything is changed.
    pub fn before_change(frame: &Frame) -> impl Fn(Status) -> Box<Self> + '_ {
        move |status| Self::told(frame, &status, Wrong::of(frame, &status, "").unsent())
    }

    /// For `map_err` on the call of a form that was sent with this id, so that it may be sent again.
    pub fn of_form<'a>(frame: &'a Frame, request_id: &'a str) -> impl Fn(Status) -> Box<Self> + 'a {
        move |status| Self::told(frame, &status, Wrong::of(frame, &status, request_id))
    }

    /// In these words.
    pub fn told(frame: &Frame, status: &Status, wrong: Wrong) -> Box<Self> {
        Box::new(Self { frame: frame.clone(), code: status.code(), wrong })
    }
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    frame: &'a Frame,
    title: &'a str,
    wrong: Wrong,
}

impl IntoResponse for Box<Refused> {
    fn into_response(self) -> Response {
        let (status, title) = as_http(self.code);
        let Refused { frame, wrong, .. } = *self;
        let wrong = wrong.without_field(); // There is no form on this page.
        page_with(status, &RefusedPage { frame: &frame, title, wrong })
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
    assets::all().into()
}
