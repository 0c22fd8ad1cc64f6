//! What a run has seen, by kind of fault; whether it was enough; and what the runner's exit code says of it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};

use super::{contract::Violation, fault::Kind};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing was broken, and enough was seen.
    Passed,
    /// A promise was broken.
    Violated,
    /// Too little was seen, or the harness failed: it says nothing.
    Rejected,
}

impl End {
    /// The exit code of the runner.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Violated => 1,
            Self::Rejected => 2,
        }
    }
}

/// What happened with one kind of fault.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// How often it was injected.
    pub injected: usize,
    /// Operations from its beginning until all nodes were ready.
    pub operations: u64,
    /// Acknowledged changes of rights in that time; about half of them take a right away.
    pub changes: u64,
    /// Answers of nodes that were alone, all of them refusals.
    pub refusals: usize,
    /// Broken promises in its steps.
    pub violations: usize,
    /// From the end of the faults until all nodes were ready.
    pub recoveries: Vec<Duration>,
    /// Longest times without an acknowledged write while a majority was healthy, one an injection.
    pub gaps: Vec<Duration>,
}

/// What a run must have seen.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// Operations with a known outcome.
    pub operations: u64,
    /// Revocations.
    pub revocations: u64,
    /// Operations during each kind of fault, over all its injections.
    pub operations_each: u64,
}

/// A whole run.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed of its schedule.
    pub seed: u64,
    /// How long faults were injected.
    pub took: Duration,
    /// By kind; kinds that this machine cannot inject are in `not_run`.
    pub rows: BTreeMap<Kind, Row>,
    /// Kinds that could not be injected, and why.
    pub not_run: Vec<(Kind, String)>,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Why it is too little, if it is.
    pub rejected: Vec<String>,
    /// Totals of operations with a known outcome, and of revocations.
    pub totals: (u64, u64),
    /// Further lines about what was covered.
    pub coverage: Vec<String>,
}

impl Report {
    /// Notes what `gate` asks for and this run lacks.
    pub fn hold_to(&mut self, gate: Gate) {
        let (operations, revocations) = self.totals;
        let mut lacks = Vec::new();
        if operations < gate.operations {
            lacks.push(format!("{operations} operations of at least {}", gate.operations));
        }
        if revocations < gate.revocations {
            lacks.push(format!("{revocations} revocations of at least {}", gate.revocations));
        }
        for (kind, row) in &self.rows {
            if row.injected == 0 {
                lacks.push(format!("{} was never injected", kind.name()));
            } else if row.operations < gate.operations_each {
                let (seen, least) = (row.operations, gate.operations_each);
                lacks.push(format!("{seen} operations during {} of at least {least}", kind.name()));
            }
        }
        self.rejected.extend(lacks);
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> End {
        if !self.violations.is_empty() {
            End::Violated
        } else if !self.rejected.is_empty() {
            End::Rejected
        } else {
            End::Passed
        }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("CHAOS_SEED={} over {:.0} s\n", self.seed, self.took.as_secs_f64());
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        line(&self.table());
        for (kind, why) in &self.not_run {
            line(&format!("NOT RUN: {}: {why}", kind.name()));
        }
        if !self.not_run.is_empty() {
            line(&format!("{} of {} kinds not run", self.not_run.len(), Kind::ALL.len()));
        }
        self.coverage.iter().for_each(|covered| line(covered));
        let (operations, revocations) = self.totals;
        line(&format!("{operations} operations, {revocations} revocations"));
        for violation in self.violations.iter().take(50) {
            line(&format!("VIOLATION {violation}"));
        }
        for lack in &self.rejected {
            line(&format!("TOO LITTLE: {lack}"));
        }
        let verdict = match self.end() {
            End::Passed => "PASSED: 0 violations".to_owned(),
            End::Violated => format!("VIOLATED: {} violations", self.violations.len()),
            End::Rejected => "REJECTED: it says nothing".to_owned(),
        };
        line(&verdict);
        text
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "fault",
            "times",
            "operations",
            "changes of rights",
            "refusals",
            "violations",
            "ready after: min",
            "median",
            "max",
            "no write: max",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for (kind, row) in &self.rows {
            let ready = spread(&row.recoveries);
            let mut cells = vec![
                kind.name(),
                row.injected.to_string(),
                row.operations.to_string(),
                row.changes.to_string(),
                row.refusals.to_string(),
                row.violations.to_string(),
            ];
            cells.extend(ready.map(seconds));
            cells.push(seconds(row.gaps.iter().max().copied()));
            table.add_row(cells);
        }
        let all: Vec<Duration> =
            self.rows.values().flat_map(|row| row.recoveries.iter().copied()).collect();
        let mut text = table.to_string();
        let [least, median, most] = spread(&all).map(seconds);
        let _ = write!(text, "\nready after healing: min {least}, median {median}, max {most}");
        text
    }
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}

/// Least, median and most.
fn spread(times: &[Duration]) -> [Option<Duration>; 3] {
    let mut times = times.to_vec();
    times.sort_unstable();
    [times.first().copied(), times.get(times.len() / 2).copied(), times.last().copied()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_passes_only_if_enough_was_seen_and_nothing_broken() {
        let gate = Gate { operations: 100, revocations: 10, operations_each: 5 };
        let row = Row { injected: 1, operations: 50, ..Row::default() };
        let run = |operations, revocations, row: Row, violations: usize| {
            let violation = Violation {
                promise: "L1",
                step: String::new(),
                at: Duration::ZERO,
                what: String::new(),
            };
            let mut report = Report {
                rows: [(Kind::KillAll, row)].into(),
                totals: (operations, revocations),
                violations: vec![violation; violations],
                ..Report::default()
            };
            report.hold_to(gate);
            report.end()
        };
        assert_eq!(run(100, 10, row.clone(), 0), End::Passed);
        assert_eq!(run(99, 10, row.clone(), 0), End::Rejected);
        assert_eq!(run(100, 9, row.clone(), 0), End::Rejected);
        assert_eq!(run(100, 10, Row { operations: 4, ..row.clone() }, 0), End::Rejected);
        assert_eq!(run(100, 10, Row::default(), 0), End::Rejected);
        assert_eq!(run(0, 0, row, 1), End::Violated, "a violation is one however little was seen");
    }
}
