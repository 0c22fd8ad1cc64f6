//! What the edge asks of the layers below, in one place, so that its own tests need no Raft.

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
use tokio::{sync::watch, time::Instant};

use crate::{
    authz::{DatabasePermit, Permit},
    cluster::Registry,
    consensus::{
        Denial, Error, Fresh, State,
        audit::{AuditView, PeerHead},
        local::Silence,
    },
    edge::{join_token::JoinToken, node_keys::NodeKeys},
    names::{CertificateName, GroupId, NodeId, RequestId, Thumbprint},
    own_certificate::{self, Looked},
};

/// The cluster a node was put into, and its id there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// A UUID.
    pub cluster_id: String,
    /// The id of this node.
    pub node_id: NodeId,
}

/// The cluster as the services see it. Everything that changes or reveals state demands a permit.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The registry as of the last applied entry; old where the node is cut off.
    fn registry(&self) -> Arc<Registry>;

    /// Whether this node belongs to a cluster.
    fn state(&self) -> State;

    /// The registry, once it is certain that no acknowledged change of rights is missing from it.
    ///
    /// # Errors
    /// [`Error::Stale`] where that does not happen in time.
    async fn fresh(&self, deadline: Instant) -> Result<Fresh, Error>;

    /// Puts a command in the cluster group's log. Where it takes rights away, returns once every node knows.
    async fn propose_cluster(
        &self,
        permit: Permit,
        request_id: RequestId,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error>;

    /// Puts a command in the cluster group's log in the name of this node, which must be a member.
    async fn propose_as_member(
        &self,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error>;

    /// Puts writes in the log of the permit's database.
    async fn propose_database(
        &self,
        permit: DatabasePermit,
        request_id: RequestId,
        command: DatabaseCommand,
        deadline: Instant,
    ) -> Result<Applied, Error>;

    /// Reads a document of the permit's database, here or on a node that holds it.
    async fn document(
        &self,
        permit: DatabasePermit,
        request: GetDocumentRequest,
        deadline: Instant,
    ) -> Result<GetDocumentResponse, Error>;

    /// Lists documents of the permit's database, here or on a node that holds it.
    async fn documents(
        &self,
        permit: DatabasePermit,
        request: ListDocumentsRequest,
        deadline: Instant,
    ) -> Result<ListDocumentsResponse, Error>;

    /// Counts the documents of the permit's database, here or on a node that holds it.
    async fn statistics(
        &self,
        permit: DatabasePermit,
        request: GetDatabaseStatisticsRequest,
        deadline: Instant,
    ) -> Result<GetDatabaseStatisticsResponse, Error>;

    /// The open join tokens, without secrets.
    async fn join_tokens(
        &self,
        permit: Permit,
        deadline: Instant,
    ) -> Result<Vec<JoinTokenRecord>, Error>;

    /// Notes a denied call for the audit log; never waits.
    fn note_denial(&self, denial: Denial);

    /// The audit log, with everything that was acknowledged before.
    async fn audit(&self, permit: Permit, deadline: Instant) -> Result<AuditView, Error>;

    /// The audit log as far as this node has it.
    fn audit_here(&self, permit: &Permit) -> Result<AuditView, Error>;

    /// Hears of every new audit record.
    fn audit_changes(&self) -> watch::Receiver<u64>;

    /// What the other nodes have where this view has its head.
    async fn audit_heads(&self, view: &AuditView) -> Vec<PeerHead>;

    /// Has the leader of a group give or take a vote, or hand the leadership over; it records it first.
    async fn ask_leader(
        &self,
        permit: Permit,
        group: GroupId,
        action: Action,
        request_id: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(), Error>;

    /// Builds a snapshot of a group on this node; answers the index it covers.
    async fn trigger_snapshot(
        &self,
        permit: Permit,
        group: GroupId,
        deadline: Instant,
    ) -> Result<u64, Error>;

    /// Looks at the source of this node's certificate; answers what it holds and what becomes of that.
    async fn reload_certificate(
        &self,
        permit: Permit,
    ) -> Result<(Thumbprint, Looked), own_certificate::Error>;

    /// The keys of this node; `None` where it has no data folder.
    fn keys(&self, permit: &Permit) -> Option<Arc<NodeKeys>>;

    /// The same, for the owner of the node's files.
    fn keys_for_owner(&self) -> Option<Arc<NodeKeys>>;

    /// A member, with its role in the cluster group.
    fn member(&self, id: NodeId) -> Option<Node>;

    /// This node and its groups.
    async fn status_local(&self) -> NodeStatus;

    /// The id of this node; 0 while it belongs to no cluster.
    fn node_id(&self) -> NodeId;

    /// Asks other nodes for what each tells or does alone, in the name of the permit's author; each decides again. The
    /// answers come in the order of the calls.
    async fn ask_nodes(
        &self,
        permit: &Permit,
        calls: Vec<(NodeId, LocalCall)>,
        deadline: Instant,
    ) -> Vec<Result<LocalAnswer, Silence>>;

    /// Every node; one that does not answer in time is marked unreachable.
    async fn status_all(&self, deadline: Instant) -> Vec<NodeStatus>;

    /// Forms a cluster of this node alone and registers its first Cluster Admin.
    async fn bootstrap(
        &self,
        admin_der: Vec<u8>,
        admin_name: CertificateName,
    ) -> Result<Membership, Error>;

    /// Asks a member for membership with a join token.
    async fn join(&self, address: String, token: JoinToken) -> Result<Membership, Error>;
}
