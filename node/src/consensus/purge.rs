//! Which log entries may go: what stands in a snapshot, but nothing that a follower is still being brought up with.
//!
//! openraft, left to itself, purges up to the newest snapshot less a fixed number of entries. A follower that gets a
//! snapshot while many writes come then finds the entries behind it gone when it is installed, gets the next snapshot,
//! and so on: it applies nothing but snapshots and serves no fresh read until the writes pause. So the leader holds
//! entries for every follower that answers and is behind, and this task tells openraft what may go.
//!
//! Every node, whatever its role, also keeps the entries of the last while. Who leads next is not known beforehand: a
//! follower that purged at once would, as the next leader, have nothing but a snapshot for a node that restarted at the
//! same time, however short it was away.
//!
//! A follower that is sent a snapshot counts as one that answers, however long the transfer takes and however busy
//! storing it makes the follower, and for [`limits::SNAPSHOT_GRACE`] after: what was written meanwhile is what it needs
//! next.
//!
//! **Invariant:** never more than [`limits::LOG_ENTRIES_HELD_MAX`] entries of a snapshot are held, but while a follower is
//! sent a snapshot, and then only while the disk has [`limits::LOG_HELD_ROOM_MIN`] left and twice what writes need; and none
//! for a follower that does not answer for longer than the while: it gets a snapshot when it returns.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;

use super::types::{self, Raft};
use crate::{limits, storage::Room};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Entries that are purged at a time, so that not every write is followed by a delete.
const BATCH: u64 = 256;

/// What a group purges by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Entries of the snapshot that are kept in any case.
    pub(super) kept: u64,
    /// How long an entry is kept after it stood in a snapshot, and how long ago a follower may have answered last to be
    /// waited for.
    pub(super) hold: Duration,
}

/// Which followers of a group are sent a snapshot, or took one a moment ago.
#[derive(Debug, Clone, Default)]
pub(super) struct SnapshotsSent {
    /// When a node took its last snapshot; `None`: one is on its way.
    taken: Arc<Mutex<BTreeMap<u64, Option<Instant>>>>,
}

/// A snapshot on its way to a node; dropped before it was [`Self::taken`], it failed, and holds nothing any more.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    all: &'a SnapshotsSent,
    node: u64,
    taken: Option<Instant>,
}

impl SnapshotsSent {
    /// Notes that a snapshot goes to `node`, which is connected. openraft sends a node one at a time.
    pub(super) fn begin(&self, node: u64) -> Transfer<'_> {
        self.taken.lock().insert(node, None);
        Transfer { all: self, node, taken: None }
    }

    /// Whether entries are held for `node` because of a snapshot.
    fn needs_entries(&self, node: u64, now: Instant) -> bool {
        self.taken.lock().get(&node).is_some_and(|taken| {
            taken.is_none_or(|taken| now.duration_since(taken) <= limits::SNAPSHOT_GRACE)
        })
    }
}

impl Transfer<'_> {
    /// The node has the snapshot.
    pub(super) fn taken(mut self) {
        self.taken = Some(Instant::now());
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        let mut all = self.all.taken.lock();
        match self.taken {
            Some(_) => all.insert(self.node, self.taken),
            None => all.remove(&self.node),
        };
    }
}

/// The snapshots of the last while, so that what has stood in one for long enough is known.
#[derive(Debug, Default)]
struct Seen {
    /// When a snapshot was first seen, and its last entry; the oldest first.
    snapshots: VecDeque<(Instant, u64)>,
    /// The last entry that has stood in a snapshot for long enough.
    aged: u64,
}

impl Seen {
    /// Notes the newest snapshot.
    fn note(&mut self, now: Instant, snapshot: u64, hold: Duration) {
        if self.snapshots.back().is_none_or(|(_, newest)| *newest < snapshot) {
            self.snapshots.push_back((now, snapshot));
        }
        while let Some((seen, index)) = self.snapshots.front().copied()
            && now.duration_since(seen) >= hold
        {
            self.aged = index;
            self.snapshots.pop_front();
        }
    }
}

/// A group's log as openraft's metrics show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Log {
    /// The last entry of the newest snapshot.
    snapshot: u64,
    /// The last entry that has stood in a snapshot for long enough.
    aged: u64,
    /// The last entry that is gone.
    purged: u64,
    /// The last entry that each follower which answers is known to have.
    matched: Vec<u64>,
    /// The most entries of the snapshot that are held.
    held_max: u64,
}

impl Log {
    /// The last entry that may go now; `None`: nothing worth the work.
    fn upto(&self, kept: u64) -> Option<u64> {
        let free = self.snapshot.saturating_sub(kept);
        let needed = self.matched.iter().copied().min().unwrap_or(u64::MAX);
        let bound = self.snapshot.saturating_sub(self.held_max);
        let upto = free.min(self.aged).min(needed).max(bound.min(free));
        (upto >= self.purged + BATCH).then_some(upto)
    }
}

