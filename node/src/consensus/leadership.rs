//! What only the leader of a group can do: give and take votes, hand the leadership over.
//!
//! Any node takes such a call and asks the leader with the caller's thumbprint, which decides again on its own fresh
//! registry, as with every forwarded call, and records it in the audit log before it acts: what a member asks for in the name
//! of a client leaves a record that does not depend on that member. Each of them may be asked twice: who votes is a set,
//! and who leads already leads.

use std::time::Instant;

use rookery_proto::{
    log::v1::{ClusterCommand, Proposal, RecordAction, cluster_command::Command, proposal},
    peer::v1::{LeaderCall, forward_request, forward_response, leader_call::Action},
};

use super::{Consensus, Error, Fresh, forwarding, propose::RETRY_PAUSE};
use crate::{
    authz::{self, Permit, ServerOperation},
    names::{GroupId, NodeId, RequestId, Thumbprint},
};

impl Consensus {
    /// Has the leader of a group do something, in the name of the permit's author, and record it before it does.
    ///
    /// # Errors
    /// What the leader refuses; [`Error::NoLeader`], [`Error::NotLeader`] where none was found until the deadline;
    /// [`Error::Timeout`] where it may have been done all the same.
    pub async fn ask_leader(
        &self,
        permit: &Permit,
        group: GroupId,
        action: Action,
        request_id: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let request_id = request_id.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let call = LeaderCall { group: group.0, action: Some(action), request_id };
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
            return self.lead_here(permit, leader, call, deadline).await;
        }
        let author = forwarding::client(permit.author())?;
        *sent = true;
        let asked = forward_request::Call::Lead(call.clone());
        let given = self.forward(leader, author, asked, deadline).await?;
        let forward_response::Result::Led(_) = given else {
            return Err(Error::unexpected_answer());
        };
        Ok(())
    }

    /// Serves a call of a client of another node, decided by this node's own registry.
    pub(super) async fn serve_leader(
        &self,
        fresh: &Fresh,
        from: NodeId,
        author: Thumbprint,
        call: &LeaderCall,
        deadline: Instant,
    ) -> Result<(), Error> {
        if !call.request_id.is_empty() {
            RequestId::from_bytes(&call.request_id).map_err(|_| malformed())?;
        }
        let operation = match call.action {
            Some(Action::Promote(_)) => ServerOperation::PromoteNode,
            Some(Action::Demote(_)) => ServerOperation::DemoteNode,
            Some(Action::Transfer(_)) => ServerOperation::TransferLeader,
            None => return Err(malformed()),
        };
        let registry = &fresh.registry;
        let caller = registry.caller(Some(author));
        let permit = authz::decide_server(caller, operation, fresh.at, registry.revision)?;
        self.lead_here(&permit, from, call, deadline).await
    }

    /// Does it, where this node leads, once it stands in the audit log. The permit is of this node's own decision, the
    /// call came by way of `from`.
    async fn lead_here(
        &self,
        permit: &Permit,
        from: NodeId,
        call: &LeaderCall,
        deadline: Instant,
    ) -> Result<(), Error> {
        if !self.group(GroupId(call.group))?.is_leader() {
            return Err(Error::NotLeader);
        }
        self.record_leader_call(permit, from, call, deadline).await?;
        match call.action {
            Some(Action::Promote(node)) => self.promote(NodeId(node)).await,
            Some(Action::Demote(node)) => self.demote(NodeId(node)).await,
            Some(Action::Transfer(to)) => {
                self.transfer_leader(GroupId(call.group), NodeId(to), deadline).await
            }
            None => Err(malformed()),
        }
    }

    async fn record_leader_call(
        &self,
        permit: &Permit,
        from: NodeId,
        call: &LeaderCall,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (target, details) = match call.action.ok_or_else(malformed)? {
            Action::Promote(node) | Action::Demote(node) => (format!("node {node}"), String::new()),
            Action::Transfer(to) => {
                (format!("group {}", GroupId(call.group)), format!("to node {to}"))
            }
        };
        let action = RecordAction {
            operation: permit.operation().name().to_owned(),
            target,
            details,
            request_id: call.request_id.clone(),
            on_behalf_of: String::new(),
        };
        let command = ClusterCommand { command: Some(Command::RecordAction(action)) };
        let proposal = Proposal {
            group: GroupId::CLUSTER.0,
            // Of its own: an action that is asked for again is done again, and recorded again.
            request_id: RequestId::random().as_bytes().to_vec(),
            registry_revision: permit.revision(),
            command: Some(proposal::Command::Cluster(command)),
            origin_node_id: from.0,
        };
        self.propose(permit.author(), proposal, deadline).await.map(drop)
    }
}

fn malformed() -> Error {
    Error::refused("INVALID_ARGUMENT", "the call is malformed")
}
