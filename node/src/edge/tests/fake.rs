//! An engine without Raft: the real state machines on records in memory, one entry after the other.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rookery_proto::{
    cluster::v1::{GroupStatus, Node, NodeStatus},
    database::v1::{
        CollectionStatistics, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse,
    },
    document::v1::{
        GetDocumentRequest, GetDocumentResponse, ListDocumentsRequest, ListDocumentsResponse,
        Position,
    },
    log::v1::{
        Applied, ClusterCommand, Command, DatabaseCommand, FormCluster, JoinTokenRecord,
        NodeRecord, PutCertificate, applied, cluster_command, command,
    },
    peer::v1::{LocalAnswer, LocalCall, leader_call::Action},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    authz::{Author, Clearance, DatabasePermit, Permit},
    clock::{Clock as _, SystemClock},
    cluster::{self, Cluster, Registry, lost_rights},
    consensus::{
        Denial, Error, Fresh, State,
        audit::{AuditView, PeerHead},
        local::Silence,
    },
    database::{self, ListQuery, page_token},
    edge::{
        connections::Connections,
        engine::{Engine, Membership},
        join_token::JoinToken,
        node_keys::NodeKeys,
    },
    names::{CertificateName, CollectionName, DocumentId, GroupId, NodeId, RequestId, Thumbprint},
    own_certificate::{self, Looked},
    results::testing::{Memory, space},
};

/// What a test makes the engine answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Serving,
    Stale,
    Passive,
    /// Proposals and reads never come back before the deadline.
    Silent,
    /// Proposals are applied, and their answers are lost.
    Unanswered,
}

pub(super) struct Fake {
    cluster: Cluster,
    state: Mutex<Records>,
    mood: Mutex<Mood>,
    /// Told of revocations, as the node's watcher is.
    pub(super) connections: Arc<Connections>,
    /// What was noted for the audit log.
    pub(super) denials: Mutex<Vec<Denial>>,
}

#[derive(Default)]
struct Records {
    index: u64,
    groups: BTreeMap<u64, Memory>,
}

impl Fake {
    /// A cluster of one node with one administrator.
    pub(super) fn formed(
        node: &[u8],
        administrator: &[u8],
        connections: Arc<Connections>,
    ) -> Arc<Self> {
        let fake = Arc::new(Self {
            cluster: Cluster::unformed(),
            state: Mutex::default(),
            mood: Mutex::new(Mood::Serving),
            connections,
            denials: Mutex::default(),
        });
        let form = FormCluster {
            cluster_id: "0f0e0d0c-0b0a-4908-8706-050403020100".into(),
            nodes: vec![NodeRecord {
                name: "n1".into(),
                client_address: "n1.example:7443".into(),
                peer_address: "n1.example:7444".into(),
                incarnation: vec![1; 16],
                ..NodeRecord::default()
            }],
            node_certificates: vec![node.to_vec()],
            administrators: vec![PutCertificate {
                der: administrator.to_vec(),
                name: "root".into(),
                clearance: Clearance::ClusterAdmin.number(),
                ..PutCertificate::default()
            }],
        };
        let command = ClusterCommand { command: Some(cluster_command::Command::FormCluster(form)) };
        let applied = fake.apply_cluster(Author::Internal("test"), RequestId::random(), command);
        assert!(!matches!(applied.outcome, Some(applied::Outcome::Refusal(_))), "{applied:?}");
        fake
    }

    pub(super) fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock()
    }

    async fn answers(&self, deadline: Instant) -> Result<(), Error> {
        if self.mood() == Mood::Silent {
            sleep_until(deadline).await;
            return Err(Error::Timeout);
        }
        Ok(())
    }

    /// What of an applied proposal the caller gets to know.
    fn arrives(&self, applied: Applied) -> Result<Applied, Error> {
        match self.mood() {
            Mood::Unanswered => Err(Error::Timeout),
            Mood::Serving | Mood::Stale | Mood::Passive | Mood::Silent => refused(applied),
        }
    }

    fn envelope(author: Author, id: RequestId, inner: command::Command) -> Command {
        let (author, internal_reason) = match author {
            Author::Certificate(thumbprint) => (thumbprint.as_bytes().to_vec(), String::new()),
            Author::Anonymous | Author::Internal(_) => (Vec::new(), "test".to_owned()),
        };
        Command {
            version: 1,
            request_id: id.as_bytes().to_vec(),
            author,
            internal_reason,
            at_unix_ms: SystemClock.wall().0,
            registry_revision: 0,
            origin_node_id: 0,
            command: Some(inner),
        }
    }

    fn apply_cluster(&self, author: Author, id: RequestId, inner: ClusterCommand) -> Applied {
        let command = Self::envelope(author, id, command::Command::Cluster(inner));
        let mut state = self.state.lock();
        state.index += 1;
        let index = state.index;
        let records = state.groups.entry(0).or_default();
        let applied =
            records.batch(0, |overlay| self.cluster.apply(index, &command, overlay)).unwrap();
        let before = self.cluster.registry();
        let after = self.cluster.publish();
        self.connections.revoke(&lost_rights(&before, &after));
        applied
    }
}

