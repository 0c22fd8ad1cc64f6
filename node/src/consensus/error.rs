//! Why consensus did not do what it was asked.

use rookery_proto::{log::v1::Refusal, peer::v1 as peer};

use super::channel::CallError;
use crate::{authz::Denied, results, storage};

/// Why consensus did not do what it was asked; one variant for each thing the caller would do differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state machine or another node refused the command: a reply, not a failure.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// The caller may not.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// No leader is known: an election is under way, or a majority is out of reach.
    #[error(
        "the Raft group has no leader; an election is under way or a majority of its nodes is out of reach"
    )]
    NoLeader,
    /// This node leads, or led, but a majority did not answer.
    #[error("a majority of the Raft group did not answer")]
    NoQuorum,
    /// Another node leads.
    #[error("this node does not lead the Raft group")]
    NotLeader,
    /// The deadline came first. A write may still take effect.
    #[error("the deadline came before the answer; a write may still take effect")]
    Timeout,
    /// The registry of certificates is not known to be fresh.
    #[error("this node cannot confirm that its registry of certificates is fresh")]
    Stale,
    /// This node belongs to no cluster (yet, or any more).
    #[error("{0}")]
    NotMember(String),
    /// A group has stopped on this node; the node must be restarted.
    #[error("the Raft group has stopped on this node: {0}")]
    Stopped(String),
    /// The storage failed, or a record cannot be authenticated.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl Error {
    /// A refusal made on the spot, with the same shape as one from the log.
    #[must_use]
    pub fn refused(reason: &str, message: impl Into<String>) -> Self {
        Self::Refused(Box::new(Refusal {
            reason: reason.to_owned(),
            message: message.into(),
            ..Refusal::default()
        }))
    }

    /// A peer that answered a question with something else.
    #[must_use]
    pub fn unexpected_answer() -> Self {
        Self::Stopped("a peer answered with another message".to_owned())
    }

    /// Whether another try soon may succeed where this one did not, without asking the client.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoLeader | Self::NoQuorum | Self::NotLeader => true,
            Self::Refused(_)
            | Self::Denied(_)
            | Self::Timeout
            | Self::Stale
            | Self::NotMember(_)
            | Self::Stopped(_)
            | Self::Storage(_) => false,
        }
    }

    /// Whether no leader with a majority answered in time: nothing is wrong with this node, and it passes when the
    /// others are back. A write may still take effect.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.is_transient() || matches!(self, Self::Stale | Self::Timeout)
    }

    /// As an answer to a peer that forwarded a call.
    #[must_use]
    pub fn to_peer(&self) -> peer::PeerError {
        use peer::peer_error::Kind;
        let kind = match self {
            Self::NoLeader | Self::NotLeader | Self::Refused(_) | Self::Denied(_) => {
                Kind::NotLeader
            }
            Self::NoQuorum => Kind::NoQuorum,
            Self::Timeout => Kind::Timeout,
            Self::Stale => Kind::Stale,
            Self::NotMember(_) => Kind::NoGroup,
            Self::Stopped(_) | Self::Storage(_) => Kind::Stopped,
        };
        peer::PeerError { kind: kind.into(), message: self.to_string(), leader_id: 0 }
    }
}

impl From<results::Error> for Error {
    fn from(error: results::Error) -> Self {
        if let results::Error::Storage(error) = error {
            return Self::Storage(error);
        }
        Self::Stopped(error.to_string())
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(Box::new(denied))
    }
}

impl From<&Denied> for Refusal {
    fn from(denied: &Denied) -> Self {
        let metadata = [
            ("required", denied.required.clone()),
            ("have", denied.have.clone()),
            ("rule", denied.rule.to_owned()),
            ("operation", denied.operation.to_owned()),
        ];
        Self {
            reason: denied.reason.code().to_owned(),
            message: denied.message.clone(),
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            field: String::new(),
        }
    }
}

impl From<peer::PeerError> for Error {
    fn from(error: peer::PeerError) -> Self {
        use peer::peer_error::Kind;
        match error.kind() {
            Kind::NoGroup | Kind::NotLeader | Kind::Unspecified => Self::NotLeader,
            Kind::NoQuorum => Self::NoQuorum,
            // That node is going down, and others will elect: as if it had not been there.
            Kind::Stopped => Self::NoLeader,
            Kind::Malformed => Self::Stopped(error.message),
            Kind::Stale => Self::Stale,
            Kind::Timeout => Self::Timeout,
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(_) | CallError::Closed => Self::NoLeader,
            CallError::Timeout => Self::Timeout,
            CallError::Refused(error) => error.into(),
        }
    }
}
