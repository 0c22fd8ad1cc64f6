//! [`Engine`] as the Raft groups of this node are one.

use std::sync::Arc;

use rookery_proto::{
    cluster::v1::{Node, NodeStatus},
    document::v1::{
        GetDocumentRequest, GetDocumentResponse, ListDocumentsRequest, ListDocumentsResponse,
    },
    log::v1::{Applied, ClusterCommand, DatabaseCommand, JoinTokenRecord},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    authz::{DatabasePermit, Permit},
    cluster::Registry,
    consensus::{Consensus, Error, Fresh, State},
    edge::{
        engine::{Engine, Membership},
        join_token::JoinToken,
    },
    limits,
    names::{CertificateName, GroupId, NodeId, RequestId},
};

/// Consensus as the services see it.
pub struct RaftEngine {
    /// The Raft groups.
    pub consensus: Arc<Consensus>,
}

async fn by<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout_at(deadline, work).await.unwrap_or(Err(Error::Timeout))
}

#[async_trait::async_trait]
impl Engine for RaftEngine {
    fn registry(&self) -> Arc<Registry> {
        self.consensus.registry()
    }

    fn state(&self) -> State {
        self.consensus.state().borrow().clone()
    }

    async fn fresh(&self, deadline: Instant) -> Result<Fresh, Error> {
        self.consensus.fresh(deadline.into_std()).await
    }

    async fn propose_cluster(
        &self,
        permit: Permit,
        request_id: RequestId,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        self.consensus.propose_cluster(permit, request_id, command, deadline.into_std()).await
    }

    async fn propose_as_member(
        &self,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        self.consensus.propose_as_member(command, deadline.into_std()).await
    }

    async fn propose_database(
        &self,
        permit: DatabasePermit,
        request_id: RequestId,
        command: DatabaseCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        self.consensus.propose_database(permit, request_id, command, deadline.into_std()).await
    }

    async fn document(
        &self,
        permit: DatabasePermit,
        request: GetDocumentRequest,
        deadline: Instant,
    ) -> Result<GetDocumentResponse, Error> {
        self.consensus.get(permit, request, deadline.into_std()).await
    }

    async fn documents(
        &self,
        permit: DatabasePermit,
        request: ListDocumentsRequest,
        deadline: Instant,
    ) -> Result<ListDocumentsResponse, Error> {
        self.consensus.list(permit, request, deadline.into_std()).await
    }

    async fn join_tokens(
        &self,
        _permit: Permit,
        deadline: Instant,
    ) -> Result<Vec<JoinTokenRecord>, Error> {
        self.consensus.join_tokens(deadline.into_std()).await
    }

    async fn promote(&self, _permit: Permit, node: NodeId, deadline: Instant) -> Result<(), Error> {
        by(deadline, self.consensus.promote(node)).await
    }

    async fn demote(&self, _permit: Permit, node: NodeId, deadline: Instant) -> Result<(), Error> {
        by(deadline, self.consensus.demote(node)).await
    }

    async fn transfer_leader(
        &self,
        _permit: Permit,
        group: GroupId,
        to: NodeId,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.consensus.transfer_leader(group, to, deadline.into_std()).await
    }

    async fn trigger_snapshot(
        &self,
        _permit: Permit,
        group: GroupId,
        deadline: Instant,
    ) -> Result<u64, Error> {
        self.consensus.snapshot(group, deadline.into_std()).await
    }

    fn member(&self, id: NodeId) -> Option<Node> {
        self.consensus.node(id)
    }

    async fn status_local(&self) -> NodeStatus {
        self.consensus.status_local()
    }

    async fn status_all(&self, deadline: Instant) -> Vec<NodeStatus> {
        // Consensus bounds each node's answer itself.
        let all = timeout_at(deadline, self.consensus.status_all()).await;
        all.unwrap_or_else(|_elapsed| vec![self.consensus.status_local()])
    }

    async fn bootstrap(
        &self,
        admin_der: Vec<u8>,
        admin_name: CertificateName,
    ) -> Result<Membership, Error> {
        let deadline = (Instant::now() + limits::DEADLINE_DEFAULT).into_std();
        let name = admin_name.as_str().to_owned();
        let registry = self.consensus.bootstrap(admin_der, name, deadline).await?;
        Ok(Membership {
            cluster_id: registry.cluster_id.clone(),
            node_id: self.consensus.node_id(),
        })
    }

    async fn join(&self, address: String, token: JoinToken) -> Result<Membership, Error> {
        let deadline = (Instant::now() + limits::DEADLINE_DEFAULT).into_std();
        let secret = token.expose_secret().to_vec();
        let joined = self.consensus.join(&address, token.id, secret, token.pin, deadline).await?;
        Ok(Membership { cluster_id: joined.0, node_id: joined.1 })
    }
}
