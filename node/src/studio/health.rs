//! What is wrong with a cluster, or soon will be, as its overview says it: pure, from what the nodes tell.

use std::collections::BTreeMap;

use rookery_proto::cluster::v1::{GroupStatus, NodeStatus};

use super::words;

/// A node certificate with less is worth a word.
const CERTIFICATE_MS: i64 = 30 * 86_400_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Calls fail, or soon will.
    Bad,
    /// Nothing fails yet.
    Warn,
}

impl Grade {
    /// The class of its note.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warn => "warn",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How bad.
    pub grade: Grade,
    /// What, in a sentence.
    pub words: String,
}

/// Voters of the cluster group: those that answer, all, and how many a decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Those that answer.
    pub answering: usize,
    /// All.
    pub voters: usize,
    /// A majority.
    pub needed: usize,
}

impl Quorum {
    /// As the nodes tell.
    #[must_use]
    pub fn of(nodes: &[NodeStatus]) -> Self {
        let is_voter =
            |status: &&NodeStatus| status.node.as_ref().is_some_and(|node| node.role == "voter");
        let voters = nodes.iter().filter(is_voter).count();
        let answering = nodes.iter().filter(is_voter).filter(|status| status.reachable).count();
        Self { answering, voters, needed: voters / 2 + 1 }
    }

    fn trouble(self) -> Option<Trouble> {
        let Self { answering, voters, needed } = self;
        if voters == 0 || answering == voters {
            return None;
        }
        Some(match answering.cmp(&needed) {
            std::cmp::Ordering::Less => bad(format!(
                "No quorum: {answering} of {voters} voters answer and a decision needs {needed}. Nothing can be \
                 written until more of them come back."
            )),
            std::cmp::Ordering::Equal => warn(format!(
                "The quorum hangs by a thread: {answering} of {voters} voters answer and a decision needs all of these."
            )),
            std::cmp::Ordering::Greater => {
                warn(format!("{answering} of {voters} voters answer; a decision needs {needed}."))
            }
        })
    }
}

fn bad(words: String) -> Trouble {
    Trouble { grade: Grade::Bad, words }
}

fn warn(words: String) -> Trouble {
    Trouble { grade: Grade::Warn, words }
}

/// Everything that is wrong, the worst first.
#[must_use]
pub fn troubles(nodes: &[NodeStatus], now: i64) -> Vec<Trouble> {
    let mut all: Vec<Trouble> = Quorum::of(nodes).trouble().into_iter().collect();
    all.extend(nodes.iter().flat_map(|status| of_node(status, now)));
    all.extend(of_groups(nodes));
    all.sort_by_key(|trouble| trouble.grade);
    all
}

fn of_node(status: &NodeStatus, now: i64) -> Vec<Trouble> {
    let name = status.node.as_ref().map_or("", |node| &node.name);
    if !status.reachable {
        return vec![bad(format!("The node {name} does not answer."))];
    }
    let mut all = Vec::new();
    if !status.authorization_fresh {
        all.push(bad(format!(
            "The node {name} cannot confirm its registry of certificates, so it serves no calls."
        )));
    }
    if status.disk_full {
        all.push(bad(format!("The disk of the node {name} is full: it takes no writes.")));
    } else if !status.disk_reserve_held {
        all.push(warn(format!("The node {name} has given up its reserve of disk space.")));
    }
    let not_after = status.certificate_not_after_unix_ms;
    if not_after != 0 && not_after < now {
        all.push(bad(format!(
            "The certificate of the node {name} has expired: it turns clients away."
        )));
    } else if not_after != 0 && not_after.saturating_sub(now) < CERTIFICATE_MS {
        let when = words::relative(not_after, now);
        all.push(warn(format!("The certificate of the node {name} expires {when}.")));
    }
    let stopped = status.groups.iter().filter(|group| group.role == "stopped");
    all.extend(stopped.map(|group| {
        bad(format!(
            "{} has stopped on the node {name}; start that node anew.",
            called(&group.group)
        ))
    }));
    all
}

