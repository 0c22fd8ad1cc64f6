//! Writes of entries under way on top of a store: later entries of one batch see what earlier ones wrote.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use sha2::{Digest, Sha256};

use super::{Batch, Read, Result, Space};

/// A space of a store with pending changes on top, and the state hash that they lead to.
///
/// The state hash is an additive multiset hash: the sum modulo 2^256 of SHA-256(length of key, key, value) of every
/// record (Bellare and Micciancio 1997, AdHash). It finds replicas that diverged by a fault; it is not a commitment
/// against someone who chooses records.
pub struct Overlay<'a> {
    base: &'a dyn Read,
    space: Space,
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    hash: StateHash,
    watched: Option<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    marked: Option<Marked>,
}

/// What leads back to a mark.
struct Marked {
    hash: StateHash,
    /// What was pending under the changed keys, the latest change last; `None`: nothing was.
    before: Vec<(Vec<u8>, Option<Option<Vec<u8>>>)>,
}

/// The sum of the hashes of all records, little-endian words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateHash([u64; 4]);

impl StateHash {
    /// The hash of one record.
    fn of(key: &[u8], value: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update((key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(value);
        Self::from_bytes(&hasher.finalize().into())
    }

    /// Adds a record.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let other = Self::of(key, value);
        let mut carry = false;
        for (word, add) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = word.overflowing_add(add);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first || second);
        }
    }

    /// Takes a record away.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        let other = Self::of(key, value);
        let mut borrow = false;
        for (word, sub) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = word.overflowing_sub(sub);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (rest, first || second);
        }
    }

    /// 32 bytes, for the record that keeps it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Back from 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        }
        Self(words)
    }
}

impl<'a> Overlay<'a> {
    /// Begins on `base`, whose records of `space` have the state hash `hash`.
    #[must_use]
    pub fn new(base: &'a dyn Read, space: Space, hash: StateHash) -> Self {
        Self { base, space, pending: BTreeMap::new(), hash, watched: None, marked: None }
    }

    /// The space that it changes.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }

