//! Calls that another node serves in the name of a client of this one.
//!
//! The other node decides again, with the client's thumbprint and its own fresh registry.

use std::time::Instant;

use rookery_proto::{
    log::v1::Refusal,
    peer::v1::{
        ForwardRequest, channel_request, channel_response, forward_request::Call,
        forward_response::Result as Given,
    },
};

use super::{Consensus, Error, channel::CallError};
use crate::{
    authz::Author,
    names::{NodeId, Thumbprint},
};

/// Why a forwarded call has no answer.
#[derive(Debug)]
pub(super) enum Unserved {
    /// The other node decided against it.
    Refused(Box<Refusal>),
    /// It did not come to a decision, or its answer did not come.
    Call(CallError),
    /// The answer is of another kind than the call.
    Unexpected,
}

impl From<CallError> for Unserved {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Unserved> for Error {
    fn from(error: Unserved) -> Self {
        match error {
            Unserved::Refused(refusal) => Self::Refused(refusal),
            Unserved::Call(error) => error.into(),
            Unserved::Unexpected => Self::unexpected_answer(),
        }
    }
}

/// In whose name a call of `author` is forwarded: a node never speaks for itself at another node's door.
///
/// # Errors
/// [`Error::NotLeader`]: only who serves it here can serve it.
pub(super) fn client(author: Author) -> Result<Thumbprint, Error> {
    author.thumbprint().ok_or(Error::NotLeader)
}

impl Consensus {
    /// Has another node serve a call of a client; gives what it answered, which the caller holds against the call.
    pub(super) async fn forward(
        &self,
        to: NodeId,
        author: Thumbprint,
        call: Call,
        deadline: Instant,
    ) -> Result<Given, Unserved> {
        let left = deadline.saturating_duration_since(Instant::now());
        let body = channel_request::Body::Forward(ForwardRequest {
            author: author.as_bytes().to_vec(),
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            call: Some(call),
        });
        let channel = self.channels().ok().and_then(|channels| channels.peer(to));
        let channel = channel.ok_or_else(|| CallError::Unreachable("no member is there".into()))?;
        let answer = channel.call(body, deadline.into()).await?;
        let channel_response::Body::Forward(response) = answer else {
            return Err(Unserved::Unexpected);
        };
        match response.result.ok_or(Unserved::Unexpected)? {
            Given::Refused(refusal) => Err(Unserved::Refused(Box::new(refusal))),
            Given::Error(error) => Err(CallError::Refused(error).into()),
            given @ (Given::Applied(_) | Given::Read(_) | Given::Local(_) | Given::Led(_)) => {
                Ok(given)
            }
        }
    }
}
