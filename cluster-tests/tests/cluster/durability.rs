//! Nodes that die exactly before and after everything that must not be half done, again and again, and come back unaided.
//!
//! The table is the fault points of `node/src/fault.rs`. One row is: a node of a cluster under load dies there; it dies
//! there once more at its next start, where a start comes by; it comes back without the fault and is ready in time.
//! Meanwhile certificates are revoked. In the end every acknowledged write and revocation is there, and all nodes have
//! the same state.

#![allow(clippy::print_stdout)] // What died how often is worth reading.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::Caller,
    cluster::{Cluster, HEAL_LIMIT},
    identity::Identity,
    logs,
    wait::eventually,
    workload::Load,
};
use rookery_proto::{
    cluster::v1::TransferLeaderRequest,
    security::v1::{Access, Clearance, WhoAmIRequest},
};

const DATABASE: &str = "ledger";
const WRITERS: usize = 6;
/// Acknowledged writes after each event, so that the load is known to run.
const PROGRESS: u64 = 10;
/// Longest time until a node has come to its fault point, on a busy machine.
const DEATH_LIMIT: Duration = Duration::from_secs(20);
/// How long a node may live at its second start before the point is taken for one that no start comes by.
const RELAPSE_LIMIT: Duration = Duration::from_secs(3);
/// Entries between two snapshots.
const SNAPSHOT_AFTER: u64 = 30;
/// Entries after which a node that was away gets a snapshot: logs are purged 256 at a time.
const ABSENCE: u64 = 2 * 256;

/// What brings a node to its fault point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Documents are written all the time.
    Load,
    /// Another node becomes leader: everybody saves a vote.
    Election,
    /// A certificate is registered.
    Registration,
    /// A database is created: its key goes into the keyring.
    Creation,
    /// The node was away for so long that it gets a snapshot.
    Absence,
    /// The node leads, and another one was away for so long.
    AbsenceOfAnother,
}

const VOTES_AND_LOGS: &[(&str, Way)] = &[
    ("vote-save", Way::Election),
    ("log-append", Way::Load),
    ("sentinel-write", Way::Load),
    ("flush-callback", Way::Load),
    ("apply", Way::Load),
];

const STATE: &[(&str, Way)] = &[
    ("registry-write", Way::Registration),
    ("keyring-write", Way::Creation),
    ("purge", Way::Load),
    ("snapshot-build", Way::Load),
];

const SNAPSHOTS: &[(&str, Way)] = &[
    ("snapshot-receive", Way::Absence),
    ("snapshot-install", Way::Absence),
    ("snapshot-send", Way::AbsenceOfAnother),
];

#[tokio::test]
async fn a_node_that_dies_at_any_point_of_its_log_comes_back_whole() -> Result<()> {
    survive(VOTES_AND_LOGS).await
}

#[tokio::test]
async fn a_node_that_dies_at_any_point_of_its_state_comes_back_whole() -> Result<()> {
    survive(STATE).await
}

#[tokio::test]
async fn a_node_that_dies_during_a_snapshot_comes_back_whole_whichever_end_it_is() -> Result<()> {
    survive(SNAPSHOTS).await
}

/// What fails, how, and what its last words must name.
const FAILURES: &[(&str, &str, Way, &str)] = &[
    ("store-write-before", "200*off->return(eio)", Way::Load, "data/store cannot be written: "),
    ("store-write-before", "200*off->return(enospc)", Way::Load, "make room on its file system"),
    ("sentinel-write-before", "200*off->return(eio)", Way::Load, "data/sentinel/slot"),
    ("keyring-write-before", "return(eio)", Way::Creation, "data/keyring cannot be written: "),
    ("vote-save-before", "return(eio)", Way::Election, "Input/output error"),
    ("log-append-after", "30*off->panic", Way::Load, "the committer panicked"),
];

#[tokio::test]
async fn a_node_whose_storage_fails_ends_with_a_reason_and_comes_back_whole() -> Result<()> {
    let mut ordeal = Ordeal::start().await?;
    for part in ["cannot be written", "Input/output", "panicked", "this node stops", "stopped"] {
        ordeal.cluster.expect_in_logs(part);
    }
    for (point, action, way, reason) in FAILURES {
        let what = || format!("{point}={action}");
        ordeal.fail_at(point, action, *way, reason).await.with_context(what)?;
    }
    ordeal.judge().await
}

/// A cluster under load, and what became of it so far.
struct Ordeal {
    cluster: Cluster,
    everywhere: Vec<Caller>,
    revoked: Vec<Identity>,
    load: Load,
    rounds: usize,
}

