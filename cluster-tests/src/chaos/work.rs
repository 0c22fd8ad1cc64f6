//! The workloads and their checkers: S1 to S4.

use anyhow::Result;

use super::arena::{Arena, DATABASE};
use crate::workload::Load;

/// Operations and revocations until now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Operations with a known outcome.
    pub operations: u64,
    /// Acknowledged changes that took a right away.
    pub revocations: u64,
}

/// Workloads at work.
pub struct Work {
    load: Load,
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
    pub counts: Counts,
}

impl Work {
    /// Starts them.
    ///
    /// # Errors
    /// The cluster does not take them.
    pub async fn start(arena: &Arena, _seed: u64) -> Result<Self> {
        Ok(Self { load: Load::start(&arena.admins()?, DATABASE, 8) })
    }

    /// What was done until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { operations: self.load.acknowledged(), revocations: 0 }
    }

    /// From now on the run is in this mode.
    pub fn mode(&self, _name: &str) {}

    /// Ends them, reads everything back on every node, and judges.
    ///
    /// # Errors
    /// The final reads were not answered.
    pub async fn finish(self, arena: &Arena) -> Result<Verdict> {
        let counts = self.counts();
        let written = self.load.finish().await?;
        let mut verdict = Verdict { counts, ..Verdict::default() };
        for admin in arena.admins()? {
            if let Err(why) = written.check(&admin, DATABASE).await {
                verdict.violations.push(("S1", format!("{why:#}")));
            }
        }
        Ok(verdict)
    }
}
