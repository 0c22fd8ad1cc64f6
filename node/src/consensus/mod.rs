//! Raft groups: the only place that names openraft.
//!
//! The `cluster` group spans all nodes and holds the registry; each database has a group of its own on the nodes that
//! its record names. All groups of a node share one store, one committer (so one fsync serves many groups) and one
//! channel to each peer.
//!
//! | file | what it does |
//! | --- | --- |
//! | `types`, `error` | openraft's types, and their translation from and to protobuf; why something was not done |
//! | `identity` | who this node is, as its folder says |
//! | `log_store`, `committer`, `purge` | logs and votes on the encrypted store, group commit, what of a log may go |
//! | `state_machine`, `applied`, `snapshot` | committed entries become state; state becomes a stream of chunks |
//! | `channel`, `network`, `peer_service` | what nodes say to each other, and who is heard |
//! | `groups` | which groups run here: started, stopped and cleaned up after the registry |
//! | `leadership` | what only the leader of a group can do, asked of any node |
//! | `estranged` | leaders that hear no leader of the cluster group, and so may not decide, hand over |
//! | `freshness` | strict revocation: how old a registry may be, and who waits for whom |
//! | `cluster_time` | the time that dates are decided by |
//! | `propose`, `forwarding` | a permitted command becomes an entry, here or at the leader; calls that another node serves |
//! | `audit`, `denials` | reading and sealing the audit log; denials on their way into it |
//! | `as_member`, `own_record` | what a node writes in its own name |
//! | `folder_age` | whether a data folder was replaced by an older copy of itself |
//! | `fullness` | full disks: what is refused, and who leads instead |
//! | `reads` | linearizable reads, many to a round |
//! | `documents` | reads of documents, here or on a node that holds them |
//! | `membership` | forming, bootstrapping, joining, leaving, handing over |
//! | `peers`, `vouched` | the answers to peers, and whom a node hears that was away |
//! | `scrub` | a state that is not what its log made |
//! | `stalls` | a leader whose disk stands still lets another one lead |
//! | `status` | what a person asks of a cluster |
//! | `local` | what each node tells or does alone: connections, figures |
//! | `trust` | well-known admins, notices of expiry |
//!
//! **Invariant:** nothing enters a log without a [`Permit`](crate::authz::Permit) of its author, and a forwarded
//! command carries its author's thumbprint, never the node's.

pub mod applied;
mod as_member;
pub mod audit;
pub mod channel;
mod cluster_time;
pub mod committer;
mod denials;
mod documents;
mod error;
mod estranged;
pub mod folder_age;
mod forwarding;
pub mod freshness;
mod fullness;
mod groups;
mod identity;
mod leadership;
pub mod local;
pub mod log_store;
mod membership;
pub mod network;
mod own_record;
pub mod peer_service;
mod peers;
mod propose;
mod purge;
mod reads;
mod scrub;
pub mod snapshot;
mod stalls;
pub mod state_machine;
mod status;
mod trust;
pub mod types;
mod vouched;

use std::{
    sync::{Arc, OnceLock, Weak, atomic::AtomicI64},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use denials::Denial;
pub use error::Error;
pub use groups::Group;
pub use identity::Identity;
pub use peers::Peers;

use self::{
    channel::Channels,
    committer::Committer,
    freshness::{Freshness, Promises},
    groups::Groups,
    vouched::Vouched,
};
use crate::{
    clock::Clock,
    cluster::{self, Cluster, Registry},
    config::{Config, Formation},
    limits,
    names::{GroupId, NodeId, Thumbprint, Timestamp},
    storage::{Room, Sentinel, Store},
    tls::{CurrentIdentity, TlsIdentity},
};

/// What this node brings along.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// The formation file, where one is configured.
    pub formation: Option<Formation>,
    /// The encrypted store.
    pub store: Arc<dyn Store>,
    /// How much room its file system has.
    pub room: Arc<Room>,
    /// The node's certificate and key.
    pub tls: Arc<CurrentIdentity>,
    /// The public key to which secrets for this node are sealed (X25519).
    pub sealing_key: [u8; 32],
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Says how long the logs must be, and is told of every synced batch.
    pub sentinel: Arc<Sentinel>,
    /// What the sentinel said when it was opened.
    pub expected: Option<rookery_proto::log::v1::Sentinel>,
    /// Called once with the reason when the node must end: its storage cannot be trusted any more.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
}

/// What this node is to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Belongs to no cluster; says why, and what to do.
    Passive(String),
    /// Member of a cluster whose registry it does not have yet.
    Joining,
    /// Member of a formed cluster.
    Member,
    /// Was removed from its cluster.
    Removed,
}