async fn survive(points: &[(&str, Way)]) -> Result<()> {
    let mut ordeal = Ordeal::start().await?;
    for (point, way) in points {
        for side in ["before", "after"] {
            let point = format!("{point}-{side}");
            let begun = Instant::now();
            let deaths =
                ordeal.die_at(&point, *way).await.with_context(|| format!("the point {point}"))?;
            println!("{point}: {deaths} deaths, back after {:.1?}", begun.elapsed());
        }
    }
    ordeal.judge().await
}

impl Ordeal {
    async fn start() -> Result<Self> {
        // A node that was down for a moment is to need a snapshot.
        let settings = [
            ("raft.snapshot_after_entries", SNAPSHOT_AFTER.to_string()),
            ("raft.hold_entries_ms", "500".to_owned()),
        ];
        let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
        let mut cluster = Cluster::start_with(3, &settings).await?;
        cluster.expect_in_logs("FAILPOINTS is set");
        cluster.admin(0)?.create_database(DATABASE, 3).await?;
        let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
        let load = Load::start(&everywhere, DATABASE, WRITERS);
        load.progress(PROGRESS, HEAL_LIMIT).await?;
        Ok(Self { cluster, everywhere, revoked: Vec::new(), load, rounds: 0 })
    }

    /// A node ends by itself because its storage fails; gives its last words to the reader.
    async fn fail_at(&mut self, point: &str, action: &str, way: Way, reason: &str) -> Result<()> {
        let victim = self.rounds % 3;
        self.rounds += 1;
        self.cluster.nodes[victim].kill()?;
        self.revoke_somebody().await?;
        self.cluster.nodes[victim]
            .environment
            .push(("FAILPOINTS".to_owned(), format!("{point}={action}")));
        let status = self.run_until_it_ends(victim, way, DEATH_LIMIT).await?;
        let words = logs::tail(&self.cluster.nodes[victim].log(), 1);
        println!("{point}={action}: {status}: {words}");
        anyhow::ensure!(status.code().is_some_and(|code| code != 0), "the node ended: {status}");
        anyhow::ensure!(words.contains(reason), "its last words are: {words}");
        self.come_back(victim).await
    }

    async fn come_back(&mut self, victim: usize) -> Result<()> {
        self.cluster.nodes[victim].environment.retain(|(name, _)| name != "FAILPOINTS");
        for node in &mut self.cluster.nodes {
            if !node.running() {
                node.start()?;
            }
        }
        self.cluster.ready_within(HEAL_LIMIT).await.context("after the last restart")?;
        self.load.progress(PROGRESS, HEAL_LIMIT).await.context("after the last restart")
    }

    /// One row; gives the number of deaths.
    async fn die_at(&mut self, point: &str, way: Way) -> Result<usize> {
        let victim = self.rounds % 3;
        self.rounds += 1;
        self.cluster.nodes[victim].kill()?;
        self.revoke_somebody().await?;
        if way == Way::Absence {
            self.load.progress(ABSENCE, DEATH_LIMIT).await?;
        }
        self.cluster.nodes[victim]
            .environment
            .push(("FAILPOINTS".to_owned(), format!("{point}=return(kill)")));
        self.start_and_die(victim, way, DEATH_LIMIT).await?;
        let mut deaths = 1;
        if point.ends_with("before")
            && way != Way::AbsenceOfAnother
            && self.start_and_die(victim, way, RELAPSE_LIMIT).await.is_ok()
        {
            deaths += 1;
        }
        if self.cluster.nodes[victim].running() {
            self.cluster.nodes[victim].kill()?;
        }
        self.come_back(victim).await?;
        Ok(deaths)
    }

    /// Starts the node and has it killed at its fault point; an error where it lives on after `limit`.
    async fn start_and_die(&mut self, victim: usize, way: Way, limit: Duration) -> Result<()> {
        let status = self.run_until_it_ends(victim, way, limit).await?;
        anyhow::ensure!(
            status.code().is_none(),
            "the node ended with {status}, and not as if killed"
        );
        Ok(())
    }

