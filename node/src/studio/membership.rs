//! Changes of the membership, each with what it would mean: how many vote then, how many may fail, which databases lose a
//! replica. The contract decides; what it refuses is told on the same page.

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode};
use rookery_proto::cluster::v1::{
    DemoteNodeRequest, NodeStatus, PromoteNodeRequest, RemoveNodeRequest, TransferLeaderRequest,
};
use serde::Deserialize;
use tonic::Status;

use super::{
    answer::{self, Answer, Refused},
    cluster::members,
    contract::Calls,
    members::{CLUSTER, Members, Votes, is_voter},
    visit::{Frame, Visit},
};

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Make a learner a voter.
    Promote,
    /// Make a voter a learner.
    Demote,
    /// Hand it the leadership of the cluster group.
    Transfer,
    /// Take it out of the cluster.
    Remove,
}

impl Action {
    /// In the order of a row.
    pub const ALL: [Self; 4] = [Self::Promote, Self::Demote, Self::Transfer, Self::Remove];

    /// As a button has it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Promote => "Promote",
            Self::Demote => "Demote",
            Self::Transfer => "Make leader",
            Self::Remove => "Remove",
        }
    }

    fn title(self, name: &str) -> String {
        match self {
            Self::Promote => format!("Promote {name} to a voter"),
            Self::Demote => format!("Demote {name} to a learner"),
            Self::Transfer => format!("Hand the leadership to {name}"),
            Self::Remove => format!("Remove {name} from the cluster"),
        }
    }

    /// As addresses and forms name it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Transfer => "transfer",
            Self::Remove => "remove",
        }
    }

    /// The operation that it is.
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Promote => "promote-node",
            Self::Demote => "demote-node",
            Self::Transfer => "transfer-leader",
            Self::Remove => "remove-node",
        }
    }

    /// Whether it makes sense for a node as it is: nobody promotes a voter.
    #[must_use]
    pub fn fits(self, node: &NodeStatus, members: &Members) -> bool {
        match self {
            Self::Promote => !is_voter(node),
            Self::Demote => is_voter(node),
            Self::Transfer => is_voter(node) && !members.leads(node),
            Self::Remove => true,
        }
    }

    /// The votes when it is done.
    fn votes_then(self, node: &NodeStatus, votes: Votes) -> Votes {
        let (one, up) = (usize::from(is_voter(node)), usize::from(node.reachable));
        match self {
            Self::Promote => {
                Votes { all: votes.all + 1 - one, answering: votes.answering + (1 - one) * up }
            }
            Self::Demote | Self::Remove => Votes {
                all: votes.all.saturating_sub(one),
                answering: votes.answering.saturating_sub(one * up),
            },
            Self::Transfer => votes,
        }
    }

    /// What it means, in sentences; the first that warn.
    fn consequences(self, node: &NodeStatus, members: &Members) -> Vec<String> {
        let votes = members.votes();
        let then = self.votes_then(node, votes);
        let mut told = Vec::new();
        if votes.decides() && !then.decides() {
            told.push(format!(
                "Only {} of the {} voters that remain answer now: the cluster would stand still.",
                then.answering, then.all
            ));
        }
        if members.leads(node) && self != Self::Transfer {
            told.push("It leads the cluster at this moment; another voter takes over first, and calls wait for it.".to_owned());
        }
        match self {
            Self::Promote => {
                told.push("It votes from then on, as soon as it has caught up.".to_owned());
                told.push(then.words());
                if then.all.is_multiple_of(2) && then.may_fail() == votes.may_fail() {
                    told.push("With an even number of voters no more of them may fail than with one fewer.".to_owned());
                }
            }
            Self::Demote => {
                told.push("It goes on receiving everything and serving calls, but no longer votes.".to_owned());
                told.push(then.words());
            }
            Self::Transfer => told.push(
                "Calls wait for some tens of milliseconds while the leadership moves; nothing is lost, and who votes stays \
                 as it is."
                    .to_owned(),
            ),
            Self::Remove => {
                told.push(
                    "Its certificate is revoked and its connections end at once. It cannot come back under its number: it \
                     joins anew, with an empty data folder and a new token."
                        .to_owned(),
                );
                told.push(then.words());
                told.push(replicas(node, members));
            }
        }
        told
    }
}

/// Which databases lose a replica with a node.
fn replicas(node: &NodeStatus, members: &Members) -> String {
    let id = node.node.as_ref().map_or(0, |node| node.id);
    let mut lost: Vec<&str> = members
        .nodes
        .iter()
        .flat_map(|status| &status.groups)
        .filter(|group| group.group != CLUSTER)
        .filter(|group| group.voters.contains(&id) || group.learners.contains(&id))
        .map(|group| group.group.as_str())
        .collect();
    lost.sort_unstable();
    lost.dedup();
    match lost.as_slice() {
        [] if members.seen => "No database that a node tells of has a replica on it.".to_owned(),
        [] => "Databases with a replica on it have one fewer then.".to_owned(),
        [one] => format!("The database {one} has one replica fewer then."),
        many => format!("These databases have one replica fewer then: {}.", many.join(", ")),
    }
}

/// A change of a node.
#[derive(Debug, Deserialize)]
pub struct Change {
    node: u64,
    action: Action,
}

