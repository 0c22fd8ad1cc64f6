//! Finds a state that is not what its log made: an old value put back under its own key opens as well as the new one,
//! and no authentication of records can tell. Their sum can.
//!
//! Every interval, and once after the start, each group's state is read from one view of the store and hashed again;
//! the hash that was kept with the last write stands in the same view. Where they differ the node stops: it has served
//! wrong answers already, and its state must come from the others.
//!
//! A record that does not open is told of and stops nothing: whoever asks for it is refused, everything else is right.

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
    time::Duration,
};

use super::{Consensus, applied::GroupState, state_machine::MachineError};
use crate::{limits, storage::StateHash};

/// What a look at a state found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// So many records, and their hash is the one that was kept.
    Whole(u64),
    /// The records are not those that the log made, up to this index.
    Other(u64),
}

impl Consensus {
    /// Looks at all states again and again, as long as the node runs.
    pub(super) async fn scrub(&self) {
        loop {
            tokio::time::sleep(limits::SCRUB_PAUSE).await;
            for group in self.groups.all() {
                self.scrub_group(&group.state).await;
                tokio::time::sleep(limits::SCRUB_PAUSE).await;
            }
            tokio::time::sleep(limits::SCRUB_INTERVAL).await;
        }
    }

    async fn scrub_group(&self, state: &Arc<GroupState>) {
        let group = state.group();
        let looked = {
            let state = Arc::clone(state);
            tokio::task::spawn_blocking(move || look(&state))
        };
        match looked.await {
            Ok(Ok(Finding::Whole(records))) => {
                tracing::debug!(%group, records, "the state is what its log made");
            }
            // A group that was deleted meanwhile has no state to be wrong.
            Ok(Ok(Finding::Other(index))) if self.groups.find(group).is_some() => {
                (self.on_fatal)(format!(
                    "the records of group {group} are not those that its log made up to index {index}: the hash of \
                     the state differs from the one that was kept with them. Something else than this node changed \
                     the store: delete the whole data folder and let the node join anew"
                ));
            }
            Ok(Ok(Finding::Other(_))) => {}
            Ok(Err(error)) if self.groups.find(group).is_some() => {
                tracing::error!(%group, %error, "the state cannot be read to its end");
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%group, %error, "the look at the state ended"),
        }
    }
}

/// Reads the whole state of a group from one view and compares. Blocks; pauses between pieces, so that others get at the
/// disk.
pub(super) fn look(state: &GroupState) -> Result<Finding, MachineError> {
    let (view, space, kept) = state.view_with_record()?;
    let mut hash = StateHash::default();
    let mut records = 0_u64;
    view.scan(space, b"", Bound::Unbounded, &mut |key, value| {
        hash.add(key, &value);
        records += 1;
        if records.is_multiple_of(limits::SCRUB_PIECE_RECORDS) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ControlFlow::Continue(())
    })?;
    Ok(match hash == kept.hash {
        true => Finding::Whole(records),
        false => Finding::Other(kept.state().index),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        consensus::{
            applied::Applied,
            storage_tests::{Data, GROUP},
        },
        storage::{Batch, Durability, Overlay, Store},
    };

    /// Writes a record as the state machine does, with the hash that it leads to.
    fn apply(state: &GroupState, applied: &mut Applied, key: &[u8], value: &[u8]) {
        let store = Arc::clone(state.store());
        let mut overlay = Overlay::new(&*store, state.space(), applied.hash);
        overlay.put(key, value.to_vec()).unwrap();
        applied.hash = overlay.hash();
        state.advance(overlay.into_batch(), applied).unwrap();
    }

    #[test]
    fn an_old_value_put_back_under_its_key_is_found() {
        let data = Data::new();
        let store: Arc<dyn Store> = data.open();
        let state = GroupState::open(store.clone(), GROUP).unwrap();
        let mut applied = Applied::default();
        assert_eq!(look(&state).unwrap(), Finding::Whole(0));
        for (key, value) in [(b"right", b"admin"), (b"other", b"value"), (b"right", b"nobdy")] {
            apply(&state, &mut applied, key, value);
        }
        assert_eq!(look(&state).unwrap(), Finding::Whole(2));
        let put = |key: &[u8], value: &[u8]| {
            let mut batch = Batch::default();
            batch.put(state.space(), key, value);
            store.write(batch, Durability::Buffered).unwrap();
        };
        // What whoever edits a stopped store can do: each of these opens.
        let edits: [(&[u8], &[u8], &[u8]); 2] =
            [(b"right", b"admin", b"nobdy"), (b"other", b"", b"value")];
        for (key, edited, good) in edits {
            put(key, edited);
            assert_eq!(look(&state).unwrap(), Finding::Other(0));
            put(key, good);
            assert_eq!(look(&state).unwrap(), Finding::Whole(2));
        }
        let mut batch = Batch::default();
        batch.delete(state.space(), b"other");
        store.write(batch, Durability::Buffered).unwrap();
        assert_eq!(look(&state).unwrap(), Finding::Other(0), "a record that is gone");
    }
}
