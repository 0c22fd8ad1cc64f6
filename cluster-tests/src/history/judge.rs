//! Every checker over one history, and the verdict.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{
    batches,
    coverage::{Coverage, Gate},
    finals,
    operation::{Key, Operation},
    recorder::History,
    search,
    timeline::Timeline,
    witness, zone,
};

/// Most violations that one checker reports: the first ones tell the story.
pub const VIOLATIONS_MAX: usize = 20;
/// Longest time that all searches together may take.
const SEARCH_LIMIT: Duration = Duration::from_secs(300);

/// What no linearizable store could have answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The checker that found it.
    pub check: &'static str,
    /// The id of the document, where it is about one.
    pub document: String,
    /// What is wrong.
    pub what: String,
    /// The operations that show it.
    pub operations: Vec<Operation>,
}

impl Violation {
    /// A violation about one document.
    #[must_use]
    pub fn at(
        check: &'static str,
        history: &History,
        key: Key,
        what: String,
        operations: Vec<Operation>,
    ) -> Self {
        let document = history.keys.get(key.0 as usize).map(|info| info.id.clone());
        Self { check, document: document.unwrap_or_default(), what, operations }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.check, self.document, self.what)?;
        for operation in &self.operations {
            write!(f, "\n    {operation}")?;
        }
        Ok(())
    }
}

/// What was checked, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What the run saw.
    pub coverage: Coverage,
    /// Documents that the zone check looked at.
    pub zones: u64,
    /// Documents that the search looked at.
    pub searched: u64,
    /// Steps that the searches took.
    pub search_steps: u64,
    /// Time of each checker.
    pub took: Vec<(&'static str, Duration)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { coverage, zones, searched, search_steps, took } = self;
        write!(
            f,
            "{coverage}\n{zones} documents by zones, {searched} by search ({search_steps} steps);"
        )?;
        for (check, time) in took {
            write!(f, " {check} {time:.1?}")?;
        }
        Ok(())
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Nothing is wrong, and enough was seen.
    Passed(Report),
    /// The run says nothing: it saw too little, or a search ran out of its bounds. Neither passed nor a violation.
    Rejected {
        /// Why.
        reasons: Vec<String>,
        /// What it saw.
        report: Report,
    },
    /// A promise was broken.
    Violated {
        /// How; at most [`VIOLATIONS_MAX`] of each checker.
        violations: Vec<Violation>,
        /// What it saw.
        report: Report,
    },
}

impl Verdict {
    /// The report, whatever the verdict.
    #[must_use]
    pub fn report(&self) -> &Report {
        match self {
            Self::Passed(report)
            | Self::Rejected { report, .. }
            | Self::Violated { report, .. } => report,
        }
    }

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

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(report) => write!(f, "passed\n{report}"),
            Self::Rejected { reasons, report } => {
                write!(f, "rejected: {}\n{report}", reasons.join("; "))
            }
            Self::Violated { violations, report } => {
                writeln!(f, "{} violations", violations.len())?;
                for violation in violations {
                    writeln!(f, "{violation}")?;
                }
                write!(f, "{report}")
            }
        }
    }
}

/// Checks a history with every checker. A violation counts before everything else; a run that lacks what `gate` demands
/// is rejected.
pub fn judge(history: &History, gate: &Gate) -> Verdict {
    let mut report = Report { coverage: Coverage::of(history), ..Report::default() };
    let mut violations = Vec::new();
    let mut took = Vec::new();
    let mut timed = |check: &'static str, run: &mut dyn FnMut() -> Vec<Violation>| {
        let began = Instant::now();
        violations.extend(run());
        took.push((check, began.elapsed()));
    };
    let mut timeline = Timeline::default();
    timed("order", &mut || {
        let (made, found) = Timeline::new(history);
        timeline = made;
        found
    });
    timed(witness::NAME, &mut || witness::check(history, &timeline));
    timed(batches::NAME, &mut || batches::check(history, &timeline));
    timed(finals::NAME, &mut || finals::check(history, &timeline));
    timed(zone::NAME, &mut || {
        let (zones, found) = zone::check(history, &timeline);
        report.zones = zones;
        found
    });
    let mut searched = search::Searched::default();
    timed(search::NAME, &mut || {
        searched = search::check(history, &timeline, Instant::now() + SEARCH_LIMIT);
        std::mem::take(&mut searched.violations)
    });
    (report.searched, report.search_steps, report.took) = (searched.keys, searched.steps, took);
    if !violations.is_empty() {
        return Verdict::Violated { violations, report };
    }
    let mut reasons = gate.lacks(history, &report.coverage);
    reasons.extend(searched.gave_up);
    if reasons.is_empty() { Verdict::Passed(report) } else { Verdict::Rejected { reasons, report } }
}
