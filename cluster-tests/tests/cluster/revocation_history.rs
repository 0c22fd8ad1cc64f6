//! Many certificates whose rights are given and taken at random on three nodes, with nodes that stand still and die; the
//! exact checker judges every decision.
//!
//! `AUTHZ_SEED` repeats the choices of a run (not its timing), `AUTHZ_SECONDS` makes it longer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    authorization_history::{self, Coverage, GRANT_LAG, Version},
    caller::{Caller, granted, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    identity::Identity,
    lines::{self, Line, Watch},
    probes::{Call, Target},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rookery_proto::security::v1::{
    Access, Clearance, DeleteCertificateRequest, EditCertificateRequest, UploadCertificateRequest,
};
use tonic::Status;

const SALES: Target<'_> = Target { database: "sales", id: "planted" };
const CERTIFICATES: usize = 4;
const LINES: [Line; 4] = [
    Line::Kept(Call::Read),
    Line::Kept(Call::StaleRead),
    Line::Kept(Call::Write),
    Line::New(Call::Read),
];
const PAUSE: Duration = Duration::from_millis(8);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// How long a worker asks for one change.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);
const SECONDS_DEFAULT: u64 = 15;

/// What a certificate may do to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    registered: bool,
    operator: bool,
    access: Option<Access>,
}

impl Rights {
    fn allow(self, line: Line) -> bool {
        let writes = matches!(line, Line::Kept(Call::Write) | Line::New(Call::Write));
        let granted = match self.access {
            None => false,
            Some(Access::Read) => !writes,
            Some(_) => true,
        };
        self.registered && (self.operator || granted)
    }
}

/// One change, as it is asked for.
#[derive(Clone)]
enum Change {
    Register(UploadCertificateRequest),
    Edit(EditCertificateRequest),
    Delete(DeleteCertificateRequest),
}

impl Change {
    /// A random change of what `now` allows, and what is allowed after it.
    fn random(dice: &mut StdRng, identity: &Identity, now: Rights) -> (Self, Rights) {
        let access = match dice.random_range(0..4) {
            0 => None,
            1 => Some(Access::Read),
            _ => Some(Access::ReadWrite),
        };
        let grants: Vec<_> = access.iter().map(|access| ("sales", *access)).collect();
        let thumbprint = identity.thumbprint();
        if !now.registered {
            let request = UploadCertificateRequest {
                name: identity.name.clone(),
                clearance: Clearance::User.into(),
                grants: granted(&grants),
                certificate: identity.leaf().to_vec(),
                request_id: request_id(),
                ..Default::default()
            };
            return (Self::Register(request), Rights { registered: true, operator: false, access });
        }
        // An Operator reaches every database and has no grants.
        let kinds = if now.operator { 2 } else { 6 };
        match dice.random_range(0..kinds) {
            0 => {
                let request = DeleteCertificateRequest { thumbprint, request_id: request_id() };
                (Self::Delete(request), Rights { registered: false, operator: false, access: None })
            }
            1 => {
                let clearance = if now.operator { Clearance::User } else { Clearance::Operator };
                let request = EditCertificateRequest {
                    thumbprint,
                    clearance: clearance.into(),
                    set_grants: true,
                    request_id: request_id(),
                    ..Default::default()
                };
                let rights = Rights { operator: !now.operator, access: None, ..now };
                (Self::Edit(request), rights)
            }
            _ => {
                let request = EditCertificateRequest {
                    thumbprint,
                    grants: granted(&grants),
                    set_grants: true,
                    request_id: request_id(),
                    ..Default::default()
                };
                (Self::Edit(request), Rights { access, ..now })
            }
        }
    }

    async fn ask(&self, admin: &Caller) -> Result<(), Status> {
        let mut security = admin.security();
        match self.clone() {
            Self::Register(request) => security.upload_certificate(request).await.map(drop),
            Self::Edit(request) => security.edit_certificate(request).await.map(drop),
            Self::Delete(request) => security.delete_certificate(request).await.map(drop),
        }
    }

