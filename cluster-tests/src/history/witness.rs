//! The server says where each write stands in its log; this check holds it to that.
//!
//! For each document:
//! 1. No two writes stand at one revision, and what is read at a revision is what was written there.
//! 2. A condition held: the write before is the one whose etag was expected, or there was none; a deletion that found
//!    something follows a put.
//! 3. Nothing is read before it was asked for.
//! 4. Real time: what ended before an operation began stands before it in the log, strictly where the later one writes.
//! 5. An answer that was given at a log position shows no less than what stood there, stale reads included.
//!
//! A read that finds nothing has no revision. It is placed as early as rules 3 and 4 allow: all rules but the third are
//! lower bounds, so the earliest place never harms a later operation. Unknown deletions that nobody can place may stand
//! anywhere after their call, so a document with one can only be held to less.

use std::collections::BTreeMap;

use super::{
    judge::{VIOLATIONS_MAX, Violation},
    operation::{Change, Condition, Key, Moment, Revision, Value},
    recorder::History,
    timeline::{Act, Step, Timeline},
};

/// The name of this check.
pub const NAME: &str = "witness";

/// Checks every document.
#[must_use]
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, steps) in (0..).map(Key).zip(&timeline.keys) {
        if let Err(broken) = check_key(steps) {
            let shown = Step::show(history, &broken.steps);
            violations.push(Violation::at(NAME, history, key, broken.what, shown));
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    violations
}

/// A rule that does not hold.
#[derive(Debug)]
pub struct Broken<'a> {
    what: String,
    steps: Vec<&'a Step>,
}

fn broken<'a>(what: impl Into<String>, steps: &[&'a Step]) -> Broken<'a> {
    Broken { what: what.into(), steps: steps.to_vec() }
}

/// A write at a known revision.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// What it left.
    pub state: Option<Value>,
    /// The step that wrote it.
    pub step: &'a Step,
}

/// The writes of one document in the order of the log.
#[derive(Debug, Default)]
pub struct Log<'a> {
    writes: BTreeMap<Revision, Placed<'a>>,
    /// The earliest call of a deletion that nobody can place.
    lost_delete: Option<Moment>,
    /// The earliest call of a put that nobody saw.
    lost_put: Option<Moment>,
}

impl<'a> Log<'a> {
    /// Orders the writes of a document.
    ///
    /// # Errors
    /// Two of them stand at one revision (rule 1).
    pub fn new(steps: &'a [Step]) -> Result<Self, Broken<'a>> {
        let mut log = Self::default();
        for step in steps {
            let (change, revision) = match step.act {
                Act::Applied { change, revision, .. } => (change, Some(revision)),
                Act::Unknown { change, revision, .. } => (change, revision),
                Act::Read { .. } | Act::Stale { .. } | Act::Refused { .. } => continue,
            };
            let Some(revision) = revision else {
                let lost = match change {
                    Change::Put(_) => &mut log.lost_put,
                    Change::Delete => &mut log.lost_delete,
                };
                *lost = Some(lost.map_or(step.call, |earlier| earlier.min(step.call)));
                continue;
            };
            let placed = Placed { state: change.state(), step };
            if let Some(other) = log.writes.insert(revision, placed) {
                let what = format!("two writes stand at revision {}", revision.0);
                return Err(broken(what, &[other.step, step]));
            }
        }
        Ok(log)
    }

    /// The last write before `revision`.
    fn before(&self, revision: Revision) -> Option<(Revision, Placed<'a>)> {
        self.writes.range(..revision).next_back().map(|(at, placed)| (*at, *placed))
    }

    /// The last write up to `revision`.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Option<(Revision, Placed<'a>)> {
        self.writes.range(..=revision).next_back().map(|(at, placed)| (*at, *placed))
    }

    /// The last write of all.
    #[must_use]
    pub fn last(&self) -> Option<(Revision, Placed<'a>)> {
        self.writes.iter().next_back().map(|(at, placed)| (*at, *placed))
    }

