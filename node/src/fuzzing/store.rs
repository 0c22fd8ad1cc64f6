//! A store in memory: every space a map, a view a copy.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    names::GroupId,
    storage::{self, Batch, Change, Durability, Overlay, Read, Space, StateHash, Store, Table},
};

/// The records of one space.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The state of a group, first generation.
pub(super) fn space(group: u64) -> Space {
    Space { table: Table::State, group: GroupId(group), generation: 0 }
}

/// Records by space.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) spaces: BTreeMap<Space, Records>,
}

impl Memory {
    pub(super) fn records(&self, space: Space) -> Records {
        self.spaces.get(&space).cloned().unwrap_or_default()
    }

    pub(super) fn write(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Put(space, key, value) => {
                    self.spaces.entry(space).or_default().insert(key, value);
                }
                Change::Delete(space, key) => {
                    self.spaces.entry(space).or_default().remove(&key);
                }
                Change::DeleteRange(space, from, to) => {
                    let records = self.spaces.entry(space).or_default();
                    records.retain(|key, _| *key < from || to.as_ref().is_some_and(|to| key >= to));
                }
            }
        }
        self.spaces.retain(|_, records| !records.is_empty());
    }
}

/// The hash that records have, computed anew.
pub(super) fn hash_of(records: &Records) -> StateHash {
    let mut hash = StateHash::default();
    for (key, value) in records {
        hash.add(key, value);
    }
    hash
}

impl Read for Memory {
    fn get(&self, space: Space, key: &[u8]) -> storage::Result<Option<Vec<u8>>> {
        Ok(self.spaces.get(&space).and_then(|records| records.get(key)).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
    ) -> storage::Result<()> {
        let Some(records) = self.spaces.get(&space) else { return Ok(()) };
        let empty = match to {
            Bound::Included(to) => from > to,
            Bound::Excluded(to) => from >= to,
            Bound::Unbounded => false,
        };
        if empty {
            return Ok(()); // A map panics at such a range, an engine finds nothing.
        }
        for (key, value) in records.range::<[u8], _>((Bound::Included(from), to)) {
            if visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, space: Space) -> storage::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let last = self.spaces.get(&space).and_then(BTreeMap::last_key_value);
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }
}

/// [`Memory`] as the layers above storage share it.
#[derive(Debug, Default)]
pub(super) struct Shared(pub(super) Mutex<Memory>);

impl Read for Shared {
    fn get(&self, space: Space, key: &[u8]) -> storage::Result<Option<Vec<u8>>> {
        self.0.lock().get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
    ) -> storage::Result<()> {
        self.0.lock().scan(space, from, to, visit)
    }

    fn last(&self, space: Space) -> storage::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.0.lock().last(space)
    }
}

impl Store for Shared {
    fn write(&self, batch: Batch, _: Durability) -> storage::Result<()> {
        self.0.lock().write(batch);
        Ok(())
    }

    fn view(&self) -> Arc<dyn Read> {
        Arc::new(self.0.lock().clone())
    }

    fn has_key(&self, _: GroupId) -> bool {
        true
    }

    fn clear_group(&self, group: GroupId) -> storage::Result<()> {
        self.0.lock().spaces.retain(|space, _| space.group != group);
        Ok(())
    }

    fn create_key(&self, _: GroupId) -> storage::Result<()> {
        Ok(())
    }

    fn destroy_key(&self, _: GroupId) -> storage::Result<()> {
        Ok(())
    }
}

/// The state of one replica of a group.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) memory: Memory,
    pub(super) space: Space,
    pub(super) hash: StateHash,
}

impl Replica {
    pub(super) fn new(group: u64) -> Self {
        Self { memory: Memory::default(), space: space(group), hash: StateHash::default() }
    }

    /// Runs `apply` on an overlay; what it wrote stays where it gave an answer, as in a state machine.
    pub(super) fn batch<T, E>(
        &mut self,
        apply: impl FnOnce(&mut Overlay<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut overlay = Overlay::new(&self.memory, self.space, self.hash);
        let answer = apply(&mut overlay)?;
        self.hash = overlay.hash();
        let batch = overlay.into_batch();
        self.memory.write(batch);
        Ok(answer)
    }

    /// What every state must be, whatever was applied: hashed as it is kept, and small enough for a snapshot.
    pub(super) fn check(&self) {
        let records = self.memory.records(self.space);
        assert_eq!(hash_of(&records), self.hash, "the state hash is not that of the records");
        for (key, value) in &records {
            assert!(key.len() <= crate::limits::STATE_KEY_BYTES_MAX, "a key is too long");
            assert!(value.len() <= crate::limits::STATE_VALUE_BYTES_MAX, "a record is too large");
        }
    }
}
