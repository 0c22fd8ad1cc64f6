//! From a permitted command to an entry of a log, here or at the leader.
//!
//! A proposal is retried under its request id until its deadline: the state machine keeps the results of request ids,
//! so a command whose first answer was lost is applied once.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use rookery_proto::{
    log::v1::{self as log, Applied, ClusterCommand, DatabaseCommand, Proposal, applied, proposal},
    peer::v1::{
        ConfirmRequest, channel_request, channel_response, forward_request, forward_response,
    },
};
use subtle::ConstantTimeEq as _;

use super::{
    Consensus, Denial, Error, Group, forwarding, peers::decide_proposal, types::CommandBytes,
};
use crate::{
    authz::{Author, DatabasePermit, Permit},
    certificates,
    cluster::{self, Registry},
    database, limits,
    names::{GroupId, NodeId, RequestId, Timestamp},
    results,
};

/// Pause before the next try of a proposal whose leader is not known or not ready.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(25);

impl Consensus {
    /// Puts a permitted command into the cluster group's log and waits until it is applied here and, where it takes
    /// rights away, until no node decides on the older registry.
    ///
    /// # Errors
    /// [`Error::Refused`] is the state machine's answer; [`Error::Timeout`] leaves the outcome open.
    pub async fn propose_cluster(
        &self,
        permit: Permit,
        request_id: RequestId,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        // Whether the permit fits the command needs no check here: apply authorizes its author again.
        let proposal = Proposal {
            group: GroupId::CLUSTER.0,
            request_id: request_id.as_bytes().to_vec(),
            registry_revision: permit.revision(),
            command: Some(proposal::Command::Cluster(command)),
            origin_node_id: self.node_id().0,
        };
        let applied = self.propose(permit.author(), proposal, deadline).await?;
        // Read your own writes on this node too.
        let group = self.group(GroupId::CLUSTER)?;
        group.wait_applied(applied.index, deadline).await?;
        Ok(applied)
    }

    /// Puts a permitted command into a database group's log and waits until it is applied at the leader.
    ///
    /// # Errors
    /// As [`Consensus::propose_cluster`].
    pub async fn propose_database(
        &self,
        permit: DatabasePermit,
        request_id: RequestId,
        command: DatabaseCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        if permit.operation().required() < database::operation(&command).required() {
            return Err(Error::refused(
                "DATABASE_ACCESS_DENIED",
                "the permit is for another operation",
            ));
        }
        let proposal = Proposal {
            group: GroupId::from(permit.database()).0,
            request_id: request_id.as_bytes().to_vec(),
            registry_revision: permit.revision(),
            command: Some(proposal::Command::Database(command)),
            origin_node_id: self.node_id().0,
        };
        let work = self.propose(permit.author(), proposal, deadline);
        self.while_it_stands(permit.database(), work).await
    }