    /// Whether a deletion that nobody can place may have happened before `end`.
    #[must_use]
    pub fn may_be_deleted(&self, end: Moment) -> bool {
        self.lost_delete.is_some_and(|call| call < end)
    }

    fn may_be_put(&self, end: Moment) -> bool {
        self.lost_put.is_some_and(|call| call < end)
    }
}

/// A place between two writes of the log: twice the revision, and one more for "after a deletion that nobody can place".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place(u64);

impl Place {
    fn of(revision: Revision) -> Self {
        Self(revision.0.saturating_mul(2))
    }

    fn revision(self) -> Revision {
        Revision(self.0 / 2)
    }
}

/// Checks one document.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_key(steps: &[Step]) -> Result<(), Broken<'_>> {
    let log = Log::new(steps)?;
    conditions(&log)?;
    for step in steps {
        answers(&log, step)?;
    }
    real_time(&log, steps)
}

/// Rule 2.
fn conditions<'a>(log: &Log<'a>) -> Result<(), Broken<'a>> {
    for (revision, Placed { step, .. }) in &log.writes {
        let (condition, deletion) = match step.act {
            Act::Applied { change, condition, existed, .. } => {
                (condition, (change == Change::Delete).then_some(existed))
            }
            Act::Unknown { condition, .. } => (condition, None),
            Act::Read { .. } | Act::Stale { .. } | Act::Refused { .. } => continue,
        };
        let before = log.before(*revision);
        let with = |what: &str| {
            let shown: Vec<&Step> = before.iter().map(|(_, p)| p.step).chain([*step]).collect();
            broken(what, &shown)
        };
        let was_there = before.is_some_and(|(_, placed)| placed.state.is_some());
        match condition {
            Condition::None => {}
            Condition::Absent if was_there && !log.may_be_deleted(step.ret) => {
                return Err(with("created over a document that was there"));
            }
            Condition::Absent => {}
            Condition::Is(value, expected) => {
                let is_it = before
                    .is_some_and(|(at, placed)| at == expected && placed.state == Some(value));
                if !is_it {
                    return Err(with("written over another document than the one it expected"));
                }
            }
        }
        match deletion {
            Some(true) if !was_there && !log.may_be_put(step.ret) => {
                return Err(with("a deletion found something where nothing was"));
            }
            Some(false) if was_there && !log.may_be_deleted(step.ret) => {
                return Err(with("a deletion found nothing where something was"));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// Rules 1, 3 and 5 for one answer.
fn answers<'a>(log: &Log<'a>, step: &'a Step) -> Result<(), Broken<'a>> {
    let (seen, applied) = match step.act {
        Act::Read { seen, applied } | Act::Stale { seen, applied } => (seen, applied),
        Act::Refused { condition, current } => return refused(log, step, condition, current),
        Act::Applied { .. } | Act::Unknown { .. } => return Ok(()),
    };
    if let Some(seen) = seen {
        match log.writes.get(&seen.revision) {
            None => return Err(broken("read at a revision where nobody wrote it", &[step])),
            Some(placed) if placed.state != Some(seen.value) => {
                return Err(broken(
                    "read something else than was written there",
                    &[placed.step, step],
                ));
            }
            Some(placed) if step.ret < placed.step.call => {
                return Err(broken("read before it was written", &[placed.step, step]));
            }
            Some(_) => {}
        }
    }
    let Some((stood, placed)) = applied.and_then(|applied| log.at(applied)) else { return Ok(()) };
    let is_older = match seen {
        Some(seen) => seen.revision < stood,
        None => {
            let later_delete = log.writes.range(stood..).any(|(_, placed)| placed.state.is_none());
            placed.state.is_some() && !later_delete && !log.may_be_deleted(step.ret)
        }
    };
    if is_older {
        let what = format!("the answer knew of revision {} and showed less", stood.0);
        return Err(broken(what, &[placed.step, step]));
    }
    Ok(())
}

/// What a refusal says was there stands against its condition.
fn refused<'a>(
    log: &Log<'a>,
    step: &'a Step,
    condition: Condition,
    current: Option<Revision>,
) -> Result<(), Broken<'a>> {
    let held = match condition {
        Condition::None => true,
        Condition::Absent => current.is_none(),
        Condition::Is(_, expected) => current == Some(expected),
    };
    if held {
        return Err(broken("refused although its condition held", &[step]));
    }
    let Some(placed) = current.and_then(|current| log.writes.get(&current)) else { return Ok(()) };
    if placed.state.is_none() {
        return Err(broken("refused for a document that was a deletion", &[placed.step, step]));
    }
    if step.ret < placed.step.call {
        return Err(broken(
            "refused for a document that was not written yet",
            &[placed.step, step],
        ));
    }
    Ok(())
}

/// At equal moments nothing counts as before: calls are looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call(usize),
    Return(usize),
}

