//! Forming a cluster, joining it, leaving it, and what its leader does meanwhile.
//!
//! A node with an empty data folder is passive. It becomes a member in one of three ways:
//! 1. `bootstrap`, over the admin socket: a cluster of one node, with the first Cluster Admin from the file system.
//! 2. A formation file: all its nodes at once. Each node asks all others first; where one of them already belongs to
//!    the cluster, an empty folder is a wiped one and does not take part. The node with the lowest id initializes,
//!    with all nodes in the first membership, so that none ever leads alone.
//! 3. `join` with a token of a running cluster: the log allocates a new node id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{ChangeMembers, async_runtime::WatchReceiver as _};
use rookery_proto::{
    cluster::v1::{JoinRequest, JoinResponse, cluster_service_client::ClusterServiceClient},
    log::v1::{
        Applied, ClusterCommand, FormCluster, NodeRecord, PutCertificate, applied, cluster_command,
        cluster_outcome,
    },
    peer::v1::{
        FolderAgeRequest, FreshnessRequest, ProbeRequest, ProbeResponse, channel_request,
        channel_response,
    },
};

use super::{
    Consensus, Error, Group, Identity, Parts, State,
    channel::{self, Channels},
    cluster_time::Moment,
    folder_age::{self, Ages},
    groups::{Groups, member_of},
    types::{self, Member, Metrics},
};
use crate::{
    authz::{Clearance, Permit, ServerOperation},
    cluster::{Cluster, Registry},
    config::Formation,
    limits,
    names::{GroupId, Incarnation, NodeId, RequestId, Thumbprint},
};

/// How often the duties of a node are looked at when nothing wakes them.
const DUTY_INTERVAL: Duration = Duration::from_millis(500);
/// How often a forming node asks the others.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);
/// How far behind a learner may be to become a voter, in entries.
const LEARNER_LAG_MAX: u64 = 100;
/// Longest wait for a change of a membership; it goes on, and is looked at again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a graceful stop waits for another node to take over a group.
const HAND_OVER: Duration = Duration::from_secs(3);

