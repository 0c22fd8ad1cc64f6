//! Writes and revocations until the power goes, and the proof that what was acknowledged is there.
//!
//! Nothing is tried twice: a call without an answer is unknown and may or may not have happened. Ids are never used
//! again, so that a write of an earlier round cannot stand in for a lost one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rookery_proto::security::v1::{Access, Clearance, WhoAmIRequest};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    caller::{Caller, put_request},
    cluster::{Cluster, HEAL_LIMIT},
    identity::Identity,
    wait::eventually,
    workload::read_all,
};

/// Longest wait for one answer.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a call that failed.
const PAUSE: Duration = Duration::from_millis(10);

/// What was acknowledged since a cluster began.
#[derive(Default)]
pub struct Ledger {
    /// Document by id.
    pub documents: BTreeMap<String, String>,
    /// Thumbprints whose revocation was acknowledged.
    pub revoked: BTreeSet<String>,
    /// Every certificate that was registered, by thumbprint.
    identities: BTreeMap<String, Identity>,
}

/// Callers at work.
pub struct Running {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Acks>>,
    revoker: JoinHandle<BTreeSet<String>>,
}

/// Acknowledged documents, and how long each took.
#[derive(Debug, Default)]
struct Acks {
    documents: Vec<(String, String)>,
    times: Vec<Duration>,
    last: Option<Instant>,
}

/// What a load left behind.
#[derive(Debug)]
pub struct Ended {
    /// Acknowledged writes.
    pub writes: usize,
    /// Acknowledged revocations.
    pub revocations: usize,
    /// How long each acknowledged write took, ascending.
    pub times: Vec<Duration>,
    /// When the last acknowledgement came.
    pub last: Option<Instant>,
}

impl Ended {
    /// The time that 99 of 100 acknowledged writes stayed below.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.times.get(self.times.len() * 99 / 100).copied().unwrap_or_default()
    }
}

impl Ledger {
    /// Registers `count` certificates that a load may revoke.
    ///
    /// # Errors
    /// A registration is refused.
    pub async fn register(&mut self, cluster: &mut Cluster, count: usize) -> Result<Vec<Identity>> {
        let mut made = Vec::new();
        let node = cluster.running()[0];
        let admin = cluster.admin(node)?;
        for _ in 0..count {
            let identity = Identity::new(&format!("c{}", self.identities.len()))?;
            admin.register(&identity, Clearance::User, &[("ledger", Access::Read)]).await?;
            self.identities.insert(identity.thumbprint(), identity.clone());
            made.push(identity);
        }
        Ok(made)
    }

