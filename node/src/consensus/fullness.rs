//! Full disks: who is short of room, what is still written then, and who leads instead.
//!
//! A storage error stops a group for good, so nothing that might not fit reaches openraft:
//! 1. Each node tells the leader of the cluster group whether its disk is full, with every question for freshness; the
//!    answer names all nodes whose disks are (so everybody knows within a lease).
//! 2. A leader refuses a write with `DISK_FULL` where too few of the voters have room; where only its own disk is full the
//!    call waits for step 4. What takes rights away and what frees room is taken as long as there is a reserve
//!    ([`Room`](crate::storage::Room)).
//! 3. A follower with a full disk takes the entries of the cluster group, and of databases no commands while others do
//!    without it: it falls behind, has its reads served by others, and catches up by itself when there is room. Votes and
//!    heartbeats it answers as ever.
//! 4. A leader with a full disk hands over to a voter with room.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use rookery_proto::log::v1::{Proposal, proposal};

use super::{Consensus, Error, Group};
use crate::{
    cluster, limits,
    names::{GroupId, NodeId},
    storage::Level,
};

/// Whose disks are full.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    /// What nodes said of themselves to this node, and when on its boot clock.
    reported: Mutex<BTreeMap<NodeId, Duration>>,
    /// What the leader of the cluster group said.
    heard: Mutex<BTreeSet<NodeId>>,
    /// When leadership was last handed over for want of room.
    handed_over: Mutex<BTreeMap<GroupId, Duration>>,
}

impl Fullness {
    /// Step 1, at the leader: what a node says of itself.
    pub(super) fn report(&self, node: NodeId, full: bool, now: Duration) {
        let mut reported = self.reported.lock();
        if full {
            reported.insert(node, now);
        } else {
            reported.remove(&node);
        }
    }

    /// Step 1, at the leader: the nodes that said so lately. A silent one is not there at all, which is another matter.
    pub(super) fn reported(&self, now: Duration) -> BTreeSet<NodeId> {
        let reported = self.reported.lock();
        let recent = |at: &Duration| now.saturating_sub(*at) < limits::FULLNESS_REMEMBERED;
        reported.iter().filter(|(_, at)| recent(at)).map(|(node, _)| *node).collect()
    }

    /// Step 1, at everybody else.
    pub(super) fn hear(&self, full: impl Iterator<Item = NodeId>) {
        *self.heard.lock() = full.take(limits::NODES_MAX).collect();
    }
}

impl Consensus {
    /// Whether this node's disk has too little room for ordinary writes.
    pub(super) fn is_full(&self) -> bool {
        self.room.level() < Level::Enough
    }

    /// The nodes without room, this one included, as far as this node knows.
    pub(super) fn full_nodes(&self) -> BTreeSet<NodeId> {
        let leads = self.groups.find(GroupId::CLUSTER).is_some_and(|group| group.is_leader());
        let mut full = if leads {
            let reported = self.fullness.reported(self.clock.boot());
            // What it goes by from the moment that it leads no more until the next leader tells it.
            self.fullness.heard.lock().clone_from(&reported);
            reported
        } else {
            self.fullness.heard.lock().clone()
        };
        full.remove(&self.node_id());
        if self.is_full() {
            full.insert(self.node_id());
        }
        full
    }

    /// Step 2.
    ///
    /// # Errors
    /// `DISK_FULL` as a refusal, [`Error::NotLeader`] where others have room; nothing of the command has gone anywhere.
    pub(super) fn check_room(&self, group: &Group, proposal: &Proposal) -> Result<(), Error> {
        let level = self.room.level();
        let needed = match &proposal.command {
            Some(proposal::Command::Cluster(command)) => {
                cluster::takes_rights_away(&self.registry(), command)
            }
            Some(proposal::Command::Database(_)) | None => false,
        };
        if level == Level::None {
            return Err(disk_full(&format!(
                "the disk of node {} is full, and its reserve is used up: not even revocations fit",
                self.node_id()
            )));
        }
        if needed {
            return Ok(());
        }
        let voters: BTreeSet<NodeId> = group.raft.voter_ids().map(NodeId).collect();
        let full: Vec<NodeId> = self.full_nodes().intersection(&voters).copied().collect();
        let majority_has_room = voters.len() - full.len() > voters.len() / 2;
        if level == Level::Low && majority_has_room {
            // Step 4 is about to make another one the leader: the call waits for it.
            return Err(Error::NotLeader);
        }
        if level == Level::Low {
            return Err(disk_full(&format!(
                "the disk of node {}, which leads this group, is full: {} MiB are free and {} are needed",
                self.node_id(),
                self.room.free_bytes() >> 20,
                self.room.needed_bytes() >> 20,
            )));
        }
        if majority_has_room {
            return Ok(());
        }
        let full: Vec<String> = full.iter().map(NodeId::to_string).collect();
        Err(disk_full(&format!(
            "the disks of nodes {} are full, and without them there is no majority to store anything",
            full.join(", ")
        )))
    }