#[async_trait::async_trait]
impl Engine for Fake {
    fn registry(&self) -> Arc<Registry> {
        self.cluster.registry()
    }

    fn state(&self) -> State {
        match self.mood() {
            Mood::Passive => State::Passive("waiting for n2".into()),
            Mood::Serving | Mood::Stale | Mood::Silent | Mood::Unanswered => State::Member,
        }
    }

    async fn fresh(&self, _: Instant) -> Result<Fresh, Error> {
        if self.mood() == Mood::Stale {
            return Err(Error::Stale);
        }
        Ok(Fresh { registry: self.cluster.registry(), at: SystemClock.wall() })
    }

    async fn propose_cluster(
        &self,
        permit: Permit,
        request_id: RequestId,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        assert_eq!(permit.operation(), cluster::operation(&command));
        self.answers(deadline).await?;
        let applied = self.apply_cluster(permit.author(), request_id, command);
        self.arrives(applied)
    }

    async fn propose_as_member(
        &self,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        self.answers(deadline).await?;
        let registry = self.cluster.registry();
        let node = registry.node(NodeId(1)).unwrap();
        let author = Author::Certificate(Thumbprint::from_bytes(&node.thumbprint).unwrap());
        refused(self.apply_cluster(author, RequestId::random(), command))
    }

    async fn propose_database(
        &self,
        permit: DatabasePermit,
        request_id: RequestId,
        command: DatabaseCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        assert_eq!(permit.operation(), database::operation(&command));
        self.answers(deadline).await?;
        let inner = command::Command::Database(command);
        let command = Self::envelope(permit.author(), request_id, inner);
        let mut state = self.state.lock();
        state.index += 1;
        let index = state.index;
        let group = permit.database().0;
        let records = state.groups.entry(group).or_default();
        let applied = records.batch(group, |overlay| database::apply(index, &command, overlay));
        self.arrives(applied.unwrap())
    }

    async fn document(
        &self,
        permit: DatabasePermit,
        request: GetDocumentRequest,
        deadline: Instant,
    ) -> Result<GetDocumentResponse, Error> {
        self.answers(deadline).await?;
        let id = DocumentId::parse(&request.id).unwrap();
        let mut state = self.state.lock();
        let index = state.index;
        let group = permit.database().0;
        let records = state.groups.entry(group).or_default();
        let found = database::get(&*records, space(group), &id)?;
        let document = found.ok_or_else(|| Error::refused("NOT_FOUND", "there is no document"))?;
        let position = Some(Position { index, registry_revision: permit.revision() });
        Ok(GetDocumentResponse { document: Some(document), position })
    }

    async fn documents(
        &self,
        permit: DatabasePermit,
        request: ListDocumentsRequest,
        deadline: Instant,
    ) -> Result<ListDocumentsResponse, Error> {
        self.answers(deadline).await?;
        let (caller, id) = (permit.author().thumbprint(), permit.database());
        let mut query = ListQuery {
            prefix: request.prefix,
            collection: Some(request.collection)
                .filter(|name| !name.is_empty())
                .map(|name| CollectionName::parse(&name).unwrap()),
            page_size: request.page_size as usize,
            ids_only: request.ids_only,
            after: None,
        };
        if !request.page_token.is_empty() {
            let after = page_token::decode(caller, id, &query, &request.page_token);
            query.after = Some(after.unwrap());
        }
        let mut state = self.state.lock();
        let records = state.groups.entry(id.0).or_default();
        let page = database::list(&*records, space(id.0), &query)?;
        let next_page_token = page
            .next_after
            .map_or_else(String::new, |after| page_token::encode(caller, id, &query, &after));
        let documents = page.documents;
        Ok(ListDocumentsResponse { documents, next_page_token, position: None })
    }

