//! What a run has seen, by kind of fault; whether it was enough; and what the runner's exit code says of it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};

use super::{contract::Violation, fault::Kind};

/// Faults of the catalogue that no kind injects on any machine, and why.
const NEVER_RUN: [(&str, &str); 6] = [
    (
        "memory that runs out (F3)",
        "a limit needs a control group of its own, which a container may not make",
    ),
    (
        "processors that are taken away (F5)",
        "this machine's two are shared with the clients that judge",
    ),
    (
        "packets out of order (F29)",
        "a proxy of TCP streams cannot, and the kernel's filter only drops",
    ),
    ("names that resolve otherwise (F32)", "the nodes of a run know each other by address"),
    (
        "a wall clock more than 24 h ahead (F33)",
        "where most clocks have it, every certificate of the run would expire for good",
    ),
    ("a machine that is suspended (F34)", "the boot clock cannot be set forward for a process"),
];

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
    /// Operations on documents from its beginning until all nodes were ready.
    pub operations: u64,
    /// Acknowledged changes of rights in that time; about half of them take a right away.
    pub changes: u64,
    /// Refusals of nodes that were alone.
    pub refusals: usize,
    /// Broken promises in its steps.
    pub violations: usize,
    /// From the end of the faults until all nodes were ready.
    pub recoveries: Vec<Duration>,
    /// Longest times without an acknowledged write while a majority was healthy, one an injection.
    pub gaps: Vec<Duration>,
}

/// What a run has seen in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Operations on documents with a known outcome.
    pub documents: u64,
    /// Requests of certificates whose rights change that were allowed or denied.
    pub decisions: u64,
    /// Acknowledged changes that took a right away.
    pub revocations: u64,
    /// Times with a healthy majority that were longer than the limit of L1.
    pub majorities: u64,
    /// Refusals of nodes that were alone (L3).
    pub refusals: u64,
    /// State hashes of two nodes at one index that were compared (S5).
    pub states: u64,
}

impl Totals {
    fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("operations on documents", self.documents),
            ("decisions", self.decisions),
            ("revocations", self.revocations),
            ("judged times of healthy majorities", self.majorities),
            ("refusals of nodes that were alone", self.refusals),
            ("compared states", self.states),
        ]
    }
}

/// What a run must have seen.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// In all.
    pub totals: Totals,
    /// Operations on documents during each kind of fault, over all its injections.
    pub operations_each: u64,
    /// Changes of rights during each kind of fault, over all its injections (S3).
    pub changes_each: u64,
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
    /// What it has seen in all.
    pub totals: Totals,
    /// Further lines about what was covered.
    pub coverage: Vec<String>,
}

impl Report {
    /// Notes what `gate` asks for and this run lacks.
    pub fn hold_to(&mut self, gate: Gate) {
        let mut lacks = Vec::new();
        let mut hold = |what: &str, seen: u64, least: u64| {
            if seen < least {
                lacks.push(format!("{seen} {what} of at least {least}"));
            }
        };
        for ((what, seen), (_, least)) in self.totals.named().into_iter().zip(gate.totals.named()) {
            hold(what, seen, least);
        }
        for (kind, row) in &self.rows {
            let name = kind.name();
            hold(&format!("injections of {name}"), row.injected as u64, 1);
            if row.injected > 0 {
                let operations = format!("operations on documents during {name}");
                hold(&operations, row.operations, gate.operations_each);
                hold(&format!("changes of rights during {name}"), row.changes, gate.changes_each);
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
        for (fault, why) in NEVER_RUN {
            line(&format!("NOT RUN: {fault}: {why}"));
        }
        if !self.not_run.is_empty() {
            line(&format!("{} of {} kinds not run", self.not_run.len(), Kind::ALL.len()));
        }
        self.coverage.iter().for_each(|covered| line(covered));
        let totals = self.totals.named().map(|(what, seen)| format!("{seen} {what}"));
        line(&totals.join(", "));
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

    /// A run that has seen just enough, and its gate.
    fn enough() -> (Report, Gate) {
        let totals = Totals {
            documents: 100,
            decisions: 90,
            revocations: 10,
            majorities: 1,
            refusals: 1,
            states: 1,
        };
        let row = Row { injected: 1, operations: 5, changes: 1, ..Row::default() };
        let report = Report { rows: [(Kind::KillAll, row)].into(), totals, ..Report::default() };
        (report, Gate { totals, operations_each: 5, changes_each: 1 })
    }

    fn check(change: fn(&mut Report), end: End, lacks: &[&str]) {
        let (mut report, gate) = enough();
        change(&mut report);
        report.hold_to(gate);
        assert_eq!(report.rejected, lacks);
        assert_eq!(report.end(), end);
    }

    #[test]
    fn a_run_passes_only_if_enough_was_seen_and_nothing_broken() {
        use End::{Passed, Rejected, Violated};
        check(|_| {}, Passed, &[]);
        let lacks = ["99 operations on documents of at least 100"];
        check(|report| report.totals.documents = 99, Rejected, &lacks);
        check(|report| report.totals.decisions = 0, Rejected, &["0 decisions of at least 90"]);
        check(|report| report.totals.revocations = 9, Rejected, &["9 revocations of at least 10"]);
        let lacks = ["0 refusals of nodes that were alone of at least 1"];
        check(|report| report.totals.refusals = 0, Rejected, &lacks);
        let lacks = ["4 operations on documents during kill-all of at least 5"];
        check(|report| of_all(report).operations = 4, Rejected, &lacks);
        let lacks = ["0 changes of rights during kill-all of at least 1"];
        check(|report| of_all(report).changes = 0, Rejected, &lacks);
        let lacks = ["0 injections of kill-all of at least 1"];
        check(|report| *of_all(report) = Row::default(), Rejected, &lacks);
        // A violation is one however little was seen.
        let broken = |report: &mut Report| {
            let (step, what) = (String::new(), String::new());
            report.violations.push(Violation { promise: "L1", step, at: Duration::ZERO, what });
            report.totals.revocations = 0;
        };
        check(broken, Violated, &["0 revocations of at least 10"]);
    }

    fn of_all(report: &mut Report) -> &mut Row {
        report.rows.entry(Kind::KillAll).or_default()
    }
}