    async fn run_until_it_ends(
        &mut self,
        victim: usize,
        way: Way,
        limit: Duration,
    ) -> Result<ExitStatus> {
        let other = (victim + 1) % 3;
        if way == Way::AbsenceOfAnother {
            self.cluster.nodes[other].kill()?;
        }
        self.cluster.nodes[victim].start()?;
        let (begun, written) = (Instant::now(), self.load.acknowledged());
        let mut led_since = None;
        while self.cluster.nodes[victim].running() {
            anyhow::ensure!(
                begun.elapsed() < limit,
                "the node did not come by in {limit:?}; {} writes were acknowledged meanwhile",
                self.load.acknowledged() - written
            );
            match way {
                Way::Load | Way::Absence => {}
                Way::Election => {
                    // Whoever leads already is elected by nobody.
                    let [one, another] = [(victim + 1) % 3, (victim + 2) % 3];
                    let to = if self.leads(one).await { another } else { one };
                    self.elect(to).await;
                }
                Way::Registration => self.register_somebody(victim).await,
                Way::Creation => self.create_database(victim).await,
                Way::AbsenceOfAnother => {
                    if self.leads(victim).await {
                        let goal =
                            *led_since.get_or_insert(self.load.acknowledged()) + 3 * SNAPSHOT_AFTER;
                        if self.load.acknowledged() > goal && !self.cluster.nodes[other].running() {
                            self.cluster.nodes[other].start()?;
                        }
                    } else {
                        self.elect(victim).await;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.cluster.nodes[victim].wait_exit(limit).await
    }

    /// Asks for an election; whoever cannot have one is asked again in the next round of the loop.
    async fn elect(&mut self, to: usize) {
        for at in self.cluster.running() {
            let Ok(to_id) = self.node_id(to).await else { return };
            let request = TransferLeaderRequest { group: DATABASE.to_owned(), node_id: to_id };
            let mut cluster = self.everywhere[at].cluster();
            let asked = cluster.transfer_leader(request);
            if matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(_))) {
                return;
            }
        }
    }

    async fn node_id(&self, at: usize) -> Result<u64> {
        // The nodes of `rookery init` have ids from 1 in the order of their names.
        u64::try_from(at + 1).context("a node id")
    }

    async fn leads(&self, at: usize) -> bool {
        let group = tokio::time::timeout(Duration::from_secs(1), self.cluster.group(at, DATABASE));
        matches!(group.await, Ok(Ok(group)) if group.role == "leader")
    }

    /// A registration through another node than the victim; it may fail while the victim dies.
    async fn register_somebody(&mut self, victim: usize) {
        let Ok(identity) = Identity::new("somebody") else { return };
        let admin = &self.everywhere[(victim + 1) % 3];
        let asked = admin.register(&identity, Clearance::User, &[(DATABASE, Access::Read)]);
        let _in_time = tokio::time::timeout(Duration::from_secs(2), asked).await;
    }

    async fn create_database(&mut self, victim: usize) {
        let name = format!("extra-{}", uuid::Uuid::new_v4().simple());
        let admin = &self.everywhere[(victim + 1) % 3];
        let asked = admin.create_database(&name, 3);
        let _in_time = tokio::time::timeout(Duration::from_secs(2), asked).await;
    }

    /// Registers a certificate and revokes it again, while a node is down.
    async fn revoke_somebody(&mut self) -> Result<()> {
        let identity = Identity::new(&format!("revoked-{}", self.rounds))?;
        let running = self.cluster.running();
        let admin = &self.everywhere[running[0]];
        eventually("a registration", HEAL_LIMIT, async || {
            match admin.register(&identity, Clearance::User, &[(DATABASE, Access::Read)]).await {
                Err(status) if status.code() != tonic::Code::AlreadyExists => Err(status.into()),
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await?;
        eventually("a revocation", HEAL_LIMIT, async || {
            match admin.revoke(&identity.thumbprint()).await {
                Err(status) if status.code() != tonic::Code::NotFound => Err(status.into()),
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await?;
        self.revoked.push(identity);
        Ok(())
    }

    /// Every acknowledged write and revocation is there on every node, and all have the same state.
    async fn judge(mut self) -> Result<()> {
        let written = self.load.finish().await?;
        for (at, caller) in self.everywhere.iter().enumerate() {
            written.check(caller, DATABASE).await.with_context(|| format!("on node {at}"))?;
        }
        self.cluster.same_state().await?;
        for identity in &self.revoked {
            for node in &self.cluster.nodes {
                let caller = node.caller(Some(identity))?;
                let who = caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
                anyhow::ensure!(!who.registered, "{} knows {}", node.name, identity.name);
                let read = caller.get(DATABASE, "load/0/000000").await;
                let denied = matches!(&read, Err(status) if matches!(
                    status.code(),
                    tonic::Code::Unauthenticated | tonic::Code::PermissionDenied
                ));
                anyhow::ensure!(denied, "{}: a revoked certificate read {read:?}", node.name);
            }
        }
        println!(
            "{} acknowledged writes and {} revocations are there",
            written.documents.len(),
            self.revoked.len()
        );
        self.cluster.finish().await
    }
}
