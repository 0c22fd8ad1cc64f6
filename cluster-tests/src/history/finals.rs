//! After everything has ended: each acknowledged write is there or was written over, and all nodes say the same.
//!
//! By times alone: the last state of a document is what some write left, and no acknowledged write of that document began
//! after that one had ended. By revisions: no acknowledged write stands later in the log. Nodes that applied the same
//! entries have the same state hash (contract S5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    judge::{VIOLATIONS_MAX, Violation},
    operation::{Key, Moment, Seen, Value},
    recorder::{FinalRead, History},
    timeline::{Act, Step, Timeline},
    witness::Log,
};

/// The name of this check.
pub const NAME: &str = "final";

/// What a node says of the state of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeState {
    /// The group.
    pub group: String,
    /// The last entry that the node has applied.
    pub applied: u64,
    /// The node.
    pub node: u8,
    /// The hash of its state there.
    pub hash: String,
}

/// Checks the final reads and the states.
#[must_use]
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut by_key: BTreeMap<Key, Vec<&FinalRead>> = BTreeMap::new();
    for read in &history.finals {
        by_key.entry(read.key).or_default().push(read);
    }
    for (key, reads) in by_key {
        let steps = timeline.keys.get(key.0 as usize).map_or(&[][..], Vec::as_slice);
        if let Some((what, steps)) = differ(&reads).or_else(|| lost(steps, reads[0].seen)) {
            let shown = Step::show(history, &steps);
            violations.push(Violation::at(NAME, history, key, what, shown));
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    violations.extend(states(&history.states));
    violations
}

type Wrong<'a> = (String, Vec<&'a Step>);

fn differ<'a>(reads: &[&FinalRead]) -> Option<Wrong<'a>> {
    let first = reads.first()?;
    let other = reads.iter().find(|read| read.seen != first.seen)?;
    let name = |read: &FinalRead| {
        let seen = read.seen.map_or("nothing".to_owned(), |Seen { value, revision }| {
            format!("{value} of revision {}", revision.0)
        });
        format!("n{} holds {seen}", u32::from(read.node) + 1)
    };
    Some((format!("{}, {}", name(first), name(other)), Vec::new()))
}

/// An acknowledged write of which the last state knows nothing.
fn lost(steps: &[Step], last: Option<Seen>) -> Option<Wrong<'_>> {
    by_times(steps, last.map(|seen| seen.value)).or_else(|| by_revisions(steps, last))
}

/// What a write left, and whether it was acknowledged.
fn left(step: &Step) -> Option<(Option<Value>, bool)> {
    match step.act {
        Act::Applied { change, .. } => Some((change.state(), true)),
        Act::Unknown { change, .. } => Some((change.state(), false)),
        Act::Read { .. } | Act::Stale { .. } | Act::Refused { .. } => None,
    }
}

fn by_times(steps: &[Step], last: Option<Value>) -> Option<Wrong<'_>> {
    // Nothing was there before everything; of several deletions the latest explains the most.
    let initial = last.is_none().then_some((Moment::ZERO, None));
    let writers = steps.iter().filter(|step| left(step).is_some_and(|(state, _)| state == last));
    let explained = writers.map(|step| (step.ret, Some(step))).chain(initial);
    let Some((ended, writer)) = explained.max_by_key(|(ended, _)| *ended) else {
        return Some((format!("the last state is {last:?}, which nobody wrote"), Vec::new()));
    };
    let gone = steps.iter().find(|step| {
        step.call > ended && left(step).is_some_and(|(state, known)| known && state != last)
    })?;
    let what = format!("an acknowledged write is lost: the last state is {last:?}");
    Some((what, writer.into_iter().chain([gone]).collect()))
}

fn by_revisions(steps: &[Step], last: Option<Seen>) -> Option<Wrong<'_>> {
    let log = Log::new(steps).ok()?;
    let (revision, placed) = log.last()?;
    let is_lost = match last {
        Some(seen) => seen.revision < revision,
        None => placed.state.is_some() && !log.may_be_deleted(Moment::NEVER),
    };
    let what = format!("revision {} is lost: the last state is {last:?}", revision.0);
    is_lost.then(|| (what, vec![placed.step]))
}

/// Nodes that applied the same entries differ.
fn states(states: &[NodeState]) -> Vec<Violation> {
    let mut sorted: Vec<&NodeState> = states.iter().collect();
    sorted.sort_unstable();
    let differing = sorted.windows(2).filter(|pair| {
        let same = pair[0].group == pair[1].group && pair[0].applied == pair[1].applied;
        same && pair[0].hash != pair[1].hash
    });
    let violation = |pair: &[&NodeState]| Violation {
        check: NAME,
        document: String::new(),
        what: format!("different states after the same entries: {:?} and {:?}", pair[0], pair[1]),
        operations: Vec::new(),
    };
    differing.map(violation).take(VIOLATIONS_MAX).collect()
}
