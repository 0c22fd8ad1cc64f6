//! What a run has seen, by the mode it was in, and how much of it a verdict demands.

use std::{collections::BTreeMap, fmt};

use super::{
    operation::{Kind, Operation, Outcome},
    recorder::History,
};

/// Operations by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Writes and batches that were applied.
    pub writes: u64,
    /// Reads and lists that were answered.
    pub reads: u64,
    /// Conditions that did not hold.
    pub refused: u64,
    /// Writes nobody knows about.
    pub unknown: u64,
}

impl Counts {
    /// Operations with a known outcome.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.writes + self.reads + self.refused
    }

    fn add(&mut self, operation: &Operation) {
        let count = match &operation.outcome {
            Outcome::Applied { .. } => &mut self.writes,
            Outcome::Found { .. } | Outcome::Absent | Outcome::Listed { .. } => &mut self.reads,
            Outcome::Refused { .. } => &mut self.refused,
            Outcome::Unknown => &mut self.unknown,
        };
        *count += 1;
    }
}

/// What a history has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// All operations.
    pub all: Counts,
    /// By the mode in which they began; every mode of the run has a row.
    pub modes: BTreeMap<String, Counts>,
    /// Batches that were applied.
    pub batches: u64,
    /// Lists of whole groups.
    pub lists: u64,
    /// Requests sent again under their id after they had been answered.
    pub repeated: u64,
    /// Reads of a node's own copy.
    pub stale_reads: u64,
    /// Reads that got no answer.
    pub reads_dropped: u64,
    /// Documents.
    pub keys: u64,
    /// Documents that were read on every node in the end.
    pub finals: u64,
}

impl Coverage {
    /// Counts a history.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut coverage = Self {
            reads_dropped: history.reads_dropped,
            keys: history.keys.len() as u64,
            ..Self::default()
        };
        for mode in &history.modes {
            coverage.modes.entry(mode.name.clone()).or_default();
        }
        for operation in &history.operations {
            coverage.all.add(operation);
            let mode = history.mode_at(operation.call);
            match coverage.modes.get_mut(mode) {
                Some(counts) => counts.add(operation),
                None => coverage.modes.entry(mode.to_owned()).or_default().add(operation),
            }
            coverage.repeated += u64::from(operation.repeated);
            match (&operation.kind, &operation.outcome) {
                (Kind::Batch(_), Outcome::Applied { .. }) => coverage.batches += 1,
                (Kind::List(_), _) => coverage.lists += 1,
                (Kind::StaleRead(_), _) => coverage.stale_reads += 1,
                (Kind::Batch(_) | Kind::Read(_) | Kind::Write(_), _) => {}
            }
        }
        let mut keys: Vec<_> = history.finals.iter().map(|read| read.key).collect();
        keys.sort_unstable();
        keys.dedup();
        coverage.finals = keys.len() as u64;
        coverage
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:24} {:>9} {:>9} {:>9} {:>9}",
            "mode", "writes", "reads", "refused", "unknown"
        )?;
        let mut row = |name: &str, counts: &Counts| {
            let Counts { writes, reads, refused, unknown } = counts;
            writeln!(f, "{name:24} {writes:>9} {reads:>9} {refused:>9} {unknown:>9}")
        };
        for (name, counts) in &self.modes {
            row(name, counts)?;
        }
        row("all", &self.all)?;
        let Self { batches, lists, repeated, stale_reads, reads_dropped, keys, finals, .. } = self;
        write!(
            f,
            "{batches} batches, {lists} lists of groups, {repeated} repeated requests, {stale_reads} stale reads, \
             {reads_dropped} reads without answer, {keys} documents, {finals} of them read in the end"
        )
    }
}

/// How much a run must have seen to mean something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Operations with a known outcome, over the whole run.
    pub known_min: u64,
    /// Such operations in each mode of the run.
    pub known_min_by_mode: u64,
    /// Modes that the run must have been in.
    pub modes: Vec<String>,
    /// Every document must have been read on so many nodes in the end; 0: no final reads are demanded.
    pub final_nodes: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { known_min: 1, known_min_by_mode: 1, modes: Vec::new(), final_nodes: 0 }
    }
}

impl Gate {
    /// What `coverage` lacks; empty: nothing.
    #[must_use]
    pub fn lacks(&self, history: &History, coverage: &Coverage) -> Vec<String> {
        let mut lacks = Vec::new();
        let known = coverage.all.known();
        if known < self.known_min {
            lacks.push(format!("{known} operations with a known outcome, not {}", self.known_min));
        }
        for mode in &self.modes {
            if !coverage.modes.contains_key(mode) {
                lacks.push(format!("the run was never in the mode {mode:?}"));
            }
        }
        for (mode, counts) in &coverage.modes {
            let (known, least) = (counts.known(), self.known_min_by_mode);
            if known < least {
                lacks.push(format!("{known} operations in the mode {mode:?}, not {least}"));
            }
        }
        if history.overflowed > 0 {
            lacks.push(format!("the recorder was full for {} operations", history.overflowed));
        }
        lacks.extend(self.lacking_finals(history));
        lacks
    }

    fn lacking_finals(&self, history: &History) -> Option<String> {
        let mut nodes = vec![0; history.keys.len()];
        for read in &history.finals {
            if let Some(count) = nodes.get_mut(read.key.0 as usize) {
                *count += 1;
            }
        }
        let lacking = nodes.iter().filter(|count| **count < self.final_nodes).count();
        (lacking > 0).then(|| {
            format!("{lacking} documents were not read on {} nodes in the end", self.final_nodes)
        })
    }
}
