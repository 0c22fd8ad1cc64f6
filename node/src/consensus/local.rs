//! What each node tells or does alone, such as its connections and figures, over all nodes.
//!
//! 1. The node that was called decides, and asks the others with the caller's thumbprint.
//! 2. Each of them decides again, on its own fresh registry: never because a peer said so.
//! 3. It hands the call, with the permit of its own decision, to what holds connections and figures ([`Local`]).
//!
//! A node that does not answer in time is told as [`Silence`]; nobody waits for it longer than for any peer.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use rookery_proto::{
    monitoring::v1::Sample,
    peer::v1::{
        self as peer, LocalAnswer, LocalCall, LocalConnections, LocalConnectionsAnswer,
        LocalCutAnswer, LocalMetricsAnswer, local_answer::Answer, local_call::Call,
        peer_error::Kind,
    },
};

use super::{
    Consensus, Error, Fresh,
    channel::CallError,
    forwarding::{self, Unserved},
};
use crate::{
    authz::{
        self, Author, Permit, ServerOperation,
        certificates_rules::{self, Action},
    },
    limits,
    names::{NodeId, Thumbprint},
};

/// What holds the connections and figures of this node.
pub trait Local: Send + Sync + 'static {
    /// Open connections.
    fn connections(&self, permit: &Permit, asked: &LocalConnections) -> LocalConnectionsAnswer;
    /// Cuts open connections of certificates, or one of them; gives how many.
    fn cut(&self, permit: &Permit, whose: &[Thumbprint], only: Option<u64>) -> u64;
    /// Calls and latencies of the last hour.
    fn samples(&self, permit: &Permit) -> Vec<Sample>;
}

/// Why a node has no part in an answer; in words for the caller, who hears of no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// There is no channel to it.
    #[error("it cannot be reached")]
    Unreachable,
    /// It took too long.
    #[error("it did not answer in time")]
    Late,
    /// It does not know at the moment who may do what.
    #[error("it cannot confirm at the moment that its registry of certificates is fresh")]
    Stale,
    /// It runs another version, or is on its way up or down.
    #[error("it could not serve the call")]
    Failed,
    /// It decided otherwise.
    #[error("it refused: {0}")]
    Refused(String),
}

impl From<CallError> for Silence {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(_) | CallError::Closed => Self::Unreachable,
            CallError::Timeout => Self::Late,
            CallError::Refused(error) => Self::from(&error),
        }
    }
}

impl From<Unserved> for Silence {
    fn from(error: Unserved) -> Self {
        match error {
            Unserved::Refused(refusal) => Self::Refused(refusal.message),
            Unserved::Call(error) => error.into(),
            Unserved::Unexpected => Self::Failed,
        }
    }
}

impl From<&peer::PeerError> for Silence {
    fn from(error: &peer::PeerError) -> Self {
        match error.kind() {
            Kind::Stale => Self::Stale,
            Kind::Timeout => Self::Late,
            Kind::Unspecified
            | Kind::NoGroup
            | Kind::NotLeader
            | Kind::NoQuorum
            | Kind::Stopped
            | Kind::Malformed => Self::Failed,
        }
    }
}

/// Serves a call that was decided.
///
/// # Errors
/// Its certificates are no thumbprints.
pub fn serve(local: &dyn Local, permit: &Permit, call: &Call) -> Result<LocalAnswer, Error> {
    let answer = match call {
        Call::Connections(asked) => Answer::Connections(local.connections(permit, asked)),
        Call::Cut(asked) => {
            let whose = thumbprints(&asked.thumbprints)?;
            let only = Some(asked.connection_id).filter(|id| *id != 0);
            Answer::Cut(LocalCutAnswer { cut: local.cut(permit, &whose, only) })
        }
        Call::Metrics(_) => Answer::Metrics(LocalMetricsAnswer { samples: local.samples(permit) }),
    };
    Ok(LocalAnswer { answer: Some(answer) })
}

