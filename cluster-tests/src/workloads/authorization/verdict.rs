//! What the decisions of a run came to.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Changed, Told, requester::Asked, requester::Way, ways};
use crate::{
    authorization_history::{self, GRANT_LAG, Moment, NEAR, Request, Version},
    history::{self, Mode},
};

/// How far from an acknowledgement a request counts for the figures of first and last decisions.
const FAR: Duration = Duration::from_secs(1);
/// Most violations that are told.
const VIOLATIONS_MAX: usize = 20;

/// Everything that administrators changed and holders were told.
#[derive(Debug)]
pub struct Decisions {
    pub(super) told: Vec<Told>,
    /// Nodes that hold the database: they decide reads by themselves.
    pub(super) holders: Vec<usize>,
    pub(super) nodes: usize,
}

/// How much a run must have seen to mean something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gate {
    /// Acknowledged changes that took a right away.
    pub revocations_min: u64,
    /// Requests that started within 100 ms before or after such an acknowledgement, on each node.
    pub near_min_by_node: u64,
}

/// Milliseconds from an acknowledgement to the start of a request, the least and the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The least; negative before the acknowledgement.
    pub min_ms: f64,
    /// The most.
    pub max_ms: f64,
}

/// What a run saw.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Certificates with an administrator.
    pub certificates: u64,
    /// Acknowledged changes.
    pub changes: u64,
    /// Acknowledged changes that took a right away.
    pub revocations: u64,
    /// Decided requests.
    pub requests: u64,
    /// Writes without an answer that became visible.
    pub visible_writes: u64,
    /// Requests that started within 100 ms of a revocation's acknowledgement, by mode and node.
    pub near: BTreeMap<(String, usize), u64>,
    /// Start of denied requests after the acknowledgement of the revocation that denies them.
    pub denied: Option<Span>,
    /// Start of allowed requests after the acknowledgement of the revocation that ends them: always before it.
    pub allowed: Option<Span>,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Verdict {
    /// Versions explain every decision, and enough was seen.
    Passed(Report),
    /// Too little was seen: it has not passed, and nothing is violated.
    Rejected {
        /// Why.
        reasons: Vec<String>,
        /// What was seen.
        report: Report,
    },
    /// A decision that no version explains.
    Violated {
        /// Each of them; what was allowed first, at most [`VIOLATIONS_MAX`].
        violations: Vec<Unexplained>,
        /// What was seen too little of besides.
        reasons: Vec<String>,
        /// What was seen.
        report: Report,
    },
}

/// A decision that no version explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexplained {
    /// Allowed, which breaks a promise; otherwise denied, where a right came late.
    pub allowed: bool,
    /// In words.
    pub what: String,
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Verdict {
    /// The report of a run that passed.
    ///
    /// # Errors
    /// It did not; with everything there is to say.
    pub fn passed(self) -> anyhow::Result<Report> {
        match self {
            Self::Passed(report) => Ok(report),
            Self::Rejected { .. } | Self::Violated { .. } => Err(anyhow::anyhow!("{self}")),
        }
    }
}

impl Decisions {
    /// Judges every decision; `modes` are those of the run, for the coverage.
    pub fn judge(&self, modes: &[Mode], gate: &Gate) -> Verdict {
        let mut report = Report::default();
        let mut violations = Vec::new();
        for told in &self.told {
            report.certificates += 1;
            self.cover(told, modes, &mut report);
            for way in ways() {
                let found = self.check(told, way, true);
                // A denial that came too late must not hide what was allowed too late.
                let is_denial = found.as_ref().is_some_and(|what| !what.request.allowed);
                let hidden = is_denial.then(|| self.check(told, way, false)).flatten();
                let found = found.into_iter().chain(hidden);
                violations.extend(found.map(|what| Unexplained {
                    allowed: what.request.allowed,
                    what: format!("{}, {way:?}: {what}", told.name),
                }));
            }
        }
        let reasons = self.lacks(gate, &report);
        if !violations.is_empty() {
            // However many rights came late, none of them hides one that was used too long.
            violations.sort_by_key(|it| !it.allowed);
            violations.truncate(VIOLATIONS_MAX);
            return Verdict::Violated { violations, reasons, report };
        }
        if reasons.is_empty() {
            Verdict::Passed(report)
        } else {
            Verdict::Rejected { reasons, report }
        }
    }

    /// Every decision of one way, or only those that allowed.
    fn check(
        &self,
        told: &Told,
        way: Way,
        denials: bool,
    ) -> Option<authorization_history::Violation> {
        let versions = versions(&told.changes, way);
        let (ordered, apart): (Vec<_>, Vec<_>) = told
            .asked
            .iter()
            .filter(|asked| asked.way == way && (denials || asked.allowed))
            .partition(|asked| {
                // Writes are decided again by the leader; what is forwarded, by whoever it comes to.
                let is_decided_there = self.holders.contains(&asked.node) || way == Way::Stream;
                is_decided_there
                    && way != Way::Write
                    && told.changes.iter().all(|c| c.rights.database)
            });
        let ordered: Vec<_> = ordered.into_iter().map(request).collect();
        let apart: Vec<_> = apart.into_iter().map(request).collect();
        authorization_history::check(&versions, &ordered)
            .err()
            .or_else(|| authorization_history::check_apart(&versions, &apart).err())
    }