    /// The value under a key, pending changes included.
    ///
    /// # Errors
    /// As [`Read::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.pending.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(self.space, key),
        }
    }

    /// Stores a value.
    ///
    /// # Errors
    /// As [`Read::get`], because the state hash needs the old value.
    pub fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<()> {
        let old = self.get(key)?;
        self.replace(key, old, Some(value));
        Ok(())
    }

    /// Stores a value, or removes the key, where the caller has just read what stands there: `old` must be what
    /// [`Overlay::get`] answers, or the state hash is wrong from here on. Saves the second read.
    pub fn replace(&mut self, key: &[u8], old: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        if let Some(old) = &old {
            self.hash.remove(key, old);
        }
        if let Some(value) = &value {
            self.hash.add(key, value);
        }
        self.note(key, old);
        self.set(key, value);
    }

    /// Removes a key; says whether there was one.
    ///
    /// # Errors
    /// As [`Read::get`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let Some(old) = self.get(key)? else { return Ok(false) };
        self.hash.remove(key, &old);
        self.note(key, Some(old));
        self.set(key, None);
        Ok(true)
    }

    fn set(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        let before = self.pending.insert(key.to_vec(), value);
        if let Some(marked) = &mut self.marked {
            marked.before.push((key.to_vec(), before));
        }
    }

    /// From here on [`Overlay::undo`] leads back to this moment.
    pub fn mark(&mut self) {
        self.marked = Some(Marked { hash: self.hash, before: Vec::new() });
    }

    /// Takes all changes since the last [`Overlay::mark`] back, however they ended.
    pub fn undo(&mut self) {
        let Some(marked) = self.marked.take() else { return };
        for (key, before) in marked.before.into_iter().rev() {
            match before {
                Some(value) => drop(self.pending.insert(key, value)),
                None => drop(self.pending.remove(&key)),
            }
        }
        self.hash = marked.hash;
        self.watched = None;
    }

    /// From here on the first value of every key that is changed is remembered.
    pub fn watch(&mut self) {
        self.watched = Some(BTreeMap::new());
    }

    /// Ends [`Overlay::watch`]: the changed keys and the value that each had before; `None`: there was none.
    #[must_use]
    pub fn watched(&mut self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        self.watched.take().unwrap_or_default()
    }

    fn note(&mut self, key: &[u8], old: Option<Vec<u8>>) {
        if let Some(watched) = &mut self.watched {
            watched.entry(key.to_vec()).or_insert(old);
        }
    }

    /// Visits the records from `from` to `to`, pending changes included, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// As [`Read::scan`].
    pub fn scan(
        &self,
        from: &[u8],
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
    ) -> Result<()> {
        let range = (Bound::Included(from), to);
        let mut pending = self.pending.range::<[u8], _>(range).peekable();
        let mut broke = false;
        self.base.scan(self.space, from, to, &mut |key, value| {
            while let Some((pending_key, pending_value)) =
                pending.next_if(|(pending_key, _)| pending_key.as_slice() < key)
            {
                if let Some(value) = pending_value
                    && visit(pending_key, value.clone()).is_break()
                {
                    broke = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match pending.next_if(|(pending_key, _)| pending_key.as_slice() == key) {
                Some((_, None)) => ControlFlow::Continue(()),
                Some((_, Some(value))) => visit(key, value.clone()),
                None => visit(key, value),
            };
            broke = flow.is_break();
            flow
        })?;
        if broke {
            return Ok(());
        }
        for (key, value) in pending {
            if let Some(value) = value
                && visit(key, value.clone()).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The state hash with the pending changes.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        self.hash
    }

    /// The pending changes as a batch.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in self.pending {
            match value {
                Some(value) => batch.put(self.space, key, value),
                None => batch.delete(self.space, key),
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        names::GroupId,
        storage::{Change, Table},
    };

    const SPACE: Space = Space { table: Table::State, group: GroupId(1), generation: 0 };

    /// A store of one space.
    struct Base(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Base {
        fn of(records: &[(&str, &str)]) -> Self {
            Self(records.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
        }
    }

    impl Read for Base {
        fn get(&self, _: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(
            &self,
            _: Space,
            from: &[u8],
            to: Bound<&[u8]>,
            visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
        ) -> Result<()> {
            for (key, value) in self.0.range::<[u8], _>((Bound::Included(from), to)) {
                if visit(key, value.clone()).is_break() {
                    break;
                }
            }
            Ok(())
        }

        fn last(&self, _: Space) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
            Ok(self.0.last_key_value().map(|(key, value)| (key.clone(), value.clone())))
        }
    }

    fn hash_of(records: &[(&str, &str)]) -> StateHash {
        let mut hash = StateHash::default();
        for (key, value) in records {
            hash.add(key.as_bytes(), value.as_bytes());
        }
        hash
    }

    fn scanned(overlay: &Overlay<'_>, from: &str, to: Bound<&[u8]>, most: usize) -> Vec<String> {
        let mut seen = Vec::new();
        overlay
            .scan(from.as_bytes(), to, &mut |key, value| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                seen.push(format!("{}={}", text(key), text(&value)));
                if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        seen
    }

    #[test]
    fn a_scan_merges_the_store_and_the_pending_changes() {
        let base = Base::of(&[("b", "1"), ("d", "1"), ("f", "1"), ("h", "1")]);
        let mut overlay = Overlay::new(&base, SPACE, StateHash::default());
        for key in ["a", "c", "d", "i"] {
            overlay.put(key.as_bytes(), b"2".to_vec()).unwrap();
        }
        assert!(overlay.delete(b"f").unwrap());
        assert!(!overlay.delete(b"f").unwrap());
        assert!(!overlay.delete(b"none").unwrap());
        overlay.put(b"e", b"2".to_vec()).unwrap();
        assert!(overlay.delete(b"e").unwrap());
        let whole = ["a=2", "b=1", "c=2", "d=2", "h=1", "i=2"];
        for (from, to, most, expected) in [
            ("", Bound::Unbounded, 99, &whole[..]),
            ("b", Bound::Excluded(b"d".as_slice()), 99, &whole[1..3]),
            ("b", Bound::Included(b"d".as_slice()), 99, &whole[1..4]),
            ("e", Bound::Unbounded, 99, &whole[4..]),
            ("j", Bound::Unbounded, 99, &[]),
            ("", Bound::Unbounded, 1, &whole[..1]),
            ("", Bound::Unbounded, 2, &whole[..2]),
            ("", Bound::Unbounded, 4, &whole[..4]),
            ("i", Bound::Unbounded, 1, &whole[5..]),
        ] {
            assert_eq!(scanned(&overlay, from, to, most), expected, "{from} {to:?} {most}");
        }
        assert_eq!(overlay.get(b"d").unwrap(), Some(b"2".to_vec()));
        assert_eq!(overlay.get(b"f").unwrap(), None);
        assert_eq!(overlay.get(b"h").unwrap(), Some(b"1".to_vec()));
        let batch = overlay.into_batch();
        assert_eq!(batch.changes.len(), 6);
        assert!(batch.changes.contains(&Change::Delete(SPACE, b"f".to_vec())));
        assert!(batch.changes.contains(&Change::Put(SPACE, b"d".to_vec(), b"2".to_vec())));
    }

    #[test]
    fn the_state_hash_is_that_of_the_records_whatever_the_way_to_them() {
        let end = [("a", "1"), ("b", "2"), ("c", "3")];
        let empty = Base::of(&[]);
        let mut straight = Overlay::new(&empty, SPACE, StateHash::default());
        for (key, value) in end {
            straight.put(key.as_bytes(), value.into()).unwrap();
        }
        let start = [("b", "old"), ("z", "gone")];
        let base = Base::of(&start);
        let mut detour = Overlay::new(&base, SPACE, hash_of(&start));
        for (key, value) in [("c", "9"), ("c", "3"), ("b", "2"), ("y", "x"), ("a", "1")] {
            detour.put(key.as_bytes(), value.into()).unwrap();
        }
        assert!(detour.delete(b"z").unwrap() && detour.delete(b"y").unwrap());
        assert_eq!(straight.hash(), detour.hash());
        assert_eq!(straight.hash(), hash_of(&end));
        assert_ne!(straight.hash(), hash_of(&end[..2]));
        assert_ne!(hash_of(&[("ab", "c")]), hash_of(&[("a", "bc")]));
    }

    #[test]
    fn the_state_hash_carries_and_borrows_across_all_words() {
        let records: Vec<_> = (0..2_000_u32).map(u32::to_be_bytes).collect();
        let mut hash = StateHash::default();
        records.iter().for_each(|record| hash.add(record, b"value"));
        assert_ne!(hash, StateHash::default());
        let mut reverse = StateHash::default();
        records.iter().rev().for_each(|record| reverse.add(record, b"value"));
        assert_eq!(hash, reverse);
        assert_eq!(StateHash::from_bytes(&hash.to_bytes()), hash);
        records.iter().for_each(|record| hash.remove(record, b"value"));
        assert_eq!(hash, StateHash::default());
    }
}
