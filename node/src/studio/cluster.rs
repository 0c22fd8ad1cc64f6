//! The cluster: its nodes and groups as every node sees them, and the tokens that let a node in.

use askama::Template;
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
    outcome::{Wrong, is_reused},
    posted::Posted,
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
    #[serde(default)]
    request_id: String,
}

/// `POST /studio/cluster/token`: a join token, shown once.
pub async fn create_token(visit: Visit, Posted(form): Posted<NewToken>) -> Answer {
    let Visit { calls, frame } = visit;
    let topology = calls.cluster().get_topology(GetTopologyRequest {}).await;
    let topology = topology.map_err(Refused::before_change(&frame))?.into_inner();
    let here = topology.nodes.into_iter().find(|node| node.id == topology.answering_node_id);
    let asked = CreateJoinTokenRequest {
        lifetime_seconds: form.minutes.saturating_mul(60),
        request_id: form.request_id.clone(),
    };
    let made = calls.cluster().create_join_token(asked).await;
    let made = made.map_err(|status| no_token(&frame, &status, &form.request_id))?.into_inner();
    Ok(answer::page(&TokenPage {
        expires: words::date(made.expires_unix_ms),
        token: made.token,
        address: here.map(|node| node.client_address).unwrap_or_default(),
        frame,
    }))
}

/// Why there is no token. Each token is another one, so a form that comes a second time cannot be answered as the first.
fn no_token(frame: &Frame, status: &Status, request_id: &str) -> Box<Refused> {
    let wrong = Wrong::of(frame, status, request_id);
    let why: &str = match (is_reused(status), wrong.is_unknown()) {
        (true, _) => {
            "This form was sent before. If a token was made then, it was shown then and cannot be shown again: make \
             another on the cluster's page, and revoke there what nobody needs."
        }
        (false, true) => {
            "The cluster did not answer in time. If a token was made, it stands among the open tokens on the cluster's \
             page, where it can be revoked; what it says is lost. Make another there."
        }
        (false, false) => &wrong.why,
    };
    let why = why.to_owned(); // The same form would not bring the token, so it is not to be sent again.
    Refused::told(frame, status, wrong.in_words(why))
}

/// Which token.
#[derive(Debug, Deserialize)]
pub struct WhichToken {
    id: String,
    #[serde(default)]
    request_id: String,
}

/// `POST /studio/cluster/token/revoke`.
pub async fn revoke_token(visit: Visit, Posted(which): Posted<WhichToken>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = RevokeJoinTokenRequest { id: which.id, request_id: which.request_id.clone() };
    let revoked = calls.cluster().revoke_join_token(asked).await;
    revoked.map_err(Refused::of_form(&frame, &which.request_id))?;
    Ok(answer::see("/studio/cluster"))
}