impl Consensus {
    /// Opens what the data folder holds and starts the groups of a member, or waits as a passive node.
    ///
    /// # Errors
    /// A data folder that cannot be trusted: its logs are shorter than what was synced, or a record is damaged.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, Error> {
        let identity = Identity::load_or_make(parts.store.as_ref())?;
        check_folder(&identity, parts.expected.as_ref())?;
        parts.sentinel.identify(identity.node_id, identity.incarnation)?;
        let ages = Arc::new(begin_session(&parts)?);
        // Empty until the cluster group is opened, which knows where its state stands.
        let cluster = Arc::new(Cluster::unformed());
        let on_fatal = parts.on_fatal.clone();
        let fatal = move |why: String| on_fatal(why);
        let committer = super::Committer::start(parts.store.clone(), parts.sentinel.clone(), fatal)
            .map_err(stopped)?;
        let member = identity.is_member();
        let noted = parts.expected.and_then(|expected| expected.audit_checkpoint);
        let noted = noted.map(|checkpoint| super::audit::Noted { checkpoint, checked: false });
        let state = match member {
            true => State::Joining,
            false => State::Passive(passive_reason(parts.formation.is_some())),
        };
        let consensus = Arc::new_cyclic(|this| Self {
            config: parts.config,
            formation: parts.formation,
            store: parts.store,
            room: parts.room,
            fullness: super::fullness::Fullness::default(),
            ages,
            tls: parts.tls,
            sealing_key: parts.sealing_key,
            clock: parts.clock,
            identity: arc_swap::ArcSwap::from_pointee(identity),
            state: tokio::sync::watch::Sender::new(state),
            cluster,
            groups: Groups::default(),
            committer,
            channels: std::sync::OnceLock::new(),
            local: std::sync::OnceLock::new(),
            freshness: super::Freshness::default(),
            promises: super::Promises::default(),
            sentinel: parts.sentinel,
            on_fatal: parts.on_fatal,
            registry_changes: tokio::sync::watch::Sender::new(0),
            audit_changes: tokio::sync::watch::Sender::new(0),
            denials: super::denials::Denials::default(),
            noted_checkpoint: parking_lot::Mutex::new(noted),
            vouched: super::Vouched::default(),
            taking_in: parking_lot::Mutex::default(),
            becoming: tokio::sync::Mutex::new(()),
            last_stamp: std::sync::atomic::AtomicI64::new(0),
            cluster_time: super::cluster_time::ClusterTime::default(),
            tasks: tokio_util::task::TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
            this: this.clone(),
        });
        if member {
            consensus.begin().await?;
        } else if consensus.formation.is_some() {
            consensus.spawn(|this| async move { this.form().await });
        }
        Ok(consensus)
    }

    /// Starts the cluster group and the duties of a member.
    async fn begin(&self) -> Result<(), Error> {
        self.open_channels();
        self.start_cluster_group().await?;
        self.check_name()?;
        self.refresh_channels();
        self.initialize_if_first().await?;
        self.spawn(|this| async move { this.duties().await });
        self.spawn(|this| async move { this.keep_fresh().await });
        self.spawn(|this| async move { this.watch_disk().await });
        self.spawn(|this| async move { this.watch_freshness().await });
        self.spawn(|this| async move { this.scrub().await });
        self.spawn(|this| async move { this.grow_old().await });
        self.spawn(|this| async move { this.remember_ages().await });
        self.spawn(|this| async move { this.learn_members().await });
        self.spawn(|this| async move { this.write_denials().await });
        self.spawn(|this| async move { this.keep_sealing_key_registered().await });
        self.spawn(|this| async move { this.declare_well_known().await });
        self.spawn(|this| async move { this.tell_expiry().await });
        Ok(())
    }

    /// A data folder under the configuration of another node, with its master key: two nodes would each show the
    /// other's certificate and address.
    fn check_name(&self) -> Result<(), Error> {
        let (id, configured) = (self.node_id(), &self.config.node.name);
        match self.registry().node(id) {
            Some(record) if record.name != *configured => Err(crate::storage::Error::Folder(format!(
                "the data folder {} is that of the node {} (id {id}), but the configuration names this node {configured}; \
                 put the folder back where it belongs",
                self.config.node.data.display(),
                record.name
            ))
            .into()),
            // The registry of a node that has just joined comes from the others.
            Some(_) | None => Ok(()),
        }
    }

    fn spawn<F, Fut>(&self, task: F)
    where
        F: FnOnce(Arc<Self>) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Some(this) = self.arc() else { return };
        let stop = self.stop.clone();
        let work = task(this);
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    // ---- bootstrap ----

    /// Makes a cluster of this node alone and registers the first Cluster Admin.
    ///
    /// # Errors
    /// `ALREADY_FORMED` where the node belongs to a cluster or is to form one with others.
    pub async fn bootstrap(
        &self,
        administrator: Vec<u8>,
        name: String,
        deadline: Instant,
    ) -> Result<Arc<Registry>, Error> {
        let _one_at_a_time = self.becoming.lock().await;
        let identity = self.identity();
        let begun = identity.peers.len() == 1 && !self.registry().is_formed();
        if (identity.is_member() && !begun) || self.formation.is_some() {
            return Err(Error::refused(
                "ALREADY_FORMED",
                "this node belongs to a cluster, or is configured to form one with other nodes",
            ));
        }
        if !begun {
            let members = BTreeMap::from([(NodeId(1), self.own_member())]);
            self.become_member(uuid::Uuid::now_v7().to_string(), NodeId(1), members).await?;
        }
        let administrators = vec![administrator_command(administrator, name)];
        self.propose_formation(administrators, deadline).await?;
        Ok(self.registry())
    }

    async fn propose_formation(
        &self,
        administrators: Vec<PutCertificate>,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        let identity = self.identity();
        let nodes: Vec<NodeRecord> =
            identity.peers.iter().map(|(id, member)| node_record(*id, member)).collect();
        let node_certificates = identity
            .peers
            .values()
            .map(|member| self.certificate_of(member))
            .collect::<Result<_, _>>()?;
        let command = ClusterCommand {
            command: Some(cluster_command::Command::FormCluster(FormCluster {
                cluster_id: identity.cluster_id.clone(),
                nodes,
                node_certificates,
                administrators,
            })),
        };
        let permit = Permit::internal(ServerOperation::FormCluster, "form the cluster");
        self.propose_cluster(permit, RequestId::random(), command, deadline).await
    }

    fn certificate_of(&self, member: &Member) -> Result<Vec<u8>, Error> {
        if member.thumbprint == self.thumbprint().as_bytes() {
            return Ok(self.tls().certificate_der().to_vec());
        }
        self.formation
            .iter()
            .flat_map(|formation| &formation.nodes)
            .find(|node| node.thumbprint.as_bytes().as_slice() == member.thumbprint)
            .map(|node| node.certificate.clone())
            .ok_or_else(|| Error::Stopped("a member's certificate is not at hand".to_owned()))
    }

    fn own_member(&self) -> Member {
        Member {
            name: self.config.node.name.clone(),
            peer_address: self.config.advertise.peer.clone(),
            client_address: self.config.advertise.client.clone(),
            thumbprint: self.thumbprint().as_bytes().to_vec(),
            incarnation: self.identity().incarnation.as_bytes().to_vec(),
            other_thumbprints: Vec::new(),
        }
    }

    /// From here on this data folder belongs to a cluster.
    async fn become_member(
        &self,
        cluster_id: String,
        node_id: NodeId,
        peers: BTreeMap<NodeId, Member>,
    ) -> Result<(), Error> {
        let incarnation = self.identity().incarnation;
        let identity = Identity { cluster_id, node_id, incarnation, peers };
        identity.save(self.store.as_ref())?;
        self.sentinel.identify(node_id, incarnation)?;
        self.identity.store(Arc::new(identity));
        self.state.send_replace(State::Joining);
        self.begin().await
    }

    // ---- formation ----

    /// Forms the cluster of the formation file, once, or finds out that it stands already.
    async fn form(&self) {
        let Some(formation) = self.formation.clone() else { return };
        let Some(me) = formation.nodes.iter().find(|n| n.thumbprint == self.thumbprint()) else {
            self.stay_passive(
                "the formation file does not name this node's certificate".to_owned(),
            );
            return;
        };
        let id = NodeId(me.id);
        loop {
            match self.probe_all(&formation).await {
                Probed::Waiting(silent) => self.stay_passive(format!(
                    "waiting to form the cluster: no answer yet from {}",
                    silent.join(", ")
                )),
                Probed::Wiped(by) => self.stay_passive(format!(
                    "this data folder is empty, but {by} says that the cluster stands and knows this node by another \
                     folder. It takes no part: remove the node from the cluster (`rookery cluster remove`) and join \
                     it anew with a token, from a configuration without a formation file"
                )),
                Probed::Ready(members) => {
                    if let Err(error) = self.become_member(formation.cluster_id, id, members).await {
                        tracing::error!(%error, "forming the cluster failed");
                        (self.on_fatal)(format!("forming the cluster failed: {error}"));
                    }
                    return;
                }
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    fn stay_passive(&self, why: String) {
        self.state.send_if_modified(|state| {
            let next = State::Passive(why.clone());
            if *state == next {
                return false;
            }
            tracing::info!(why, "passive");
            *state = next;
            true
        });
    }

    /// The founder with the lowest id begins the cluster group, with all founders as voters; a second time it is told
    /// that the group has begun. Looked at in every start, because a crash may come before the first time.
    async fn initialize_if_first(&self) -> Result<(), Error> {
        let identity = self.identity();
        let founder = identity.peers.keys().next() == Some(&identity.node_id);
        let founded = self.formation.is_some() || identity.peers.len() == 1;
        if !founder || !founded {
            return Ok(());
        }
        let voters: BTreeMap<u64, Member> =
            identity.peers.iter().map(|(id, member)| (id.0, member.clone())).collect();
        match self.group(GroupId::CLUSTER)?.raft.initialize(voters).await {
            Ok(()) | Err(openraft::errors::RaftError::APIError(_)) => Ok(()),
            Err(fatal) => Err(stopped(fatal)),
        }
    }

    async fn probe_all(&self, formation: &Formation) -> Probed {
        let mine = self.identity().incarnation;
        let mut members = BTreeMap::new();
        let mut silent = Vec::new();
        for node in &formation.nodes {
            let member = |incarnation: Vec<u8>| Member {
                name: node.name.clone(),
                peer_address: node.peer_address.clone(),
                client_address: node.client_address.clone(),
                thumbprint: node.thumbprint.as_bytes().to_vec(),
                incarnation,
                other_thumbprints: Vec::new(),
            };
            if node.thumbprint == self.thumbprint() {
                members.insert(NodeId(node.id), member(mine.as_bytes().to_vec()));
                continue;
            }
            match self.probe(formation, NodeId(node.id), &member(Vec::new())).await {
                Some(answer) if answer.formed && answer.known_incarnation != mine.as_bytes() => {
                    return Probed::Wiped(node.name.clone());
                }
                Some(answer) if Incarnation::from_bytes(&answer.incarnation).is_ok() => {
                    members.insert(NodeId(node.id), member(answer.incarnation));
                }
                Some(_) | None => silent.push(node.name.clone()),
            }
        }
        if silent.is_empty() { Probed::Ready(members) } else { Probed::Waiting(silent) }
    }

    async fn probe(
        &self,
        formation: &Formation,
        id: NodeId,
        member: &Member,
    ) -> Option<ProbeResponse> {
        let request = ProbeRequest {
            cluster_id: formation.cluster_id.clone(),
            node_name: self.config.node.name.clone(),
            incarnation: self.identity().incarnation.as_bytes().to_vec(),
        };
        let asked = async {
            let address = self.dial_address(id, member);
            let pin = Thumbprint::from_bytes(&member.thumbprint).map_err(std::io::Error::other)?;
            let connection = channel::connect(&address, self.tls.load(), &[pin]).await?;
            let answer = channel::client(connection).probe(request).await;
            answer.map(tonic::Response::into_inner).map_err(std::io::Error::other)
        };
        match tokio::time::timeout(limits::PEER_ANSWER_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(node = member.name, %error, "no answer to a probe");
                None
            }
            Err(_) => None,
        }
    }

    // ---- joining ----

    /// Asks a running cluster for membership; the node must be passive.
    ///
    /// # Errors
    /// `ALREADY_FORMED`; `JOIN_TOKEN_REFUSED` and others from the cluster; [`Error::NoLeader`] where it is not reached.
    pub async fn join(
        &self,
        address: &str,
        token_id: String,
        token_secret: Vec<u8>,
        pin: Thumbprint,
        deadline: Instant,
    ) -> Result<(String, NodeId), Error> {
        let _one_at_a_time = self.becoming.lock().await;
        if self.identity().is_member() || self.formation.is_some() {
            return Err(Error::refused(
                "ALREADY_FORMED",
                "this node belongs to a cluster, or is configured to form one with other nodes",
            ));
        }
        let request_id = join_request_id(&token_id, self.identity().incarnation);
        let request = JoinRequest {
            token_id,
            token_secret,
            node_name: self.config.node.name.clone(),
            client_address: self.config.advertise.client.clone(),
            peer_address: self.config.advertise.peer.clone(),
            incarnation: self.identity().incarnation.as_bytes().to_vec(),
            request_id,
        };
        let asked = async {
            let connection =
                channel::connect(address, self.tls.load(), &[pin]).await.map_err(|error| {
                    Error::refused("JOIN_REFUSED", format!("{address} cannot be reached: {error}"))
                })?;
            let answer = ClusterServiceClient::new(connection).join(request).await;
            answer.map(tonic::Response::into_inner).map_err(|status| join_refused(&status))
        };
        let answered = tokio::time::timeout_at(deadline.into(), asked).await;
        let response: JoinResponse = answered.map_err(|_| Error::Timeout)??;
        let peers = response
            .members
            .iter()
            .filter_map(|node| Some((NodeId(node.id), self.joined_member(node)?)))
            .collect();
        let id = NodeId(response.node_id);
        self.become_member(response.cluster_id.clone(), id, peers).await?;
        Ok((response.cluster_id, id))
    }

    fn joined_member(&self, node: &rookery_proto::cluster::v1::Node) -> Option<Member> {
        let thumbprint: Thumbprint = node.thumbprint.parse().ok()?;
        Some(Member {
            name: node.name.clone(),
            peer_address: node.peer_address.clone(),
            client_address: node.client_address.clone(),
            thumbprint: thumbprint.as_bytes().to_vec(),
            incarnation: node.incarnation.clone(),
            other_thumbprints: Vec::new(),
        })
    }

    /// Makes a registered node a member of the cluster group: learner first, voter once it has caught up.
    /// The leader's duty; others leave it to the leader.
    async fn take_in(&self, group: &Group, registry: &Registry, id: NodeId) -> Result<(), Error> {
        let Some(member) = member_of(registry, id) else { return Ok(()) };
        tracing::info!(node = %id, "taking in a new member");
        let added = group.raft.add_learner(id.0, member, false);
        within(added).await?.map_err(stopped)?;
        self.taking_in.lock().insert(id);
        Ok(())
    }

    /// Promotes the nodes that this leader took in, once they have caught up.
    async fn promote_caught_up(&self, group: &Group) -> Result<(), Error> {
        let waiting: Vec<NodeId> = self.taking_in.lock().iter().copied().collect();
        for id in waiting {
            let caught_up = {
                let metrics = group.raft.metrics();
                let metrics = metrics.borrow_watched();
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&id.0).cloned());
                let matched = matched.flatten().map_or(0, |log_id| log_id.index);
                matched > 0 && matched + LEARNER_LAG_MAX >= metrics.last_log_index.unwrap_or(0)
            };
            if caught_up {
                self.promote(id).await?;
                self.taking_in.lock().remove(&id);
            }
        }
        Ok(())
    }

    // ---- roles ----

    /// Makes a learner of the cluster group a voter.
    ///
    /// # Errors
    /// [`Error::NotLeader`] where another node leads.
    pub async fn promote(&self, id: NodeId) -> Result<(), Error> {
        self.change(GroupId::CLUSTER, ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), true)
            .await
    }

    /// Makes a voter of the cluster group a learner.
    ///
    /// # Errors
    /// [`Error::NotLeader`] where another node leads.
    pub async fn demote(&self, id: NodeId) -> Result<(), Error> {
        self.change(GroupId::CLUSTER, ChangeMembers::RemoveVoters(BTreeSet::from([id.0])), true)
            .await
    }

    async fn change(
        &self,
        group: GroupId,
        change: ChangeMembers<u64, Member>,
        retain: bool,
    ) -> Result<(), Error> {
        use openraft::errors::{ClientWriteError, RaftError};
        let group = self.group(group)?;
        match within(group.raft.change_membership(change, retain)).await? {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Error::NotLeader),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                Err(not_changed(&error))
            }
            Err(fatal) => Err(stopped(fatal)),
        }
    }

    /// Hands leadership of a group to a node.
    ///
    /// # Errors
    /// [`Error::NotLeader`] where another node leads; [`Error::Timeout`] where the node does not take over.
    pub async fn transfer_leader(
        &self,
        group: GroupId,
        to: NodeId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let group = self.group(group)?;
        if !group.is_leader() {
            return Err(Error::NotLeader);
        }
        if to == self.node_id() {
            return Ok(());
        }
        if !group.raft.voter_ids().any(|voter| voter == to.0) {
            return Err(Error::refused(
                "FAILED_PRECONDITION",
                format!("node {to} has no vote in this group, so it cannot lead it"),
            ));
        }
        group.raft.trigger().transfer_leader(to.0).await.map_err(stopped)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = |metrics: &Metrics| metrics.current_leader == Some(to.0);
        group
            .raft
            .wait(Some(left))
            .metrics(taken, "leadership")
            .await
            .map_err(|_| Error::Timeout)?;
        Ok(())
    }

    /// Builds a snapshot of a group and lets its log be purged; returns the index it covers.
    ///
    /// # Errors
    /// [`Error::Stopped`]; [`Error::Timeout`].
    pub async fn snapshot(&self, group: GroupId, deadline: Instant) -> Result<u64, Error> {
        let group = self.group(group)?;
        let applied = group.state.applied().0;
        group.raft.trigger().snapshot().await.map_err(stopped)?;
        let covers = |metrics: &Metrics| {
            metrics.snapshot.as_ref().is_some_and(|log_id| log_id.index >= applied)
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = group.raft.wait(Some(left)).metrics(covers, "snapshot").await;
        let metrics = waited.map_err(|_| Error::Timeout)?;
        Ok(metrics.snapshot.as_ref().map_or(0, |log_id| log_id.index))
    }

    // ---- duties ----

    /// What a member does as long as it runs: follow the registry, and lead where it leads.
    async fn duties(&self) {
        let mut registry_changes = self.registry_changes();
        loop {
            self.note_leadership(GroupId::CLUSTER);
            self.watch_groups();
            self.follow_registry();
            match self.note_checkpoint() {
                Ok(()) | Err(Error::NotLeader | Error::NotMember(_)) => {} // It stops, or has not begun.
                Err(error) => (self.on_fatal)(error.to_string()),
            }
            if let Err(error) = self.reconcile_groups().await {
                tracing::error!(%error, "the database groups cannot be made what the registry says");
            }
            match self.lead().await {
                Err(error) if error.is_transient() => {}
                // As of a leader whose majority stopped a moment ago.
                Err(error) if error.is_unavailable() => {
                    tracing::info!(%error, "a duty of the leader waits; it is tried again");
                }
                Err(error) => {
                    tracing::warn!(%error, "a duty of the leader failed; it is tried again");
                }
                Ok(()) => {}
            }
            // Either a change or the interval wakes it; both mean the same.
            drop(tokio::time::timeout(DUTY_INTERVAL, registry_changes.changed()).await);
        }
    }

    /// A group that stopped by itself lost its storage or met an entry it cannot apply: the node must end.
    fn watch_groups(&self) {
        for group in self.groups.all() {
            let metrics = group.raft.metrics();
            let state = metrics.borrow_watched().running_state.clone();
            if let Err(fatal) = state
                && !self.stop.is_cancelled()
                && self.groups.find(group.id).is_some()
            {
                (self.on_fatal)(format!("group {} stopped: {fatal}", group.id));
            }
        }
    }

    /// The open join tokens, as of now.
    ///
    /// # Errors
    /// [`Error::NoLeader`] and its kin; [`Error::Storage`].
    pub async fn join_tokens(
        &self,
        deadline: Instant,
    ) -> Result<Vec<rookery_proto::log::v1::JoinTokenRecord>, Error> {
        self.linearize_cluster(deadline).await?;
        let group = self.group(GroupId::CLUSTER)?;
        Ok(group.state.read(crate::cluster::join_tokens)?)
    }

    /// Notes the first moment at which this node is seen to lead the cluster group in its term (freshness, step 6).
    pub(super) fn note_leadership(&self, id: GroupId) {
        let Some(group) = self.groups.find(id) else { return };
        // Role and term from one look: the term of a candidacy that is not won yet would begin the wait too early.
        let leads_in = {
            let metrics = group.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.state.is_leader().then_some(metrics.current_term)
        };
        if let Some(term) = leads_in {
            self.promises.lead(term, self.clock.boot());
        }
    }

    fn follow_registry(&self) {
        let registry = self.registry();
        if !registry.is_formed() {
            return;
        }
        self.refresh_channels();
        let me = self.node_id();
        let next = if registry.is_removed(me) {
            self.freshness.end();
            State::Removed
        } else if registry.node(me).is_none() {
            State::Joining
        } else {
            State::Member
        };
        self.state.send_if_modified(|state| {
            let changed = *state != next;
            if changed {
                tracing::info!(state = ?next, "cluster membership");
                *state = next;
            }
            changed
        });
    }

    /// Channels to exactly the other current members.
    pub(super) fn refresh_channels(&self) {
        let registry = self.registry();
        let me = self.node_id();
        let members: BTreeMap<NodeId, Member> = if registry.is_formed() {
            self.vouched.settle(&registry);
            let mut members = self.vouched.all();
            members.extend(registry.nodes().filter_map(|record| {
                let id = NodeId(record.id);
                Some((id, member_of(&registry, id)?))
            }));
            members
        } else {
            self.identity().peers.clone()
        };
        let Ok(channels) = self.channels() else { return };
        for id in channels.members() {
            if !members.contains_key(&id) {
                channels.remove_member(id);
            }
        }
        for (id, member) in members {
            if id != me
                && let Err(error) = channels.set_member(id, &member)
            {
                tracing::error!(node = %id, %error, "a member cannot be dialled");
            }
        }
    }

    /// The channels to other members, from the moment this node is one.
    pub(super) fn channels(&self) -> Result<Arc<Channels>, Error> {
        self.channels.get().cloned().ok_or(Error::NoLeader)
    }

    fn open_channels(&self) {
        let identity = self.identity();
        let peer = channel::PeerIdentity {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            incarnation: identity.incarnation,
            tls: self.tls.clone(),
            ages: self.ages.clone(),
        };
        self.channels.get_or_init(|| Channels::new(Arc::new(peer), self.dial_overrides()));
    }

    fn dial_overrides(&self) -> BTreeMap<String, String> {
        self.config.peers.iter().map(|(name, peer)| (name.clone(), peer.dial.clone())).collect()
    }

    fn dial_address(&self, id: NodeId, member: &Member) -> String {
        let overrides = self.dial_overrides();
        let dial = overrides.get(&id.to_string()).or_else(|| overrides.get(&member.name));
        dial.unwrap_or(&member.peer_address).clone()
    }

    /// The duties of leaders: form, take in, let go.
    async fn lead(&self) -> Result<(), Error> {
        self.hand_over_for_want_of_room().await;
        let registry = self.registry();
        let cluster = self.group(GroupId::CLUSTER)?;
        if cluster.is_leader() && !registry.is_formed() {
            self.form_registry().await?;
        }
        if !registry.is_formed() {
            return Ok(());
        }
        for group in self.groups.all() {
            if group.is_leader()
                && let Err(error) = self.let_go(&group, &registry).await
            {
                tracing::info!(group = %group.id, %error, "removed nodes are still in the group");
            }
        }
        if cluster.is_leader() {
            let known: BTreeSet<u64> = members_of(&cluster);
            let new = registry.nodes().map(|record| record.id).find(|id| !known.contains(id));
            if let Some(id) = new {
                self.take_in(&cluster, &registry, NodeId(id)).await?;
            }
            self.promote_caught_up(&cluster).await?;
            if !self.is_full() {
                self.checkpoint_audit(&cluster).await?;
            }
        }
        Ok(())
    }

    async fn form_registry(&self) -> Result<(), Error> {
        let Some(formation) = &self.formation else { return Ok(()) };
        let administrators = formation
            .administrators
            .iter()
            .map(|admin| administrator_command(admin.certificate.clone(), admin.name.clone()))
            .collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        match self.propose_formation(administrators, deadline).await {
            Ok(applied) => {
                if let Some(applied::Outcome::Cluster(outcome)) = applied.outcome
                    && let Some(cluster_outcome::Outcome::FormedCluster(formed)) = outcome.outcome
                {
                    tracing::info!(cluster = formed.cluster_id, "the cluster is formed");
                }
                Ok(())
            }
            // Another leader was first.
            Err(Error::Refused(refusal)) if refusal.reason == "ALREADY_FORMED" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes removed nodes out of a group that this node leads.
    async fn let_go(&self, group: &Group, registry: &Registry) -> Result<(), Error> {
        let gone: BTreeSet<u64> =
            members_of(group).into_iter().filter(|id| registry.is_removed(NodeId(*id))).collect();
        if gone.is_empty() {
            return Ok(());
        }
        tracing::info!(group = %group.id, nodes = ?gone, "letting removed nodes go");
        let voters: BTreeSet<u64> = group.raft.voter_ids().collect();
        let leaving: BTreeSet<u64> = gone.intersection(&voters).copied().collect();
        if leaving.len() == voters.len() {
            tracing::warn!(group = %group.id, "all voters of a group are removed nodes; it is left as it is");
            return Ok(());
        }
        if leaving.is_empty() {
            return self.change(group.id, ChangeMembers::RemoveNodes(gone), false).await;
        }
        self.change(group.id, ChangeMembers::RemoveVoters(leaving), false).await
    }

    // ---- freshness ----

    /// Keeps the registry fresh: asks the leader every L/3, and at once when a call waits.
    async fn keep_fresh(&self) {
        let pause = (self.lease() / 3).max(Duration::from_millis(10));
        loop {
            if !matches!(*self.state.borrow(), State::Removed)
                && let Err(error) = self.renew_freshness().await
            {
                tracing::debug!(%error, "freshness was not renewed");
                let short = Duration::from_millis(20);
                drop(tokio::time::timeout(short, self.stop.cancelled()).await);
                continue;
            }
            drop(tokio::time::timeout(pause, self.freshness.wanted.notified()).await);
        }
    }

    /// Steps 1 and 4 of `freshness`.
    pub(super) async fn renew_freshness(&self) -> Result<(), Error> {
        let t0 = self.clock.boot();
        let deadline = Instant::now() + limits::PEER_ANSWER_TIMEOUT;
        let group = self.group(GroupId::CLUSTER)?;
        let leader = group.leader().ok_or(Error::NoLeader)?;
        let (index, now, lease) = if leader == self.node_id() {
            self.note_leadership(GroupId::CLUSTER);
            (self.lead_read_index(&group).await?, self.time_to_tell()?, self.lease())
        } else {
            let body = channel_request::Body::Freshness(FreshnessRequest {
                applied_index: group.state.applied().0,
                full: self.is_full(),
                wall_unix_ms: self.clock.wall().0,
            });
            let answer = self.ask_peer(leader, body, limits::PEER_ANSWER_TIMEOUT).await?;
            let channel_response::Body::Freshness(answer) = answer else {
                return Err(Error::unexpected_answer());
            };
            self.fullness.hear(answer.full_node_ids.iter().copied().map(NodeId));
            let promised = Duration::from_millis(u64::from(answer.lease_ms));
            let lease = self.freshness.agreed_lease(self.lease(), promised);
            let time = crate::names::Timestamp(answer.leader_unix_ms);
            self.cluster_time.follow(time, self.clock.boot());
            // What it told may not last where this node makes the entries next.
            (answer.commit_index, Moment { time, agreed: false }, lease)
        };
        let heard = self.clock.boot();
        group.wait_applied(index, deadline).await?;
        if self.registry().is_formed() {
            self.freshness.renew(t0, lease, now.time, heard);
            self.cluster_time.goes_by(now.agreed);
            self.vouched.expire(t0);
        }
        Ok(())
    }

    // ---- the age of data folders ----

    /// Steps 1 and 2 of `folder_age`: a tick for every second in which logs grew.
    async fn grow_old(&self) {
        loop {
            tokio::time::sleep(limits::FOLDER_TICK_INTERVAL).await;
            let sentinel = self.sentinel.clone();
            let ticked = tokio::task::spawn_blocking(move || sentinel.tick()).await;
            // A sentinel that fails has told so itself.
            let Ok(Ok(Some(age))) = ticked else { continue };
            self.ages.grow(age.clone());
            let tell = |node: NodeId| {
                let age = Some(age.clone());
                let body = channel_request::Body::FolderAge(FolderAgeRequest { age });
                self.ask_peer(node, body, limits::PEER_ANSWER_TIMEOUT)
            };
            let peers = self.channels().map(|channels| channels.members()).unwrap_or_default();
            // Who cannot be reached hears of it with the next Hello.
            drop(futures::future::join_all(peers.into_iter().map(tell)).await);
        }
    }

    /// Step 3 of `folder_age`.
    async fn remember_ages(&self) {
        loop {
            self.ages.wanted.notified().await;
            let (ages, store) = (self.ages.clone(), self.store.clone());
            let written = tokio::task::spawn_blocking(move || ages.write(store.as_ref())).await;
            if let Ok(Err(error)) = written {
                (self.on_fatal)(error.to_string());
            }
        }
    }

    // ---- ending ----

    /// Hands every group over that this node leads, then stops all groups.
    pub async fn shutdown(&self) {
        self.write_last_denials().await;
        let groups = self.groups.all();
        let handed = groups.iter().map(|group| self.hand_over(group));
        drop(tokio::time::timeout(HAND_OVER, futures::future::join_all(handed)).await);
        self.stop.cancel();
        self.tasks.close();
        drop(tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await);
        for group in groups {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(group = %group.id, %error, "a group ended badly");
            }
        }
    }

    /// Gives a group that this node leads to the voter that has most of its log; first of those that answer and have
    /// room on their disks.
    pub(super) async fn hand_over(&self, group: &Group) {
        self.hand_over_but(group, &BTreeSet::new()).await;
    }

    /// The same, but to none of these; tells to whom it was tried.
    pub(super) async fn hand_over_but(&self, group: &Group, not: &BTreeSet<u64>) -> Option<u64> {
        if !group.is_leader() {
            return None;
        }
        let (me, full) = (self.node_id().0, self.full_nodes());
        let best = {
            let metrics = group.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<u64> =
                metrics.membership_config.membership().voter_ids().collect();
            let answers = |node| types::answered_within(&metrics, node, limits::ESTRANGED);
            metrics.replication.as_ref().and_then(|replication| {
                replication
                    .iter()
                    .filter(|(id, _)| **id != me && voters.contains(id) && !not.contains(id))
                    .max_by_key(|(id, matched)| {
                        let has_room = !full.contains(&NodeId(**id));
                        (answers(**id), has_room, matched.as_ref().map(|log_id| log_id.index))
                    })
                    .map(|(id, _)| *id)
            })
        };
        let to = best?;
        match self.transfer_leader(group.id, NodeId(to), Instant::now() + HAND_OVER).await {
            Ok(()) => tracing::info!(group = %group.id, to, "handed leadership over"),
            Err(error) => {
                tracing::info!(group = %group.id, %error, "leadership was not handed over")
            }
        }
        Some(to)
    }
}

/// Steps 1 and 5 of `folder_age`: the folder begins a session, unless it was found out before.
fn begin_session(parts: &Parts) -> Result<Ages, Error> {
    let expected = parts.expected.as_ref();
    if let Some(why) = expected.map(|expected| &expected.refused).filter(|why| !why.is_empty()) {
        return Err(crate::storage::Error::Folder(why.clone()).into());
    }
    let before = expected.and_then(|expected| expected.age.clone()).unwrap_or_default();
    let age = folder_age::next_session(before, rand::random());
    parts.sentinel.begin_session(age.clone())?;
    let (sentinel, on_fatal) = (parts.sentinel.clone(), parts.on_fatal.clone());
    let ages = Ages::load(parts.store.as_ref(), age, move |why| {
        // The process ends for it either way.
        if let Err(error) = sentinel.refuse(&why) {
            tracing::error!(%error, "the sentinel does not keep why this folder is refused");
        }
        on_fatal(why);
    })?;
    Ok(ages)
}

/// The store and the sentinel beside it must be of the same node: a swapped or rolled-back store is refused.
fn check_folder(
    identity: &Identity,
    expected: Option<&rookery_proto::log::v1::Sentinel>,
) -> Result<(), Error> {
    let Some(expected) = expected else { return Ok(()) };
    let other_folder =
        !expected.incarnation.is_empty() && expected.incarnation != identity.incarnation.as_bytes();
    let other_node = expected.node_id != 0 && expected.node_id != identity.node_id.0;
    if !other_folder && !other_node {
        return Ok(());
    }
    Err(crate::storage::Error::Folder(format!(
        "the store in the data folder is that of node {} and the sentinel beside it that of node {}: parts of two \
         folders, or of two moments, were put together. Restore the whole folder, or remove the node from the \
         cluster and join anew with an empty one",
        identity.node_id, expected.node_id
    ))
    .into())
}

/// What the nodes of a formation file answered.
enum Probed {
    /// These did not answer.
    Waiting(Vec<String>),
    /// This one knows the cluster, and this node by another folder.
    Wiped(String),
    /// All answered.
    Ready(BTreeMap<NodeId, Member>),
}

fn passive_reason(forming: bool) -> String {
    let why = match forming {
        true => "waiting for the other nodes of the formation file",
        false => {
            "this node belongs to no cluster: run `rookery bootstrap` on its machine to make one, or `rookery join` \
             to become a member of one"
        }
    };
    why.to_owned()
}

fn members_of(group: &Group) -> BTreeSet<u64> {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().nodes().map(|(id, _)| *id).collect()
}

fn node_record(id: NodeId, member: &Member) -> NodeRecord {
    NodeRecord {
        id: id.0,
        name: member.name.clone(),
        client_address: member.client_address.clone(),
        peer_address: member.peer_address.clone(),
        thumbprint: member.thumbprint.clone(),
        incarnation: member.incarnation.clone(),
        ..NodeRecord::default()
    }
}

fn administrator_command(der: Vec<u8>, name: String) -> PutCertificate {
    PutCertificate {
        der,
        name,
        clearance: Clearance::ClusterAdmin.number(),
        ..PutCertificate::default()
    }
}

/// The same for every try of one folder with one token, so that a lost answer can be asked for again.
fn join_request_id(token: &str, incarnation: Incarnation) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::new().chain_update(token).chain_update(incarnation.as_bytes()).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid().to_string()
}