    /// Starts `writers` tasks that put documents into the database `ledger`, each at one of `callers`, and one that
    /// revokes `victims` one after another. Ids begin with `prefix`.
    #[must_use]
    pub fn start(
        &self,
        callers: &[Caller],
        writers: usize,
        prefix: &str,
        victims: &[Identity],
    ) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..writers).map(|number| {
            let caller = callers[number % callers.len()].clone();
            let prefix = format!("{prefix}/{number}");
            tokio::spawn(write(caller, prefix, Arc::clone(&stop), Arc::clone(&acknowledged)))
        });
        let writers = writers.collect();
        let victims: Vec<_> = victims.iter().map(Identity::thumbprint).collect();
        let revoker = tokio::spawn(revoke(callers.to_vec(), victims, Arc::clone(&stop)));
        Running { stop, acknowledged, writers, revoker }
    }

    /// Ends a load and takes over what it was told.
    ///
    /// # Errors
    /// A task of the load failed.
    pub async fn finish(&mut self, running: Running) -> Result<Ended> {
        running.stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        let (mut writes, mut last) = (0, None);
        for writer in running.writers {
            let acks = writer.await?;
            writes += acks.documents.len();
            self.documents.extend(acks.documents);
            times.extend(acks.times);
            last = last.max(acks.last);
        }
        let revoked = running.revoker.await?;
        let revocations = revoked.len();
        self.revoked.extend(revoked);
        times.sort_unstable();
        Ok(Ended { writes, revocations, times, last })
    }

    /// Checks on every running node that each acknowledged write is read and each revoked certificate is refused.
    ///
    /// # Errors
    /// Something acknowledged is lost.
    pub async fn check(&self, cluster: &mut Cluster) -> Result<()> {
        for at in cluster.running() {
            let cluster = &*cluster;
            let node = &cluster.nodes[at];
            let stored = read_all(&cluster.admin(at)?, "ledger", "").await?;
            let lost: Vec<_> =
                self.documents.iter().filter(|(id, json)| stored.get(*id) != Some(json)).collect();
            if let Some((id, _)) = lost.first() {
                let again = what_nodes_say(cluster, id).await;
                anyhow::bail!(
                    "{}: of {} acknowledged writes {} are lost: {:?}\n{again}",
                    node.name,
                    self.documents.len(),
                    lost.len(),
                    &lost[..lost.len().min(10)]
                );
            }
            for thumbprint in &self.revoked {
                let identity = self.identities.get(thumbprint).context("an unknown certificate")?;
                let caller = node.caller(Some(identity))?;
                let who = eventually("who it is", HEAL_LIMIT, async || {
                    Ok(caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner())
                });
                anyhow::ensure!(
                    !who.await?.registered,
                    "{} lost the revocation of {thumbprint}",
                    node.name
                );
                let read = caller.get("ledger", "anything").await;
                let code = read.err().map_or(Code::Ok, |status| status.code());
                anyhow::ensure!(
                    code == Code::Unauthenticated,
                    "{} answered a revoked certificate {code:?}",
                    node.name
                );
            }
        }
        Ok(())
    }
}

impl Running {
    /// Waits until `more` writes have been acknowledged from now on.
    ///
    /// # Errors
    /// They are not within `limit`.
    pub async fn progress(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        eventually("acknowledged writes", limit, async || {
            let now = self.acknowledged();
            anyhow::ensure!(now >= goal, "{now} of {goal}");
            Ok(())
        })
        .await
    }

    /// Whether each victim was tried.
    #[must_use]
    pub fn revocations_are_done(&self) -> bool {
        self.revoker.is_finished()
    }

    /// Acknowledged writes until now.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// Each node's view of a document and its group, for whoever looks for a lost write.
async fn what_nodes_say(cluster: &Cluster, id: &str) -> String {
    let mut text = String::new();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let document = match cluster.admin(at) {
            Ok(admin) => admin.get("ledger", id).await.map_err(|status| status.code()),
            Err(error) => return error.to_string(),
        };
        let group = cluster.group(at, "ledger").await;
        text += &format!("{}: group {group:?}, document {document:?}\n", node.name);
    }
    text
}

async fn write(
    caller: Caller,
    prefix: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Acks {
    let mut acks = Acks::default();
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{prefix}/{count:06}");
        let json = format!("{{\"id\":\"{id}\",\"filler\":\"{}\"}}", "x".repeat(count % 700));
        let mut request = tonic::Request::new(put_request("ledger", &id, &json));
        request.set_timeout(ATTEMPT_LIMIT);
        let start = Instant::now();
        let mut documents = caller.documents();
        let put = tokio::time::timeout(ATTEMPT_LIMIT, documents.put_document(request));
        if matches!(put.await, Ok(Ok(_))) {
            acknowledged.fetch_add(1, Ordering::Relaxed);
            acks.times.push(start.elapsed());
            acks.last = Some(Instant::now());
            acks.documents.push((id, json));
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
    acks
}

async fn revoke(
    callers: Vec<Caller>,
    victims: Vec<String>,
    stop: Arc<AtomicBool>,
) -> BTreeSet<String> {
    let mut revoked = BTreeSet::new();
    for (thumbprint, caller) in victims.into_iter().zip(callers.iter().cycle()) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let revocation = caller.revoke(&thumbprint);
        if matches!(tokio::time::timeout(ATTEMPT_LIMIT, revocation).await, Ok(Ok(()))) {
            revoked.insert(thumbprint);
        }
    }
    revoked
}
