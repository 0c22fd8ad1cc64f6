//! The checkers are checked: each planted mistake is found by the checker that is there for it, no legal history is
//! refused, and the clever searches agree with the simplest ones.
//!
//! `HISTORY_SEED` repeats a run.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::{
    search::Found,
    simulation::{Dice, World, legal},
    timeline::{Act, Step, Timeline},
    *,
};

fn seed() -> u64 {
    std::env::var("HISTORY_SEED").map_or(20_261_122, |seed| seed.parse().unwrap())
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A small history by hand: operations on the documents 0 to 3, of which 2 and 3 are a group.
struct Told(History);

const A: Key = Key(0);
const B: Key = Key(1);
const LEFT: Key = Key(2);
const RIGHT: Key = Key(3);

fn value(number: u32) -> Value {
    Value::new(number, 1)
}

fn seen(number: u32, revision: u64) -> Seen {
    Seen { value: value(number), revision: Revision(revision) }
}

fn put(key: Key, number: u32) -> Write {
    Write { key, change: Change::Put(value(number)), condition: Condition::None }
}

fn swap(key: Key, number: u32, expected: Seen) -> Write {
    Write { condition: Condition::Is(expected.value, expected.revision), ..put(key, number) }
}

fn create(key: Key, number: u32) -> Write {
    Write { condition: Condition::Absent, ..put(key, number) }
}

fn delete(key: Key) -> Write {
    Write { key, change: Change::Delete, condition: Condition::None }
}

fn applied(revision: u64) -> Outcome {
    Outcome::Applied { revision: Revision(revision), existed: 0 }
}

fn deleted(revision: u64) -> Outcome {
    Outcome::Applied { revision: Revision(revision), existed: 1 }
}

impl Told {
    fn new() -> Self {
        let of = |id: &str, shape| KeyInfo { id: id.into(), shape };
        let member = Shape::Member(Group(0));
        let keys = vec![
            of("a", Shape::Register),
            of("b", Shape::Conditional),
            of("left", member),
            of("right", member),
        ];
        Self(History { keys, groups: vec![vec![LEFT, RIGHT]], ..History::default() })
    }

    fn did(mut self, call: u64, ret: u64, kind: Kind, outcome: Outcome) -> Self {
        let client = self.0.operations.len() as u32 + 1;
        let (call, ret) = (Moment(call), if ret == 0 { Moment::NEVER } else { Moment(ret) });
        let operation = Operation { client, node: 0, repeated: false, call, ret, kind, outcome };
        self.0.operations.push(operation);
        self
    }

    fn wrote(self, call: u64, ret: u64, write: Write, outcome: Outcome) -> Self {
        self.did(call, ret, Kind::Write(write), outcome)
    }

    fn again(mut self, call: u64, ret: u64, write: Write, outcome: Outcome) -> Self {
        self = self.wrote(call, ret, write, outcome);
        self.0.operations.last_mut().unwrap().repeated = true;
        self
    }

    fn batch(self, call: u64, ret: u64, writes: &[Write], outcome: Outcome) -> Self {
        self.did(call, ret, Kind::Batch(writes.into()), outcome)
    }

    fn lost(self, call: u64, write: Write) -> Self {
        self.wrote(call, 0, write, Outcome::Unknown)
    }

    fn read(self, call: u64, ret: u64, key: Key, seen: Option<Seen>) -> Self {
        let found = |seen: Seen| Outcome::Found { seen, applied: seen.revision };
        self.did(call, ret, Kind::Read(key), seen.map_or(Outcome::Absent, found))
    }

    fn stale(self, call: u64, ret: u64, key: Key, seen: Seen, applied: u64) -> Self {
        let applied = Revision(applied);
        self.did(call, ret, Kind::StaleRead(key), Outcome::Found { seen, applied })
    }

    fn listed(self, call: u64, ret: u64, seen: [Option<Seen>; 2], applied: u64) -> Self {
        let outcome = Outcome::Listed { seen: seen.into(), applied: Revision(applied) };
        self.did(call, ret, Kind::List(Group(0)), outcome)
    }

    fn ends(mut self, node: u8, key: Key, seen: Option<Seen>) -> Self {
        self.0.finals.push(FinalRead { node, key, seen });
        self
    }

    fn state(mut self, node: u8, applied: u64, hash: &str) -> Self {
        let (group, hash) = ("ledger".to_owned(), hash.to_owned());
        self.0.states.push(NodeState { group, applied, node, hash });
        self
    }
}

/// The checkers that find something, each once.
fn found_by(history: &History) -> Vec<&'static str> {
    let mut found: Vec<_> = match judge(history, &Gate::default()) {
        Verdict::Violated { violations, .. } => violations.iter().map(|v| v.check).collect(),
        Verdict::Passed(_) | Verdict::Rejected { .. } => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn each_planted_mistake_is_found_by_the_checkers_that_are_there_for_it() {
    let told = Told::new;
    let two =
        |told: Told| told.wrote(10, 20, put(A, 1), applied(1)).wrote(30, 40, put(A, 2), applied(2));
    let both = |number| [put(LEFT, number), put(RIGHT, number)];
    let batches =
        |told: Told| told.batch(10, 20, &both(1), applied(1)).batch(30, 90, &both(2), applied(2));
    let table: Vec<(&str, &[&str], Told)> = vec![
        (
            "a read after two writes",
            &[],
            two(told()).read(50, 60, A, Some(seen(2, 2))).ends(0, A, Some(seen(2, 2))),
        ),
        ("a stale read", &["witness", "zone"], two(told()).read(50, 60, A, Some(seen(1, 1)))),
        (
            "a stale read at a revision that is made up",
            &["order", "witness", "zone"],
            two(told()).read(50, 60, A, Some(seen(1, 3))),
        ),
        (
            "a read of nothing after a write",
            &["witness", "zone"],
            two(told()).read(50, 60, A, None),
        ),
        (
            "reads that go back while the write is under way",
            &["witness", "zone"],
            told()
                .wrote(10, 20, put(A, 1), applied(1))
                .wrote(30, 90, put(A, 2), applied(2))
                .read(40, 50, A, Some(seen(2, 2)))
                .read(60, 70, A, Some(seen(1, 1))),
        ),
        (
            "reads that go back from a write that nobody knows about",
            &["witness", "zone"],
            told()
                .wrote(10, 20, put(A, 1), applied(1))
                .lost(30, put(A, 2))
                .read(40, 50, A, Some(seen(2, 2)))
                .read(60, 70, A, Some(seen(1, 1))),
        ),
        (
            "a write that nobody knows about, seen late",
            &[],
            told()
                .wrote(10, 20, put(A, 1), applied(1))
                .lost(30, put(A, 2))
                .read(40, 50, A, Some(seen(1, 1)))
                .read(60, 70, A, Some(seen(2, 2))),
        ),
        (
            "a read from the future",
            &["witness", "zone"],
            told().read(10, 20, A, Some(seen(1, 1))).wrote(30, 40, put(A, 1), applied(1)),
        ),
        (
            "bytes that nobody wrote",
            &["order", "witness", "zone"],
            told().read(10, 20, A, Some(Seen { value: Value::GARBLED, revision: Revision(1) })),
        ),
        (
            "the value of another document",
            &["order", "search", "witness"],
            two(told()).wrote(50, 60, create(B, 3), applied(3)).read(70, 80, B, Some(seen(2, 2))),
        ),
        (
            "writes in an order that time rules out",
            &["witness"],
            told().wrote(10, 20, put(A, 1), applied(2)).wrote(30, 40, put(A, 2), applied(1)),
        ),
        (
            "two writes at one revision",
            &["order"],
            told().wrote(10, 20, put(A, 1), applied(1)).wrote(30, 40, put(B, 2), applied(1)),
        ),
        ("a stale read of an old copy", &[], two(told()).stale(50, 60, A, seen(1, 1), 1)),
        (
            "a stale read that shows less than it says",
            &["witness"],
            two(told()).stale(50, 60, A, seen(1, 1), 2),
        ),
        (
            "a write that is lost in the end",
            &["final", "witness", "zone"],
            two(told()).ends(0, A, Some(seen(1, 1))).ends(1, A, Some(seen(1, 1))),
        ),
        (
            "everything is lost in the end",
            &["final", "witness", "zone"],
            two(told()).ends(0, A, None).ends(1, A, None),
        ),
        (
            "a value in the end that nobody wrote",
            &["final", "order", "witness", "zone"],
            two(told()).ends(0, A, Some(seen(9, 9))),
        ),
        (
            "nodes that differ in the end",
            &["final"],
            told()
                .wrote(10, 0, put(A, 1), Outcome::Unknown)
                .ends(0, A, Some(seen(1, 1)))
                .ends(1, A, None),
        ),
        (
            "states that differ after the same entries",
            &["final"],
            two(told()).state(0, 7, "x").state(1, 7, "y"),
        ),
        (
            "states that differ after other entries",
            &[],
            two(told()).state(0, 7, "x").state(1, 8, "y"),
        ),
        (
            "a write that was applied once more when it was sent again",
            &["order"],
            told().wrote(10, 20, put(A, 1), applied(1)).again(30, 40, put(A, 1), applied(5)),
        ),
        (
            "a write without an answer that stands at two places",
            &["order", "witness"],
            told().lost(10, put(A, 1)).read(20, 30, A, Some(seen(1, 1))).read(
                40,
                50,
                A,
                Some(seen(1, 3)),
            ),
        ),
        (
            "a write that was sent again and got its first answer",
            &[],
            two(told()).again(50, 60, put(A, 2), applied(2)),
        ),
        (
            "two writes that expected the same",
            &["search", "witness"],
            told()
                .wrote(10, 20, create(B, 1), applied(1))
                .wrote(30, 50, swap(B, 2, seen(1, 1)), applied(2))
                .wrote(30, 50, swap(B, 3, seen(1, 1)), applied(3)),
        ),
        (
            "two creations",
            &["search", "witness"],
            told().wrote(10, 30, create(B, 1), applied(1)).wrote(10, 30, create(B, 2), applied(2)),
        ),
        (
            "a refusal although the condition held",
            &["search", "witness"],
            told().wrote(10, 20, create(B, 1), applied(1)).wrote(
                30,
                40,
                swap(B, 2, seen(1, 1)),
                Outcome::Refused { key: B, current: Some(Revision(1)) },
            ),
        ),
        (
            "a refused write that took effect",
            &["order", "search", "witness"],
            told()
                .wrote(10, 20, create(B, 1), applied(1))
                .wrote(
                    30,
                    40,
                    create(B, 2),
                    Outcome::Refused { key: B, current: Some(Revision(1)) },
                )
                .read(50, 60, B, Some(seen(2, 2))),
        ),
        (
            "a deleted document that comes back",
            &["search", "witness"],
            told()
                .wrote(10, 20, create(B, 1), applied(1))
                .wrote(30, 40, delete(B), deleted(2))
                .read(50, 60, B, Some(seen(1, 1))),
        ),
        (
            "a deleted document that comes back in the end",
            &["final", "search", "witness"],
            told()
                .wrote(10, 20, create(B, 1), applied(1))
                .wrote(30, 40, delete(B), deleted(2))
                .ends(0, B, Some(seen(1, 1))),
        ),
        (
            "a deletion that found nothing where something was",
            &["search", "witness"],
            told().wrote(10, 20, create(B, 1), applied(1)).wrote(30, 40, delete(B), applied(2)),
        ),
        (
            "gone without a deletion",
            &["search", "witness"],
            told().wrote(10, 20, create(B, 1), applied(1)).read(30, 40, B, None).wrote(
                50,
                60,
                delete(B),
                deleted(2),
            ),
        ),
        (
            "gone by a deletion without an answer, and created anew",
            &[],
            told()
                .wrote(10, 20, create(B, 1), applied(1))
                .lost(30, delete(B))
                .read(40, 50, B, None)
                .wrote(60, 70, create(B, 2), applied(3))
                .read(80, 90, B, Some(seen(2, 3))),
        ),
        (
            "gone by a deletion without an answer, and back",
            &["search", "witness"],
            told()
                .wrote(10, 20, create(B, 1), applied(1))
                .lost(30, delete(B))
                .read(40, 50, B, None)
                .read(60, 70, B, Some(seen(1, 1))),
        ),
        (
            "whole batches",
            &[],
            batches(told()).listed(40, 50, [Some(seen(1, 1)), Some(seen(1, 1))], 1).listed(
                60,
                70,
                [Some(seen(2, 2)), Some(seen(2, 2))],
                2,
            ),
        ),
        (
            "half of a batch while it is under way",
            &["batches"],
            batches(told()).listed(40, 50, [Some(seen(2, 2)), Some(seen(1, 1))], 1),
        ),
        (
            "half of a batch, at revisions that hide it",
            &["batches", "order", "witness"],
            batches(told()).listed(40, 50, [Some(seen(2, 1)), Some(seen(1, 1))], 1),
        ),
        (
            "half of a batch that nobody knows about",
            &["batches"],
            told()
                .batch(10, 20, &both(1), applied(1))
                .batch(30, 0, &both(2), Outcome::Unknown)
                .listed(40, 50, [Some(seen(2, 2)), Some(seen(1, 1))], 1),
        ),
        (
            "half of a batch that nobody knows about, document by document",
            &["witness"],
            told()
                .batch(10, 20, &both(1), applied(1))
                .batch(30, 0, &both(2), Outcome::Unknown)
                .read(40, 50, LEFT, Some(seen(2, 2)))
                .batch(60, 70, &both(3), applied(3))
                .read(80, 90, RIGHT, Some(seen(2, 2))),
        ),
        (
            "half of a batch is lost in the end",
            &["final", "witness", "zone"],
            told()
                .batch(10, 20, &both(1), applied(1))
                .batch(30, 40, &both(2), applied(2))
                .ends(0, LEFT, Some(seen(2, 2)))
                .ends(0, RIGHT, Some(seen(1, 1))),
        ),
        (
            "half of a batch that nobody knows about is lost in the end",
            &["final"],
            told()
                .batch(10, 20, &both(1), applied(1))
                .batch(30, 0, &both(2), Outcome::Unknown)
                .ends(0, LEFT, Some(seen(2, 2)))
                .ends(0, RIGHT, Some(seen(1, 1))),
        ),
        (
            "a deletion of a batch that did not happen",
            &["batches"],
            told()
                .batch(10, 20, &both(1), applied(1))
                .batch(
                    30,
                    90,
                    &[put(LEFT, 2), delete(RIGHT)],
                    Outcome::Applied { revision: Revision(2), existed: 0b10 },
                )
                .listed(40, 50, [Some(seen(2, 2)), Some(seen(1, 1))], 1),
        ),
    ];
    for (what, expected, told) in table {
        assert_eq!(found_by(&told.0), expected, "{what}");
    }
}

#[test]
fn legal_histories_pass() {
    let mut dice = Dice::new(seed());
    let worlds = [
        World::SMALL,
        World { unknown_one_in: 0, ..World::SMALL },
        World { clients: 6, takes_max: 200, ..World::SMALL },
        World { resolves: true, ..World::SMALL },
        World { clients: 2, registers: 1, conditional: 1, groups: 1, ..World::SMALL },
        World { registers: 0, conditional: 1, groups: 0, operations: 150, ..World::SMALL },
    ];
    for round in 0..200 {
        let history = legal(&mut dice, worlds[round % worlds.len()]);
        let gate = Gate { known_min: 100, final_nodes: 3, ..Gate::default() };
        let verdict = judge(&history, &gate);
        let passed = matches!(verdict, Verdict::Passed(_));
        assert!(passed, "HISTORY_SEED={}, round {round}: {verdict}", seed());
    }
}

/// Random steps on one document, most of them near what is possible.
fn random_steps(dice: &mut Dice, most: u64, is_register: bool) -> Vec<Step> {
    let count = 1 + dice.below(most);
    let mut steps = Vec::new();
    for number in 1..=count as u32 {
        let call = 1 + dice.below(3 * count);
        let end = call + 1 + dice.below(6);
        let any = |dice: &mut Dice| match dice.below(count + 1) as u32 {
            0 => None,
            number => Some(seen(number, u64::from(number))),
        };
        let (change, revision) = (Change::Put(value(number)), Revision(u64::from(number)));
        let condition = match (is_register, dice.below(3), any(dice)) {
            (true, ..) | (false, 0, _) => Condition::None,
            (false, _, None) => Condition::Absent,
            (false, _, Some(seen)) => Condition::Is(seen.value, seen.revision),
        };
        let act = match dice.below(if is_register { 6 } else { 10 }) {
            0..3 => Act::Read { seen: any(dice), applied: None },
            3..5 => Act::Applied { change, condition, existed: false, revision },
            5 => Act::Unknown { change, condition, revision: None },
            6 | 7 => {
                let (change, existed) = (Change::Delete, dice.below(2) == 0);
                Act::Applied { change, condition, existed, revision }
            }
            8 => Act::Unknown { change: Change::Delete, condition, revision: None },
            _ => Act::Refused { condition, current: None },
        };
        let ret = if matches!(act, Act::Unknown { .. }) { Moment::NEVER } else { Moment(end) };
        steps.push(Step { operation: Some(number), call: Moment(call), ret, act });
    }
    steps.sort_by_key(|step| step.call);
    steps
}

/// Tries every order of the known steps, with the unknown ones anywhere or nowhere.
fn brute_force(steps: &[Step], taken: &mut Vec<usize>, state: Option<Value>) -> bool {
    let is_known = |step: &Step| !matches!(step.act, Act::Unknown { .. });
    let left = |at: &usize| !taken.contains(at);
    if !(0..steps.len()).filter(left).any(|at| is_known(&steps[at])) {
        return true;
    }
    let open: Vec<usize> = (0..steps.len()).filter(left).collect();
    open.iter().any(|&at| {
        let precedes = |other: &usize| steps[*other].ret < steps[at].call;
        if open.iter().any(precedes) {
            return false;
        }
        let holds = |condition| match condition {
            Condition::None => true,
            Condition::Absent => state.is_none(),
            Condition::Is(value, _) => state == Some(value),
        };
        let after = match steps[at].act {
            Act::Read { seen, .. } if seen.map(|seen| seen.value) == state => state,
            Act::Applied { change: Change::Delete, condition, existed, .. }
                if holds(condition) && existed == state.is_some() =>
            {
                None
            }
            Act::Applied { change: change @ Change::Put(_), condition, .. }
            | Act::Unknown { change, condition, .. }
                if holds(condition) =>
            {
                change.state()
            }
            Act::Refused { condition, .. } if !holds(condition) => state,
            Act::Read { .. }
            | Act::Stale { .. }
            | Act::Applied { .. }
            | Act::Refused { .. }
            | Act::Unknown { .. } => return false,
        };
        taken.push(at);
        let fits = brute_force(steps, taken, after);
        taken.pop();
        fits
    })
}

#[test]
fn the_search_agrees_with_brute_force() {
    let mut dice = Dice::new(seed());
    let (mut legal, mut illegal) = (0, 0);
    for round in 0..20_000 {
        let steps = random_steps(&mut dice, 6, false);
        let (found, _) = search::check_key(&steps, 1_000_000, later());
        let expected = brute_force(&steps, &mut Vec::new(), None);
        let agrees = (found == Found::Order) == expected && found != Found::GaveUp;
        assert!(
            agrees,
            "HISTORY_SEED={}, round {round}: {expected}, {found:?}\n{steps:#?}",
            seed()
        );
        *(if expected { &mut legal } else { &mut illegal }) += 1;
    }
    assert!(legal > 2_000 && illegal > 2_000, "{legal} legal, {illegal} illegal");
}

#[test]
fn zones_agree_with_the_search() {
    let mut dice = Dice::new(seed());
    let (mut legal, mut illegal) = (0, 0);
    for round in 0..20_000 {
        let steps = random_steps(&mut dice, 9, true);
        assert!(zone::applies(&steps));
        let zones = zone::check_key(&steps);
        let (found, _) = search::check_key(&steps, 1_000_000, later());
        let agrees = zones.is_ok() == (found == Found::Order) && found != Found::GaveUp;
        assert!(agrees, "HISTORY_SEED={}, round {round}: {zones:?}, {found:?}\n{steps:#?}", seed());
        *(if zones.is_ok() { &mut legal } else { &mut illegal }) += 1;
    }
    assert!(legal > 2_000 && illegal > 2_000, "{legal} legal, {illegal} illegal");
}

/// Something in a history becomes something else.
fn spoil(dice: &mut Dice, history: &mut History) {
    let shown: Vec<Seen> = history
        .operations
        .iter()
        .filter_map(|operation| {
            let Outcome::Found { seen, .. } = operation.outcome else { return None };
            Some(seen)
        })
        .collect();
    let at = dice.below(history.operations.len() as u64) as usize;
    let operation = &mut history.operations[at];
    match &mut operation.outcome {
        Outcome::Found { seen, applied } => {
            *seen = shown[dice.below(shown.len() as u64) as usize];
            *applied = seen.revision;
        }
        Outcome::Absent => {
            let seen = shown[dice.below(shown.len() as u64) as usize];
            operation.outcome = Outcome::Found { seen, applied: seen.revision };
        }
        Outcome::Applied { .. }
        | Outcome::Listed { .. }
        | Outcome::Refused { .. }
        | Outcome::Unknown => {
            operation.call = Moment(operation.call.0.saturating_sub(dice.below(200_000)));
            if operation.ret != Moment::NEVER {
                operation.ret = Moment(operation.call.0 + 1);
            }
        }
    }
}

#[test]
fn whatever_values_rule_out_revisions_rule_out_too() {
    let mut dice = Dice::new(seed());
    // Without deletions that nobody can place, revisions tell the order of everything.
    let worlds = [
        World { conditional: 0, groups: 0, registers: 2, operations: 60, ..World::SMALL },
        World {
            conditional: 2,
            groups: 0,
            registers: 0,
            unknown_one_in: 0,
            operations: 60,
            ..World::SMALL
        },
    ];
    let mut ruled_out = 0;
    for round in 0..4_000 {
        let mut history = legal(&mut dice, worlds[round % 2]);
        spoil(&mut dice, &mut history);
        history.finals.clear();
        let (timeline, order) = Timeline::new(&history);
        let by_revisions = !order.is_empty() || !witness::check(&history, &timeline).is_empty();
        let by_values = !zone::check(&history, &timeline).1.is_empty()
            || !search::check(&history, &timeline, later()).violations.is_empty();
        let context = format!("HISTORY_SEED={}, round {round}", seed());
        assert!(by_revisions || !by_values, "{context}: {}", judge(&history, &Gate::default()));
        ruled_out += u64::from(by_values);
    }
    assert!(ruled_out > 1_000, "{ruled_out} of 4000");
}

/// Writes whose outcome is learned in the end stay open all the time: they must not make the search explode.
#[test]
fn late_outcomes_and_unknown_ones_keep_searches_small() {
    let mut dice = Dice::new(seed());
    for (resolves, takes_max) in [(true, 20), (true, 200), (false, 20), (false, 200)] {
        let world = World {
            registers: 0,
            groups: 0,
            conditional: 1,
            operations: 1_000,
            unknown_one_in: 40,
            resolves,
            takes_max,
            ..World::SMALL
        };
        for round in 0..10 {
            let history = legal(&mut dice, world);
            let (timeline, _) = Timeline::new(&history);
            let (found, steps) = search::check_key(&timeline.keys[0], search::STEPS_MAX, later());
            let context = format!("HISTORY_SEED={}, {world:?}, round {round}", seed());
            assert_eq!(found, Found::Order, "{context}");
            assert!(steps < 200_000, "{context}: {steps} steps");
        }
    }
}

#[test]
fn a_run_that_saw_too_little_is_rejected_and_has_not_passed() {
    let history = |change: &dyn Fn(&mut History)| {
        let told = Told::new().wrote(10, 20, put(A, 1), applied(1)).lost(30, put(A, 2));
        let mut history = told.0;
        history.keys.truncate(2);
        history.groups.clear();
        for (node, key) in [(0, A), (1, A), (0, B), (1, B)] {
            let last = (key == A).then(|| seen(1, 1));
            history.finals.push(FinalRead { node, key, seen: last });
        }
        change(&mut history);
        history
    };
    let mode = |history: &mut History, from, name: &str| {
        history.modes.push(Mode { from: Moment(from), name: name.to_owned() });
    };
    let gate = Gate { known_min: 1, known_min_by_mode: 1, modes: Vec::new(), final_nodes: 2 };
    let wants = |modes: &[&str]| Gate {
        modes: modes.iter().map(|mode| (*mode).to_owned()).collect(),
        ..gate.clone()
    };
    type Change<'a> = &'a dyn Fn(&mut History);
    let table: [(&str, Option<&str>, Gate, Change<'_>); 8] = [
        ("enough", None, gate.clone(), &|_| {}),
        (
            "too few operations",
            Some("known outcome"),
            Gate { known_min: 2, ..gate.clone() },
            &|_| {},
        ),
        ("a mode that never was", Some("never in the mode"), wants(&["pause"]), &|_| {}),
        ("a mode that was", None, wants(&["pause"]), &|history| mode(history, 5, "pause")),
        (
            "a mode with nothing but unknown outcomes",
            Some("0 operations in the mode \"pause\""),
            gate.clone(),
            &|history| mode(history, 25, "pause"),
        ),
        (
            "a mode with nothing at all",
            Some("0 operations in the mode \"pause\""),
            gate.clone(),
            &|history| mode(history, 35, "pause"),
        ),
        ("a full recorder", Some("full"), gate.clone(), &|history| history.overflowed = 1),
        ("a node that was not read", Some("not read"), gate.clone(), &|history| {
            history.finals.pop();
        }),
    ];
    for (what, reason, gate, change) in table {
        let verdict = judge(&history(change), &gate);
        match (reason, &verdict) {
            (None, Verdict::Passed(_)) => {}
            (Some(reason), Verdict::Rejected { reasons, .. }) => {
                assert!(reasons.iter().any(|given| given.contains(reason)), "{what}: {verdict}");
            }
            _ => panic!("{what}: {verdict}"),
        }
        assert_eq!(verdict.passed().is_ok(), reason.is_none(), "{what}");
    }
}

#[test]
fn a_search_that_comes_to_its_bounds_proves_nothing() {
    let mut dice = Dice::new(seed());
    let world = World { registers: 0, groups: 0, conditional: 1, ..World::SMALL };
    let history = legal(&mut dice, world);
    let (timeline, _) = Timeline::new(&history);
    assert_eq!(search::check_key(&timeline.keys[0], 10, later()).0, Found::GaveUp);
    // A deadline that has passed is seen after some steps, and told.
    let long = World { operations: 9_000, ..world };
    let history = legal(&mut dice, long);
    let (timeline, _) = Timeline::new(&history);
    let searched = search::check(&history, &timeline, Instant::now());
    assert_eq!((searched.gave_up.len(), searched.violations.len()), (1, 0));
}

#[test]
fn a_recorder_is_bounded_and_says_so() {
    let recorder = Recorder::new(1);
    let operation = Told::new().wrote(10, 20, put(A, 1), applied(1)).0.operations.remove(0);
    assert!(recorder.note(operation.clone()).is_some());
    assert!(recorder.note(operation).is_none());
    let history = recorder.finish();
    assert_eq!((history.operations.len(), history.overflowed), (1, 1));
}

#[test]
fn a_history_is_read_back_as_it_was_written() {
    let mut history = legal(&mut Dice::new(seed()), World::SMALL);
    history.modes.push(Mode { from: Moment(5), name: "pause".to_owned() });
    history.reads_dropped = 3;
    let (group, hash) = ("ledger".to_owned(), "00".to_owned());
    history.states.push(NodeState { group, applied: 1, node: 0, hash });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    history.write(&path).unwrap();
    assert_eq!(History::read(&path).unwrap(), history);
}

#[test]
fn values_are_read_as_they_are_written() {
    for value in [Value::new(0, 0), Value::new(1, 2), Value::new(u32::MAX, u32::MAX - 1)] {
        assert_eq!(Value::parse(value.json().as_bytes()), value);
    }
    for json in ["", "{}", r#"{"value":"1"}"#, r#"{"value":"01:2"}"#, r#"{"value":"1:2"} "#] {
        assert_eq!(Value::parse(json.as_bytes()), Value::GARBLED, "{json}");
    }
}

/// What a long run leaves is checked in seconds.
#[test]
fn half_a_million_operations_are_checked_in_seconds() {
    let world = World {
        clients: 6,
        operations: 500_000,
        registers: 200,
        conditional: 200,
        groups: 60,
        unknown_one_in: 400,
        resolves: false,
        takes_max: 20,
    };
    let history = legal(&mut Dice::new(seed()), world);
    let bytes = history.operations.len() * size_of::<Operation>();
    let began = Instant::now();
    let report = judge(&history, &Gate { known_min: 400_000, ..Gate::default() }).passed().unwrap();
    let took = began.elapsed();
    println!("{} MB, {took:?}\n{report}", bytes / 1_000_000);
    assert!(took < Duration::from_secs(60), "{took:?}");
}
