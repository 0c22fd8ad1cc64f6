//! The workloads and their checkers: documents (S1, S2, S4) and decisions (S3).

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::{
    arena::{Arena, DATABASE, MEMBERS},
    report::Totals,
};
use crate::{
    history::{self, Gate, Recorder, judge},
    workloads::{
        Load, Nodes, Plan,
        authorization::{self, Administrators, Door},
        settle,
    },
};

/// Clients of documents at work.
const CLIENTS: usize = 32;
/// Operations on documents a second, all clients together: what two cores serve beside the faults, so that the times of
/// recovery are those of the cluster and not of a queue.
pub const PACE: f64 = 260.0;
/// The same for binaries that are not optimised, on a machine that does other things.
pub const BRIEF_PACE: f64 = 170.0;
/// Changes of rights a second; about half of them take a right away, and many wait for the end of a fault.
const CHANGES_PER_SECOND: f64 = 10.0;
/// Certificates whose rights change, each with an administrator.
const CERTIFICATES: usize = 16;
/// Requests near a revocation that a run must have seen on each node.
const NEAR_MIN: u64 = 50;

/// Done until now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Operations on documents with a known outcome.
    pub operations: u64,
    /// Acknowledged changes of rights.
    pub changes: u64,
}

/// Workloads at work.
pub struct Work {
    recorder: Arc<Recorder>,
    nodes: Arc<Nodes>,
    load: Load,
    administrators: Administrators,
}

/// What the checkers said.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Broken promises, in words.
    pub violations: Vec<(&'static str, String)>,
    /// Why the run is too little to judge, if it is.
    pub rejected: Vec<String>,
    /// What was covered, for the report.
    pub coverage: Vec<String>,
    /// The totals.
    pub totals: Totals,
}

impl Work {
    /// Starts them, with `pace` operations on documents a second. Certificates that expire do so by the wall clock, so
    /// there are none where clocks jump.
    ///
    /// # Errors
    /// The cluster does not take them.
    pub async fn start(arena: &Arena, seed: u64, pace: f64, clocks_jump: bool) -> Result<Self> {
        let recorder = Arc::new(Recorder::default());
        let nodes = Arc::new(Nodes::new(arena.admins()?));
        let doors = arena.cluster.nodes[..MEMBERS].iter().map(Door::of).collect();
        let plan = authorization::Plan {
            certificates: CERTIFICATES,
            changes_per_second: Some(CHANGES_PER_SECOND),
            expiry: !clocks_jump,
            ..authorization::Plan::default()
        };
        let administrators =
            Administrators::start(&nodes, doors, recorder.began(), plan, seed).await;
        let administrators = administrators.context("the administrators")?;
        let plan = Plan {
            database: DATABASE.to_owned(),
            clients: CLIENTS,
            operations_per_second: Some(pace),
            ..Plan::default()
        };
        let load = Load::start(&nodes, &recorder, plan, seed);
        Ok(Self { recorder, nodes, load, administrators })
    }

    /// What was done until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { operations: self.recorder.known(), changes: self.administrators.changes() }
    }

    /// From now on the run is in this mode.
    pub fn mode(&self, name: &str) {
        self.recorder.mode(name);
    }

    /// Ends them, reads everything back on every node, and judges.
    ///
    /// # Errors
    /// The final reads were not answered.
    pub async fn finish(self, arena: &Arena) -> Result<Verdict> {
        let Self { recorder, nodes, load, administrators } = self;
        let decisions = administrators.finish().await.context("the administrators")?;
        let answers = load.finish().await.context("the clients of documents")?;
        let resolved = settle(&nodes, &arena.admins()?, &recorder, &answers).await?;
        let history = recorder.finish();
        let mut verdict = Verdict::default();
        let gate = authorization::Gate { revocations_min: 1, near_min_by_node: NEAR_MIN };
        verdict.add_decisions(decisions.judge(&history.modes, &gate));
        let gate = Gate { final_nodes: MEMBERS, known_min_by_mode: 0, ..Gate::default() };
        verdict.add_documents(judge(&history, &gate));
        verdict.coverage.push(format!("{resolved} unknown writes were resolved in the end"));
        Ok(verdict)
    }
}

impl Verdict {
    fn add_decisions(&mut self, judged: authorization::Verdict) {
        let report = match judged {
            authorization::Verdict::Passed(report) => report,
            authorization::Verdict::Rejected { reasons, report } => {
                self.rejected.extend(reasons);
                report
            }
            authorization::Verdict::Violated { violations, reasons, report } => {
                self.rejected.extend(reasons);
                // S3 is about what is allowed. A right that was given and is not known everywhere yet is no harm: on a
                // machine that does other things it takes its time, and is told, not judged.
                let (broken, late): (Vec<_>, Vec<_>) =
                    violations.into_iter().partition(|it| it.allowed);
                self.coverage.extend(late.into_iter().map(|it| format!("late grant: {it}")));
                self.violations.extend(broken.into_iter().map(|it| ("S3", it.what)));
                report
            }
        };
        self.totals.decisions = report.requests;
        self.totals.revocations = report.revocations;
        self.coverage.push(format!("S3: {report}"));
    }

    fn add_documents(&mut self, judged: history::Verdict) {
        self.totals.documents = judged.report().coverage.all.known();
        self.coverage.push(format!("{}", judged.report()));
        match judged {
            history::Verdict::Passed(_) => {}
            history::Verdict::Rejected { reasons, .. } => self.rejected.extend(reasons),
            history::Verdict::Violated { violations, .. } => {
                let told = violations.iter().map(|violation| ("S1/S2/S4", violation.to_string()));
                self.violations.extend(told);
            }
        }
    }
}
