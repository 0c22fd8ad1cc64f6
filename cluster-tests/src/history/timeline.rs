//! A history by document: each operation as the steps it took on each one, in the order of their calls.
//!
//! Here it is settled where unknown writes took effect. Every value is written by one request, so whoever read it with
//! its revision tells where that request stands in the log, for all documents of a batch. A value at two revisions was
//! applied twice.

use std::collections::BTreeMap;

use super::{
    judge::{VIOLATIONS_MAX, Violation},
    operation::{
        Change, Condition, Key, Kind, Moment, Operation, Outcome, Revision, Seen, Value, Write,
    },
    recorder::History,
};

/// The name under which violations stand.
const NAME: &str = "order";

/// What one operation did to one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It saw this.
    Read {
        /// The document.
        seen: Option<Seen>,
        /// What the node had applied at least; unknown where nothing was found.
        applied: Option<Revision>,
    },
    /// It saw this in a copy that may be old.
    Stale {
        /// The document.
        seen: Option<Seen>,
        /// What the node had applied at least.
        applied: Option<Revision>,
    },
    /// It wrote, and was told so.
    Applied {
        /// What it left.
        change: Change,
        /// What it demanded.
        condition: Condition,
        /// Of a delete: whether there was something.
        existed: bool,
        /// Where it stands.
        revision: Revision,
    },
    /// It was refused for this document.
    Refused {
        /// What it demanded.
        condition: Condition,
        /// What was there instead.
        current: Option<Revision>,
    },
    /// It may have written. Where somebody saw its value, `revision` says where.
    Unknown {
        /// What it would leave.
        change: Change,
        /// What it demanded.
        condition: Condition,
        /// Where it stands, as others saw it.
        revision: Option<Revision>,
    },
}

/// One step on one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The operation, by its place in the history; none for a read after the end.
    pub operation: Option<u32>,
    /// Before it was sent.
    pub call: Moment,
    /// After its answer came.
    pub ret: Moment,
    /// What it did.
    pub act: Act,
}

impl Step {
    /// The operations to show of some steps.
    #[must_use]
    pub fn show(history: &History, steps: &[&Self]) -> Vec<Operation> {
        let places = steps.iter().filter_map(|step| step.operation);
        places.filter_map(|place| history.operations.get(place as usize).cloned()).collect()
    }
}

/// The steps on each document, by [`Key`].
#[derive(Debug, Default)]
pub struct Timeline {
    /// In the order of their calls.
    pub keys: Vec<Vec<Step>>,
}

/// What is known of one value.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// Where its request stands in the history.
    operation: u32,
    revision: Option<Revision>,
    refused: bool,
}

struct Builder<'a> {
    history: &'a History,
    values: BTreeMap<Value, Written>,
    violations: Vec<Violation>,
}

impl Timeline {
    /// Orders a history, and reports values that nobody wrote, that were refused, or that stand at two places.
    #[must_use]
    pub fn new(history: &History) -> (Self, Vec<Violation>) {
        let mut builder = Builder { history, values: BTreeMap::new(), violations: Vec::new() };
        builder.writes();
        builder.repeats();
        builder.reads();
        builder.one_request_a_revision();
        let keys = builder.steps();
        builder.violations.truncate(VIOLATIONS_MAX);
        (Self { keys }, builder.violations)
    }
}