/// Rule 4.
fn real_time<'a>(log: &Log<'a>, steps: &'a [Step]) -> Result<(), Broken<'a>> {
    let mut events = Vec::with_capacity(2 * steps.len());
    for (at, step) in steps.iter().enumerate() {
        events.push((step.call, Event::Call(at)));
        events.push((step.ret, Event::Return(at)));
    }
    events.sort_unstable();
    let mut floor = (Place::default(), None);
    let mut places = vec![Place::default(); steps.len()];
    for (_, event) in events {
        match event {
            Event::Call(at) => {
                let step = &steps[at];
                let earlier = floor.1.map(|at: usize| &steps[at]);
                places[at] = place(log, step, floor.0).map_err(|what| {
                    broken(what, &earlier.into_iter().chain([step]).collect::<Vec<_>>())
                })?;
            }
            Event::Return(at) if places[at] > floor.0 && steps[at].ret != Moment::NEVER => {
                floor = (places[at], Some(at));
            }
            Event::Return(_) => {}
        }
    }
    Ok(())
}

/// Where a step stands, not before `floor`.
fn place(log: &Log<'_>, step: &Step, floor: Place) -> Result<Place, &'static str> {
    let no_older = |revision: Revision| {
        let place = Place::of(revision);
        if place < floor {
            Err("an older document than one that was seen before")
        } else {
            Ok(place)
        }
    };
    let later = |revision: Revision| {
        let place = Place::of(revision);
        if place > floor {
            Ok(place)
        } else {
            Err("a write that stands before an earlier operation")
        }
    };
    match step.act {
        Act::Applied { revision, .. } | Act::Unknown { revision: Some(revision), .. } => {
            later(revision)
        }
        Act::Read { seen: Some(seen), .. } => no_older(seen.revision),
        Act::Refused { current: Some(current), .. } => no_older(current),
        Act::Read { seen: None, .. } | Act::Refused { current: None, .. } => {
            absent(log, step, floor).ok_or("nothing was there, and something had to be")
        }
        Act::Stale { .. } | Act::Unknown { revision: None, .. } => Ok(floor),
    }
}

/// The first place from `floor` on where no document is, as far as a step that ended at `step.ret` can know.
fn absent(log: &Log<'_>, step: &Step, floor: Place) -> Option<Place> {
    let stands = log.at(floor.revision());
    let is_absent = stands.is_none_or(|(_, placed)| placed.state.is_none());
    let after_lost_delete = floor.0 % 2 == 1;
    if is_absent || after_lost_delete {
        return Some(floor);
    }
    if log.may_be_deleted(step.ret) {
        return Some(Place(floor.0 + 1));
    }
    let mut later = log.writes.range(floor.revision()..);
    let (revision, _) =
        later.find(|(_, placed)| placed.state.is_none() && placed.step.call < step.ret)?;
    Some(Place::of(*revision))
}