    /// Step 3: whether entries of a group are taken from its leader; `commands`: whether any of them is one.
    pub(super) fn takes_entries(&self, group: GroupId, commands: bool) -> bool {
        // The few bytes of a leader's first entry and of a membership: without them nobody could even read.
        if !commands {
            return true;
        }
        match self.room.level() {
            Level::Enough => true,
            Level::Low => group == GroupId::CLUSTER || !self.others_do_without(group),
            Level::None => false,
        }
    }

    /// Whether a majority of a group's voters has room. Where not, its leader takes no more commands, so what it still sends
    /// is bounded, and nothing can be committed, not even for a read, unless those with full disks take it.
    fn others_do_without(&self, group: GroupId) -> bool {
        let Some(group) = self.groups.find(group) else { return true };
        let voters: BTreeSet<NodeId> = group.raft.voter_ids().map(NodeId).collect();
        let full = self.full_nodes().intersection(&voters).count();
        voters.len() - full > voters.len() / 2
    }

    /// Step 4, looked at with the other duties.
    pub(super) async fn hand_over_for_want_of_room(&self) {
        if !self.is_full() {
            return;
        }
        for group in self.groups.all() {
            if !group.is_leader() || !self.may_hand_over(group.id) {
                continue;
            }
            let Some(to) = self.voter_with_room(&group) else { continue };
            tracing::info!(group = %group.id, %to, "this node's disk is full: another one is to lead");
            if let Err(error) = group.raft.trigger().transfer_leader(to.0).await {
                tracing::info!(group = %group.id, %error, "leadership was not handed over");
            }
        }
    }

    fn may_hand_over(&self, group: GroupId) -> bool {
        let now = self.clock.boot();
        let mut handed_over = self.fullness.handed_over.lock();
        let waits = handed_over
            .get(&group)
            .is_some_and(|last| now.saturating_sub(*last) < limits::FULLNESS_REMEMBERED);
        if !waits {
            handed_over.insert(group, now);
        }
        !waits
    }

    /// The voter with room that has most of the log.
    fn voter_with_room(&self, group: &Group) -> Option<NodeId> {
        let full = self.full_nodes();
        let metrics = group.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        let replication = metrics.replication.as_ref()?;
        replication
            .iter()
            .filter(|(id, _)| voters.contains(id) && !full.contains(&NodeId(**id)))
            .filter_map(|(id, matched)| Some((matched.as_ref()?.index, NodeId(*id))))
            .max()
            .map(|(_, id)| id)
    }
}

/// The reason of such a refusal.
pub(super) const DISK_FULL: &str = "DISK_FULL";

fn disk_full(what: &str) -> Error {
    let then = "Make room on its file system or enlarge it; writes are taken again by themselves. Reads go on.";
    Error::refused(DISK_FULL, format!("{what}. {then}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_until_it_is_taken_back_or_old() {
        let fullness = Fullness::default();
        let at = Duration::from_secs;
        fullness.report(NodeId(1), true, at(10));
        fullness.report(NodeId(2), true, at(10));
        fullness.report(NodeId(2), false, at(11));
        assert_eq!(fullness.reported(at(12)), BTreeSet::from([NodeId(1)]));
        assert!(fullness.reported(at(10) + limits::FULLNESS_REMEMBERED).is_empty());
    }
}