fn join_refused(status: &tonic::Status) -> Error {
    if status.code() == tonic::Code::Unavailable {
        return Error::NoLeader;
    }
    if status.code() == tonic::Code::DeadlineExceeded {
        return Error::Timeout;
    }
    let info = tonic_types::StatusExt::get_details_error_info(status);
    let reason = info.map_or_else(|| "JOIN_REFUSED".to_owned(), |info| info.reason);
    Error::refused(&reason, status.message())
}

/// Why the votes of a group stay as they are, and what to do.
fn not_changed(
    error: &openraft::errors::ChangeMembershipError<
        openraft::alias::CommittedLeaderIdOf<types::Types>,
        u64,
    >,
) -> Error {
    use openraft::errors::ChangeMembershipError as Why;
    match error {
        // The second: a leader that was elected just now.
        Why::InProgress(_) | Why::UncommittedLeaderLog(_) => Error::refused(
            "CHANGE_UNDER_WAY",
            "the votes of the group are being changed already, or its leader is new; try again in a moment",
        ),
        Why::EmptyMembership(_) => Error::refused(
            "LAST_VOTER",
            "this is the only node with a vote in the group, and without one nothing could be decided any more; give \
             another node a vote first",
        ),
        Why::LearnerNotFound(missing) => Error::refused(
            "NOT_A_FOLLOWER",
            format!(
                "node {} does not follow the group yet; try again in a moment",
                missing.node_id
            ),
        ),
        Why::UnsupportedMembershipTransition(_) | Why::NodeMetadataChanged(_) => Error::refused(
            "CHANGE_REFUSED",
            format!("the group does not take this change: {error}"),
        ),
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(CHANGE_TIMEOUT, work).await.map_err(|_| Error::Timeout)
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::Stopped(error.to_string())
}
