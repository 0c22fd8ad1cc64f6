//! The cluster itself: topology, status, join tokens, members.

use std::{sync::Arc, time::Duration};

use rookery_proto::{
    cluster::v1::{
        CreateJoinTokenRequest, CreateJoinTokenResponse, DemoteNodeRequest, DemoteNodeResponse,
        GetStatusRequest, GetStatusResponse, GetTopologyRequest, GetTopologyResponse, JoinRequest,
        JoinResponse, JoinToken as JoinTokenMessage, ListJoinTokensRequest, ListJoinTokensResponse,
        Node, PromoteNodeRequest, PromoteNodeResponse, RemoveNodeRequest, RemoveNodeResponse,
        RevokeJoinTokenRequest, RevokeJoinTokenResponse, TransferLeaderRequest,
        TransferLeaderResponse, TriggerSnapshotRequest, TriggerSnapshotResponse,
        cluster_service_server::ClusterService,
    },
    log::v1::{self as log, cluster_command::Command},
    peer::v1::leader_call::Action,
};
use tonic::{Code, Request, Response, Status};

use crate::{
    authz::ServerOperation,
    cluster::Registry,
    consensus,
    edge::{
        Edge, convert,
        join_token::{JoinToken, SECRET_BYTES, secret_digest},
        peer_identity::CallContext,
        services::{propose, request_id, unexpected_outcome},
    },
    limits,
    names::{DatabaseName, GroupId, NodeId},
};

/// What the cluster group is called; a database of that name keeps its documents and loses this shorthand.
const CLUSTER_GROUP: &str = "cluster";

