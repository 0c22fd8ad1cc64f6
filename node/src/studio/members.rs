//! What the states of all nodes say together, and what a change of the membership would mean. Pure.

use std::collections::BTreeMap;

use rookery_proto::cluster::v1::{GroupStatus, NodeStatus};

use super::words;

/// The name of the group that spans all nodes.
pub const CLUSTER: &str = "cluster";

/// All nodes of a cluster.
pub struct Members {
    /// As each one told, or as far as others know of it.
    pub nodes: Vec<NodeStatus>,
    /// Whether the visitor may see more than names and addresses.
    pub seen: bool,
}

/// Whether a node's state is that of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Another node has the same state at the same index.
    Equal,
    /// Another node has a different state at the same index, which must never be.
    Different,
    /// No other node is at this index.
    Alone,
}

/// A group as all nodes see it together.
pub struct Group {
    /// "cluster", or the name of a database.
    pub name: String,
    /// The name of the node that leads it; empty: none is known.
    pub leader: String,
    /// The newest term that a node knows.
    pub term: u64,
    /// Voters.
    pub voters: usize,
    /// Learners.
    pub learners: usize,
    /// Entries that the slowest replica has yet to apply.
    pub lag: u64,
    /// What the hashes of its states say.
    pub same: Same,
}

impl Group {
    /// The lag with thin groups.
    #[must_use]
    pub fn lag_words(&self) -> String {
        words::count(self.lag)
    }
}

impl Members {
    /// A group as one node sees it.
    #[must_use]
    pub fn group<'a>(node: &'a NodeStatus, name: &str) -> Option<&'a GroupStatus> {
        node.groups.iter().find(|group| group.group == name)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a GroupStatus> {
        self.nodes.iter().filter_map(move |node| Self::group(node, name))
    }

    /// Entries that a node has yet to apply.
    #[must_use]
    pub fn lag(&self, node: &NodeStatus, name: &str) -> Option<u64> {
        let newest = self.all(name).map(|group| group.last_log_index).max()?;
        Self::group(node, name).map(|group| newest.saturating_sub(group.applied_index))
    }

    /// Whether a node's state is that of the others.
    #[must_use]
    pub fn same(&self, node: &NodeStatus, name: &str) -> Same {
        let Some(own) = Self::group(node, name) else { return Same::Alone };
        let comparable = |other: &&GroupStatus| {
            other.applied_index == own.applied_index && !other.state_hash.is_empty()
        };
        let others = self.all(name).filter(|other| !std::ptr::eq(*other, own)).filter(comparable);
        let hashes: Vec<bool> = others.map(|other| other.state_hash == own.state_hash).collect();
        match (hashes.is_empty() || own.state_hash.is_empty(), hashes.iter().all(|equal| *equal)) {
            (true, _) => Same::Alone,
            (false, true) => Same::Equal,
            (false, false) => Same::Different,
        }
    }

    /// All groups, the cluster's first.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut names: Vec<&str> =
            self.nodes.iter().flat_map(|node| &node.groups).map(|it| it.group.as_str()).collect();
        names.sort_by_key(|name| (*name != CLUSTER, *name));
        names.dedup();
        names.into_iter().map(|name| self.summary(name)).collect()
    }

    fn summary(&self, name: &str) -> Group {
        let newest = self.all(name).max_by_key(|group| (group.term, group.leader_id != 0));
        let states = self.nodes.iter().filter(|node| Self::group(node, name).is_some());
        let states: Vec<Same> = states.map(|node| self.same(node, name)).collect();
        let has = |same| states.contains(&same);
        Group {
            name: name.to_owned(),
            leader: newest.map(|group| self.name(group.leader_id)).unwrap_or_default(),
            term: newest.map_or(0, |group| group.term),
            voters: newest.map_or(0, |group| group.voters.len()),
            learners: newest.map_or(0, |group| group.learners.len()),
            lag: self.nodes.iter().filter_map(|node| self.lag(node, name)).max().unwrap_or(0),
            same: match (has(Same::Different), has(Same::Equal)) {
                (true, _) => Same::Different,
                (false, true) => Same::Equal,
                (false, false) => Same::Alone,
            },
        }
    }

    /// The name of a node; empty for none.
    #[must_use]
    pub fn name(&self, id: u64) -> String {
        match self.node(id).and_then(|status| status.node.as_ref()) {
            Some(node) => node.name.clone(),
            None if id == 0 => String::new(),
            None => format!("node {id}"),
        }
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: u64) -> Option<&NodeStatus> {
        self.nodes.iter().find(|status| id_of(status) == id)
    }

    /// Whether a node leads the cluster's group, as the newest term knows.
    #[must_use]
    pub fn leads(&self, node: &NodeStatus) -> bool {
        let newest = self.all(CLUSTER).max_by_key(|group| (group.term, group.leader_id != 0));
        newest.is_some_and(|group| group.leader_id != 0 && group.leader_id == id_of(node))
    }

    /// The votes of the cluster's group.
    #[must_use]
    pub fn votes(&self) -> Votes {
        let voters = self.nodes.iter().filter(|node| is_voter(node));
        voters.fold(Votes::default(), |votes, node| Votes {
            all: votes.all + 1,
            answering: votes.answering + usize::from(node.reachable),
        })
    }

    /// Nodes that run another version than most.
    #[must_use]
    pub fn odd_version(&self, node: &NodeStatus) -> bool {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for version in self.nodes.iter().map(|node| node.version.as_str()) {
            *counts.entry(version).or_default() += usize::from(!version.is_empty());
        }
        let most = counts.values().copied().max().unwrap_or(0);
        !node.version.is_empty() && counts.get(node.version.as_str()) < Some(&most)
    }
}

