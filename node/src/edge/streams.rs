//! Streams that a server sends: each message is decided like a call of its own.
//!
//! A stream outlives the decision that began it. Three things bound what it may say afterwards:
//! 1. Before each message leaves, its operation is decided again, on a registry that is fresh at that moment and at the
//!    leader's time ([`judged`], [`Edge::still_permitted`]). So a node that was cut off or stood still sends nothing until
//!    it is fresh, and a certificate that has expired gets nothing more.
//! 2. A stream that has nothing to say ends as soon as its certificate loses rights or expires (`connections`, `call`).
//! 3. Every stream ends after [`limits::STREAM_LIFE_MAX`].
//!
//! Health is the exception to 1: it tells everybody whether this node serves, and a node that is not fresh has to say
//! that it does not.

use std::sync::Arc;

use axum::body::Bytes;
use futures::stream;
use http::{Extensions, HeaderMap};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;
use tonic::{Status, body::Body};

use crate::{
    authz::ServerOperation,
    edge::{Edge, call::Deadline},
    limits,
};

impl Edge {
    /// Decides the next message of a stream, which began with the request of these extensions.
    ///
    /// # Errors
    /// The status that ends the stream.
    pub async fn still_permitted(
        &self,
        extensions: &Extensions,
        operation: ServerOperation,
    ) -> Result<(), Status> {
        let mut extensions = extensions.clone();
        extensions.insert(Deadline(Instant::now() + limits::FRESHNESS_WAIT));
        self.authorize_extensions(&extensions, operation).await.map(drop)
    }
}

struct Judged {
    edge: Arc<Edge>,
    extensions: Extensions,
    operation: ServerOperation,
    body: Body,
}

impl Judged {
    /// The next frame, and what is left; data only if its receiver may still have it.
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Status>, Option<Self>)> {
        let frame = match self.body.frame().await? {
            Ok(frame) => frame,
            Err(error) => return Some((Err(error), None)),
        };
        if !frame.is_data() {
            return Some((Ok(frame), Some(self)));
        }
        match self.edge.still_permitted(&self.extensions, self.operation).await {
            Ok(()) => Some((Ok(frame), Some(self))),
            Err(status) => Some((Ok(trailers(&status)), None)),
        }
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // Its text is no header value; the code is.
        headers.insert("grpc-status", http::HeaderValue::from(i32::from(status.code())));
    }
    Frame::trailers(headers)
}

/// A body whose messages are each decided before they leave.
pub fn judged(
    edge: Arc<Edge>,
    extensions: Extensions,
    operation: ServerOperation,
    body: Body,
) -> Body {
    let judged = Judged { edge, extensions, operation, body };
    Body::new(StreamBody::new(stream::unfold(Some(judged), |judged| async move {
        match judged {
            Some(judged) => judged.next().await,
            None => None,
        }
    })))
}
