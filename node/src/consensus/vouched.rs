//! Members that this node has not heard of yet, because they joined while it was away.
//!
//! A node that restarts with an old registry refuses a peer that joined meanwhile. Were that peer the leader, it could
//! never bring the registry up to date. So a refused node id is asked about: a member that this node knows, over the
//! channel that this node dialled to it, names the current members; those that the registry does not know, and has not
//! removed, are heard until the registry has them.
//!
//! Such a node may send entries, votes and snapshots, and nothing else: calls of clients are heard from members of the
//! registry alone. It is forgotten when its voucher is removed, and when the registry was confirmed without it.
//!
//! This grants nothing that the vouching member does not have: whoever can speak as a member to a node with an old
//! registry can send it entries of the log anyway.

use std::{collections::BTreeMap, time::Duration};

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
    members: Mutex<BTreeMap<NodeId, Entry>>,
    /// Somebody was refused whom a known member may know.
    pub wanted: Notify,
}

/// Who is vouched for, by whom, and when this node learned of it on its boot clock.
#[derive(Debug)]
struct Entry {
    member: Member,
    voucher: NodeId,
    learned: Duration,
}

impl Vouched {
    /// A member that the registry does not know.
    pub fn find(&self, id: NodeId) -> Option<Member> {
        self.members.lock().get(&id).map(|entry| entry.member.clone())
    }

    /// Whether a certificate is that of such a member.
    pub fn holds(&self, thumbprint: &Thumbprint) -> bool {
        let members = self.members.lock();
        members.values().any(|entry| entry.member.has(thumbprint.as_bytes()))
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<NodeId, Member> {
        let members = self.members.lock();
        members.iter().map(|(id, entry)| (*id, entry.member.clone())).collect()
    }

    /// Forgets those that the registry knows by now, or has removed, and those whose voucher is no member any more.
    pub fn settle(&self, registry: &Registry) {
        self.members.lock().retain(|id, entry| {
            let pending = registry.node(*id).is_none() && !registry.is_removed(*id);
            pending && registry.node(entry.voucher).is_some()
        });
    }

    /// The registry is as new as `asked` on the boot clock: who was vouched for before and is not in it never joined.
    pub fn expire(&self, asked: Duration) {
        self.members.lock().retain(|_, entry| entry.learned > asked);
    }

    fn learn(&self, registry: &Registry, voucher: NodeId, learned: Duration, peers: Vec<Peer>) {
        let mut members = self.members.lock();
        for peer in peers.into_iter().take(limits::NODES_MAX) {
            let id = NodeId(peer.id);
            let unknown = registry.node(id).is_none() && !registry.is_removed(id);
            let entry = Entry { member: member_from(&peer), voucher, learned };
            if unknown && members.len() < limits::NODES_MAX && members.insert(id, entry).is_none() {
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
                    self.vouched.learn(
                        &registry,
                        NodeId(record.id),
                        self.clock.boot(),
                        answer.members,
                    );
                }
            }
            self.refresh_channels();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
