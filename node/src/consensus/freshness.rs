//! How fresh this node's registry of certificates is, and what a leader promised to others about theirs.
//!
//! A change that takes rights away is acknowledged only when no node can decide on the older registry any more
//! (compare leases in the Raft thesis, section 6.4.1, turned round: here the writer waits, not the reader).
//!
//! 1. A node notes its boot clock `t0` and asks the cluster leader for a commit index.
//! 2. The leader notes the promise `received + L` for the asking node, **before** it
//! 3. confirms its leadership with a quorum and answers its commit index and its wall clock.
//! 4. The node waits until it has applied that index; its registry is fresh until `t0 + L`.
//! 5. A leader that applied a revocation asks every node to confirm that it applied it too. A node that does not
//!    answer is waited out: until the last promise to it has passed, plus a margin for clocks of different speed.
//! 6. A new leader does not know the promises of the old one: it takes all of them to end `L` after its election.
//!
//! `node/tests/revocation_model.rs` searches these steps exhaustively, and finds each of the mistakes that could be made.
//!
//! `t0` is earlier than `received`, so a node's freshness always ends before the leader's promise.
//!
//! **Invariant:** the promise of step 2 is noted before the index of step 3 is taken. The other way round, a
//! revocation could commit between the two and be acknowledged without waiting for the node that got the older index.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    limits,
    names::{NodeId, Timestamp},
};

/// This node's own freshness.
#[derive(Debug)]
pub struct Freshness {
    /// Boot clock, nanoseconds.
    until: AtomicU64,
    /// The leader's wall clock minus this node's boot clock, milliseconds.
    wall_offset: AtomicI64,
    /// The lease of the last answer that was not this node's own, nanoseconds; told once.
    other_lease: AtomicU64,
    changed: watch::Sender<()>,
    /// Wakes the loop when a call needs freshness now.
    pub wanted: Notify,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            until: AtomicU64::new(0),
            wall_offset: AtomicI64::new(0),
            other_lease: AtomicU64::new(0),
            changed: watch::Sender::new(()),
            wanted: Notify::new(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Freshness {
    /// Step 4: the registry is fresh until `t0 + lease`, and the leader's clock said `leader_wall` at about `now`.
    pub fn renew(&self, t0: Duration, lease: Duration, leader_wall: Timestamp, now: Duration) {
        self.wall_offset.store(leader_wall.0.saturating_sub(millis(now)), Ordering::Relaxed);
        self.until.fetch_max(nanos(t0 + lease), Ordering::Release);
        self.changed.send_replace(());
    }

    /// The lease to count in step 4: never longer than what the leader promised in step 2.
    pub fn agreed_lease(&self, own: Duration, promised: Duration) -> Duration {
        if own != promised
            && self.other_lease.swap(nanos(promised), Ordering::Relaxed) != nanos(promised)
        {
            tracing::warn!(
                own_ms = own.as_millis(),
                leader_ms = promised.as_millis(),
                "authorization.freshness_ms differs from the leader's; the shorter one counts. Set it alike on all nodes"
            );
        }
        own.min(promised)
    }

    /// Nothing is fresh any more: the node was removed, or it stops.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Whether the registry is fresh at `now` on the boot clock.
    pub fn is_fresh(&self, now: Duration) -> bool {
        nanos(now) < self.until.load(Ordering::Acquire)
    }

    /// How long the registry has not been fresh at `now`; zero: it is.
    pub fn stale_for(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_nanos(self.until.load(Ordering::Acquire)))
    }

    /// The leader's wall clock as far as this node knows it: what expiry is decided by.
    pub fn leader_wall(&self, now: Duration) -> Timestamp {
        Timestamp(self.wall_offset.load(Ordering::Relaxed).saturating_add(millis(now)))
    }

    /// Hears of every renewal.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// What this node, as leader, promised to the other nodes.
#[derive(Debug, Default)]
pub struct Promises {
    state: Mutex<PromiseState>,
}

#[derive(Debug, Default)]
struct PromiseState {
    /// The term that the promises belong to.
    term: u64,
    /// When that term's leadership was first noticed.
    since: Duration,
    until: BTreeMap<NodeId, Duration>,
}

impl Promises {
    /// Step 6: this node leads in `term`, noticed at `now`. An earlier term than the noted one changes nothing.
    pub fn lead(&self, term: u64, now: Duration) {
        let mut state = self.state.lock();
        if state.term < term {
            *state = PromiseState { term, since: now, until: BTreeMap::new() };
        }
    }

    /// Step 2: `node` may be fresh until `received + lease`.
    pub fn promise(&self, node: NodeId, received: Duration, lease: Duration) {
        let mut state = self.state.lock();
        let until = state.until.entry(node).or_default();
        *until = (*until).max(received + lease);
    }

    /// When every promise to `node` that was made so far has passed on every clock, by this leader or by those before it.
    pub fn over(&self, node: NodeId, lease: Duration) -> Duration {
        let state = self.state.lock();
        let own = state.until.get(&node).copied().unwrap_or_default();
        own.max(state.since + lease) + margin(lease)
    }
}

/// How much longer than on this node's clock a lease may last on another's.
fn margin(lease: Duration) -> Duration {
    limits::DRIFT_MARGIN.max(lease / limits::DRIFT_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn freshness_ends_a_lease_after_the_question() {
        let freshness = Freshness::default();
        assert!(!freshness.is_fresh(at(0)));
        freshness.renew(at(5_000), L, Timestamp(1_000_000), at(5_200));
        assert!(freshness.is_fresh(at(5_999)));
        assert!(!freshness.is_fresh(at(6_000)));
        assert_eq!(freshness.stale_for(at(5_999)), Duration::ZERO);
        assert_eq!(freshness.stale_for(at(6_500)), at(500));
        assert_eq!(freshness.leader_wall(at(5_700)), Timestamp(1_000_500));
        // An older answer that arrives later shortens nothing.
        freshness.renew(at(4_000), L, Timestamp(1_000_000), at(5_200));
        assert!(freshness.is_fresh(at(5_999)));
    }

    #[test]
    fn a_promise_outlasts_the_freshness_it_was_asked_for() {
        let promises = Promises::default();
        promises.lead(3, at(0));
        let (asked, received) = (at(10_000), at(10_030));
        promises.promise(NodeId(2), received, L);
        assert!(promises.over(NodeId(2), L) >= received + L + limits::DRIFT_MARGIN);
        assert!(promises.over(NodeId(2), L) > asked + L);
    }

    #[test]
    fn a_new_leader_waits_a_whole_lease_for_everybody() {
        let promises = Promises::default();
        promises.lead(7, at(20_000));
        assert_eq!(promises.over(NodeId(9), L), at(21_050));
        promises.lead(7, at(50_000));
        assert_eq!(promises.over(NodeId(9), L), at(21_050), "the same term is noticed once");
        promises.lead(8, at(50_000));
        assert_eq!(promises.over(NodeId(9), L), at(51_050));
        promises.lead(7, at(60_000));
        assert_eq!(promises.over(NodeId(9), L), at(51_050), "an earlier term is over");
    }

    #[test]
    fn the_shorter_lease_of_two_counts() {
        let freshness = Freshness::default();
        assert_eq!(freshness.agreed_lease(L, at(400)), at(400));
        assert_eq!(freshness.agreed_lease(L, at(5_000)), L);
        assert_eq!(freshness.agreed_lease(L, L), L);
    }

    #[test]
    fn a_long_lease_has_a_wider_margin() {
        assert_eq!(margin(L), limits::DRIFT_MARGIN);
        assert_eq!(margin(Duration::from_secs(60)), at(600));
    }
}
