//! The cluster: its nodes and groups as every node sees them, and the tokens that let a node in.

use askama::Template;
use axum::Form;
use rookery_proto::cluster::v1::{
    CreateJoinTokenRequest, GetStatusRequest, GetTopologyRequest, JoinToken, ListJoinTokensRequest,
    NodeStatus, RevokeJoinTokenRequest,
};
use serde::Deserialize;
use tonic::Status;

use super::{
    answer::{self, Answer, Refused},
    contract::Calls,
    members::{CLUSTER, Members, Same},
    visit::{Frame, Visit},
    words,
};

/// Days of a certificate below which the page warns.
const DAYS_LEFT_WARN: i64 = 30;

const DAY_MS: i64 = 24 * 3600 * 1000;

#[derive(Template)]
#[template(path = "cluster/show.html")]
struct Page {
    frame: Frame,
    cluster_id: String,
    members: Members,
    tokens: Vec<JoinToken>,
}

impl Page {
    fn applied(&self, node: &NodeStatus) -> String {
        Members::group(node, CLUSTER)
            .map_or_else(|| words::NONE.to_owned(), |group| words::count(group.applied_index))
    }

    fn lag(&self, node: &NodeStatus) -> String {
        self.members.lag(node, CLUSTER).map_or_else(|| words::NONE.to_owned(), words::count)
    }

    fn hash(&self, node: &NodeStatus) -> String {
        Members::group(node, CLUSTER).map_or_else(
            || words::NONE.to_owned(),
            |group| words::short(&group.state_hash).to_owned(),
        )
    }

    /// What the hash of a node's state says beside those of the others: words, and the class of its tag.
    fn same(&self, node: &NodeStatus) -> (&'static str, &'static str) {
        match self.members.same(node, CLUSTER) {
            Same::Equal => ("equal", "good"),
            Same::Different => ("differs", "bad"),
            Same::Alone => ("", ""),
        }
    }

    fn certificate(&self, node: &NodeStatus) -> String {
        words::relative(node.certificate_not_after_unix_ms, self.frame.now())
    }

    fn ends_soon(&self, node: &NodeStatus) -> bool {
        let left = node.certificate_not_after_unix_ms.saturating_sub(self.frame.now());
        node.certificate_not_after_unix_ms != 0 && left < DAYS_LEFT_WARN * DAY_MS
    }

    fn free(&self, node: &NodeStatus) -> String {
        words::bytes(node.disk_free_bytes)
    }

    fn short<'a>(&self, thumbprint: &'a str) -> &'a str {
        words::short(thumbprint)
    }

    fn date(&self, unix_ms: &i64) -> String {
        words::date(*unix_ms)
    }

    fn relative(&self, unix_ms: &i64) -> String {
        words::relative(*unix_ms, self.frame.now())
    }
}

/// All nodes as the visitor may see them: with their groups from Operator on, names and addresses alone below.
pub(super) async fn members(calls: &Calls, frame: &Frame) -> Result<(String, Members), Status> {
    let mut cluster = calls.cluster();
    if frame.may("view-cluster-status") {
        let asked = GetStatusRequest { local_only: false };
        let status = cluster.get_status(asked).await?.into_inner();
        return Ok((status.cluster_id, Members { nodes: status.nodes, seen: true }));
    }
    let topology = cluster.get_topology(GetTopologyRequest {}).await?.into_inner();
    let known = topology.nodes.into_iter();
    let nodes =
        known.map(|node| NodeStatus { node: Some(node), reachable: true, ..NodeStatus::default() });
    Ok((topology.cluster_id, Members { nodes: nodes.collect(), seen: false }))
}

/// `GET /studio/cluster`.
pub async fn page(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let (cluster_id, members) = members(&calls, &frame).await.map_err(&refused)?;
    let tokens = match frame.may("list-join-tokens") {
        true => {
            let asked = ListJoinTokensRequest {};
            calls.cluster().list_join_tokens(asked).await.map_err(&refused)?.into_inner().tokens
        }
        false => Vec::new(),
    };
    drop(refused);
    Ok(answer::page(&Page { frame, cluster_id, members, tokens }))
}

#[derive(Template)]
#[template(path = "cluster/token.html")]
struct TokenPage {
    frame: Frame,
    token: String,
    expires: String,
    /// Where the new node reaches this one.
    address: String,
}

/// How long a token holds.
#[derive(Debug, Deserialize)]
pub struct NewToken {
    minutes: u64,
}

/// `POST /studio/cluster/token`: a join token, shown once.
pub async fn create_token(visit: Visit, Form(form): Form<NewToken>) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let topology = calls.cluster().get_topology(GetTopologyRequest {}).await.map_err(&refused)?;
    let topology = topology.into_inner();
    let here = topology.nodes.into_iter().find(|node| node.id == topology.answering_node_id);
    let asked = CreateJoinTokenRequest {
        lifetime_seconds: form.minutes.saturating_mul(60),
        request_id: String::new(),
    };
    let made = calls.cluster().create_join_token(asked).await.map_err(&refused)?.into_inner();
    drop(refused);
    Ok(answer::page(&TokenPage {
        expires: words::date(made.expires_unix_ms),
        token: made.token,
        address: here.map(|node| node.client_address).unwrap_or_default(),
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