/// The cluster service.
pub struct Cluster(pub Arc<Edge>);

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_topology(
        &self,
        request: Request<GetTopologyRequest>,
    ) -> Result<Response<GetTopologyResponse>, Status> {
        let operation = ServerOperation::ViewTopology;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let status = self.0.engine.status_local().await;
        let nodes = self.members(&context.registry).into_iter();
        // The incarnation is for nodes that join.
        let nodes = nodes.map(|node| Node { incarnation: Vec::new(), ..node }).collect();
        Ok(Response::new(GetTopologyResponse {
            cluster_id: context.registry.cluster_id.clone(),
            answering_node_id: status.node.as_ref().map_or(0, |node| node.id),
            nodes,
        }))
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let operation = ServerOperation::ViewClusterStatus;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let nodes = if request.get_ref().local_only {
            vec![self.0.engine.status_local().await]
        } else {
            self.0.engine.status_all(context.deadline).await
        };
        let cluster_id = context.registry.cluster_id.clone();
        Ok(Response::new(GetStatusResponse { cluster_id, nodes }))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let operation = ServerOperation::CreateJoinToken;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let expires = context.at.0.saturating_add(token_life(asked.lifetime_seconds)?);
        let token = JoinToken::random(self.0.node.identity.load().thumbprint())
            .map_err(|error| convert::internal("No join token could be made", error))?;
        let create = log::CreateJoinToken {
            id: token.id.clone(),
            secret_digest: token.digest().to_vec(),
            expires_unix_ms: expires,
        };
        propose(&self.0, permit, &context, id, Command::CreateJoinToken(create)).await?;
        Ok(Response::new(CreateJoinTokenResponse {
            token: token.expose().to_string(),
            id: token.id.clone(),
            expires_unix_ms: expires,
        }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        let operation = ServerOperation::ListJoinTokens;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let tokens = self.0.engine.join_tokens(permit, context.deadline).await;
        let tokens = tokens.map_err(convert::status)?.into_iter();
        let open = tokens.filter(|token| token.expires_unix_ms > context.at.0);
        let tokens = open
            .map(|token| JoinTokenMessage {
                id: token.id,
                created_unix_ms: token.created_unix_ms,
                expires_unix_ms: token.expires_unix_ms,
                created_by: hex::encode(token.created_by),
            })
            .collect();
        Ok(Response::new(ListJoinTokensResponse { tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        let operation = ServerOperation::RevokeJoinToken;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let revoke = log::RevokeJoinToken { id: asked.id };
        propose(&self.0, permit, &context, id, Command::RevokeJoinToken(revoke)).await?;
        Ok(Response::new(RevokeJoinTokenResponse {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let operation = ServerOperation::JoinCluster;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let node = joining(asked, &context)?;
        let outcome = propose(&self.0, permit, &context, id, Command::JoinNode(node)).await?;
        let log::cluster_outcome::Outcome::Node(joined) = outcome else {
            return Err(unexpected_outcome());
        };
        let registry = self.0.engine.registry();
        Ok(Response::new(JoinResponse {
            cluster_id: registry.cluster_id.clone(),
            node_id: joined.id,
            members: self.members(&registry),
        }))
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let operation = ServerOperation::RemoveNode;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let node = member(asked.node_id, &context)?;
        let remove = log::RemoveNode { node_id: node.0 };
        propose(&self.0, permit, &context, id, Command::RemoveNode(remove)).await?;
        Ok(Response::new(RemoveNodeResponse {}))
    }

    async fn promote_node(
        &self,
        request: Request<PromoteNodeRequest>,
    ) -> Result<Response<PromoteNodeResponse>, Status> {
        let operation = ServerOperation::PromoteNode;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?; // Asking twice is asking once: the membership is a set.
        let node = member(asked.node_id, &context)?;
        let (group, action) = (GroupId::CLUSTER, Action::Promote(node.0));
        let engine = &self.0.engine;
        let promoted = engine.ask_leader(permit, group, action, Some(id), context.deadline).await;
        self.told(promoted, group).await?;
        Ok(Response::new(PromoteNodeResponse {}))
    }

    async fn demote_node(
        &self,
        request: Request<DemoteNodeRequest>,
    ) -> Result<Response<DemoteNodeResponse>, Status> {
        let operation = ServerOperation::DemoteNode;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?; // As above.
        let node = member(asked.node_id, &context)?;
        let (group, action) = (GroupId::CLUSTER, Action::Demote(node.0));
        let engine = &self.0.engine;
        let demoted = engine.ask_leader(permit, group, action, Some(id), context.deadline).await;
        self.told(demoted, group).await?;
        Ok(Response::new(DemoteNodeResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let operation = ServerOperation::TransferLeader;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let group = group(&asked.group, &context)?;
        let to = member(asked.node_id, &context)?;
        let (engine, action) = (&self.0.engine, Action::Transfer(to.0));
        let moved = engine.ask_leader(permit, group, action, None, context.deadline).await;
        self.told(moved, group).await?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn trigger_snapshot(
        &self,
        request: Request<TriggerSnapshotRequest>,
    ) -> Result<Response<TriggerSnapshotResponse>, Status> {
        let operation = ServerOperation::TriggerSnapshot;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let group = group(&request.get_ref().group, &context)?;
        self.0.audited(&context, operation, &format!("group {group}"), "").await?;
        let built = self.0.engine.trigger_snapshot(permit, group, context.deadline).await;
        let snapshot_index = built.map_err(convert::status)?;
        Ok(Response::new(TriggerSnapshotResponse { snapshot_index }))
    }
}

impl Cluster {
    /// The members with their roles in the cluster group, as this node sees them.
    fn members(&self, registry: &Registry) -> Vec<Node> {
        registry.nodes().filter_map(|node| self.0.engine.member(NodeId(node.id))).collect()
    }

    /// An error of what only the leader of a group can do; where another node leads, it says which.
    fn led_elsewhere(&self, error: consensus::Error, group: GroupId, leader: u64) -> Status {
        let consensus::Error::NotLeader = error else { return convert::status(error) };
        let Some(node) = self.0.engine.member(NodeId(leader)) else {
            return convert::status(consensus::Error::NoLeader);
        };
        convert::Answer::new(
            Code::Unavailable,
            "NOT_LEADER",
            format!(
                "Only the leader of the group can do this, and that is node {} at {}. Call it there.",
                node.name, node.client_address
            ),
        )
        .with("group_id", group)
        .with("leader_id", node.id)
        .with("leader_address", node.client_address)
        .retry()
        .status()
    }

    /// The leader of a group as this node knows it; 0: none.
    async fn leader(&self, group: GroupId) -> u64 {
        let status = self.0.engine.status_local().await;
        let groups = status.groups.iter();
        groups.filter(|status| status.group_id == group.0).map(|status| status.leader_id).sum()
    }

    async fn told<T>(
        &self,
        result: Result<T, consensus::Error>,
        group: GroupId,
    ) -> Result<T, Status> {
        match result {
            Ok(done) => Ok(done),
            Err(error) => Err(self.led_elsewhere(error, group, self.leader(group).await)),
        }
    }
}

/// What the log needs of a node that wants to join: its own certificate is that of the connection, and of the secret the
/// log sees the digest.
fn joining(asked: JoinRequest, context: &CallContext) -> Result<log::JoinNode, Status> {
    if asked.token_secret.len() != SECRET_BYTES {
        let why = format!("must be {SECRET_BYTES} bytes, not {}", asked.token_secret.len());
        return Err(convert::invalid("token_secret", why));
    }
    let certificate = context.connection.certificate.as_ref();
    let certificate = certificate.map_or_else(Vec::new, |certificate| certificate.der.to_vec());
    let secret = zeroize::Zeroizing::new(asked.token_secret);
    Ok(log::JoinNode {
        token_id: asked.token_id,
        secret_digest: secret_digest(&secret).to_vec(),
        name: asked.node_name,
        client_address: asked.client_address,
        peer_address: asked.peer_address,
        incarnation: asked.incarnation,
        certificate,
    })
}

/// The life of a join token in milliseconds.
fn token_life(seconds: u64) -> Result<i64, Status> {
    let life = match seconds {
        0 => limits::JOIN_TOKEN_LIFE_DEFAULT,
        seconds => Duration::from_secs(seconds),
    };
    if life > limits::JOIN_TOKEN_LIFE_MAX {
        let most = limits::JOIN_TOKEN_LIFE_MAX.as_secs();
        return Err(convert::invalid("lifetime_seconds", format!("must be at most {most}")));
    }
    Ok(i64::try_from(life.as_millis()).unwrap_or(i64::MAX))
}

fn member(id: u64, context: &CallContext) -> Result<NodeId, Status> {
    let found = context.registry.node(NodeId(id));
    found.map(|node| NodeId(node.id)).ok_or_else(|| convert::not_found("node", id))
}

fn group(text: &str, context: &CallContext) -> Result<GroupId, Status> {
    if text == CLUSTER_GROUP {
        return Ok(GroupId::CLUSTER);
    }
    let name = DatabaseName::parse(text).map_err(|why| convert::invalid("group", why))?;
    let record = context.registry.database(&name);
    record.map(|record| GroupId(record.id)).ok_or_else(|| convert::not_found("group", name))
}