    async fn statistics(
        &self,
        permit: DatabasePermit,
        request: GetDatabaseStatisticsRequest,
        deadline: Instant,
    ) -> Result<GetDatabaseStatisticsResponse, Error> {
        self.answers(deadline).await?;
        let (caller, id) = (permit.author().thumbprint(), permit.database());
        let after = page_token::decode_collections(caller, id, &request.page_token).unwrap();
        let page_size = request.page_size as usize;
        let mut state = self.state.lock();
        let applied_index = state.index;
        let records = &*state.groups.entry(id.0).or_default();
        let size = database::size(records, space(id.0))?;
        let page = database::collections(records, space(id.0), after.as_ref(), page_size)?;
        let collection = |(name, size): (String, database::Size)| CollectionStatistics {
            name,
            documents: size.documents,
            bytes: size.bytes,
        };
        Ok(GetDatabaseStatisticsResponse {
            documents: size.documents,
            bytes: size.bytes,
            collections: page.sizes.into_iter().map(collection).collect(),
            next_page_token: page.next_after.map_or_else(String::new, |after| {
                page_token::encode_collections(caller, id, &after)
            }),
            applied_index,
            node: "n1".into(),
        })
    }

    async fn join_tokens(&self, _: Permit, _: Instant) -> Result<Vec<JoinTokenRecord>, Error> {
        let mut state = self.state.lock();
        let records = state.groups.entry(0).or_default();
        Ok(cluster::join_tokens(&*records, space(0))?)
    }

    fn note_denial(&self, denial: Denial) {
        self.denials.lock().push(denial);
    }

    async fn audit(&self, permit: Permit, _: Instant) -> Result<AuditView, Error> {
        self.audit_here(&permit)
    }

    fn audit_here(&self, _: &Permit) -> Result<AuditView, Error> {
        let mut state = self.state.lock();
        let records = Arc::new(state.groups.entry(0).or_default().clone());
        let head = cluster::audit_head(&*records, space(0))?.unwrap_or_default();
        Ok(AuditView::new(records, space(0), self.cluster.registry(), head))
    }

    fn audit_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::Sender::new(0).subscribe()
    }

    async fn audit_heads(&self, _: &AuditView) -> Vec<PeerHead> {
        Vec::new()
    }

    async fn ask_leader(
        &self,
        _: Permit,
        _: GroupId,
        action: Action,
        _: Option<RequestId>,
        _: Instant,
    ) -> Result<(), Error> {
        match action {
            Action::Promote(_) => Ok(()),
            Action::Demote(_) => Err(Error::NotLeader),
            Action::Transfer(_) => Err(Error::NoLeader),
        }
    }

    async fn trigger_snapshot(&self, _: Permit, _: GroupId, _: Instant) -> Result<u64, Error> {
        Ok(self.state.lock().index)
    }

    async fn reload_certificate(
        &self,
        _: Permit,
    ) -> Result<(Thumbprint, Looked), own_certificate::Error> {
        Ok((Thumbprint::of(b"n1"), Looked::Unchanged))
    }

    fn keys(&self, _: &Permit) -> Option<Arc<NodeKeys>> {
        None
    }

    fn keys_for_owner(&self) -> Option<Arc<NodeKeys>> {
        None
    }

    fn member(&self, id: NodeId) -> Option<Node> {
        let registry = self.cluster.registry();
        registry.node(id).map(|node| Node {
            id: node.id,
            name: node.name.clone(),
            client_address: node.client_address.clone(),
            role: "voter".into(),
            incarnation: node.incarnation.clone(),
            ..Node::default()
        })
    }

    async fn status_local(&self) -> NodeStatus {
        let group = GroupStatus {
            group: "cluster".into(),
            leader_id: 1,
            applied_index: self.state.lock().index,
            role: "leader".into(),
            voters: vec![1],
            ..GroupStatus::default()
        };
        NodeStatus {
            node: self.member(NodeId(1)),
            reachable: true,
            groups: vec![group],
            authorization_fresh: self.mood() == Mood::Serving,
            disk_reserve_held: true,
            ..NodeStatus::default()
        }
    }

    fn node_id(&self) -> NodeId {
        NodeId(1)
    }

    async fn ask_nodes(
        &self,
        _: &Permit,
        calls: Vec<(NodeId, LocalCall)>,
        _: Instant,
    ) -> Vec<Result<LocalAnswer, Silence>> {
        calls.iter().map(|_| Err(Silence::Unreachable)).collect()
    }

    async fn status_all(&self, _: Instant) -> Vec<NodeStatus> {
        vec![self.status_local().await]
    }

    async fn bootstrap(&self, _: Vec<u8>, _: CertificateName) -> Result<Membership, Error> {
        Err(Error::refused("ALREADY_FORMED", "this node belongs to a cluster"))
    }

    async fn join(&self, _: String, _: JoinToken) -> Result<Membership, Error> {
        Err(Error::refused("ALREADY_FORMED", "this node belongs to a cluster"))
    }
}

/// As consensus tells refusals: as errors.
fn refused(applied: Applied) -> Result<Applied, Error> {
    match applied.outcome {
        Some(applied::Outcome::Refusal(refusal)) => Err(Error::Refused(Box::new(refusal))),
        _ => Ok(applied),
    }
}
