//! Certificates whose rights are given and taken all the time, and clients that use them on every node: S3.
//!
//! Each certificate has an administrator of its own, who makes one change after the other and repeats a change under
//! its request id until it is acknowledged. Its clients ask on open and on new connections. In the end the exact checker
//! looks at every decision, and every node is asked once more whether the last change of each certificate holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rookery_proto::security::v1::{
    Access, Clearance, DeleteCertificateRequest, EditCertificateRequest, UploadCertificateRequest,
};
use tokio::task::JoinHandle;
use tonic::Status;

use super::{
    arena::{Arena, DATABASE, MEMBERS},
    watch::PLANTED,
};
use crate::{
    authorization_history::{self, Coverage, Version},
    caller::{Caller, Decision, granted, request_id},
    cluster::HEAL_LIMIT,
    identity::Identity,
    lines::{self, Entrance, Line, Session, Watch},
    probes::{Call, Target},
    wait::eventually,
};

const TARGET: Target<'_> = Target { database: DATABASE, id: PLANTED };
/// Certificates, each with its administrator.
const HOLDERS: usize = 10;
/// What the clients of a certificate use; by turns, so that each pair is used by two certificates.
const LINES: [[Line; 2]; 5] = [
    [Line::Kept(Call::Read), Line::Kept(Call::Write)],
    [Line::Kept(Call::StaleRead), Line::New(Call::Read)],
    [Line::Http1, Line::Kept(Call::Read)],
    [Line::Kept(Call::Write), Line::New(Call::Write)],
    [Line::Kept(Call::Read), Line::Kept(Call::StaleRead)],
];
/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(200);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// How long one change is asked for before the harness gives up; longer than any fault and its healing.
const CHANGE_LIMIT: Duration = Duration::from_secs(90);

/// What a certificate may do to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    registered: bool,
    operator: bool,
    access: Option<Access>,
}

