//! Registers with unique values, checked by their values and times alone: what the server says of revisions is not
//! believed here.
//!
//! Source: Gibbons and Korach, *Testing Shared Memories*, SIAM Journal on Computing 26(4), 1997, section 4.2: with unique
//! values each read names its write, and the history is linearizable exactly if the **zones** of the writes do not
//! conflict. The zone of a write and its reads lies between the earliest end `f` and the latest start `s` among them.
//! Where `f < s` (forward) the register must hold the value from `f` to `s`; otherwise (backward) it held it at some
//! moment between `s` and `f`. Two zones conflict exactly if each must come before the other: `f1 < s2` and `f2 < s1`.
//! So forward zones must not overlap, and no backward zone may lie inside a forward one.
//!
//! Unknown writes that nobody saw are left out, because they need not have happened; others end never. The first state is
//! a write that was there before everything.

use std::collections::BTreeMap;

use super::{
    judge::{VIOLATIONS_MAX, Violation},
    operation::{Change, Condition, Key, Moment, Value},
    recorder::History,
    timeline::{Act, Step, Timeline},
};

/// The name of this check.
pub const NAME: &str = "zone";

/// Whether every write of a document is an unconditional put, so that zones apply.
#[must_use]
pub fn applies(steps: &[Step]) -> bool {
    steps.iter().all(|step| match step.act {
        Act::Read { .. } | Act::Stale { .. } => true,
        Act::Applied { change, condition, .. } | Act::Unknown { change, condition, .. } => {
            matches!(change, Change::Put(_)) && condition == Condition::None
        }
        Act::Refused { .. } => false,
    })
}

/// Checks every document that zones apply to; gives their number.
#[must_use]
pub fn check(history: &History, timeline: &Timeline) -> (u64, Vec<Violation>) {
    let (mut looked_at, mut violations) = (0, Vec::new());
    for (key, steps) in (0..).map(Key).zip(&timeline.keys) {
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
        if !applies(steps) {
            continue;
        }
        looked_at += 1;
        if let Err(conflict) = check_key(steps) {
            let Conflict { what, steps } = conflict;
            let shown = Step::show(history, &steps);
            violations.push(Violation::at(NAME, history, key, what, shown));
        }
    }
    (looked_at, violations)
}

/// Why a document is not linearizable.
#[derive(Debug)]
pub struct Conflict<'a> {
    what: String,
    steps: Vec<&'a Step>,
}

/// A write with its reads.
#[derive(Debug, Clone, Copy)]
struct Zone<'a> {
    value: Option<Value>,
    /// The call of the write.
    begins: Moment,
    /// The earliest end, and who has it.
    first_end: (Moment, Option<&'a Step>),
    /// The latest start, and who has it.
    last_start: (Moment, Option<&'a Step>),
    is_read: bool,
    is_known: bool,
}

impl<'a> Zone<'a> {
    /// The state before everything.
    fn initial() -> Self {
        let start = (Moment::ZERO, None);
        let (begins, is_known) = (Moment::ZERO, true);
        Self { value: None, begins, first_end: start, last_start: start, is_read: false, is_known }
    }

    fn of(step: &'a Step, value: Value, is_known: bool) -> Self {
        Self {
            value: Some(value),
            begins: step.call,
            first_end: (step.ret, Some(step)),
            last_start: (step.call, Some(step)),
            is_read: false,
            is_known,
        }
    }

    fn add(&mut self, read: &'a Step) {
        self.is_read = true;
        if read.ret < self.first_end.0 {
            self.first_end = (read.ret, Some(read));
        }
        if read.call > self.last_start.0 {
            self.last_start = (read.call, Some(read));
        }
    }

    fn is_forward(&self) -> bool {
        self.first_end.0 < self.last_start.0
    }

    /// Each must come before the other.
    fn conflicts(&self, other: &Self) -> bool {
        self.first_end.0 < other.last_start.0 && other.first_end.0 < self.last_start.0
    }

    fn with(&self, other: &Self) -> Conflict<'a> {
        let name = |zone: &Self| zone.value.map_or("nothing".to_owned(), |v| v.to_string());
        let ends = [self.first_end.1, other.last_start.1, other.first_end.1, self.last_start.1];
        Conflict {
            what: format!(
                "{} and {} each had to be there before the other",
                name(self),
                name(other)
            ),
            steps: ends.into_iter().flatten().collect(),
        }
    }
}

/// Checks one document.
///
/// # Errors
/// It is not linearizable.
pub fn check_key(steps: &[Step]) -> Result<(), Conflict<'_>> {
    let mut zones = BTreeMap::from([(None, Zone::initial())]);
    for step in steps {
        let (change, is_known) = match step.act {
            Act::Applied { change, .. } => (change, true),
            Act::Unknown { change, .. } => (change, false),
            Act::Read { .. } | Act::Stale { .. } | Act::Refused { .. } => continue,
        };
        if let Change::Put(value) = change {
            zones.insert(Some(value), Zone::of(step, value, is_known));
        }
    }
    for step in steps {
        let Act::Read { seen, .. } = step.act else { continue };
        let Some(zone) = zones.get_mut(&seen.map(|seen| seen.value)) else {
            return Err(Conflict { what: "nobody wrote this".to_owned(), steps: vec![step] });
        };
        if step.ret < zone.begins {
            let writer = zone.last_start.1;
            let steps = writer.into_iter().chain([step]).collect();
            return Err(Conflict { what: "read before it was written".to_owned(), steps });
        }
        zone.add(step);
    }
    let happened = zones.into_values().filter(|zone| zone.is_known || zone.is_read);
    let (mut forward, backward): (Vec<_>, Vec<_>) = happened.partition(Zone::is_forward);
    forward.sort_unstable_by_key(|zone| zone.first_end.0);
    for pair in forward.windows(2) {
        if pair[0].conflicts(&pair[1]) {
            return Err(pair[0].with(&pair[1]));
        }
    }
    // Forward zones do not overlap now: only the last one that begins before a backward zone can hold it.
    for zone in backward {
        let next = forward.partition_point(|other| other.first_end.0 < zone.last_start.0);
        if let Some(other) = next.checked_sub(1).map(|at| &forward[at])
            && other.conflicts(&zone)
        {
            return Err(other.with(&zone));
        }
    }
    Ok(())
}
