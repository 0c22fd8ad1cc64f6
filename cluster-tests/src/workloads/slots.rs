//! Documents in use: some at a time, each for a bounded number of operations, so that every search stays small.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;

use super::Plan;
use crate::history::{Group, Key, Recorder, Shape};

/// Documents of a group.
pub const GROUP_SIZE: usize = 4;
/// Registers in use at a time.
const REGISTERS: usize = 16;
/// Groups of whole batches in use at a time.
const GROUPS: usize = 6;
/// Clients that share conditional documents: a search stays small with at most 6.
const TEAM: usize = 4;
/// An unknown write weighs as much as so many operations: each one is carried to the end of the search.
const UNKNOWN_WEIGHT: u32 = 60;

/// A document or group in use.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its key, or those of the group.
    pub keys: Arc<[Key]>,
    /// Their ids.
    pub ids: Arc<[String]>,
    /// The group, if it is one.
    pub group: Option<Group>,
    /// What all ids of a group start with.
    pub prefix: Arc<str>,
}

struct Slot {
    target: Option<Target>,
    left: u32,
}

/// Slots of one kind.
struct Slots {
    kind: &'static str,
    slots: Vec<Mutex<Slot>>,
}

/// All slots of a load.
pub struct Documents {
    prefix: String,
    operations_per_key: u32,
    named: AtomicU32,
    registers: Slots,
    groups: Slots,
    conditional: Slots,
    mixed: Slots,
}

/// Which slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Registers, shared by all clients.
    Register,
    /// Groups of whole batches, shared by all clients.
    Batch,
    /// Conditional documents of the client's team.
    Conditional,
    /// Groups of mixed batches of the client's team.
    Mixed,
}

impl Slots {
    fn new(kind: &'static str, count: usize) -> Self {
        let slot = || Mutex::new(Slot { target: None, left: 0 });
        Self { kind, slots: (0..count).map(|_| slot()).collect() }
    }
}

impl Documents {
    /// Slots for a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let teams = plan.clients.div_ceil(TEAM).max(1);
        Self {
            prefix: plan.prefix.clone(),
            operations_per_key: plan.operations_per_key.max(1),
            named: AtomicU32::new(0),
            registers: Slots::new("register", REGISTERS),
            groups: Slots::new("group", GROUPS),
            conditional: Slots::new("document", 2 * teams),
            mixed: Slots::new("mixed", teams),
        }
    }

    fn slots(&self, of: Use) -> &Slots {
        match of {
            Use::Register => &self.registers,
            Use::Batch => &self.groups,
            Use::Conditional => &self.conditional,
            Use::Mixed => &self.mixed,
        }
    }

    /// The slot for `client` that `choice` falls on.
    #[must_use]
    pub fn slot(&self, of: Use, client: usize, choice: usize) -> usize {
        let count = self.slots(of).slots.len();
        let team = client / TEAM;
        match of {
            Use::Register | Use::Batch => choice % count,
            Use::Conditional => (2 * team + choice % 2) % count,
            Use::Mixed => team % count,
        }
    }

    /// What stands in a slot for one more operation; `None` where the recorder takes no more documents.
    #[must_use]
    pub fn take(&self, recorder: &Recorder, of: Use, slot: usize) -> Option<Target> {
        let slots = self.slots(of);
        let slot = &mut *slots.slots[slot].lock();
        if slot.left == 0 || slot.target.is_none() {
            slot.target = Some(self.make(recorder, of, slots.kind)?);
            slot.left = self.operations_per_key;
        }
        slot.left -= 1;
        slot.target.clone()
    }

    /// An operation in this slot came to an unknown outcome.
    pub fn weigh_down(&self, of: Use, slot: usize) {
        let slot = &mut *self.slots(of).slots[slot].lock();
        slot.left = slot.left.saturating_sub(UNKNOWN_WEIGHT);
    }

    fn make(&self, recorder: &Recorder, of: Use, kind: &str) -> Option<Target> {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{kind}/{number:06}", self.prefix);
        let (keys, ids, group) = match of {
            Use::Register | Use::Conditional => {
                let is_register = of == Use::Register;
                let shape = if is_register { Shape::Register } else { Shape::Conditional };
                let key = recorder.key(prefix.clone(), shape)?;
                (vec![key], vec![prefix.clone()], None)
            }
            Use::Batch | Use::Mixed => {
                let ids: Vec<_> = (0..GROUP_SIZE).map(|at| format!("{prefix}/{at}")).collect();
                let (group, keys) = recorder.group(ids.clone())?;
                (keys, ids, Some(group))
            }
        };
        let prefix = format!("{prefix}/").into();
        Some(Target { keys: keys.into(), ids: ids.into(), group, prefix })
    }
}
