//! The cluster: its nodes and groups, and changes of its membership with what they mean.

use askama::Template;
use axum::{Form, extract::Query};
use rookery_proto::cluster::v1::{
    CreateJoinTokenRequest, DemoteNodeRequest, GetStatusRequest, GetTopologyRequest, GroupStatus,
    JoinToken, ListJoinTokensRequest, NodeStatus, PromoteNodeRequest, RemoveNodeRequest,
    RevokeJoinTokenRequest, TransferLeaderRequest,
};
use serde::Deserialize;

use super::{
    answer::{self, Answer, Refused},
    visit::{Frame, Visit},
    words,
};

/// The name of the group that spans all nodes.
const CLUSTER: &str = "cluster";

#[derive(Template)]
#[template(path = "cluster/show.html")]
struct Page {
    frame: Frame,
    cluster_id: String,
    nodes: Vec<NodeStatus>,
    tokens: Vec<JoinToken>,
}

impl Page {
    fn group<'a>(&self, node: &'a NodeStatus) -> Option<&'a GroupStatus> {
        node.groups.iter().find(|group| group.group == CLUSTER)
    }

    fn newest(&self) -> u64 {
        self.nodes
            .iter()
            .filter_map(|node| self.group(node))
            .map(|group| group.last_log_index)
            .max()
            .unwrap_or(0)
    }

    fn lag(&self, node: &NodeStatus) -> String {
        self.group(node).map_or_else(
            || words::NONE.to_owned(),
            |group| words::count(self.newest().saturating_sub(group.applied_index)),
        )
    }

    fn leads(&self, node: &NodeStatus) -> bool {
        let id = node.node.as_ref().map_or(0, |node| node.id);
        self.group(node).is_some_and(|group| group.leader_id == id)
    }

    fn term(&self, node: &NodeStatus) -> String {
        self.group(node).map_or_else(|| words::NONE.to_owned(), |group| group.term.to_string())
    }

    fn hash(&self, node: &NodeStatus) -> String {
        self.group(node).map_or_else(
            || words::NONE.to_owned(),
            |group| words::short(&group.state_hash).to_owned(),
        )
    }

    /// Voters that answer, and voters that a decision needs.
    fn quorum(&self) -> (usize, usize) {
        let voters = self
            .nodes
            .iter()
            .filter(|node| node.node.as_ref().is_some_and(|it| it.role == "voter"));
        let (answering, all) =
            voters.fold((0, 0), |(up, all), node| (up + usize::from(node.reachable), all + 1));
        (answering, all / 2 + 1)
    }

    fn certificate(&self, node: &NodeStatus) -> String {
        words::relative(node.certificate_not_after_unix_ms, self.frame.now())
    }

    fn date(&self, unix_ms: &i64) -> String {
        words::date(*unix_ms)
    }

    fn relative(&self, unix_ms: &i64) -> String {
        words::relative(*unix_ms, self.frame.now())
    }
}

/// `GET /studio/cluster`.
pub async fn page(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let (cluster_id, nodes) = match frame.may("view-cluster-status") {
        true => {
            let asked = GetStatusRequest { local_only: false };
            let status = calls.cluster().get_status(asked).await.map_err(&refused)?.into_inner();
            (status.cluster_id, status.nodes)
        }
        false => {
            let topology = calls
                .cluster()
                .get_topology(GetTopologyRequest {})
                .await
                .map_err(&refused)?
                .into_inner();
            let known = topology.nodes.into_iter();
            let nodes = known.map(|node| NodeStatus {
                node: Some(node),
                reachable: true,
                ..NodeStatus::default()
            });
            (topology.cluster_id, nodes.collect())
        }
    };
    let tokens = match frame.may("list-join-tokens") {
        true => {
            calls
                .cluster()
                .list_join_tokens(ListJoinTokensRequest {})
                .await
                .map_err(&refused)?
                .into_inner()
                .tokens
        }
        false => Vec::new(),
    };
    drop(refused);
    Ok(answer::page(&Page { frame, cluster_id, nodes, tokens }))
}