#[derive(Template)]
#[template(path = "cluster/change.html")]
struct ChangePage {
    frame: Frame,
    node: u64,
    name: String,
    title: String,
    action: Action,
    consequences: Vec<String>,
    wrong: Option<(String, String)>,
}

/// `GET /studio/cluster/node?node=&action=`: what it would mean.
pub async fn form(visit: Visit, Query(change): Query<Change>) -> Answer {
    let Visit { calls, frame } = visit;
    shown(&calls, frame, &change, None).await
}

async fn shown(calls: &Calls, frame: Frame, change: &Change, wrong: Option<&Status>) -> Answer {
    let (_, members) = members(calls, &frame).await.map_err(Refused::on(&frame))?;
    let Some(node) = members.node(change.node) else {
        let why = "There is no node of this number, or not any more.";
        return Ok(answer::in_frame(&frame, StatusCode::NOT_FOUND, "Not found", why));
    };
    let name = members.name(change.node);
    let page = ChangePage {
        node: change.node,
        title: change.action.title(&name),
        consequences: change.action.consequences(node, &members),
        action: change.action,
        wrong: wrong.map(|status| (answer::field(status).1, answer::reason(status))),
        name,
        frame,
    };
    let code = wrong.map_or(StatusCode::OK, |status| answer::as_http(status.code()).0);
    Ok(answer::page_with(code, &page))
}

/// `POST /studio/cluster/node`.
pub async fn submit(visit: Visit, Form(change): Form<Change>) -> Answer {
    let Visit { calls, frame } = visit;
    match done(&calls, &change).await {
        Ok(()) => Ok(answer::see("/studio/cluster")),
        Err(status) => shown(&calls, frame, &change, Some(&status)).await,
    }
}

async fn done(calls: &Calls, change: &Change) -> Result<(), Status> {
    let (node_id, request_id) = (change.node, String::new());
    let mut cluster = calls.cluster();
    match change.action {
        Action::Promote => {
            cluster.promote_node(PromoteNodeRequest { node_id, request_id }).await.map(drop)
        }
        Action::Demote => {
            cluster.demote_node(DemoteNodeRequest { node_id, request_id }).await.map(drop)
        }
        Action::Remove => {
            cluster.remove_node(RemoveNodeRequest { node_id, request_id }).await.map(drop)
        }
        Action::Transfer => {
            let asked = TransferLeaderRequest { group: CLUSTER.to_owned(), node_id };
            cluster.transfer_leader(asked).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::cluster::v1::{GroupStatus, Node};

    use super::*;

    fn cluster(roles: &[(&str, bool)]) -> Members {
        let nodes = (1..).zip(roles).map(|(id, (role, reachable))| NodeStatus {
            node: Some(Node {
                id,
                name: format!("n{id}"),
                role: (*role).into(),
                ..Node::default()
            }),
            reachable: *reachable,
            groups: vec![
                GroupStatus { group: CLUSTER.into(), leader_id: 1, term: 1, ..Default::default() },
                GroupStatus { group: "sales".into(), voters: vec![1, 2], ..Default::default() },
            ],
            ..NodeStatus::default()
        });
        Members { nodes: nodes.collect(), seen: true }
    }

    #[test]
    fn every_change_says_what_it_would_mean() {
        let three = [("voter", true), ("voter", true), ("voter", true), ("learner", true)];
        let one_down = [("voter", true), ("voter", true), ("voter", false)];
        let check = |roles: &[(&str, bool)], action: Action, node: usize, expected: &[&str]| {
            let members = cluster(roles);
            let told = action.consequences(&members.nodes[node], &members).join(" ");
            for part in expected {
                assert!(told.contains(part), "{action:?} of n{}: no {part:?} in {told}", node + 1);
            }
            let stands_still = told.contains("stand still");
            assert_eq!(stands_still, expected.contains(&"stand still"), "{told}");
        };
        check(
            &three,
            Action::Promote,
            3,
            &["4 voters remain", "needs 3", "one of them", "even number"],
        );
        check(&three, Action::Demote, 1, &["2 voters remain", "none of them may fail"]);
        check(
            &three,
            Action::Remove,
            0,
            &["leads the cluster", "2 voters", "sales has one replica"],
        );
        check(&three, Action::Remove, 3, &["3 voters", "No database"]);
        check(&three, Action::Transfer, 1, &["nothing is lost"]);
        check(&one_down, Action::Remove, 2, &["2 voters remain"]);
        check(&one_down, Action::Demote, 1, &["stand still", "Only 1 of the 2 voters"]);
        check(&[("voter", true)], Action::Remove, 0, &["No voter remains", "stand still"]);
    }

    #[test]
    fn only_what_makes_sense_is_offered() {
        let members = cluster(&[("voter", true), ("voter", true), ("learner", true)]);
        let offered = |node: usize| -> Vec<&str> {
            let fits = |action: &Action| action.fits(&members.nodes[node], &members);
            Action::ALL.into_iter().filter(fits).map(Action::field).collect()
        };
        assert_eq!(offered(0), ["demote", "remove"]);
        assert_eq!(offered(1), ["demote", "transfer", "remove"]);
        assert_eq!(offered(2), ["promote", "remove"]);
    }
}