fn id_of(status: &NodeStatus) -> u64 {
    status.node.as_ref().map_or(0, |node| node.id)
}

/// Whether a node votes in the cluster's group.
#[must_use]
pub fn is_voter(status: &NodeStatus) -> bool {
    status.node.as_ref().is_some_and(|node| node.role == "voter")
}

/// How many vote, and how many of them answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Votes {
    /// Voters.
    pub all: usize,
    /// Voters that answer.
    pub answering: usize,
}

impl Votes {
    /// How many a decision needs.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.all / 2 + 1
    }

    /// Whether decisions are made.
    #[must_use]
    pub fn decides(&self) -> bool {
        self.answering >= self.quorum()
    }

    /// How many voters may fail at once while all others answer.
    #[must_use]
    pub fn may_fail(&self) -> usize {
        self.all.saturating_sub(self.quorum())
    }

    /// What these votes mean, in words, where they are what remains.
    #[must_use]
    pub fn remaining(&self) -> String {
        match self.all {
            0 => "No voter remains: nothing can be decided any more.".to_owned(),
            1 => "One voter remains and decides alone: it may not fail.".to_owned(),
            all => format!("{all} voters remain; {}", self.decision()),
        }
    }

    /// The same, after words such as "There are then".
    #[must_use]
    pub fn words(&self, begin: &str) -> String {
        format!("{begin} {}; {}", words::several(self.all as u64, "voter"), self.decision())
    }

    fn decision(&self) -> String {
        let fails = match self.may_fail() {
            0 => "none of them may fail".to_owned(),
            1 => "one of them may fail".to_owned(),
            more => format!("{more} of them may fail"),
        };
        format!("a decision needs {}, so {fails}.", self.quorum())
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::cluster::v1::Node;

    use super::*;

    fn node(id: u64, role: &str, reachable: bool, groups: &[(&str, u64, &str)]) -> NodeStatus {
        let group = |(name, applied, hash): &(&str, u64, &str)| GroupStatus {
            group: (*name).to_owned(),
            leader_id: 1,
            term: 3,
            last_log_index: *applied,
            applied_index: *applied,
            state_hash: (*hash).to_owned(),
            voters: vec![1, 2],
            ..GroupStatus::default()
        };
        NodeStatus {
            node: Some(Node { id, name: format!("n{id}"), role: role.into(), ..Node::default() }),
            reachable,
            groups: groups.iter().map(group).collect(),
            ..NodeStatus::default()
        }
    }

    #[test]
    fn votes_say_how_many_may_fail() {
        for (all, quorum, may_fail) in
            [(0, 1, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2), (7, 4, 3)]
        {
            let votes = Votes { all, answering: all };
            assert_eq!((votes.quorum(), votes.may_fail()), (quorum, may_fail), "{all}");
            assert_eq!(votes.decides(), all > 0);
        }
        assert!(!Votes { all: 3, answering: 1 }.decides());
        assert!(Votes { all: 2, answering: 2 }.remaining().contains("none of them may fail"));
    }

    #[test]
    fn states_are_compared_at_one_index_alone() {
        let check = |states: &[(u64, &str)], expected: &[Same]| {
            let nodes = (1..).zip(states).map(|(id, (applied, hash))| {
                node(id, "voter", true, &[("cluster", *applied, hash)])
            });
            let members = Members { nodes: nodes.collect(), seen: true };
            let found: Vec<_> =
                members.nodes.iter().map(|node| members.same(node, "cluster")).collect();
            assert_eq!(found, expected, "{states:?}");
        };
        use Same::{Alone, Different, Equal};
        check(&[(7, "a"), (7, "a"), (7, "a")], &[Equal, Equal, Equal]);
        check(&[(7, "a"), (7, "b"), (6, "c")], &[Different, Different, Alone]);
        check(&[(7, "a"), (8, "a")], &[Alone, Alone]);
        check(&[(7, ""), (7, "a")], &[Alone, Alone]);
        check(&[(7, "a"), (7, "a"), (7, "b")], &[Different, Different, Different]);
        check(&[(7, "a")], &[Alone]);
    }

    #[test]
    fn groups_are_told_by_what_all_nodes_know() {
        let nodes = vec![
            node(1, "voter", true, &[("cluster", 9, "a"), ("sales", 5, "x")]),
            node(2, "voter", true, &[("sales", 3, "y"), ("cluster", 9, "a")]),
            node(3, "learner", false, &[]),
        ];
        let members = Members { nodes, seen: true };
        let groups = members.groups();
        let told: Vec<_> =
            groups.iter().map(|it| (&*it.name, &*it.leader, it.term, it.lag, it.same)).collect();
        assert_eq!(
            told,
            [("cluster", "n1", 3, 0, Same::Equal), ("sales", "n1", 3, 2, Same::Alone)]
        );
        assert!(members.leads(&members.nodes[0]) && !members.leads(&members.nodes[1]));
        assert_eq!(members.votes(), Votes { all: 2, answering: 2 });
        assert_eq!(
            (members.name(3), members.name(9), members.name(0)),
            ("n3".into(), "node 9".into(), String::new())
        );
    }
}