/// The Raft groups of this node and all that is asked of them.
pub struct Consensus {
    config: Arc<Config>,
    formation: Option<Formation>,
    store: Arc<dyn Store>,
    room: Arc<Room>,
    fullness: fullness::Fullness,
    ages: Arc<folder_age::Ages>,
    tls: Arc<CurrentIdentity>,
    sealing_key: [u8; 32],
    clock: Arc<dyn Clock>,
    identity: ArcSwap<Identity>,
    state: watch::Sender<State>,
    cluster: Arc<Cluster>,
    groups: Groups,
    committer: Arc<Committer>,
    channels: OnceLock<Arc<Channels>>,
    local: OnceLock<Arc<dyn local::Local>>,
    freshness: Freshness,
    promises: Promises,
    sentinel: Arc<Sentinel>,
    on_fatal: Arc<dyn Fn(String) + Send + Sync>,
    registry_changes: watch::Sender<u64>,
    audit_changes: watch::Sender<u64>,
    denials: denials::Denials,
    /// The last checkpoint of the audit log that was noted beside the store.
    noted_checkpoint: parking_lot::Mutex<Option<audit::Noted>>,
    vouched: Vouched,
    /// Nodes that this leader added as learners and will promote.
    taking_in: parking_lot::Mutex<std::collections::BTreeSet<NodeId>>,
    /// Held while this node becomes a member.
    becoming: tokio::sync::Mutex<()>,
    last_stamp: AtomicI64,
    /// The clocks of the members, for when this node leads.
    cluster_time: cluster_time::ClusterTime,
    tasks: TaskTracker,
    stop: CancellationToken,
    this: Weak<Self>,
}

/// A registry that is fresh, and the moment to decide at.
pub struct Fresh {
    /// The registry.
    pub registry: Arc<Registry>,
    /// The leader's wall clock.
    pub at: Timestamp,
}

impl Consensus {
    /// What this node is to its cluster, now and in future.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The registry as this node knows it, fresh or not. For display; decisions take [`Consensus::fresh`].
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.cluster.registry()
    }

    /// Hears of every published change of the registry; the value is its revision.
    #[must_use]
    pub fn registry_changes(&self) -> watch::Receiver<u64> {
        self.registry_changes.subscribe()
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    /// This node's id; 0 while it is passive.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.identity.load().node_id
    }

    /// The thumbprint of this node's own certificate.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.tls.load().thumbprint()
    }

    /// The certificate and key of this node.
    #[must_use]
    pub fn tls(&self) -> Arc<TlsIdentity> {
        self.tls.load()
    }

    /// Whether the registry is fresh enough to decide at this moment.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.freshness.is_fresh(self.clock.boot())
    }

    /// The registry to decide a call on: at least as new as every acknowledged revocation.
    ///
    /// # Errors
    /// [`Error::NotMember`] where there is no cluster; [`Error::Stale`] where the leader did not confirm in time.
    pub async fn fresh(&self, deadline: Instant) -> Result<Fresh, Error> {
        if let State::Passive(why) = &*self.state.borrow() {
            return Err(Error::NotMember(why.clone()));
        }
        if self.lease().is_zero() {
            self.renew_freshness().await?;
            return Ok(self.fresh_now());
        }
        if !self.is_fresh() {
            self.wait_fresh(deadline).await?;
        }
        Ok(self.fresh_now())
    }

    /// **Invariant:** freshness is checked before the registry is loaded, so the registry is no older than the check.
    fn fresh_now(&self) -> Fresh {
        let registry = self.cluster.registry();
        Fresh { registry, at: self.freshness.leader_wall(self.clock.boot()) }
    }

    /// The time that dates are decided by, as long as this node leads the cluster.
    fn time_as_leader(&self) -> cluster_time::Moment {
        if self.config.authorization.log_time_floor
            && let Ok(group) = self.group(GroupId::CLUSTER)
            && let Ok(Some(head)) = group.state.read(cluster::audit_head)
        {
            self.cluster_time.not_before(Timestamp(head.checkpoint_unix_ms));
        }
        let members = self.registry().nodes().count();
        self.cluster_time.now(self.clock.wall(), self.clock.boot(), members)
    }

    /// The same, for those who go by it.
    ///
    /// # Errors
    /// [`Error::Stale`] as long as it could be the time of one wrong clock, but not for long.
    fn time_to_tell(&self) -> Result<cluster_time::Moment, Error> {
        let moment = self.time_as_leader();
        let told = self.cluster_time.may_be_told(moment, self.clock.boot());
        told.then_some(moment).ok_or(Error::Stale)
    }

    /// The cluster's time as far as this node knows it, fresh or not; long past before it was heard of.
    #[must_use]
    pub fn leader_time(&self) -> Timestamp {
        self.freshness.leader_wall(self.clock.boot())
    }

    async fn wait_fresh(&self, deadline: Instant) -> Result<(), Error> {
        let mut renewals = self.freshness.subscribe();
        let deadline = deadline.min(Instant::now() + limits::FRESHNESS_WAIT);
        self.freshness.wanted.notify_one();
        let waited = async {
            while !self.is_fresh() {
                if renewals.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout_at(deadline.into(), waited).await.map_err(|_| Error::Stale)
    }

    /// L: how long a registry stays fresh.
    fn lease(&self) -> Duration {
        Duration::from_millis(self.config.authorization.freshness_ms)
    }

    /// A strong reference to itself, for tasks; none while it is being dropped.
    fn arc(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }
}

#[cfg(test)]
mod peer_tests;

#[cfg(test)]
mod raft_tests;

#[cfg(test)]
mod storage_tests;

#[cfg(test)]
mod tests;