    /// Asks one node after the other until one acknowledges; always under the same request id.
    async fn make(&self, admins: &[Caller], first: usize) -> Result<()> {
        let began = Instant::now();
        for attempt in first.. {
            let asked = self.ask(&admins[attempt % admins.len()]);
            let status = match tokio::time::timeout(ATTEMPT_LIMIT, asked).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(status)) => Some(status),
                Err(_) => None,
            };
            anyhow::ensure!(began.elapsed() < CHANGE_LIMIT, "never acknowledged: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// One certificate's administrator: changes its rights until `stop`, and notes each version.
async fn worker(
    seed: u64,
    identity: Identity,
    admins: Vec<Caller>,
    began: Instant,
    stop: Arc<AtomicBool>,
) -> Result<Vec<(Rights, Duration, Duration)>> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut rights = Rights { registered: true, operator: false, access: Some(Access::ReadWrite) };
    let mut versions = vec![(rights, Duration::ZERO, Duration::ZERO)];
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..200))).await;
        let (change, next) = Change::random(&mut dice, &identity, rights);
        let first = dice.random_range(0..admins.len());
        let invoked = began.elapsed();
        change.make(&admins, first).await.with_context(|| identity.name.clone())?;
        versions.push((next, invoked, began.elapsed()));
        rights = next;
    }
    Ok(versions)
}

/// Nodes that stand still and die, one at a time.
async fn trouble(cluster: &mut Cluster, dice: &mut StdRng, until: Instant) -> Result<()> {
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(dice.random_range(500..1500))).await;
        let node = dice.random_range(0..3);
        if dice.random_range(0..3) == 0 {
            cluster.nodes[node].kill()?;
            tokio::time::sleep(Duration::from_millis(dice.random_range(100..1000))).await;
            cluster.nodes[node].start()?;
        } else {
            cluster.nodes[node].pause()?;
            tokio::time::sleep(Duration::from_millis(dice.random_range(200..2500))).await;
            cluster.nodes[node].resume()?;
        }
        cluster.ready_within(HEAL_LIMIT * 2).await?;
    }
    Ok(())
}

fn number(name: &str, or: u64) -> Result<u64> {
    std::env::var(name)
        .map_or(Ok(or), |text| text.parse().with_context(|| format!("{name}={text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr)] // The seed, for whoever has to repeat the run.
async fn random_histories_of_rights_hold_on_three_nodes() -> Result<()> {
    let seed = number("AUTHZ_SEED", rand::random())?;
    let seconds = number("AUTHZ_SECONDS", SECONDS_DEFAULT)?;
    eprintln!("AUTHZ_SEED={seed} AUTHZ_SECONDS={seconds}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 2).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    let admins = cluster.everywhere(Some(&cluster.administrator))?;
    let (stop, mut running) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for number in 0..CERTIFICATES {
        let name = format!("holder-{number}");
        let holder =
            cluster.register(&name, Clearance::User, &[("sales", Access::ReadWrite)]).await?;
        let began = Instant::now();
        let watch = Watch::start(&cluster, &[0, 1, 2], &holder, SALES, &LINES, PAUSE).await?;
        let skew = began.elapsed() - watch.now();
        let (seed, admins, stop) = (dice.random_range(0..u64::MAX), admins.clone(), stop.clone());
        running.push((watch, tokio::spawn(worker(seed, holder, admins, began + skew, stop))));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    trouble(&mut cluster, &mut dice, until).await?;
    stop.store(true, Ordering::Relaxed);
    let mut coverage = Coverage::default();
    for (watch, worker) in running {
        let changes = worker.await??;
        for (line, requests) in lines::by_line(watch.finish().await?) {
            let version = |(rights, invoked, acknowledged): &(Rights, Duration, Duration)| {
                let allows = rights.allow(line);
                let lag = if allows { GRANT_LAG } else { Duration::ZERO };
                Version { invoked: *invoked, acknowledged: Some(*acknowledged + lag), allows }
            };
            let versions: Vec<_> = changes.iter().map(version).collect();
            let checked = authorization_history::check(&versions, &requests);
            let checked = checked.with_context(|| format!("AUTHZ_SEED={seed}, {line:?}"))?;
            coverage = coverage.and(checked);
        }
    }
    eprintln!("{coverage:?}");
    let enough = coverage.revocations as u64 > seconds && coverage.near as u64 > 10 * seconds;
    anyhow::ensure!(enough, "a run with too little in it: {coverage:?}");
    cluster.ready().await?;
    cluster.same_state().await?;
    cluster.finish().await
}
