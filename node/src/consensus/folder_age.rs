//! Finds a data folder that was rolled back: replaced by an older copy of itself, store and sentinel together.
//!
//! Such a copy is in order in itself. Only others can know that the node has lived on after it was made, so they remember
//! ([ADR 18](../../../docs/adr/0018-folders-that-were-rolled-back.md)):
//!
//! 1. Every start of a node is a session: a random id and its place in the order of sessions. While logs grow, a session
//!    counts ticks. Both are durable in the sentinel before anybody hears of them.
//! 2. A node tells its newest sessions in every Hello, and after each tick.
//! 3. Peers remember, durably, the newest session and tick that they heard of each folder.
//! 4. A folder that does not know the session that a peer remembers, or less of its ticks, is an older copy. The peer takes
//!    nothing from it: no vote, no acknowledgement, no entry. It answers with what it remembers.
//! 5. A node that is shown a session which its own folder should know ends, and its sentinel keeps the reason: no number
//!    of restarts makes such a folder younger or older.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use prost::Message as _;
use rookery_proto::log::v1::{FolderAge, FolderSession, SeenFolder};
use tokio::sync::Notify;

use super::identity::NODE_SPACE;
use crate::{
    limits,
    names::{Incarnation, NodeId},
    storage::{self, Batch, ControlFlow, Durability, Read, Store},
};

const SEEN: &[u8] = b"seen/";

/// The newest session of another folder, as far as this node heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    incarnation: Vec<u8>,
    /// The place of the session.
    number: u64,
    session: FolderSession,
}

impl Seen {
    /// `None` for an age without sessions.
    fn of(incarnation: &[u8], age: &FolderAge) -> Option<Self> {
        let session = age.sessions.last()?.clone();
        let number = age.first_number.checked_add(age.sessions.len() as u64 - 1)?;
        Some(Self { incarnation: incarnation.to_vec(), number, session })
    }

    /// Step 4: whether a folder of this age has lived through what was seen.
    fn is_known_to(&self, age: &FolderAge) -> bool {
        let Some(at) = self.number.checked_sub(age.first_number) else {
            return true; // Longer ago than a folder tells: nothing can be said.
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        age.sessions
            .get(at)
            .is_some_and(|told| told.id == self.session.id && told.ticks >= self.session.ticks)
    }

    fn is_newer_than(&self, other: &Self) -> bool {
        (self.number, self.session.ticks) > (other.number, other.session.ticks)
    }

    fn encode(&self) -> Vec<u8> {
        let record = SeenFolder {
            incarnation: self.incarnation.clone(),
            number: self.number,
            session: Some(self.session.clone()),
        };
        record.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let record = SeenFolder::decode(bytes).ok()?;
        let (incarnation, number) = (record.incarnation, record.number);
        Some(Self { incarnation, number, session: record.session? })
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "start {} at tick {}", self.number, self.session.ticks)
    }
}

/// How old this node's folder is, and how old those of the others were seen to be.
pub struct Ages {
    own: Mutex<FolderAge>,
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    /// What is to be written.
    changed: Mutex<BTreeSet<NodeId>>,
    /// Something is to be written.
    pub(super) wanted: Notify,
    on_rolled_back: Box<dyn Fn(String) + Send + Sync>,
}

impl std::fmt::Debug for Ages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ages").field("seen", &self.seen.lock().len()).finish_non_exhaustive()
    }
}

impl Ages {
    /// Reads what was seen. `on_rolled_back` is told where a peer has proof against this node's own folder.
    ///
    /// # Errors
    /// Those of the storage; a record that makes no sense.
    pub fn load(
        read: &dyn Read,
        own: FolderAge,
        on_rolled_back: impl Fn(String) + Send + Sync + 'static,
    ) -> storage::Result<Self> {
        let mut seen = BTreeMap::new();
        let mut damaged = false;
        let end = [SEEN, &[0xff; 9]].concat();
        read.scan(NODE_SPACE, SEEN, std::ops::Bound::Excluded(&end), &mut |key, value| {
            let id = key.strip_prefix(SEEN).and_then(|id| id.try_into().ok());
            match id.zip(Seen::decode(&value)) {
                Some((id, found)) => drop(seen.insert(NodeId(u64::from_be_bytes(id)), found)),
                None => damaged = true,
            }
            ControlFlow::Continue(())
        })?;
        if damaged {
            let why = "a record of another node's folder is damaged".to_owned();
            return Err(storage::Error::Folder(why));
        }
        Ok(Self {
            own: Mutex::new(own),
            seen: Mutex::new(seen),
            changed: Mutex::default(),
            wanted: Notify::new(),
            on_rolled_back: Box::new(on_rolled_back),
        })
    }

    /// For tests of what stands above: a folder in its first session, that nobody else has seen.
    #[must_use]
    pub fn fresh() -> Arc<Self> {
        Arc::new(Self {
            own: Mutex::new(FolderAge::default()),
            seen: Mutex::default(),
            changed: Mutex::default(),
            wanted: Notify::new(),
            on_rolled_back: Box::new(|_| {}),
        })
    }

    /// What this node tells of itself.
    #[must_use]
    pub fn own(&self) -> FolderAge {
        self.own.lock().clone()
    }

    /// The folder is a tick older; it is durable in the sentinel already.
    pub fn grow(&self, age: FolderAge) {
        *self.own.lock() = age;
    }

