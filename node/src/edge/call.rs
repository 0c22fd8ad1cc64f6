//! What every request passes on its way in and out: its deadline, its count, and the form of its errors.
//!
//! A status without `google.rpc` details is none of ours: tonic made it, because the message could not be read. Those are
//! INTERNAL or OUT_OF_RANGE there and name fields of the message; here they become INVALID_ARGUMENT or
//! RESOURCE_EXHAUSTED and name nothing.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};

use crate::{
    edge::{
        connections::{Connection, Ending, Reason},
        convert,
        metrics::Metrics,
        rpcs,
    },
    limits, second_factor,
};

/// When a call must be answered; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// What the session token of a request is compared by; an extension where a well-formed one came along. The token itself
/// goes no further.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionDigest(pub [u8; 32]);

/// The layer around the router of the client listener.
pub async fn call(
    State(metrics): State<Arc<Metrics>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let deadline = began + time_allowed(request.headers());
    let label = rpcs::label(request.uri().path());
    let is_grpc = is_grpc(request.headers());
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    request.extensions_mut().insert(Deadline(deadline));
    let token = request.headers_mut().remove(second_factor::SESSION_HEADER);
    let digest = token.and_then(|token| second_factor::token_digest(token.to_str().ok()?));
    if let Some(digest) = digest {
        request.extensions_mut().insert(SessionDigest(digest));
    }

    let response = match timeout_at(deadline + limits::DEADLINE_SLACK, next.run(request)).await {
        Ok(response) if is_grpc => own_status(response),
        Ok(response) => response,
        Err(_elapsed) if is_grpc => convert::deadline_exceeded().into_http(),
        Err(_elapsed) => (StatusCode::GATEWAY_TIMEOUT, "This took too long.\n").into_response(),
    };
    let code = code(&response, is_grpc);
    metrics.answered(label, code, began.elapsed());
    let response = with_security_headers(response);
    match connection {
        Some(connection) => bounded(response, &connection, is_grpc, limits::STREAM_LIFE_MAX),
        None => response,
    }
}

/// Whether a request speaks gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The client's `grpc-timeout`, cut to the server's maximum; the default where there is none or it cannot be read.
fn time_allowed(headers: &HeaderMap) -> Duration {
    headers
        .get("grpc-timeout")
        .and_then(|value| timeout_value(value.as_bytes()))
        .map_or(limits::DEADLINE_DEFAULT, |asked| asked.min(limits::DEADLINE_MAX))
}

/// One to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout_value(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Replaces statuses of the codec by ours.
fn own_status(response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if !status.details().is_empty() {
        return response;
    }
    let told = match status.code() {
        Code::Internal => convert::Answer::new(
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "The message cannot be decoded. Compare the client's generated code with the .proto files of this \
             server's version.",
        ),
        Code::OutOfRange | Code::ResourceExhausted => convert::Answer::new(
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
            format!(
                "The message has more than {} bytes, before or after decompression. Send less at once.",
                limits::MESSAGE_BYTES_MAX
            ),
        ),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => return response,
    };
    told.status().into_http()
}

/// The gRPC code of an answer; of pages: OK, or what comes nearest.
fn code(response: &Response, is_grpc: bool) -> Code {
    if is_grpc {
        return Status::from_header_map(response.headers())
            .map_or(Code::Ok, |status| status.code());
    }
    match response.status().as_u16() {
        200..400 => Code::Ok,
        404 => Code::NotFound,
        400..500 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Assets of the Studio say how long they may be kept; everything else is kept nowhere.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Forms of the Studio need another one: with this a browser sends `Origin: null`.
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ));
    response
}

/// Ends a stream when the certificate of its connection loses rights or expires, and when it has lived long enough. An
/// answer that is ready is not cut off: only a body that has to wait looks for a reason to end.
fn bounded(response: Response, connection: &Connection, is_grpc: bool, life: Duration) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    let ending = connection.ending().clone();
    let cut = Box::pin(ending.token().clone().cancelled_owned());
    let life = Box::pin(sleep(life));
    response.map(|body| Body::new(Bounded { body, ending, cut, life, is_grpc, ended: false }))
}

struct Bounded {
    body: Body,
    ending: Arc<Ending>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    life: Pin<Box<Sleep>>,
    is_grpc: bool,
    ended: bool,
}

