//! Who reads at this moment: a key is destroyed only when nobody can still come upon a record that it sealed.
//!
//! A view or a scan goes on seeing the records of its beginning, whatever was sealed anew since. Each takes a number when
//! it begins; a rotation waits until all that began before its last look are gone.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// The numbers of the readers that have not ended.
#[derive(Default)]
pub(super) struct Readers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: BTreeSet<u64>,
}

impl Readers {
    /// Counts a reader in; to be called before it sees anything.
    pub(super) fn enter(&self) -> u64 {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.open.insert(number);
        number
    }

    /// Counts it out.
    pub(super) fn leave(&self, number: u64) {
        self.state.lock().open.remove(&number);
    }

    /// The number that the next reader will have.
    pub(super) fn next(&self) -> u64 {
        self.state.lock().next
    }

    /// How many readers with a lower number have not ended.
    pub(super) fn before(&self, number: u64) -> usize {
        self.state.lock().open.range(..number).count()
    }
}

/// A reader that is counted out when it is dropped.
pub(super) struct Reading<'a> {
    readers: &'a Readers,
    number: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn begin(readers: &'a Readers) -> Self {
        Self { readers, number: readers.enter() }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.readers.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_waited_for_that_began_before_and_no_others() {
        let readers = Readers::default();
        let first = Reading::begin(&readers);
        let line = readers.next();
        let second = readers.enter();
        assert_eq!(readers.before(line), 1);
        drop(first);
        assert_eq!((readers.before(line), readers.before(readers.next())), (0, 1));
        readers.leave(second);
        assert_eq!(readers.before(readers.next()), 0);
    }
}