    /// Steps 3 and 4, for a folder that says how old it is.
    ///
    /// # Errors
    /// What was seen of it, where it is an older copy.
    pub fn hear(
        &self,
        node: NodeId,
        incarnation: &[u8],
        age: Option<&FolderAge>,
    ) -> Result<(), Seen> {
        let Some(told) = age.and_then(|age| Seen::of(incarnation, age)) else { return Ok(()) };
        let mut seen = self.seen.lock();
        let known = seen.get(&node).filter(|known| known.incarnation == incarnation);
        if let (Some(known), Some(age)) = (known, age) {
            if !known.is_known_to(age) {
                return Err(known.clone());
            }
            if !told.is_newer_than(known) {
                return Ok(());
            }
        }
        seen.insert(node, told);
        drop(seen);
        self.changed.lock().insert(node);
        self.wanted.notify_one();
        Ok(())
    }

    /// Step 5: a peer refuses this node with what it remembers. Where this folder knows the session the peer is wrong.
    pub fn accused(&self, by: NodeId, seen: &[u8], own: Incarnation) {
        let Some(seen) = Seen::decode(seen) else { return };
        if seen.incarnation != own.as_bytes() || seen.is_known_to(&self.own.lock()) {
            return;
        }
        (self.on_rolled_back)(format!(
            "this data folder is an older copy of itself: node {by} has seen it at {seen}, and what came since is missing \
             here. A node that lost what it acknowledged may neither vote nor store for the others: remove it (`rookery \
             cluster remove`), delete the data folder, and join anew with a token"
        ));
    }

    /// What a refused peer is shown.
    #[must_use]
    pub fn proof(seen: &Seen) -> Vec<u8> {
        seen.encode()
    }

    /// Writes what changed; blocks.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn write(&self, store: &dyn Store) -> storage::Result<()> {
        let changed = std::mem::take(&mut *self.changed.lock());
        let mut batch = Batch::default();
        {
            let seen = self.seen.lock();
            for node in changed {
                if let Some(seen) = seen.get(&node) {
                    let key = [SEEN, &node.0.to_be_bytes()].concat();
                    batch.put(NODE_SPACE, key, seen.encode());
                }
            }
        }
        if batch.changes.is_empty() { Ok(()) } else { store.write(batch, Durability::Synced) }
    }
}

/// A further session of a folder, with the bound on how many it tells of.
#[must_use]
pub fn next_session(mut age: FolderAge, id: [u8; 16]) -> FolderAge {
    age.sessions.push(FolderSession { id: id.to_vec(), ticks: 0 });
    while age.sessions.len() > limits::FOLDER_SESSIONS_TOLD {
        age.sessions.remove(0);
        age.first_number += 1;
    }
    age
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FOLDER: [u8; 16] = [7; 16];

    fn session(age: FolderAge, id: u8) -> FolderAge {
        next_session(age, [id; 16])
    }

    fn ticked(mut age: FolderAge, ticks: u64) -> FolderAge {
        age.sessions.last_mut().unwrap().ticks = ticks;
        age
    }

    /// Shows a peer one age after the other; says at which it refuses.
    fn check(ages: &[&FolderAge], refused_at: Option<usize>) {
        let peer = Ages::fresh();
        let refused = ages.iter().position(|age| peer.hear(NodeId(2), &FOLDER, Some(age)).is_err());
        assert_eq!(refused, refused_at, "{ages:?}");
    }

    #[test]
    fn an_older_copy_is_refused_and_a_restart_is_not() {
        let first = session(FolderAge::default(), 1);
        let grown = ticked(first.clone(), 5);
        let second = session(grown.clone(), 2);
        check(&[&first, &grown, &grown, &second, &ticked(second.clone(), 1)], None);
        // A copy of the first session is started after the second one was seen: another session in its place.
        let copy = session(grown.clone(), 9);
        check(&[&first, &second, &copy], Some(2));
        // And however often it is started.
        let often = (10..20).fold(copy, session);
        check(&[&first, &second, &often], Some(2));
        // A copy from within the session that was seen, started anew.
        let earlier = session(ticked(first.clone(), 3), 9);
        check(&[&first, &grown, &earlier], Some(2));
        // Starts that nobody heard of are no harm.
        check(&[&first, &(20..40).fold(grown, session)], None);
    }

    #[test]
    fn another_folder_under_the_same_id_is_another_matter() {
        let peer = Ages::fresh();
        let old = session(session(FolderAge::default(), 1), 2);
        peer.hear(NodeId(2), &FOLDER, Some(&old)).unwrap();
        let new = session(FolderAge::default(), 3);
        peer.hear(NodeId(2), &[8; 16], Some(&new)).unwrap();
    }

    #[test]
    fn a_folder_tells_of_so_many_sessions_and_no_more() {
        let old = session(FolderAge::default(), 1);
        let long = (0..200).fold(old.clone(), session);
        assert_eq!(long.sessions.len(), limits::FOLDER_SESSIONS_TOLD);
        check(&[&old, &long], None);
    }

    #[test]
    fn who_is_accused_believes_only_what_its_own_folder_cannot_refute() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let own = session(session(FolderAge::default(), 1), 2);
        let mut ages = Ages::fresh();
        let heard = told.clone();
        let inner = Arc::get_mut(&mut ages).unwrap();
        inner.own = Mutex::new(own.clone());
        inner.on_rolled_back = Box::new(move |why| heard.lock().push(why));
        let incarnation = Incarnation::from_bytes(&FOLDER).unwrap();
        let accuse = |age: &FolderAge| {
            let proof = Ages::proof(&Seen::of(&FOLDER, age).unwrap());
            ages.accused(NodeId(3), &proof, incarnation);
        };
        accuse(&own);
        accuse(&session(FolderAge::default(), 1));
        ages.accused(NodeId(3), b"no proof", incarnation);
        assert!(told.lock().is_empty());
        accuse(&session(own.clone(), 3));
        assert_eq!(told.lock().len(), 1);
        assert!(told.lock()[0].contains("node 3 has seen it at start 2"), "{:?}", told.lock());
    }
}