/// Groups that nobody leads, and groups whose states differ where they should not.
fn of_groups(nodes: &[NodeStatus]) -> Vec<Trouble> {
    let mut groups: BTreeMap<&str, Vec<&GroupStatus>> = BTreeMap::new();
    for group in nodes.iter().flat_map(|status| &status.groups) {
        groups.entry(&group.group).or_default().push(group);
    }
    let mut all = Vec::new();
    for (name, seen) in groups {
        if seen.iter().all(|group| group.leader_id == 0) {
            all.push(bad(format!("{} has no leader at the moment.", called(name))));
        }
        let mut hashes = BTreeMap::new();
        let differs = seen.iter().filter(|group| !group.state_hash.is_empty()).any(|group| {
            let first = hashes.entry(group.applied_index).or_insert(&group.state_hash);
            *first != &group.state_hash
        });
        if differs {
            all.push(bad(format!(
                "{} is not the same on all nodes: states at one index differ.",
                called(name)
            )));
        }
    }
    all
}

fn called(group: &str) -> String {
    match group {
        "cluster" => "The cluster group".to_owned(),
        name => format!("The database {name}"),
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::cluster::v1::Node;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const DAY: i64 = 86_400_000;

    fn node(name: &str, reachable: bool) -> NodeStatus {
        let node = Node { name: name.into(), role: "voter".into(), ..Node::default() };
        NodeStatus {
            node: Some(node),
            reachable,
            authorization_fresh: true,
            disk_reserve_held: true,
            certificate_not_after_unix_ms: NOW + 90 * DAY,
            ..NodeStatus::default()
        }
    }

    fn holding(status: NodeStatus, group: &str, leader_id: u64, hash: &str) -> NodeStatus {
        let group = GroupStatus {
            group: group.into(),
            leader_id,
            applied_index: 7,
            state_hash: hash.into(),
            ..GroupStatus::default()
        };
        NodeStatus { groups: vec![group], ..status }
    }

    fn check(nodes: &[NodeStatus], expected: &[(Grade, &str)]) {
        let told = troubles(nodes, NOW);
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (trouble, (grade, part)) in told.iter().zip(expected) {
            assert_eq!(trouble.grade, *grade, "{trouble:?}");
            assert!(trouble.words.contains(part), "{trouble:?} has no {part:?}");
        }
    }

    #[test]
    fn a_cluster_that_is_well_has_no_trouble() {
        check(&[], &[]);
        let well: Vec<_> =
            ["n1", "n2", "n3"].map(|name| holding(node(name, true), "sales", 2, "aa")).into();
        check(&well, &[]);
        let alone = [node("n1", true)];
        check(&alone, &[]);
        assert_eq!(Quorum::of(&alone), Quorum { answering: 1, voters: 1, needed: 1 });
    }

    #[test]
    fn nodes_that_are_silent_are_named_and_the_quorum_is_counted() {
        use Grade::{Bad, Warn};
        let nodes = |up: &[bool]| -> Vec<NodeStatus> {
            (1..).zip(up).map(|(at, up)| node(&format!("n{at}"), *up)).collect()
        };
        check(&nodes(&[true, true, false]), &[(Bad, "n3 does not answer"), (Warn, "by a thread")]);
        check(
            &nodes(&[true, false, false]),
            &[(Bad, "No quorum: 1 of 3"), (Bad, "n2 does not"), (Bad, "n3 does not")],
        );
        check(
            &nodes(&[true, true, true, true, false]),
            &[(Bad, "n5 does not answer"), (Warn, "4 of 5 voters answer; a decision needs 3")],
        );
    }

    #[test]
    fn every_trouble_of_a_node_is_told() {
        use Grade::{Bad, Warn};
        let well = || node("n1", true);
        for (status, grade, part) in [
            (NodeStatus { authorization_fresh: false, ..well() }, Bad, "cannot confirm"),
            (NodeStatus { disk_full: true, ..well() }, Bad, "is full"),
            (NodeStatus { disk_reserve_held: false, ..well() }, Warn, "reserve"),
            (NodeStatus { certificate_not_after_unix_ms: NOW - 1, ..well() }, Bad, "has expired"),
            (
                NodeStatus { certificate_not_after_unix_ms: NOW + 3 * DAY, ..well() },
                Warn,
                "expires in 3 days",
            ),
            (holding(well(), "sales", 0, "aa"), Bad, "sales has no leader"),
            (holding(well(), "cluster", 0, "aa"), Bad, "The cluster group has no leader"),
        ] {
            check(&[status], &[(grade, part)]);
        }
        let mut stopped = holding(well(), "sales", 1, "aa");
        stopped.groups[0].role = "stopped".into();
        check(&[stopped], &[(Bad, "sales has stopped on the node n1")]);
        let differ = [
            holding(node("n1", true), "sales", 1, "aa"),
            holding(node("n2", true), "sales", 1, "bb"),
        ];
        check(&differ, &[(Bad, "sales is not the same on all nodes")]);
    }
}
