//! The workloads and their checkers: documents (S1, S2, S4) and rights (S3).

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::{
    arena::{Arena, DATABASE, MEMBERS},
    rights::RightsAtWork,
};
use crate::{
    history::{self, Gate, Recorder, judge},
    workloads::{Load, Nodes, Plan, settle},
};

/// Clients of documents at work.
const CLIENTS: usize = 32;
/// Operations on documents a second, all clients together: what two cores serve beside the faults, so that the times of
/// recovery are those of the cluster and not of a queue.
const OPERATIONS_PER_SECOND: f64 = 160.0;

/// Operations and revocations until now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Operations on documents with a known outcome.
    pub operations: u64,
    /// Acknowledged changes that took a right away.
    pub revocations: u64,
}

/// Workloads at work.
pub struct Work {
    recorder: Arc<Recorder>,
    nodes: Arc<Nodes>,
    load: Load,
    rights: RightsAtWork,
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
    /// The totals; operations on documents and decided requests of certificates whose rights change.
    pub counts: Counts,
}

impl Work {
    /// Starts them.
    ///
    /// # Errors
    /// The cluster does not take them.
    pub async fn start(arena: &mut Arena, seed: u64) -> Result<Self> {
        let rights = RightsAtWork::start(arena, seed).await.context("certificates")?;
        let recorder = Arc::new(Recorder::default());
        let nodes = Arc::new(Nodes::new(arena.admins()?));
        let plan = Plan {
            database: DATABASE.to_owned(),
            clients: CLIENTS,
            operations_per_second: Some(OPERATIONS_PER_SECOND),
            ..Plan::default()
        };
        let load = Load::start(&nodes, &recorder, plan, seed);
        Ok(Self { recorder, nodes, load, rights })
    }

    /// What was done until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { operations: self.recorder.known(), revocations: self.rights.revocations() }
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
        let revocations = self.counts().revocations;
        let Self { recorder, nodes, load, rights } = self;
        let mut verdict = Verdict::default();
        let judged = rights.finish(arena).await.context("the certificates")?;
        let told = judged.violations.into_iter().map(|what| ("S3", what));
        verdict.violations.extend(told);
        let coverage = judged.coverage;
        verdict.coverage.push(format!(
            "S3: {} decided requests, {} of them within 100 ms after the end of a right on their line ({} ends)",
            coverage.requests, coverage.near, coverage.revocations
        ));
        let answers = load.finish().await.context("the clients of documents")?;
        let admins = arena.admins()?;
        let resolved = settle(&nodes, &admins, &recorder, &answers).await?;
        let history = recorder.finish();
        let gate = Gate { final_nodes: MEMBERS, known_min_by_mode: 0, ..Gate::default() };
        let judged = judge(&history, &gate);
        let documents = judged.report().coverage.all.known();
        verdict.counts = Counts { operations: documents + coverage.requests as u64, revocations };
        verdict.coverage.push(format!("{}", judged.report()));
        verdict.coverage.push(format!("{resolved} unknown writes were resolved in the end"));
        match judged {
            history::Verdict::Passed(_) => {}
            history::Verdict::Rejected { reasons, .. } => verdict.rejected.extend(reasons),
            history::Verdict::Violated { violations, .. } => {
                let told = violations.iter().map(|violation| ("S1/S2/S4", violation.to_string()));
                verdict.violations.extend(told);
            }
        }
        Ok(verdict)
    }
}
