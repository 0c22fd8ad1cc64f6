//! Calls on open connections, over and over, while a right is taken away: what started after the acknowledgement must
//! have been refused (robustness.md, promise P3).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use rookery_proto::{
    cluster::v1::{GetTopologyRequest, ListJoinTokensRequest},
    document::v1::GetDocumentRequest,
    security::v1::ListCertificatesRequest,
};
use tonic::Status;

use crate::{
    caller::{Caller, Decision, put_request, reason},
    cluster::Cluster,
    identity::Identity,
};

/// How long probers call before the right is taken away.
const BEFORE: Duration = Duration::from_millis(100);
/// How long they go on after the acknowledgement.
const AFTER: Duration = Duration::from_millis(400);

/// What a prober calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A linearizable read.
    Read,
    /// A read of the node's own copy.
    StaleRead,
    /// A write.
    Write,
    /// What every registered certificate may do.
    Topology,
    /// What Operators may do.
    Certificates,
    /// What Cluster Admins may do.
    JoinTokens,
}

/// The document that probers read; they write beside it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its database.
    pub database: &'a str,
    /// Its id.
    pub id: &'a str,
}

impl Call {
    /// The call in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::StaleRead => "stale read",
            Self::Write => "write",
            Self::Topology => "topology",
            Self::Certificates => "list of certificates",
            Self::JoinTokens => "list of join tokens",
        }
    }

    /// Makes the call once.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn make(self, caller: &Caller, target: Target<'_>) -> Result<(), Status> {
        let read = |stale_ok| GetDocumentRequest {
            database: target.database.to_owned(),
            id: target.id.to_owned(),
            stale_ok,
        };
        match self {
            Self::Read => caller.documents().get_document(read(false)).await.map(drop),
            Self::StaleRead => caller.documents().get_document(read(true)).await.map(drop),
            Self::Write => {
                let request = put_request(target.database, "written-by-probes", "{}");
                caller.documents().put_document(request).await.map(drop)
            }
            Self::Topology => caller.cluster().get_topology(GetTopologyRequest {}).await.map(drop),
            Self::Certificates => {
                let request = ListCertificatesRequest { page_size: 1, ..Default::default() };
                caller.security().list_certificates(request).await.map(drop)
            }
            Self::JoinTokens => {
                caller.cluster().list_join_tokens(ListJoinTokensRequest {}).await.map(drop)
            }
        }
    }
}

/// One call of a prober.
#[derive(Debug)]
struct Probe {
    start: Instant,
    end: Instant,
    outcome: Result<(), Status>,
}

/// What the probers of one revocation saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls that were allowed before the acknowledgement.
    pub before: usize,
    /// Calls that started after it, all refused.
    pub after: usize,
    /// How long the acknowledgement took.
    pub took: Duration,
}

/// Calls `calls` on every node as `identity` while `revoke` runs. Each call that started after the acknowledgement must
/// have been refused, each prober must have been let in before, and have been told one of `reasons` after.
///
/// # Errors
/// A call was allowed too late, or answered with something else.
pub async fn through(
    cluster: &Cluster,
    identity: &Identity,
    target: Target<'_>,
    calls: &[Call],
    reasons: &[&str],
    revoke: impl Future<Output = Result<(), Status>>,
) -> Result<Seen> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut probers = Vec::new();
    for (node, caller) in cluster.everywhere(Some(identity))?.into_iter().enumerate() {
        for &call in calls {
            call.make(&caller, target).await?; // The connection is open, and the right is there.
            let prober = prober(call, caller.clone(), target, Arc::clone(&stop));
            probers.push((node, call, prober));
        }
    }
    tokio::time::sleep(BEFORE).await;
    let asked = Instant::now();
    revoke.await?;
    let acknowledged = Instant::now();
    tokio::time::sleep(AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let mut seen = Seen { took: acknowledged - asked, ..Seen::default() };
    for (node, call, prober) in probers {
        let probes = prober.await?;
        let who = format!("n{}, {}", node + 1, call.name());
        judge(&who, &probes, acknowledged, reasons, &mut seen)?;
    }
    Ok(seen)
}

fn prober(
    call: Call,
    caller: Caller,
    target: Target<'_>,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<Vec<Probe>> {
    let (database, id) = (target.database.to_owned(), target.id.to_owned());
    tokio::spawn(async move {
        let target = Target { database: &database, id: &id };
        let mut probes = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            let outcome = call.make(&caller, target).await;
            probes.push(Probe { start, end: Instant::now(), outcome });
        }
        probes
    })
}

fn judge(
    who: &str,
    probes: &[Probe],
    acknowledged: Instant,
    reasons: &[&str],
    seen: &mut Seen,
) -> Result<()> {
    let mut told = false;
    for probe in probes {
        if probe.start <= acknowledged {
            seen.before += usize::from(probe.outcome.is_ok());
            continue;
        }
        seen.after += 1;
        let Err(status) = &probe.outcome else {
            let late = probe.start - acknowledged;
            anyhow::bail!("{who}: allowed, {late:?} after the acknowledgement");
        };
        let expected = reasons.contains(&reason(status).as_str());
        told |= expected;
        // The connection may be closed under a call; then nothing was allowed either.
        let cut = matches!(Decision::of(&probe.outcome), Decision::None(_));
        anyhow::ensure!(expected || cut, "{who}: answered {status:?}");
    }
    if let Some(last) = probes.last().filter(|_| !told) {
        let (start, took) = (acknowledged.duration_since(last.start), last.end - last.start);
        anyhow::bail!(
            "{who}: never told why, in {} calls; the last started {start:?} before the acknowledgement, took {took:?} \
             and was answered {:?}",
            probes.len(),
            last.outcome
        );
    }
    anyhow::ensure!(probes.iter().any(|probe| probe.outcome.is_ok()), "{who}: never let in");
    Ok(())
}
