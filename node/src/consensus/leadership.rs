//! What only the leader of a group can do: give and take votes, hand the leadership over.
//!
//! Any node takes such a call and asks the leader with the caller's thumbprint, which decides again on its own fresh
//! registry, as with every forwarded call. Each of them may be asked twice: who votes is a set, and who leads already leads.

use std::time::Instant;

use rookery_proto::peer::v1::{
    self as peer, ForwardRequest, LeaderCall, channel_request, channel_response,
    forward_response::Result as Given, leader_call::Action,
};

use super::{Consensus, Error, Fresh, propose::RETRY_PAUSE};
use crate::{
    authz::{self, Author, Permit, ServerOperation},
    names::{GroupId, NodeId, Thumbprint},
};

impl Consensus {
    /// Has the leader of a group do something, in the name of the permit's author.
    ///
    /// # Errors
    /// What the leader refuses; [`Error::NoLeader`], [`Error::NotLeader`] where none was found until the deadline;
    /// [`Error::Timeout`] where it may have been done all the same.
    pub async fn ask_leader(
        &self,
        permit: &Permit,
        group: GroupId,
        action: Action,
        deadline: Instant,
    ) -> Result<(), Error> {
        let call = LeaderCall { group: group.0, action: Some(action) };
        // A try that was sent may have been carried out, whatever became of the next one.
        let mut sent = false;
        loop {
            let sent_before = sent;
            let error = match self.try_leader(permit, &call, deadline, &mut sent).await {
                Ok(()) => return Ok(()),
                Err(Error::Refused(_)) if sent_before => return Err(Error::Timeout),
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error);
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(if sent { Error::Timeout } else { error });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_leader(
        &self,
        permit: &Permit,
        call: &LeaderCall,
        deadline: Instant,
        sent: &mut bool,
    ) -> Result<(), Error> {
        let leader = self.leader_of_group(GroupId(call.group))?;
        if leader == self.node_id() {
            *sent = true;
            return self.lead_here(permit, call, deadline).await;
        }
        // A node never speaks for itself at another node's door.
        let Author::Certificate(author) = permit.author() else { return Err(Error::NotLeader) };
        let left = deadline.saturating_duration_since(Instant::now());
        let body = channel_request::Body::Forward(ForwardRequest {
            author: author.as_bytes().to_vec(),
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            call: Some(peer::forward_request::Call::Lead(*call)),
        });
        *sent = true;
        let answer = self.ask_peer_until(leader, body, deadline).await?;
        let channel_response::Body::Forward(response) = answer else {
            return Err(Error::unexpected_answer());
        };
        match response.result {
            Some(Given::Led(_)) => Ok(()),
            Some(Given::Refused(refusal)) => Err(Error::Refused(Box::new(refusal))),
            Some(Given::Error(error)) => Err(error.into()),
            Some(Given::Applied(_) | Given::Read(_) | Given::Local(_)) | None => {
                Err(Error::unexpected_answer())
            }
        }
    }

    /// Serves a call of a client of another node, decided by this node's own registry.
    pub(super) async fn serve_leader(
        &self,
        fresh: &Fresh,
        author: Thumbprint,
        call: &LeaderCall,
        deadline: Instant,
    ) -> Result<(), Error> {
        let operation = match call.action {
            Some(Action::Promote(_)) => ServerOperation::PromoteNode,
            Some(Action::Demote(_)) => ServerOperation::DemoteNode,
            Some(Action::Transfer(_)) => ServerOperation::TransferLeader,
            None => return Err(Error::refused("INVALID_ARGUMENT", "the call is malformed")),
        };
        let registry = &fresh.registry;
        let caller = registry.caller(Some(author));
        let permit = authz::decide_server(caller, operation, fresh.at, registry.revision)?;
        self.lead_here(&permit, call, deadline).await
    }

    /// Does it, where this node leads. The permit is of this node's own decision.
    async fn lead_here(
        &self,
        _permit: &Permit,
        call: &LeaderCall,
        deadline: Instant,
    ) -> Result<(), Error> {
        match call.action {
            Some(Action::Promote(node)) => self.promote(NodeId(node)).await,
            Some(Action::Demote(node)) => self.demote(NodeId(node)).await,
            Some(Action::Transfer(to)) => {
                self.transfer_leader(GroupId(call.group), NodeId(to), deadline).await
            }
            None => Err(Error::refused("INVALID_ARGUMENT", "the call is malformed")),
        }
    }
}
