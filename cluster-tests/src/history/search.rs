//! Conditional writes, creations and deletions, checked by searching for an order that explains them.
//!
//! Sources: Wing and Gong, *Testing and Verifying Concurrent Objects*, Journal of Parallel and Distributed Computing 17,
//! 1993: choose an operation that no other had to precede, apply it to the model, go on, and go back where nothing fits.
//! Lowe, *Testing for linearizability*, Concurrency and Computation 29(4), 2017: a set of chosen operations that was
//! reached with the same state before leads nowhere new. Two cuts of our own keep that exact:
//!
//! 1. What fits and changes nothing (a read, a refusal, a deletion of nothing) is taken at once: in any order that
//!    explains the history it can be moved to this point.
//! 2. Unknown writes are tried last and need not be taken: the search ends when every known operation is.
//!
//! Each document is searched by itself, because linearizability is local (Herlihy and Wing 1990). The state is its value;
//! values are unique, so "has this etag" is "holds this value". A search is bounded by steps and by time; where it gives
//! up, nothing is proven either way.

use std::{collections::BTreeSet, time::Instant};

use super::{
    judge::{VIOLATIONS_MAX, Violation},
    operation::{Change, Condition, Key, Moment, Value},
    recorder::History,
    timeline::{Act, Step, Timeline},
    zone,
};

/// The name of this check.
pub const NAME: &str = "search";
/// Most steps of the search of one document.
pub const STEPS_MAX: u64 = 5_000_000;
/// After so many steps the clock is looked at.
const STEPS_BETWEEN_LOOKS: u64 = 4096;

/// What the searches came to.
#[derive(Debug, Default)]
pub struct Searched {
    /// Documents that were searched.
    pub keys: u64,
    /// Steps of all searches.
    pub steps: u64,
    /// Documents that no order explains.
    pub violations: Vec<Violation>,
    /// Documents whose search came to its bounds, in words.
    pub gave_up: Vec<String>,
}

/// Searches every document that zones do not apply to, until `deadline`.
#[must_use]
pub fn check(history: &History, timeline: &Timeline, deadline: Instant) -> Searched {
    let mut searched = Searched::default();
    for (key, steps) in (0..).map(Key).zip(&timeline.keys) {
        if zone::applies(steps) || searched.violations.len() >= VIOLATIONS_MAX {
            continue;
        }
        searched.keys += 1;
        let (found, taken) = check_key(steps, STEPS_MAX, deadline);
        searched.steps += taken;
        match found {
            Found::Order => {}
            Found::NoOrder { explained, stuck } => {
                let what = format!("no order explains more than {explained} operations; then");
                let shown = Step::show(history, &stuck.iter().collect::<Vec<_>>());
                searched.violations.push(Violation::at(NAME, history, key, what, shown));
            }
            Found::GaveUp => searched.gave_up.push(format!(
                "the search of {} gave up after {taken} steps",
                history.keys.get(key.0 as usize).map_or("?", |info| info.id.as_str())
            )),
        }
    }
    searched
}

/// What one search came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// An order explains the document.
    Order,
    /// None does.
    NoOrder {
        /// The most known operations that an order explained.
        explained: usize,
        /// What could have come next there, and did not fit.
        stuck: Vec<Step>,
    },
    /// It came to its bounds.
    GaveUp,
}

/// An operation as the model knows it.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    call: Moment,
    ret: Moment,
    step: &'a Step,
}

impl Call<'_> {
    /// The state after it, or `None` where it does not fit `state`.
    fn apply(&self, state: Option<Value>) -> Option<Option<Value>> {
        let holds = |condition| match condition {
            Condition::None => true,
            Condition::Absent => state.is_none(),
            Condition::Is(value, _) => state == Some(value),
        };
        let (fits, after) = match self.step.act {
            Act::Read { seen, .. } => (state == seen.map(|seen| seen.value), state),
            Act::Stale { .. } => (true, state),
            Act::Applied { change, condition, existed, .. } => {
                let as_told = change != Change::Delete || existed == state.is_some();
                (as_told && holds(condition), change.state())
            }
            Act::Refused { condition, .. } => (!holds(condition), state),
            Act::Unknown { change, condition, .. } => (holds(condition), change.state()),
        };
        fits.then_some(after)
    }
}

/// Which operations were taken: all known ones before `first`, and those whose bits are set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Reached {
    first: usize,
    bits: Box<[u64]>,
    unknown: Box<[u64]>,
    state: Option<Value>,
}

/// One choice that can be undone.
struct Choice {
    taken: usize,
    is_unknown: bool,
    state_before: Option<Value>,
    first_before: usize,
}

