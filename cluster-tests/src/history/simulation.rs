//! A real linearizable store in memory, asked by clients that take random time, and the histories it gives: every checker
//! must accept them. Mistakes are planted in such histories afterwards, and the right checker must find each.

use super::{
    Change, Condition, FinalRead, Group, History, Key, KeyInfo, Kind, Moment, Operation, Outcome,
    Revision, Seen, Shape, Value, Write,
};

/// xorshift64*: small, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub fn once_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What the clients of a simulation do.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub clients: u64,
    pub operations: usize,
    pub registers: u32,
    pub conditional: u32,
    pub groups: u32,
    /// One in so many writes gets no answer; 0: each gets one.
    pub unknown_one_in: u64,
    /// Whether the outcome of what took effect without an answer is learned in the end.
    pub resolves: bool,
    /// Longest time of one operation.
    pub takes_max: u64,
}

impl World {
    pub const SMALL: Self = Self {
        clients: 4,
        operations: 400,
        registers: 3,
        conditional: 3,
        groups: 2,
        unknown_one_in: 20,
        resolves: false,
        takes_max: 40,
    };
}

/// An operation under way.
struct Pending {
    client: u32,
    call: u64,
    /// When the store takes it; never, where it was lost on its way.
    takes_effect: Option<u64>,
    ret: u64,
    kind: Kind,
    answered: bool,
    outcome: Option<Outcome>,
}

struct Store {
    documents: Vec<Option<Seen>>,
    index: u64,
}

impl Store {
    fn apply(&mut self, kind: &Kind, groups: &[Vec<Key>]) -> Outcome {
        let applied = Revision(self.index);
        match kind {
            Kind::Read(key) | Kind::StaleRead(key) => match self.documents[key.0 as usize] {
                Some(seen) => Outcome::Found { seen, applied },
                None => Outcome::Absent,
            },
            Kind::List(group) => {
                let keys = &groups[group.0 as usize];
                let seen = keys.iter().map(|key| self.documents[key.0 as usize]).collect();
                Outcome::Listed { seen, applied }
            }
            Kind::Write(write) => self.write(std::slice::from_ref(write)),
            Kind::Batch(writes) => self.write(writes),
        }
    }

    fn write(&mut self, writes: &[Write]) -> Outcome {
        self.index += 1;
        for write in writes {
            let stored = self.documents[write.key.0 as usize];
            let holds = match write.condition {
                Condition::None => true,
                Condition::Absent => stored.is_none(),
                Condition::Is(value, revision) => stored == Some(Seen { value, revision }),
            };
            if !holds {
                let current = stored.map(|seen| seen.revision);
                return Outcome::Refused { key: write.key, current };
            }
        }
        let revision = Revision(self.index);
        let mut existed = 0;
        for (at, write) in writes.iter().enumerate() {
            let stored = &mut self.documents[write.key.0 as usize];
            if write.change == Change::Delete {
                existed |= u32::from(stored.is_some()) << at;
            }
            *stored = write.change.state().map(|value| Seen { value, revision });
        }
        Outcome::Applied { revision, existed }
    }
}

/// A legal history.
pub fn legal(dice: &mut Dice, world: World) -> History {
    let mut history = keys(world);
    let mut store = Store { documents: vec![None; history.keys.len()], index: 0 };
    let mut pending: Vec<Pending> = Vec::new();
    let (mut clients, mut counter, mut now, mut begun) = (0_u32, 0_u32, 10_u64, 0_usize);
    let mut late = Vec::new();
    let mut free: Vec<u32> = (0..world.clients).map(|_| next(&mut clients)).collect();
    while begun < world.operations || !pending.is_empty() {
        now += 1;
        for _ in 0..free.len() {
            if begun == world.operations || !dice.once_in(8) {
                continue;
            }
            let client = free.remove(0);
            let kind = kind(dice, &history, &store, client, &mut counter);
            let is_write = matches!(kind, Kind::Write(_) | Kind::Batch(_));
            let lost = is_write && world.unknown_one_in > 0 && dice.once_in(world.unknown_one_in);
            let ret = now + 1 + dice.below(world.takes_max);
            // What nobody answers may take effect long after its client has given up.
            let until = if lost { world.takes_max * 3 } else { ret - now };
            let takes_effect = now + dice.below(until.max(1)) + u64::from(until > 1);
            let takes_effect = (!lost || !dice.once_in(2)).then(|| takes_effect.min(now + until));
            let answered = !lost;
            pending.push(Pending {
                client,
                call: now,
                takes_effect,
                ret,
                kind,
                answered,
                outcome: None,
            });
            begun += 1;
        }
        let mut due: Vec<usize> = (0..pending.len())
            .filter(|at| pending[*at].takes_effect == Some(now) && pending[*at].outcome.is_none())
            .collect();
        while !due.is_empty() {
            let at = due.swap_remove(dice.below(due.len() as u64) as usize);
            pending[at].outcome = Some(store.apply(&pending[at].kind, &history.groups));
        }
        let mut at = 0;
        while at < pending.len() {
            let one = &pending[at];
            let is_over = one.ret <= now && (!one.answered || one.outcome.is_some());
            let waits = !one.answered && one.takes_effect.is_some() && one.outcome.is_none();
            if !is_over || waits {
                at += 1;
                continue;
            }
            let mut one = pending.swap_remove(at);
            free.push(if one.answered { one.client } else { next(&mut clients) });
            let learned = one.outcome.take_if(|_| !one.answered && world.resolves);
            late.extend(learned.map(|outcome| (history.operations.len(), outcome)));
            history.operations.push(recorded(one, now));
        }
    }
    for (at, outcome) in late {
        let operation = &mut history.operations[at];
        (operation.outcome, operation.ret) = (outcome, Moment((now + 1) * 1_000));
    }
    for node in 0..3 {
        for (key, seen) in (0..).map(Key).zip(&store.documents) {
            history.finals.push(FinalRead { node, key, seen: *seen });
        }
    }
    history
}

