//! [`Engine`] as the Raft groups of this node are one.

use std::sync::Arc;

use rookery_proto::{
    cluster::v1::{Node, NodeStatus},
    database::v1::{GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse},
    document::v1::{
        GetDocumentRequest, GetDocumentResponse, ListDocumentsRequest, ListDocumentsResponse,
    },
    log::v1::{Applied, ClusterCommand, DatabaseCommand, JoinTokenRecord},
    peer::v1::{LocalAnswer, LocalCall, leader_call::Action},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    authz::{DatabasePermit, Permit},
    cluster::Registry,
    consensus::{
        Consensus, Denial, Error, Fresh, State,
        audit::{AuditView, PeerHead},
        local::Silence,
    },
    edge::{
        engine::{Engine, Membership},
        join_token::JoinToken,
        node_keys::NodeKeys,
    },
    limits,
    names::{CertificateName, GroupId, NodeId, RequestId, Thumbprint},
    own_certificate::{self, Looked, OwnCertificate},
};

/// Consensus as the services see it.
pub struct RaftEngine {
    /// The Raft groups.
    pub consensus: Arc<Consensus>,
    /// This node's certificate.
    pub own: Arc<OwnCertificate>,
    /// This node's keys.
    pub keys: Arc<NodeKeys>,
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

    async fn statistics(
        &self,
        permit: DatabasePermit,
        request: GetDatabaseStatisticsRequest,
        deadline: Instant,
    ) -> Result<GetDatabaseStatisticsResponse, Error> {
        self.consensus.statistics(permit, request, deadline.into_std()).await
    }

    async fn join_tokens(
        &self,
        _permit: Permit,
        deadline: Instant,
    ) -> Result<Vec<JoinTokenRecord>, Error> {
        self.consensus.join_tokens(deadline.into_std()).await
    }

    fn note_denial(&self, denial: Denial) {
        self.consensus.note_denial(denial);
    }

    async fn audit(&self, _permit: Permit, deadline: Instant) -> Result<AuditView, Error> {
        self.consensus.audit(deadline.into_std()).await
    }

    fn audit_here(&self, _permit: &Permit) -> Result<AuditView, Error> {
        self.consensus.audit_here()
    }

    fn audit_changes(&self) -> watch::Receiver<u64> {
        self.consensus.audit_changes()
    }

    async fn audit_heads(&self, view: &AuditView) -> Vec<PeerHead> {
        self.consensus.audit_heads(view).await
    }

    async fn ask_leader(
        &self,
        permit: Permit,
        group: GroupId,
        action: Action,
        request_id: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let until = deadline.into_std();
        by(deadline, self.consensus.ask_leader(&permit, group, action, request_id, until)).await
    }

    async fn trigger_snapshot(
        &self,
        _permit: Permit,
        group: GroupId,
        deadline: Instant,
    ) -> Result<u64, Error> {
        self.consensus.snapshot(group, deadline.into_std()).await
    }

    async fn reload_certificate(
        &self,
        _permit: Permit,
    ) -> Result<(Thumbprint, Looked), own_certificate::Error> {
        self.own.look().await
    }

    fn keys(&self, _permit: &Permit) -> Option<Arc<NodeKeys>> {
        Some(self.keys.clone())
    }

    fn keys_for_owner(&self) -> Option<Arc<NodeKeys>> {
        Some(self.keys.clone())
    }

    fn member(&self, id: NodeId) -> Option<Node> {
        self.consensus.node(id)
    }

    async fn status_local(&self) -> NodeStatus {
        self.consensus.status_local()
    }

    fn node_id(&self) -> NodeId {
        self.consensus.node_id()
    }

    async fn ask_nodes(
        &self,
        permit: &Permit,
        calls: Vec<(NodeId, LocalCall)>,
        deadline: Instant,
    ) -> Vec<Result<LocalAnswer, Silence>> {
        self.consensus.ask_nodes(permit, calls, deadline.into_std()).await
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