impl Bounded {
    /// Why the stream has to end now.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<StreamEnd> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(match self.ending.reason() {
                Some(Reason::Expired) => StreamEnd::Expired,
                Some(Reason::Cut) => StreamEnd::Cut,
                Some(Reason::RightsLost) | None => StreamEnd::RightsLost,
            });
        }
        self.life.as_mut().poll(context).map(|()| StreamEnd::Life)
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let Poll::Ready(why) = self.poll_end(context) else { return Poll::Pending };
        self.ended = true;
        if !self.is_grpc {
            return Poll::Ready(Some(Err(axum::Error::new(why))));
        }
        let mut trailers = HeaderMap::new();
        match why.status().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(_) => Poll::Ready(Some(Err(axum::Error::new(why)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a stream was ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum StreamEnd {
    #[error("the certificate of this connection lost rights")]
    RightsLost,
    #[error("the certificate of this connection has expired")]
    Expired,
    #[error("an administrator cut the connection")]
    Cut,
    #[error("the stream has lived long enough")]
    Life,
}

impl StreamEnd {
    fn status(self) -> Status {
        let (code, reason, message) = match self {
            Self::RightsLost => (
                Code::Unauthenticated,
                "RIGHTS_CHANGED",
                "This certificate lost rights while the stream was open: an administrator took them, or its session \
                 ended. Call again: what is left of them decides.",
            ),
            Self::Expired => (
                Code::Unauthenticated,
                "CERTIFICATE_EXPIRED",
                "This certificate expired while the stream was open. Ask an administrator for a new one.",
            ),
            Self::Cut => (
                Code::Unavailable,
                "CONNECTION_CUT",
                "An administrator cut this connection. The certificate has the rights it had: connect again, or ask \
                 them why.",
            ),
            Self::Life => (
                Code::Unavailable,
                "STREAM_LIFE_ENDED",
                "Streams end after an hour. Open another one.",
            ),
        };
        convert::Answer::new(code, reason, message).status()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::edge::connections::{Bounds, Connections};

    const LIFE: Duration = Duration::from_millis(300);

    /// A stream that gives one message and then nothing, on a connection of its own.
    fn quiet_stream(connections: &Arc<Connections>) -> (Arc<Connection>, Body) {
        let certificate = crate::tls::testing::identity("alice");
        let der = certificate.certificate_der();
        let certificate = crate::tls::PeerCertificate {
            thumbprint: crate::names::Thumbprint::of(der),
            der: der.as_ref().into(),
        };
        let mut slot = connections.admit(([127, 0, 0, 1], 1).into()).unwrap();
        let connection = slot.connected(Some(certificate));
        std::mem::forget(slot); // The connection stays open.
        let first = stream::iter([Ok::<_, axum::Error>(Bytes::from_static(b"first"))]);
        let body = Body::from_stream(first.chain(stream::pending()));
        let response = bounded(Response::new(body), &connection, true, LIFE);
        (connection, response.into_body())
    }

    #[tokio::test]
    async fn a_quiet_stream_ends_for_each_reason_there_is() {
        type End = fn(&Connections, &Connection);
        let cases: [(&str, End); 4] = [
            ("RIGHTS_CHANGED", |connections, connection| {
                connections.revoke(&[connection.certificate.as_ref().unwrap().thumbprint]);
            }),
            ("CERTIFICATE_EXPIRED", |connections, _| {
                assert_eq!(connections.expire(crate::names::Timestamp(i64::MAX)), 1);
            }),
            ("CONNECTION_CUT", |connections, connection| {
                let whose = connection.certificate.as_ref().unwrap().thumbprint;
                assert_eq!(connections.cut(&[whose], Some(connection.id)), 1);
            }),
            ("STREAM_LIFE_ENDED", |_, _| {}),
        ];
        for (reason, end) in cases {
            let connections = Connections::new(Bounds::CLIENT);
            let (connection, mut body) = quiet_stream(&connections);
            let began = Instant::now();
            assert!(body.frame().await.unwrap().unwrap().is_data(), "{reason}");
            end(&connections, &connection);
            let last = body.frame().await.unwrap().unwrap();
            let status = Status::from_header_map(last.trailers_ref().unwrap()).unwrap();
            let told = tonic_types::StatusExt::get_details_error_info(&status).unwrap().reason;
            assert_eq!(told, reason);
            assert!(body.frame().await.is_none(), "{reason}: nothing follows");
            let lived = began.elapsed() >= LIFE;
            assert_eq!(lived, reason == "STREAM_LIFE_ENDED");
        }
    }

    #[test]
    fn deadlines_are_honoured_and_clamped() {
        let check = |value: Option<&'static str>, expected: Duration| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert("grpc-timeout", HeaderValue::from_static(value));
            }
            assert_eq!(time_allowed(&headers), expected, "{value:?}");
        };
        check(Some("5S"), Duration::from_secs(5));
        check(Some("250m"), Duration::from_millis(250));
        check(Some("7u"), Duration::from_micros(7));
        check(Some("0n"), Duration::ZERO);
        check(Some("99999999H"), limits::DEADLINE_MAX);
        check(Some("2M"), limits::DEADLINE_MAX);
        for unreadable in
            [None, Some(""), Some("S"), Some("-5S"), Some("5"), Some("123456789S"), Some("5x")]
        {
            check(unreadable, limits::DEADLINE_DEFAULT);
        }
    }
}
