//! Members that this node has not heard of yet, because they joined while it was away.
//!
//! A node that restarts with an old registry refuses a peer that joined meanwhile. Were that peer the leader, it could
//! never bring the registry up to date. So a refused node id is asked about: a member that this node knows, over the
//! channel that this node dialled to it, names the current members; those that the registry does not know, and has not
//! removed, are heard until the registry has them.
//!
//! This grants nothing that the vouching member does not have: whoever can speak as a member to a node with an old
//! registry can send it entries of the log anyway.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rookery_proto::{
    log::v1::Peer,
    peer::v1::{StatusRequest, channel_request, channel_response},
};
use tokio::sync::Notify;

use super::{
    Consensus,
    groups::member_of,
    types::{Member, member_from, member_to},
};
use crate::{
    cluster::Registry,
    limits,
    names::{NodeId, Thumbprint},
};

/// What known members say of members that are not known here.
#[derive(Debug, Default)]
pub struct Vouched {
    members: Mutex<BTreeMap<NodeId, Member>>,
    /// Somebody was refused whom a known member may know.
    pub wanted: Notify,
}

impl Vouched {
    /// A member that the registry does not know.
    pub fn find(&self, id: NodeId) -> Option<Member> {
        self.members.lock().get(&id).cloned()
    }

    /// Whether a certificate is that of such a member.
    pub fn holds(&self, thumbprint: &Thumbprint) -> bool {
        self.members.lock().values().any(|member| member.thumbprint == thumbprint.as_bytes())
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<NodeId, Member> {
        self.members.lock().clone()
    }

    /// Forgets those that the registry knows by now, or has removed.
    pub fn settle(&self, registry: &Registry) {
        self.members
            .lock()
            .retain(|id, _| registry.node(*id).is_none() && !registry.is_removed(*id));
    }

    fn learn(&self, registry: &Registry, peers: Vec<Peer>) {
        let mut members = self.members.lock();
        for peer in peers.into_iter().take(limits::NODES_MAX) {
            let id = NodeId(peer.id);
            let unknown = registry.node(id).is_none() && !registry.is_removed(id);
            if unknown
                && members.len() < limits::NODES_MAX
                && members.insert(id, member_from(&peer)).is_none()
            {
                tracing::info!(node = %id, "a member vouches for a node that joined while this one was away");
            }
        }
    }
}

impl Consensus {
    /// The current members, for those who ask.
    pub(super) fn vouch(&self) -> Vec<Peer> {
        let registry = self.registry();
        registry
            .nodes()
            .filter_map(|record| {
                let member = member_of(&registry, NodeId(record.id))?;
                Some(member_to(record.id, &member))
            })
            .collect()
    }

    /// Asks known members about unknown ones, whenever somebody unknown was refused, at most once a second.
    pub(super) async fn learn_members(&self) {
        loop {
            self.vouched.wanted.notified().await;
            let registry = self.registry();
            for record in registry.nodes().filter(|record| record.id != self.node_id().0) {
                let body = channel_request::Body::Status(StatusRequest {});
                let asked = self.ask_peer(NodeId(record.id), body, limits::PEER_ANSWER_TIMEOUT);
                if let Ok(channel_response::Body::Status(answer)) = asked.await {
                    self.vouched.learn(&registry, answer.members);
                }
            }
            self.refresh_channels();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}