#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn of(length: usize) -> Self {
        Self(vec![0; length.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

struct Search<'a> {
    known: Vec<Call<'a>>,
    unknown: Vec<Call<'a>>,
    taken: Bits,
    taken_unknown: Bits,
    /// The first known operation that is not taken.
    first: usize,
    count: usize,
    state: Option<Value>,
    choices: Vec<Choice>,
    reached: BTreeSet<Reached>,
    /// The most that was explained, and what could have come next there.
    best: (usize, Vec<Step>),
}

/// Searches one document.
#[must_use]
pub fn check_key(steps: &[Step], steps_max: u64, deadline: Instant) -> (Found, u64) {
    let mut search = Search::new(steps);
    let mut taken = 0;
    // The candidate of the present state that led nowhere; the next ones are left.
    let mut after = None;
    loop {
        if search.count == search.known.len() {
            return (Found::Order, taken);
        }
        taken += 1;
        let is_late = taken % STEPS_BETWEEN_LOOKS == 0 && Instant::now() > deadline;
        if taken > steps_max || is_late {
            return (Found::GaveUp, taken);
        }
        match search.forward(after) {
            true => after = None,
            false => match search.back() {
                Some(nowhere) => after = Some(nowhere),
                None => {
                    let (explained, stuck) = search.best;
                    return (Found::NoOrder { explained, stuck }, taken);
                }
            },
        }
    }
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step]) -> Self {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for step in steps {
            let call = Call { call: step.call, ret: step.ret, step };
            match step.act {
                Act::Stale { .. } => {}
                Act::Unknown { .. } => unknown.push(call),
                Act::Read { .. } | Act::Applied { .. } | Act::Refused { .. } => known.push(call),
            }
        }
        known.sort_by_key(|call| call.call);
        unknown.sort_by_key(|call| call.call);
        Self {
            taken: Bits::of(known.len()),
            taken_unknown: Bits::of(unknown.len()),
            known,
            unknown,
            first: 0,
            count: 0,
            state: None,
            choices: Vec::new(),
            reached: BTreeSet::new(),
            best: (0, Vec::new()),
        }
    }

    /// The operations that nothing had to precede: first the known ones, then, by places from `known.len()`, the unknown.
    /// An operation had to precede another if it ended before that one was called. What ends first comes first: it is the
    /// next to stand in the way of the others.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut earliest = Moment::NEVER;
        for (at, call) in self.known.iter().enumerate().skip(self.first) {
            if call.call > earliest {
                break;
            }
            if !self.taken.has(at) {
                candidates.push(at);
                earliest = earliest.min(call.ret);
            }
        }
        candidates.retain(|at| self.known[*at].call <= earliest);
        candidates.sort_by_key(|at| self.known[*at].ret);
        let unknown = self.unknown.iter().enumerate();
        let open = unknown.take_while(|(_, call)| call.call <= earliest);
        let open = open.filter(|(at, _)| !self.taken_unknown.has(*at));
        candidates.extend(open.map(|(at, _)| self.known.len() + at));
        candidates
    }

    /// Takes the first candidate that fits, of those after `after`. Gives false where none does.
    fn forward(&mut self, after: Option<usize>) -> bool {
        let candidates = self.candidates();
        // What fits and changes nothing is no choice.
        if after.is_none() {
            for &at in candidates.iter().filter(|at| **at < self.known.len()) {
                if self.known[at].apply(self.state) == Some(self.state) {
                    self.take(at, self.state);
                    return true;
                }
            }
        }
        let tried = candidates.iter().position(|at| Some(*at) == after);
        for &at in candidates.iter().skip(tried.map_or(0, |place| place + 1)) {
            let call = match at.checked_sub(self.known.len()) {
                None => self.known[at],
                Some(place) => self.unknown[place],
            };
            let Some(state) = call.apply(self.state) else { continue };
            self.take(at, state);
            if self.reached.insert(self.reached()) {
                return true;
            }
            self.undo();
        }
        if self.count >= self.best.0 {
            let stuck = candidates.iter().filter_map(|at| self.known.get(*at));
            self.best = (self.count, stuck.map(|call| *call.step).collect());
        }
        false
    }

    fn take(&mut self, at: usize, after: Option<Value>) {
        let (state_before, first_before) = (self.state, self.first);
        let is_unknown = at >= self.known.len();
        if is_unknown {
            self.taken_unknown.flip(at - self.known.len());
        } else {
            self.taken.flip(at);
            self.count += 1;
            while self.first < self.known.len() && self.taken.has(self.first) {
                self.first += 1;
            }
        }
        self.state = after;
        self.choices.push(Choice { taken: at, is_unknown, state_before, first_before });
    }

    /// Undoes the last choice; gives it.
    fn undo(&mut self) -> Option<Choice> {
        let choice = self.choices.pop()?;
        if choice.is_unknown {
            self.taken_unknown.flip(choice.taken - self.known.len());
        } else {
            self.taken.flip(choice.taken);
            self.count -= 1;
        }
        (self.state, self.first) = (choice.state_before, choice.first_before);
        Some(choice)
    }

    /// Goes back to the last choice that may have others; gives what led nowhere.
    fn back(&mut self) -> Option<usize> {
        loop {
            let choice = self.undo()?;
            let call = match choice.taken.checked_sub(self.known.len()) {
                None => self.known[choice.taken],
                Some(place) => self.unknown[place],
            };
            let was_no_choice = !choice.is_unknown && call.apply(self.state) == Some(self.state);
            if !was_no_choice {
                return Some(choice.taken);
            }
        }
    }

    fn reached(&self) -> Reached {
        // Words before `first` are full.
        let from = self.first / 64;
        let words = self.taken.0.get(from..).unwrap_or_default();
        let end = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        Reached {
            first: self.first,
            bits: words[..end].into(),
            unknown: self.taken_unknown.0.as_slice().into(),
            state: self.state,
        }
    }
}
