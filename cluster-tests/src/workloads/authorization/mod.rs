//! Administrators who give and take rights while the holders of those rights keep asking (robustness P3).
//!
//! Each certificate has one administrator, who makes one change after the other and asks for it, under one request id,
//! until it is acknowledged. While a change is under way some of the holder's connections make requests; every decision
//! is recorded, and in the end [`Decisions::judge`] asks the exact checker whether the versions explain them all.
//!
//! | way | what it is |
//! | --- | --- |
//! | kept, read or stale read | a connection that was opened long before, idle in between |
//! | new | a connection for each request |
//! | HTTP/1.1 | a connection that stays open, without gRPC's library |
//! | stream | messages of a running stream |
//! | write | each under an id that no unknown write ever had, so that what became visible is seen in the end |
//!
//! The database is held by two of the nodes, so that the others forward. Beside ordinary certificates there is one whose
//! database is deleted and made anew (the old grant must not come back) and a row of certificates that expire.

mod administrator;
mod expiry;
mod requester;
mod rights;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rookery_proto::{database::v1::GetDatabaseRecordRequest, security::v1::Clearance};
use rustls_pki_types::CertificateDer;
use tokio::task::JoinHandle;

pub use verdict::{Decisions, Gate, Report, Unexplained, Verdict};

use super::{Nodes, pace::Pace};
use crate::{authorization_history::Moment, identity::Identity, node::Node};
use administrator::Administrator;
use requester::{Asked, Lost, Way};
use rights::Rights;

/// What requesters read.
const PLANTED: &str = "planted";

/// How one node is reached by a holder.
#[derive(Debug, Clone)]
pub struct Door {
    /// Its name.
    pub name: String,
    /// Its client listener.
    pub address: SocketAddr,
    /// Its certificate.
    pub server: CertificateDer<'static>,
}

impl Door {
    /// The client listener of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let (name, server) = (node.name.clone(), node.certificate().clone());
        Self { name, address: node.addresses.client, server }
    }
}

/// What administrators do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The database that rights are about; it is made, on two nodes.
    pub database: String,
    /// Certificates with an administrator each.
    pub certificates: usize,
    /// Changes a second of all administrators together; about half of them take rights away.
    pub changes_per_second: Option<f64>,
    /// Whether one database is deleted and made anew, over and over.
    pub databases: bool,
    /// Whether certificates expire; not while wall clocks jump.
    pub expiry: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            database: "vault".to_owned(),
            certificates: 12,
            changes_per_second: Some(8.0),
            databases: true,
            expiry: true,
        }
    }
}

/// What all administrators share.
pub(crate) struct Shared {
    pub plan: Plan,
    pub admins: Arc<Nodes>,
    pub doors: Vec<Door>,
    pub began: Instant,
    pub pace: Pace,
    pub stop: AtomicBool,
    pub changes: AtomicU64,
}

impl Shared {
    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A change of rights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed {
    pub rights: Rights,
    pub invoked: Moment,
    pub acknowledged: Option<Moment>,
}

/// What happened around one certificate.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub name: String,
    pub database: String,
    pub changes: Vec<Changed>,
    pub asked: Vec<Asked>,
    pub lost: Vec<Lost>,
}

/// Administrators at work.
pub struct Administrators {
    shared: Arc<Shared>,
    holders: Vec<usize>,
    workers: Vec<JoinHandle<Result<Vec<Told>>>>,
}

impl Administrators {
    /// Makes the databases, registers the certificates, and starts. `admins` are Cluster Admins on the nodes behind
    /// `doors`, in the same order; moments count from `began`, the beginning of the recorder whose modes count.
    ///
    /// # Errors
    /// The cluster refuses, or does not answer.
    pub async fn start(
        admins: &Arc<Nodes>,
        doors: Vec<Door>,
        began: Instant,
        plan: Plan,
        seed: u64,
    ) -> Result<Self> {
        let (_, admin) = admins.at(0);
        let replicas = u32::try_from(doors.len().clamp(1, 2))?;
        admin.create_database(&plan.database, replicas).await.context("making the database")?;
        admin.put(&plan.database, PLANTED, "{}").await.context("planting a document")?;
        let request = GetDatabaseRecordRequest { name: plan.database.clone() };
        let record = admin.databases().get_database_record(request).await?.into_inner().record;
        let names = record.map(|record| record.nodes).unwrap_or_default();
        let holders = (0..doors.len()).filter(|at| names.contains(&doors[*at].name)).collect();
        let shared = Arc::new(Shared {
            pace: Pace::new(plan.changes_per_second),
            admins: Arc::clone(admins),
            doors,
            began,
            stop: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            plan,
        });
        let mut dice = StdRng::seed_from_u64(seed);
        let mut workers = Vec::new();
        for number in 0..shared.plan.certificates {
            let name = format!("{}-holder-{number}", shared.plan.database);
            let database = shared.plan.database.clone();
            let dice = StdRng::seed_from_u64(dice.random());
            workers.push(begin(&shared, &name, database, false, dice).await?);
        }
        if shared.plan.databases {
            let name = format!("{}-again", shared.plan.database);
            let dice = StdRng::seed_from_u64(dice.random());
            workers.push(begin(&shared, &name, name.clone(), true, dice).await?);
        }
        if shared.plan.expiry {
            let dice = StdRng::seed_from_u64(dice.random());
            workers.push(tokio::spawn(expiry::work(Arc::clone(&shared), dice)));
        }
        Ok(Self { shared, holders, workers })
    }

    /// Acknowledged changes until now.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Another speed from now on.
    pub fn speed(&self, changes_per_second: Option<f64>) {
        self.shared.pace.set(changes_per_second);
    }

    /// Ends the administrators, and looks up which unknown writes became visible. Every fault must have ended.
    ///
    /// # Errors
    /// A change was refused for good, or an unknown write cannot be looked up.
    pub async fn finish(self) -> Result<Decisions> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for worker in self.workers {
            told.extend(worker.await??);
        }
        for one in &mut told {
            requester::look_up(&self.shared, one).await?;
        }
        Ok(Decisions { told, holders: self.holders, nodes: self.shared.doors.len() })
    }
}

/// Registers a certificate without rights and starts its administrator.
async fn begin(
    shared: &Arc<Shared>,
    name: &str,
    database: String,
    makes_database: bool,
    dice: StdRng,
) -> Result<JoinHandle<Result<Vec<Told>>>> {
    let identity = Identity::new(name)?;
    let (_, admin) = shared.admins.at(0);
    let registered = admin.register(&identity, Clearance::User, &[]).await;
    registered.with_context(|| format!("registering {name}"))?;
    let worker = Administrator::new(Arc::clone(shared), identity, database, makes_database, dice)?;
    Ok(tokio::spawn(worker.work()))
}

/// Every way to every node.
pub(crate) fn ways() -> [Way; 6] {
    [Way::Read, Way::StaleRead, Way::Write, Way::New, Way::Http1, Way::Stream]
}

/// How long requests are made before a change is asked for.
pub(crate) const BEFORE: Duration = Duration::from_millis(60);
/// How long they go on after its acknowledgement.
pub(crate) const AFTER: Duration = Duration::from_millis(110);