/// Certificates as a local call names them.
///
/// # Errors
/// They are no thumbprints, or more than an entry has.
pub fn thumbprints(named: &[Vec<u8>]) -> Result<Vec<Thumbprint>, Error> {
    let malformed = || Error::refused("INVALID_ARGUMENT", "the certificates are malformed");
    if named.len() > limits::ENTRY_CERTIFICATES_MAX {
        return Err(malformed());
    }
    let parsed = named.iter().map(|bytes| Thumbprint::from_bytes(bytes));
    parsed.collect::<Result<_, _>>().map_err(|_| malformed())
}

fn operation(call: &Call) -> ServerOperation {
    match call {
        Call::Connections(_) => ServerOperation::ViewConnections,
        Call::Cut(_) => ServerOperation::CloseConnections,
        Call::Metrics(_) => ServerOperation::ViewMetrics,
    }
}

impl Consensus {
    /// Says what holds the connections and figures of this node; once.
    pub fn serve_with(&self, local: Arc<dyn Local>) {
        let _first = self.local.set(local);
    }

    /// Asks nodes, each with its call, in the name of the permit's author. The answers come in the order of the calls.
    pub async fn ask_nodes(
        &self,
        permit: &Permit,
        calls: Vec<(NodeId, LocalCall)>,
        deadline: Instant,
    ) -> Vec<Result<LocalAnswer, Silence>> {
        let author = permit.author();
        join_all(calls.into_iter().map(|(node, call)| self.ask_node(author, node, call, deadline)))
            .await
    }

    async fn ask_node(
        &self,
        author: Author,
        node: NodeId,
        call: LocalCall,
        deadline: Instant,
    ) -> Result<LocalAnswer, Silence> {
        let author = forwarding::client(author).map_err(|_| Silence::Failed)?;
        let deadline = deadline.min(Instant::now() + limits::PEER_ANSWER_TIMEOUT);
        let call = peer::forward_request::Call::Local(call);
        let given = self.forward(node, author, call, deadline).await?;
        let peer::forward_response::Result::Local(answer) = given else {
            return Err(Silence::Failed);
        };
        Ok(answer)
    }

    /// Serves a call of a client of another node, decided by this node's own registry.
    pub(super) fn serve_local(
        &self,
        fresh: &Fresh,
        author: Thumbprint,
        call: Call,
    ) -> Result<LocalAnswer, Error> {
        let registry = &fresh.registry;
        let caller = registry.caller(Some(author));
        let permit = authz::decide_server(caller, operation(&call), fresh.at, registry.revision)?;
        if let (Call::Cut(asked), Some(actor)) = (&call, caller.registration()) {
            for thumbprint in thumbprints(&asked.thumbprints)? {
                let target = registry.target_of(&thumbprint, Some(author), fresh.at);
                certificates_rules::decide(actor.clearance, Action::Cut, &target)?;
            }
        }
        let local = self.local.get().ok_or(Error::NoLeader)?;
        serve(&**local, &permit, &call)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn callers_hear_why_a_node_is_silent_and_nothing_of_its_address() {
        let error = |kind: Kind| {
            let message = "secret 10.0.0.7:7444".to_owned();
            CallError::Refused(peer::PeerError { kind: kind.into(), message, leader_id: 0 })
        };
        for (error, expected) in [
            (CallError::Unreachable("10.0.0.7:7444 refused".into()), Silence::Unreachable),
            (CallError::Closed, Silence::Unreachable),
            (CallError::Timeout, Silence::Late),
            (error(Kind::Stale), Silence::Stale),
            (error(Kind::Timeout), Silence::Late),
            (error(Kind::Malformed), Silence::Failed),
        ] {
            let silence = Silence::from(error);
            assert_eq!(silence, expected);
            assert!(!silence.to_string().contains("10.0.0.7"), "{silence}");
        }
    }

    #[test]
    fn certificates_of_a_call_are_whole_and_few() {
        let check = |named: &[Vec<u8>], expected: Option<usize>| {
            assert_eq!(thumbprints(named).ok().map(|it| it.len()), expected);
        };
        check(&[], Some(0));
        check(&[vec![1; 32], vec![2; 32]], Some(2));
        check(&[vec![1; 31]], None);
        check(&vec![vec![1; 32]; limits::ENTRY_CERTIFICATES_MAX], Some(16));
        check(&vec![vec![1; 32]; limits::ENTRY_CERTIFICATES_MAX + 1], None);
    }
}