impl Builder<'_> {
    fn report(&mut self, key: Key, what: String, operations: &[u32]) {
        if self.violations.len() >= VIOLATIONS_MAX {
            return;
        }
        let operations = operations
            .iter()
            .filter_map(|at| self.history.operations.get(*at as usize).cloned())
            .collect();
        self.violations.push(Violation::at(NAME, self.history, key, what, operations));
    }

    /// Every value by the request that wrote it.
    fn writes(&mut self) {
        for (at, operation) in (0..).zip(&self.history.operations) {
            if operation.repeated {
                continue;
            }
            let revision = match &operation.outcome {
                Outcome::Applied { revision, .. } => Some(*revision),
                Outcome::Refused { .. }
                | Outcome::Unknown
                | Outcome::Found { .. }
                | Outcome::Absent
                | Outcome::Listed { .. } => None,
            };
            let refused = matches!(operation.outcome, Outcome::Refused { .. });
            for write in operation.writes() {
                let Change::Put(value) = write.change else { continue };
                let written = Written { operation: at, revision, refused };
                if let Some(other) = self.values.insert(value, written)
                    && other.operation != at
                {
                    let what = format!("the harness wrote {value} by two requests");
                    self.report(write.key, what, &[other.operation, at]);
                }
            }
        }
    }

    /// A request that was sent again got the answer of the first time.
    fn repeats(&mut self) {
        for (at, operation) in (0..).zip(&self.history.operations) {
            if !operation.repeated {
                continue;
            }
            for write in operation.writes() {
                let Change::Put(value) = write.change else { continue };
                if let Outcome::Applied { revision, .. } = operation.outcome {
                    let seen = Seen { value, revision };
                    self.place(write.key, seen, Some(at), "answered again");
                } else if operation.outcome.is_known()
                    && let Some(Written { operation: first, revision: Some(_), .. }) =
                        self.values.get(&value).copied()
                {
                    let what = format!("{value} was applied, and then answered otherwise");
                    self.report(write.key, what, &[first, at]);
                }
            }
        }
    }

    fn reads(&mut self) {
        for (at, operation) in (0..).zip(&self.history.operations) {
            match &operation.kind {
                Kind::Read(key) | Kind::StaleRead(key) => {
                    if let Outcome::Found { seen, .. } = &operation.outcome {
                        self.place(*key, *seen, Some(at), "read");
                    }
                }
                Kind::List(group) => {
                    let Outcome::Listed { seen, .. } = &operation.outcome else { continue };
                    let keys = self.history.groups.get(group.0 as usize);
                    for (key, seen) in keys.into_iter().flatten().zip(seen) {
                        if let Some(seen) = seen {
                            self.place(*key, *seen, Some(at), "listed");
                        }
                    }
                }
                // Whoever demands a document has seen it.
                Kind::Write(_) | Kind::Batch(_) => {
                    for write in operation.writes().iter().filter(|_| !operation.repeated) {
                        if let Condition::Is(value, revision) = write.condition {
                            self.place(write.key, Seen { value, revision }, Some(at), "expected");
                        }
                    }
                }
            }
        }
        for read in &self.history.finals {
            if let Some(seen) = read.seen {
                self.place(read.key, seen, None, "read in the end");
            }
        }
    }

    /// Somebody saw `seen.value` under `key` at `seen.revision`.
    fn place(&mut self, key: Key, seen: Seen, at: Option<u32>, how: &str) {
        let Seen { value, revision } = seen;
        let by: Vec<u32> = at.into_iter().collect();
        let Some(written) = self.values.get_mut(&value) else {
            let what = if value == Value::GARBLED {
                format!("bytes that nobody wrote were {how}")
            } else {
                format!("{value}, which nobody wrote, was {how}")
            };
            return self.report(key, what, &by);
        };
        let operation = written.operation;
        let known = *written.revision.get_or_insert(revision);
        let refused = written.refused;
        let both = [&[operation], by.as_slice()].concat();
        let place = operation as usize;
        let asked = self.history.operations.get(place).map(Operation::writes).unwrap_or_default();
        if refused {
            self.report(key, format!("{value} was refused and {how} all the same"), &both);
        } else if !asked.iter().any(|w| w.key == key && w.change == Change::Put(value)) {
            self.report(key, format!("{value} was {how}, but written to another document"), &both);
        } else if known != revision {
            let what = format!(
                "{value} stands at {} and was {how} at {}: it was applied twice",
                known.0, revision.0
            );
            self.report(key, what, &both);
        }
    }

    /// Two requests never share a place in the log.
    fn one_request_a_revision(&mut self) {
        let mut places: Vec<(Revision, u32)> = (0..)
            .zip(&self.history.operations)
            .filter(|(_, operation)| !operation.repeated)
            .filter_map(|(at, operation)| {
                let Outcome::Applied { revision, .. } = operation.outcome else { return None };
                Some((revision, at))
            })
            .collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            if pair[0].0 == pair[1].0 {
                let operation = &self.history.operations[pair[0].1 as usize];
                let Some(key) = operation.writes().first().map(|write| write.key) else { continue };
                let what = format!("two requests stand at revision {}", pair[0].0.0);
                self.report(key, what, &[pair[0].1, pair[1].1]);
            }
        }
    }

    fn steps(&self) -> Vec<Vec<Step>> {
        let mut keys = vec![Vec::new(); self.history.keys.len()];
        let mut end = Moment::ZERO;
        for (at, operation) in (0..).zip(&self.history.operations) {
            end = end.max(operation.call);
            if operation.ret != Moment::NEVER {
                end = end.max(operation.ret);
            }
            if !operation.repeated {
                self.steps_of(at, operation, &mut keys);
            }
        }
        let call = Moment(end.0 + 1);
        for read in &self.history.finals {
            if let Some(steps) = keys.get_mut(read.key.0 as usize) {
                let act = Act::Read { seen: read.seen, applied: None };
                steps.push(Step { operation: None, call, ret: Moment::NEVER, act });
            }
        }
        for steps in &mut keys {
            steps.sort_by_key(|step| step.call);
        }
        keys
    }

    fn steps_of(&self, at: u32, operation: &Operation, keys: &mut [Vec<Step>]) {
        let mut add = |key: Key, act: Act| {
            if let Some(steps) = keys.get_mut(key.0 as usize) {
                let (call, ret) = (operation.call, operation.ret);
                steps.push(Step { operation: Some(at), call, ret, act });
            }
        };
        match &operation.kind {
            Kind::Read(key) => {
                if let Some((seen, applied)) = found(&operation.outcome) {
                    add(*key, Act::Read { seen, applied });
                }
            }
            Kind::StaleRead(key) => {
                if let Some((seen, applied)) = found(&operation.outcome) {
                    add(*key, Act::Stale { seen, applied });
                }
            }
            Kind::List(group) => {
                let Outcome::Listed { seen, applied } = &operation.outcome else { return };
                let documents = self.history.groups.get(group.0 as usize);
                for (key, seen) in documents.into_iter().flatten().zip(seen) {
                    add(*key, Act::Read { seen: *seen, applied: Some(*applied) });
                }
            }
            Kind::Write(_) | Kind::Batch(_) => {
                let elsewhere = self.resolved(operation);
                for (place, write) in operation.writes().iter().enumerate() {
                    if let Some(act) = act(place, *write, &operation.outcome, elsewhere) {
                        add(write.key, act);
                    }
                }
            }
        }
    }

    /// Where an operation stands, as whoever saw one of its values said.
    fn resolved(&self, operation: &Operation) -> Option<Revision> {
        operation.writes().iter().find_map(|write| match write.change {
            Change::Put(value) => self.values.get(&value)?.revision,
            Change::Delete => None,
        })
    }
}

/// What a read was told; `None` where its outcome is not a read's.
fn found(outcome: &Outcome) -> Option<(Option<Seen>, Option<Revision>)> {
    match outcome {
        Outcome::Found { seen, applied } => Some((Some(*seen), Some(*applied))),
        Outcome::Absent => Some((None, None)),
        Outcome::Applied { .. }
        | Outcome::Listed { .. }
        | Outcome::Refused { .. }
        | Outcome::Unknown => None,
    }
}

/// What one write of an operation did; `None` where a batch was refused for another document.
fn act(place: usize, write: Write, outcome: &Outcome, resolved: Option<Revision>) -> Option<Act> {
    let Write { key, change, condition } = write;
    match outcome {
        Outcome::Applied { revision, existed } => {
            let existed = existed >> place & 1 == 1;
            Some(Act::Applied { change, condition, existed, revision: *revision })
        }
        Outcome::Refused { key: blamed, current } if *blamed == key => {
            Some(Act::Refused { condition, current: *current })
        }
        Outcome::Unknown => Some(Act::Unknown { change, condition, revision: resolved }),
        Outcome::Refused { .. }
        | Outcome::Found { .. }
        | Outcome::Absent
        | Outcome::Listed { .. } => None,
    }
}