impl Rights {
    const NONE: Self = Self { registered: false, operator: false, access: None };

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
    /// A change of `now`, and what is allowed after it. Every other one takes something away.
    fn random(dice: &mut StdRng, identity: &Identity, now: Rights) -> (Self, Rights) {
        let access = match dice.random_range(0..4) {
            0 => None,
            1 => Some(Access::Read),
            _ => Some(Access::ReadWrite),
        };
        let thumbprint = identity.thumbprint();
        if !now.registered {
            return Self::register(identity, access);
        }
        // An Operator reaches every database and has no grants.
        match dice.random_range(0..if now.operator { 2 } else { 6 }) {
            0 => {
                let request = DeleteCertificateRequest { thumbprint, request_id: request_id() };
                (Self::Delete(request), Rights::NONE)
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
                (Self::Edit(request), Rights { operator: !now.operator, access: None, ..now })
            }
            _ => {
                let access = if now.access == Some(Access::ReadWrite) { None } else { access };
                let grants: Vec<_> = access.iter().map(|access| (DATABASE, *access)).collect();
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

    fn register(identity: &Identity, access: Option<Access>) -> (Self, Rights) {
        let grants: Vec<_> = access.iter().map(|access| (DATABASE, *access)).collect();
        let request = UploadCertificateRequest {
            name: identity.name.clone(),
            clearance: Clearance::User.into(),
            grants: granted(&grants),
            certificate: identity.leaf().to_vec(),
            request_id: request_id(),
            ..Default::default()
        };
        (Self::Register(request), Rights { registered: true, operator: false, access })
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
            let told = match tokio::time::timeout(ATTEMPT_LIMIT, asked).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(status)) => format!("{status:?}"),
                Err(_) => "no answer".to_owned(),
            };
            anyhow::ensure!(began.elapsed() < CHANGE_LIMIT, "never acknowledged: {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// A version of the rights: what they are, when it was asked for, and when it was acknowledged.
type Made = (Rights, Duration, Duration);

/// One certificate with its administrator and its clients.
struct Holder {
    identity: Identity,
    lines: [Line; 2],
    watch: Watch,
    administrator: JoinHandle<Result<Vec<Made>>>,
}

/// All of them at work.
pub(super) struct RightsAtWork {
    holders: Vec<Holder>,
    stop: Arc<AtomicBool>,
    revocations: Arc<AtomicU64>,
}

/// What the checker said.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) coverage: Coverage,
    pub(super) violations: Vec<String>,
}

impl RightsAtWork {
    /// Registers the certificates and starts everybody.
    pub(super) async fn start(arena: &mut Arena, seed: u64) -> Result<Self> {
        let mut dice = StdRng::seed_from_u64(seed);
        let (stop, revocations) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let admins = arena.admins()?;
        let mut holders = Vec::new();
        for number in 0..HOLDERS {
            let name = format!("holder-{number}");
            let grants = [(DATABASE, Access::ReadWrite)];
            let identity = arena.cluster.register(&name, Clearance::User, &grants).await?;
            let lines = LINES[number % LINES.len()];
            let places: Vec<usize> = (0..MEMBERS).collect();
            let watch =
                Watch::start(&arena.cluster, &places, &identity, TARGET, &lines, PAUSE).await?;
            let administrator = Administrator {
                dice: StdRng::seed_from_u64(dice.random_range(0..u64::MAX)),
                identity: identity.clone(),
                lines,
                admins: admins.clone(),
                // The watch's clock and this one show the same.
                began: Instant::now() - watch.now(),
                stop: Arc::clone(&stop),
                revocations: Arc::clone(&revocations),
            };
            let administrator = tokio::spawn(administrator.work());
            holders.push(Holder { identity, lines, watch, administrator });
        }
        Ok(Self { holders, stop, revocations })
    }

    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Relaxed)
    }

    /// Ends everybody, judges each history, and asks every node once more.
    pub(super) async fn finish(self, arena: &Arena) -> Result<Judged> {
        self.stop.store(true, Ordering::Relaxed);
        let mut judged = Judged::default();
        for holder in self.holders {
            let name = holder.identity.name.clone();
            let made = holder.administrator.await?.with_context(|| name.clone())?;
            for (line, requests) in lines::by_line(holder.watch.finish().await?) {
                let version = |(rights, invoked, acknowledged): &Made| Version {
                    invoked: *invoked,
                    acknowledged: Some(*acknowledged),
                    allows: rights.allow(line),
                };
                let versions: Vec<_> = made.iter().map(version).collect();
                match authorization_history::check(&versions, &requests) {
                    Ok(coverage) => judged.coverage = judged.coverage.and(coverage),
                    Err(violation) => {
                        judged.violations.push(format!("{name}, {line:?}: {violation}"));
                    }
                }
            }
            let Some((last, ..)) = made.last() else { continue };
            for node in 0..MEMBERS {
                let entrance = Entrance::of(&arena.cluster.nodes[node], &holder.identity);
                if let Err(why) = holds(*last, &holder.lines, &entrance).await {
                    let what = format!("{name} on n{} in the end: {why:#}", node + 1);
                    judged.violations.push(what);
                }
            }
        }
        Ok(judged)
    }
}

/// Whether a node decides by `rights`.
async fn holds(rights: Rights, lines: &[Line], entrance: &Entrance) -> Result<()> {
    for &line in lines {
        eventually("a decision", HEAL_LIMIT, async || {
            let outcome = Session::new(line, entrance)?.make(TARGET).await;
            let decision = Decision::of(&outcome);
            anyhow::ensure!(!matches!(decision, Decision::None(_)), "none: {outcome:?}");
            Ok(decision.allows())
        })
        .await
        .and_then(|allowed| {
            let expected = rights.allow(line);
            anyhow::ensure!(allowed == expected, "{line:?}: allowed {allowed}, not {expected}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Changes the rights of one certificate until it is told to stop, and notes each version.
struct Administrator {
    dice: StdRng,
    identity: Identity,
    lines: [Line; 2],
    admins: Vec<Caller>,
    began: Instant,
    stop: Arc<AtomicBool>,
    revocations: Arc<AtomicU64>,
}

impl Administrator {
    async fn work(mut self) -> Result<Vec<Made>> {
        let mut rights =
            Rights { registered: true, operator: false, access: Some(Access::ReadWrite) };
        let mut made = vec![(rights, Duration::ZERO, Duration::ZERO)];
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(50..300))).await;
            let (change, next) = Change::random(&mut self.dice, &self.identity, rights);
            let first = self.dice.random_range(0..self.admins.len());
            let invoked = self.began.elapsed();
            change.make(&self.admins, first).await?;
            made.push((next, invoked, self.began.elapsed()));
            let takes = |line: &Line| rights.allow(*line) && !next.allow(*line);
            let is_revocation = self.lines.iter().any(takes);
            self.revocations.fetch_add(u64::from(is_revocation), Ordering::Relaxed);
            rights = next;
        }
        Ok(made)
    }
}