    fn cover(&self, told: &Told, modes: &[Mode], report: &mut Report) {
        let acknowledged = told.changes.iter().skip(1).filter(|c| c.acknowledged.is_some());
        report.changes += acknowledged.count() as u64;
        for pair in told.changes.windows(2) {
            let is_less = pair[1].rights.is_less_than(pair[0].rights);
            report.revocations += u64::from(is_less && pair[1].acknowledged.is_some());
        }
        report.requests += told.asked.len() as u64;
        for asked in &told.asked {
            report.visible_writes += u64::from(asked.end == Moment::MAX);
        }
        for way in ways() {
            let revocations = revocations(&told.changes, way);
            for asked in told.asked.iter().filter(|asked| asked.way == way) {
                near(asked, &revocations, modes, report);
            }
        }
    }

    fn lacks(&self, gate: &Gate, report: &Report) -> Vec<String> {
        let mut lacks = Vec::new();
        if report.revocations < gate.revocations_min {
            let Gate { revocations_min, .. } = gate;
            lacks.push(format!("{} revocations, not {revocations_min}", report.revocations));
        }
        for node in 0..self.nodes {
            let rows = report.near.iter().filter(|((_, of), _)| *of == node);
            let near: u64 = rows.map(|(_, count)| count).sum();
            if near < gate.near_min_by_node {
                let least = gate.near_min_by_node;
                lacks.push(format!(
                    "{near} requests near a revocation on n{}, not {least}",
                    node + 1
                ));
            }
        }
        lacks
    }
}

fn request(asked: &Asked) -> Request {
    let Asked { node, start, end, allowed, .. } = *asked;
    Request { node, start, end, allowed }
}

fn versions(changes: &[Changed], way: Way) -> Vec<Version> {
    let version = |changed: &Changed| {
        let allows = changed.rights.allow(way);
        let lag = if allows { GRANT_LAG } else { Duration::ZERO };
        let acknowledged = changed.acknowledged.map(|moment| moment + lag);
        Version { invoked: changed.invoked, acknowledged, allows }
    };
    changes.iter().map(version).collect()
}

/// A revocation of one way: from when the version before it stood to when the next one is asked for.
struct Revocation {
    from: Moment,
    invoked: Moment,
    acknowledged: Moment,
    to: Moment,
}

fn revocations(changes: &[Changed], way: Way) -> Vec<Revocation> {
    let mut all = Vec::new();
    for (at, pair) in changes.windows(2).enumerate() {
        let is_less = pair[0].rights.allow(way) && !pair[1].rights.allow(way);
        let (Some(from), Some(acknowledged)) = (pair[0].acknowledged, pair[1].acknowledged) else {
            continue;
        };
        let to = changes.get(at + 2).map_or(Moment::MAX, |next| next.invoked);
        let invoked = pair[1].invoked;
        all.extend(is_less.then_some(Revocation { from, invoked, acknowledged, to }));
    }
    all
}

/// Adds a request to the figures of the revocation around it.
fn near(asked: &Asked, revocations: &[Revocation], modes: &[Mode], report: &mut Report) {
    let next = revocations.partition_point(|revocation| revocation.from < asked.start);
    let Some(revocation) = next.checked_sub(1).map(|at| &revocations[at]) else { return };
    let after = asked.start.as_secs_f64() - revocation.acknowledged.as_secs_f64();
    if asked.start >= revocation.to || after.abs() > FAR.as_secs_f64() {
        return;
    }
    if after.abs() <= NEAR.as_secs_f64() {
        let mode = mode_at(modes, asked.start).to_owned();
        *report.near.entry((mode, asked.node)).or_default() += 1;
    }
    // What a grant before or after the revocation may have decided says nothing of the revocation.
    if asked.end > revocation.to || !asked.allowed && asked.end < revocation.invoked {
        return;
    }
    let span = if asked.allowed { &mut report.allowed } else { &mut report.denied };
    let ms = after * 1_000.0;
    let known = span.get_or_insert(Span { min_ms: ms, max_ms: ms });
    (known.min_ms, known.max_ms) = (known.min_ms.min(ms), known.max_ms.max(ms));
}

fn mode_at(modes: &[Mode], at: Moment) -> &str {
    let at = history::Moment::after(at);
    let next = modes.partition_point(|mode| mode.from <= at);
    next.checked_sub(1).map_or("healthy", |last| &modes[last].name)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificates, changes, revocations, requests, visible_writes, .. } = self;
        writeln!(
            f,
            "{certificates} certificates, {changes} changes, {revocations} of them revocations; {requests} requests \
             decided, {visible_writes} writes without answer that became visible"
        )?;
        for (name, span) in [("denied", self.denied), ("allowed", self.allowed)] {
            if let Some(Span { min_ms, max_ms }) = span {
                writeln!(
                    f,
                    "{name}: started {min_ms:.2} to {max_ms:.2} ms after an acknowledgement"
                )?;
            }
        }
        write!(f, "requests within 100 ms of a revocation:")?;
        for ((mode, node), count) in &self.near {
            write!(f, " {mode}/n{}: {count}", node + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(report) => write!(f, "passed\n{report}"),
            Self::Rejected { reasons, report } => {
                write!(f, "rejected: {}\n{report}", reasons.join("; "))
            }
            Self::Violated { violations, report, .. } => {
                writeln!(f, "{} violations", violations.len())?;
                violations.iter().try_for_each(|it| writeln!(f, "{it}"))?;
                write!(f, "{report}")
            }
        }
    }
}