fn next(clients: &mut u32) -> u32 {
    *clients += 1;
    *clients
}

/// With microseconds for the ticks of the simulation, so that ends and starts differ.
fn recorded(one: Pending, now: u64) -> Operation {
    let Pending { client, call, kind, answered, outcome, .. } = one;
    let (ret, outcome) = match outcome.filter(|_| answered) {
        Some(outcome) => (Moment(now * 1_000 + 500), outcome),
        None => (Moment::NEVER, Outcome::Unknown),
    };
    let node = (client % 3) as u8;
    Operation { client, node, repeated: false, call: Moment(call * 1_000), ret, kind, outcome }
}

fn keys(world: World) -> History {
    let mut history = History::default();
    for _ in 0..world.registers {
        history.keys.push(KeyInfo { id: "register".into(), shape: Shape::Register });
    }
    for _ in 0..world.conditional {
        history.keys.push(KeyInfo { id: "conditional".into(), shape: Shape::Conditional });
    }
    for group in (0..world.groups).map(Group) {
        let first = history.keys.len() as u32;
        history.groups.push((first..first + 3).map(Key).collect());
        for _ in 0..3 {
            history.keys.push(KeyInfo { id: "member".into(), shape: Shape::Member(group) });
        }
    }
    history
}

fn kind(dice: &mut Dice, history: &History, store: &Store, client: u32, counter: &mut u32) -> Kind {
    *counter += 1;
    let value = Value::new(client, *counter);
    let key = Key(dice.below(history.keys.len() as u64) as u32);
    // Clients know etags that may be old by now.
    let known =
        store.documents[key.0 as usize].map(|seen| Condition::Is(seen.value, seen.revision));
    let put = Change::Put(value);
    let write = |change, condition| Kind::Write(Write { key, change, condition });
    match (history.keys[key.0 as usize].shape, dice.below(10), known) {
        (Shape::Register, 0..5, _) => Kind::Read(key),
        (Shape::Register, _, _) => write(put, Condition::None),
        (Shape::Conditional, 0..3, _) => Kind::Read(key),
        (Shape::Conditional, 3..6, Some(condition)) => write(put, condition),
        (Shape::Conditional, 6, Some(condition)) => write(Change::Delete, condition),
        (Shape::Conditional, 7, _) => write(Change::Delete, Condition::None),
        (Shape::Conditional, 8, _) => write(put, Condition::None),
        (Shape::Conditional, _, _) => write(put, Condition::Absent),
        (Shape::Member(_), 0..2, _) => Kind::Read(key),
        (Shape::Member(group), 2..6, _) => Kind::List(group),
        // The first group is written whole, the others in parts.
        (Shape::Member(group), _, _) => {
            let keys = &history.groups[group.0 as usize];
            let first = dice.below(keys.len() as u64) as usize;
            let change = |dice: &mut Dice, at: usize| match dice.below(3) {
                _ if at == first || group == Group(0) => Some(put),
                0 => Some(put),
                1 => Some(Change::Delete),
                _ => None,
            };
            let condition = Condition::None;
            let writes = keys.iter().enumerate().filter_map(|(at, key)| {
                Some(Write { key: *key, change: change(dice, at)?, condition })
            });
            Kind::Batch(writes.collect())
        }
    }
}