    pub(super) async fn propose(
        &self,
        author: Author,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        let mut sent = false;
        let mut tries = 0;
        loop {
            let decided = match tries {
                0 => Ok(()),
                _ => self.decide_again(author, &proposal, deadline).await,
            };
            let tried = match decided {
                Ok(()) => self.try_propose(author, &proposal, deadline, &mut sent).await,
                Err(Error::Stale) => Err(Error::NoLeader), // It may be fresh for the next try.
                // The try before may have been applied; nobody is to take the denial for its answer.
                Err(denied) => return Err(if sent { Error::Timeout } else { denied }),
            };
            let error = match tried {
                Ok(applied) => return answer(applied),
                Err(error) => error,
            };
            // A try that was sent may be in the log, whatever became of the next one.
            let settled = !matches!(error, Error::Stale | Error::Stopped(_));
            let error = if settled || tries == 0 || !sent { error } else { Error::Timeout };
            tries += 1;
            let again = error.is_transient() || (sent && matches!(error, Error::Timeout));
            if !again {
                return Err(error);
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(if sent { Error::Timeout } else { error });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Decides a write before another try, which may be long after the first, as if its author had called now. Commands of
    /// the cluster group are decided once more where they are applied.
    async fn decide_again(
        &self,
        author: Author,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<(), Error> {
        let Author::Certificate(author) = author else { return Ok(()) };
        if proposal.group == GroupId::CLUSTER.0 {
            return Ok(());
        }
        let fresh = self.fresh(deadline).await?;
        decide_proposal(&fresh, self.node_id(), &author, proposal)?
            .map_err(|()| Error::unexpected_answer())
    }

    async fn try_propose(
        &self,
        author: Author,
        proposal: &Proposal,
        deadline: Instant,
        sent: &mut bool,
    ) -> Result<Applied, Error> {
        let group = GroupId(proposal.group);
        let leader = self.leader_of_group(group)?;
        if leader == self.node_id() {
            *sent = true;
            return self.propose_here(author, proposal.clone(), deadline).await;
        }
        let author = forwarding::client(author)?;
        *sent = true;
        let call = forward_request::Call::Propose(proposal.clone());
        let given = self.forward(leader, author, call, deadline).await?;
        let forward_response::Result::Applied(applied) = given else {
            return Err(Error::unexpected_answer());
        };
        Ok(applied)
    }

    /// Who leads a group: from the group itself where it runs here, by asking along its members where not.
    pub(super) fn leader_of_group(&self, id: GroupId) -> Result<NodeId, Error> {
        if let Some(group) = self.groups.find(id) {
            return group.leader().ok_or(Error::NoLeader);
        }
        let registry = self.registry();
        let holders = id
            .database()
            .and_then(|id| registry.database_by_id(id).cloned())
            .ok_or(Error::NoLeader)?;
        // A holder that does not lead answers with an error and the next try asks the next one.
        let turn = usize::try_from(self.clock.boot().as_millis() / RETRY_PAUSE.as_millis())
            .unwrap_or_default();
        let count = holders.node_ids.len().max(1);
        holders.node_ids.get(turn % count).map(|id| NodeId(*id)).ok_or(Error::NoLeader)
    }

    /// Proposes at this node, which leads the group (or is told so by openraft).
    pub(super) async fn propose_here(
        &self,
        author: Author,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        let group = self.group(GroupId(proposal.group))?;
        check(&proposal)?;
        if let Err(error) = self.check_nodes(&group, &proposal, deadline).await {
            self.note_refusal(author, &proposal, &error);
            return Err(error);
        }
        self.check_room(&group, &proposal)?;
        let before = self.registry();
        let revoking = match &proposal.command {
            Some(proposal::Command::Cluster(command)) => {
                cluster::takes_rights_away(&before, command)
            }
            Some(proposal::Command::Database(_)) | None => false,
        };
        let (applied, term) = self.write_entry(&group, author, proposal, deadline).await?;
        if matches!(applied.outcome, Some(applied::Outcome::Refusal(_))) {
            return Ok(applied);
        }
        if revoking {
            self.wait_revoked(&before, applied.index, term, deadline).await?;
        } else if group.id == GroupId::CLUSTER {
            self.wait_known(applied.index, deadline).await;
        }
        Ok(applied)
    }

    /// What the entry did, and the term it stands in.
    async fn write_entry(
        &self,
        group: &Arc<Group>,
        author: Author,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<(Applied, u64), Error> {
        use openraft::errors::{ClientWriteError, RaftError};
        let command = self.stamp(author, proposal);
        let bytes = CommandBytes(Bytes::from(command.encode_to_vec()));
        let written = group.raft.client_write(bytes);
        match tokio::time::timeout_at(deadline.into(), written).await {
            Err(_) => Err(Error::Timeout),
            Ok(Ok(response)) => match response.data.0 {
                Some(applied) => Ok((*applied, response.log_id.leader_id.term)),
                None => Err(Error::Stopped("an entry was applied without an answer".to_owned())),
            },
            Ok(Err(RaftError::Fatal(e))) => Err(Error::Stopped(e.to_string())),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(Error::NotLeader)
            }
            Ok(Err(RaftError::APIError(_))) => Err(Error::NoQuorum),
        }
    }

    /// The leader's clock goes into the command; apply knows no other time.
    fn stamp(&self, author: Author, proposal: Proposal) -> log::Command {
        let (author, internal_reason) = match author {
            Author::Certificate(thumbprint) => (thumbprint.as_bytes().to_vec(), String::new()),
            Author::Internal(reason) => (Vec::new(), reason.to_owned()),
            Author::Anonymous => (Vec::new(), String::new()),
        };
        log::Command {
            version: results::COMMAND_VERSION,
            request_id: proposal.request_id,
            author,
            internal_reason,
            at_unix_ms: self.stamped(),
            registry_revision: proposal.registry_revision,
            origin_node_id: proposal.origin_node_id,
            command: proposal.command.map(|command| match command {
                proposal::Command::Cluster(command) => log::command::Command::Cluster(command),
                proposal::Command::Database(command) => log::command::Command::Database(command),
            }),
        }
    }

    /// A command that is refused before it reaches the log leaves its record like a denied call.
    fn note_refusal(&self, author: Author, proposal: &Proposal, error: &Error) {
        let (Error::Refused(refusal), Some(proposal::Command::Cluster(command))) =
            (error, &proposal.command)
        else {
            return;
        };
        let operation = cluster::operation(command);
        self.note_denial(Denial {
            operation: operation.name().to_owned(),
            reason: refusal.reason.clone(),
            rule: operation.rule_id().to_owned(),
            actor: author.thumbprint(),
            details: refusal.message.clone(),
            ..Denial::default()
        });
    }

    /// What the log alone cannot judge of nodes that come and go. Apply judges the rest again.
    async fn check_nodes(
        &self,
        group: &Group,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<(), Error> {
        use log::cluster_command::Command;
        let Some(proposal::Command::Cluster(command)) = &proposal.command else { return Ok(()) };
        if let Some(Command::JoinNode(join)) = &command.command {
            self.check_token(group, join, deadline).await?;
        }
        if let Some(Command::RemoveNode(remove)) = &command.command {
            self.check_removal(NodeId(remove.node_id)).await?;
        }
        Ok(())
    }

    /// A join without a valid token, or with an unfit certificate, is turned away before it reaches the log: anybody
    /// may try.
    async fn check_token(
        &self,
        group: &Group,
        join: &log::JoinNode,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.linearize_cluster(deadline).await?;
        let joined = crate::names::Thumbprint::of(&join.certificate);
        if self.registry().members_of(&joined).any(|node| node.incarnation == join.incarnation) {
            return Ok(()); // Asked again by a node whose answer was lost.
        }
        let tokens = group.state.read(cluster::join_tokens)?;
        let now = self.leader_time().0; // Fresh: the call was authorized a moment ago.
        let valid = tokens.iter().any(|token| {
            token.id == join.token_id
                && bool::from(token.secret_digest.ct_eq(&join.secret_digest))
                && now <= token.expires_unix_ms
        });
        if valid {
            let unfit = |e: certificates::Refused| {
                Error::refused("INVALID_ARGUMENT", format!("the node's certificate {e}"))
            };
            let parsed = certificates::parse(&join.certificate).map_err(unfit)?;
            return certificates::check_registrable(
                &parsed,
                certificates::Usage::Node,
                Timestamp(now),
            )
            .map_err(unfit);
        }
        let why =
            "the join token is unknown, used, expired or wrong; ask an administrator for another";
        Err(Error::refused("JOIN_TOKEN_REFUSED", why))
    }

    /// A removed node is cut off at once, so those that stay must be a majority of each group's voters without it.
    async fn check_removal(&self, leaving: NodeId) -> Result<(), Error> {
        let nodes = self.status_all().await;
        let up: BTreeSet<u64> = nodes
            .iter()
            .filter(|status| status.reachable)
            .filter_map(|status| status.node.as_ref().map(|node| node.id))
            .filter(|id| *id != leaving.0)
            .collect();
        let groups = nodes.iter().flat_map(|status| &status.groups);
        for group in groups.filter(|group| group.voters.contains(&leaving.0)) {
            let staying = group.voters.iter().filter(|id| up.contains(id)).count();
            if staying <= group.voters.len() / 2 {
                let why = format!(
                    "without node {leaving} only {staying} of {} voters of the group `{}` answer, which is no majority: \
                     bring the others back first, demote the node (`rookery cluster demote`), or delete the database",
                    group.voters.len(),
                    group.group
                );
                return Err(Error::refused("NODE_IN_USE", why));
            }
        }
        Ok(())
    }

    /// The time of the cluster, but never earlier than a stamp before it that more than one clock made. A node that knows of no leader lately takes its
    /// own clock.
    fn stamped(&self) -> i64 {
        let now = if self.is_fresh() { self.leader_time().0 } else { self.clock.wall().0 };
        let before = if self.cluster_time.is_to_last() {
            self.last_stamp.fetch_max(now, Ordering::Relaxed)
        } else {
            self.last_stamp.load(Ordering::Relaxed)
        };
        before.max(now)
    }

    /// Step 5 of `freshness`: waits until no node can decide on a registry older than `index`.
    ///
    /// `term` is that of the entry. Where this node has noted no promises in it, it has not noticed yet that it leads,
    /// or the entry is another leader's: either way it knows nothing of the promises, and waits for all there can be.
    async fn wait_revoked(
        &self,
        before: &Registry,
        index: u64,
        term: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.promises.lead(term, self.clock.boot());
        let me = self.node_id();
        let after = self.registry();
        let nodes: BTreeSet<NodeId> = before
            .all_nodes()
            .chain(after.all_nodes())
            .map(|record| NodeId(record.id))
            .filter(|id| *id != me)
            .collect();
        let waits = nodes.into_iter().map(|node| self.wait_confirmed(node, index));
        tokio::time::timeout_at(deadline.into(), join_all(waits))
            .await
            .map_err(|_| Error::Timeout)?;
        Ok(())
    }

    /// What was given should work on whichever node is called next: waits for the nodes that answer, and not long for
    /// those that do not. Nothing depends on it; what was taken away has `wait_revoked`.
    async fn wait_known(&self, index: u64, deadline: Instant) {
        let me = self.node_id();
        let until = deadline.min(Instant::now() + limits::GRANT_KNOWN_WAIT);
        let registry = self.registry();
        let others = registry.nodes().map(|record| NodeId(record.id)).filter(|id| *id != me);
        let asked = others.map(|node| {
            let body = channel_request::Body::Confirm(ConfirmRequest { index });
            self.ask_peer_until(node, body, until)
        });
        drop(join_all(asked).await); // A silent node hears of it with the log.
    }

    /// Until `node` has applied `index`, or every promise made to it has passed.
    async fn wait_confirmed(&self, node: NodeId, index: u64) {
        let over = self.promises.over(node, self.lease());
        loop {
            let left = over.saturating_sub(self.clock.boot());
            if left.is_zero() {
                return;
            }
            let body = channel_request::Body::Confirm(ConfirmRequest { index });
            match self.ask_peer(node, body, left).await {
                Ok(channel_response::Body::Confirm(answer)) if answer.applied_index >= index => {
                    return;
                }
                Ok(_) | Err(_) => {}
            }
            let left = over.saturating_sub(self.clock.boot());
            tokio::time::sleep(left.min(Duration::from_millis(20))).await;
        }
    }

    /// One call to a peer, answered within `timeout`.
    pub(super) async fn ask_peer(
        &self,
        node: NodeId,
        body: channel_request::Body,
        timeout: Duration,
    ) -> Result<channel_response::Body, Error> {
        self.ask_peer_until(node, body, Instant::now() + timeout).await
    }

    pub(super) async fn ask_peer_until(
        &self,
        node: NodeId,
        body: channel_request::Body,
        deadline: Instant,
    ) -> Result<channel_response::Body, Error> {
        let channel = self.channels()?.peer(node).ok_or(Error::NoLeader)?;
        Ok(channel.call(body, deadline.into()).await?)
    }
}

/// **Invariant:** what apply cannot understand never enters a log; it would stop every node.
fn check(proposal: &Proposal) -> Result<(), Error> {
    let checked = match &proposal.command {
        Some(proposal::Command::Cluster(command)) => cluster::check(command),
        Some(proposal::Command::Database(command)) => database::check(command),
        None => return Err(Error::refused("INVALID_ARGUMENT", "there is no command")),
    };
    checked.map_err(|refusal| Error::Refused(Box::new(refusal)))
}

fn answer(applied: Applied) -> Result<Applied, Error> {
    match applied.outcome {
        Some(applied::Outcome::Refusal(refusal)) => Err(Error::Refused(Box::new(refusal))),
        Some(applied::Outcome::Cluster(_) | applied::Outcome::Database(_)) => Ok(applied),
        None => Err(Error::Stopped("an entry was applied without an outcome".to_owned())),
    }
}