#[derive(Template)]
#[template(path = "cluster/token.html")]
struct TokenPage {
    frame: Frame,
    token: String,
    expires: String,
}

/// How long a token holds.
#[derive(Debug, Deserialize)]
pub struct NewToken {
    minutes: u64,
}

/// `POST /studio/cluster/token`: a join token, shown once.
pub async fn create_token(visit: Visit, Form(form): Form<NewToken>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = CreateJoinTokenRequest {
        lifetime_seconds: form.minutes.saturating_mul(60),
        request_id: String::new(),
    };
    let made =
        calls.cluster().create_join_token(asked).await.map_err(Refused::on(&frame))?.into_inner();
    Ok(answer::page(&TokenPage {
        expires: words::date(made.expires_unix_ms),
        token: made.token,
        frame,
    }))
}

/// Which token.
#[derive(Debug, Deserialize)]
pub struct WhichToken {
    id: String,
}

/// `POST /studio/cluster/token/revoke`.
pub async fn revoke_token(visit: Visit, Form(which): Form<WhichToken>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = RevokeJoinTokenRequest { id: which.id, request_id: String::new() };
    calls.cluster().revoke_join_token(asked).await.map_err(Refused::on(&frame))?;
    Ok(answer::see("/studio/cluster"))
}

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
    fn title(self) -> &'static str {
        match self {
            Self::Promote => "Promote",
            Self::Demote => "Demote",
            Self::Transfer => "Hand the leadership to",
            Self::Remove => "Remove",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Transfer => "transfer",
            Self::Remove => "remove",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Promote => "promote-node",
            Self::Demote => "demote-node",
            Self::Transfer => "transfer-leader",
            Self::Remove => "remove-node",
        }
    }

    fn consequence(self) -> &'static str {
        match self {
            Self::Promote => {
                "It votes from then on and counts for the majority. Promote it when it has caught up."
            }
            Self::Demote => {
                "It goes on receiving everything and serving calls, but no longer votes: a smaller majority decides, and fewer nodes may fail."
            }
            Self::Transfer => {
                "Calls wait for some tens of milliseconds while the leadership moves; nothing is lost."
            }
            Self::Remove => {
                "Its certificate is revoked and its connections are closed at once. It cannot come back under its number: it has to join anew with an empty data folder. Databases of which it holds a replica have one replica less."
            }
        }
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
    action: Action,
}

/// `GET /studio/cluster/node?node=&action=`: what it would mean.
pub async fn change_form(visit: Visit, Query(change): Query<Change>) -> Answer {
    let Visit { calls, frame } = visit;
    let topology = calls
        .cluster()
        .get_topology(GetTopologyRequest {})
        .await
        .map_err(Refused::on(&frame))?
        .into_inner();
    let named =
        topology.nodes.into_iter().find(|node| node.id == change.node).map(|node| node.name);
    let name = named.unwrap_or_else(|| format!("node {}", change.node));
    Ok(answer::page(&ChangePage { frame, node: change.node, name, action: change.action }))
}

/// `POST /studio/cluster/node`.
pub async fn change(visit: Visit, Form(change): Form<Change>) -> Answer {
    let Visit { calls, frame } = visit;
    let (node_id, request_id) = (change.node, String::new());
    let mut cluster = calls.cluster();
    let done = match change.action {
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
    };
    done.map_err(Refused::on(&frame))?;
    Ok(answer::see("/studio/cluster"))
}

/// Actions of a row: field, operation, words.
const ACTIONS: [(&str, &str, &str); 4] = [
    ("promote", "promote-node", "Promote"),
    ("demote", "demote-node", "Demote"),
    ("transfer", "transfer-leader", "Make leader"),
    ("remove", "remove-node", "Remove"),
];