/// Purges the log of a group until openraft has ended. Holds openraft's handle alone, nothing of the group's state.
pub(super) async fn keep_purged(raft: Raft, policy: Policy, sent: SnapshotsSent, room: Arc<Room>) {
    let mut changes = raft.metrics();
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(LOOK).await;
        if changes.changed().await.is_err() {
            return;
        }
        let log = {
            let metrics = changes.borrow_watched();
            if metrics.running_state.is_err() {
                return;
            }
            let now = Instant::now();
            // Followers have this on the leader alone; elsewhere nobody is to be waited for.
            let answers = |node: &u64| {
                types::answered_within(&metrics, *node, policy.hold)
                    || sent.needs_entries(*node, now)
            };
            let followers = || metrics.replication.iter().flatten();
            // However fast the writes come, whoever takes a snapshot finds what follows it.
            let whole = followers().any(|(node, _)| sent.needs_entries(*node, now))
                && room.free_bytes() >= limits::LOG_HELD_ROOM_MIN.max(2 * room.needed_bytes());
            let matched = followers().filter(|(node, _)| answers(node));
            let snapshot = metrics.snapshot.as_ref().map_or(0, |log_id| log_id.index);
            seen.note(now, snapshot, policy.hold);
            Log {
                snapshot,
                aged: seen.aged,
                purged: metrics.purged.as_ref().map_or(0, |log_id| log_id.index),
                matched: matched.map(|(_, at)| at.as_ref().map_or(0, |at| at.index)).collect(),
                held_max: if whole { u64::MAX } else { limits::LOG_ENTRIES_HELD_MAX },
            }
        };
        if let Some(upto) = log.upto(policy.kept)
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return; // It has ended.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_held_for_followers_that_answer_and_not_for_ever() {
        let check = |snapshot, purged, matched: &[u64], upto| {
            let held_max = limits::LOG_ENTRIES_HELD_MAX;
            let log = Log { snapshot, aged: snapshot, purged, matched: matched.to_vec(), held_max };
            assert_eq!(log.upto(25), upto, "{log:?}");
        };
        check(1000, 0, &[], Some(975)); // A follower, or a leader whom nobody answers.
        check(1000, 0, &[1000, 1000], Some(975));
        check(1000, 0, &[1000, 600], Some(600));
        check(1000, 974, &[1000, 1000], None);
        check(1000, 800, &[1000, 1000], None); // Not worth the work yet.
        check(1000, 700, &[1000, 40], None); // It is being sent a snapshot, and will need what is there.
        check(10, 0, &[], None);
        let far = limits::LOG_ENTRIES_HELD_MAX * 2;
        check(far, 0, &[far, 0], Some(limits::LOG_ENTRIES_HELD_MAX));
        let sent =
            Log { snapshot: far, aged: far, matched: vec![far, 0], held_max: u64::MAX, purged: 0 };
        assert_eq!(sent.upto(25), None, "a follower that is sent a snapshot");
    }

    #[test]
    fn entries_are_held_for_whoever_is_sent_a_snapshot_until_it_had_time_to_catch_up() {
        let sent = SnapshotsSent::default();
        let later = |time| Instant::now() + time;
        let needs = |node, now| sent.needs_entries(node, now);
        assert!(!needs(2, Instant::now()));
        let transfer = sent.begin(2);
        assert!(needs(2, later(limits::SNAPSHOT_TIMEOUT)));
        assert!(!needs(3, Instant::now()));
        transfer.taken();
        assert!(needs(2, later(limits::SNAPSHOT_GRACE / 2)));
        assert!(!needs(2, later(limits::SNAPSHOT_GRACE * 2)));
        let again = sent.begin(2);
        assert!(needs(2, later(limits::SNAPSHOT_GRACE * 2)));
        drop(again); // It failed: whoever is gone is not waited for.
        assert!(!needs(2, Instant::now()));
    }

    #[test]
    fn entries_are_kept_for_a_while_whoever_leads() {
        let (start, hold) = (Instant::now(), Duration::from_secs(30));
        let mut seen = Seen::default();
        let mut check = |seconds, snapshot, upto| {
            seen.note(start + Duration::from_secs(seconds), snapshot, hold);
            let held_max = limits::LOG_ENTRIES_HELD_MAX;
            let log = Log { snapshot, aged: seen.aged, purged: 0, matched: Vec::new(), held_max };
            assert_eq!(log.upto(25), upto, "after {seconds} s: {log:?} {seen:?}");
        };
        check(0, 1000, None); // After a start nothing is old yet.
        check(10, 2000, None);
        check(29, 3000, None);
        check(30, 3000, Some(1000));
        check(40, 3000, Some(2000));
        check(59, 3000, Some(2975));
        check(60, 3000, Some(2975));
        check(61, limits::LOG_ENTRIES_HELD_MAX + 5000, Some(5000)); // However young they are.
    }
}
