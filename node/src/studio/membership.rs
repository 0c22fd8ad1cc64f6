//! Changes of the membership, each with what it would mean: how many vote then, how many may fail, which databases lose a
//! replica. The contract decides; what it refuses is told on the same page.

use askama::Template;
use axum::{extract::Query, http::StatusCode};
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
    outcome::Wrong,
    posted::Posted,
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

    /// Why it makes no sense for a node as it is; empty where it does.
    fn why_idle(self, node: &NodeStatus, members: &Members, name: &str) -> String {
        if self.fits(node, members) {
            return String::new();
        }
        let is = match self {
            Self::Promote => "is a voter already",
            Self::Demote => "is a learner already",
            Self::Transfer if members.leads(node) => "leads the cluster already",
            Self::Transfer => "is a learner, and only a voter can lead",
            Self::Remove => "is gone already",
        };
        format!("There is nothing to do: {name} {is}.")
    }

    /// The page that tells what it would mean.
    #[must_use]
    pub fn path(self, node: &u64) -> String {
        format!("/studio/cluster/node?node={node}&action={}", self.field())
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
                "Only {} of the {} voters that there are then answer now: the cluster would stand still.",
                then.answering, then.all
            ));
        }
        if members.leads(node) && self != Self::Transfer {
            told.push("It leads the cluster at this moment; another voter takes over first, and calls wait for it.".to_owned());
        }
        match self {
            Self::Promote => {
                told.push("It votes from then on, as soon as it has caught up.".to_owned());
                told.push(then.words("There are then"));
                if then.all.is_multiple_of(2) && then.may_fail() == votes.may_fail() {
                    told.push("With an even number of voters no more of them may fail than with one fewer.".to_owned());
                }
            }
            Self::Demote => {
                told.push("It goes on receiving everything and serving calls, but no longer votes.".to_owned());
                told.push(then.remaining());
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
                told.push(then.remaining());
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

impl ChangePage {
    fn button(&self) -> String {
        format!("{}: {}", self.action.words(), self.name)
    }
}

const NO_NODE: &str = "There is no node of this number, or not any more.";

/// A change of a node.
#[derive(Debug, Deserialize)]
pub struct Change {
    node: u64,
    action: Action,
    #[serde(default)]
    request_id: String,
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
    wrong: Option<Wrong>,
    /// Why the button is disabled; empty: it is not.
    why_not: String,
    request_id: String,
}

/// `GET /studio/cluster/node?node=&action=`: what it would mean.
pub async fn form(visit: Visit, Query(change): Query<Change>) -> Answer {
    let Visit { calls, frame } = visit;
    let (_, members) = members(&calls, &frame).await.map_err(Refused::on(&frame))?;
    Ok(match shown(&frame, &members, &change, None) {
        Some(page) => answer::page(&page),
        None => answer::in_frame(&frame, StatusCode::NOT_FOUND, "Not found", NO_NODE),
    })
}

/// The page about a change; `None`: there is no such node.
fn shown(
    frame: &Frame,
    members: &Members,
    change: &Change,
    wrong: Option<Wrong>,
) -> Option<ChangePage> {
    let (action, node) = (change.action, members.node(change.node)?);
    let name = members.name(change.node);
    let idle = action.why_idle(node, members, &name);
    let sent = |wrong: &Wrong| wrong.request_id(frame, &change.request_id);
    Some(ChangePage {
        node: change.node,
        title: action.title(&name),
        consequences: match idle.as_str() {
            "" => action.consequences(node, members),
            _ => vec![idle.clone()],
        },
        why_not: match frame.why_not(action.operation()) {
            "" => idle,
            rule => rule.to_owned(),
        },
        request_id: wrong.as_ref().map_or_else(|| frame.request_id(), sent),
        frame: frame.clone(),
        action,
        wrong,
        name,
    })
}

/// `POST /studio/cluster/node`.
pub async fn submit(visit: Visit, Posted(change): Posted<Change>) -> Answer {
    let Visit { calls, frame } = visit;
    let Err(status) = done(&calls, &change).await else {
        return Ok(answer::see("/studio/cluster"));
    };
    // Only a removal is done once under its id; the others are done again, whatever happened meanwhile.
    let once = if change.action == Action::Remove { change.request_id.as_str() } else { "" };
    let wrong = Wrong::of(&frame, &status, once);
    // Where there is no page to be had, what came of the change is not to be lost.
    let page = match members(&calls, &frame).await {
        Ok((_, members)) => shown(&frame, &members, &change, Some(wrong.clone())),
        Err(_) => None,
    };
    match page {
        Some(page) => Ok(answer::page_with(answer::as_http(status.code()).0, &page)),
        None => Err(Refused::told(&frame, &status, wrong)),
    }
}

async fn done(calls: &Calls, change: &Change) -> Result<(), Status> {
    let (node_id, request_id) = (change.node, change.request_id.clone());
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
            &["There are then 4 voters;", "needs 3", "one of them", "even number"],
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
        check(
            &one_down,
            Action::Demote,
            1,
            &["stand still", "Only 1 of the 2 voters that there are then"],
        );
        check(&[("voter", true)], Action::Remove, 0, &["No voter remains", "stand still"]);
    }

    #[test]
    fn what_is_so_already_is_said_and_not_offered() {
        let members = cluster(&[("voter", true), ("voter", true), ("learner", true)]);
        for (action, node, idle) in [
            (Action::Promote, 0, "n1 is a voter already"),
            (Action::Demote, 2, "n3 is a learner already"),
            (Action::Transfer, 0, "n1 leads the cluster already"),
            (Action::Transfer, 2, "n3 is a learner, and only a voter can lead"),
            (Action::Promote, 2, ""),
            (Action::Demote, 0, ""),
            (Action::Transfer, 1, ""),
            (Action::Remove, 0, ""),
        ] {
            let name = members.name(node as u64 + 1);
            let why = action.why_idle(&members.nodes[node], &members, &name);
            assert_eq!(why.is_empty(), idle.is_empty(), "{action:?} of {name}: {why}");
            assert!(why.contains(idle), "{action:?} of {name}: {why}");
        }
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
