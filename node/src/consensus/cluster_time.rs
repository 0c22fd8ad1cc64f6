//! The time that dates of certificates, tokens and log entries are decided by: the cluster leader's wall clock, kept
//! within the middle of its members' clocks and never before what the log has seen.
//!
//! One clock may be wrong by years; the leader's is no better than another. Members tell their clock with every question
//! for freshness, so the leader knows them all, and its own counts only as far as it lies between the two in the middle
//! (with an odd number these are one, the median). A majority of right clocks is therefore always within the right ones
//! (compare fault-tolerant midpoints: Lundelius Welch and Lynch 1988).
//!
//! After a start of all nodes a leader knows no clock but its own, which may be the wrong one. Until enough clocks are known
//! that one of them cannot decide, or those that are known agree, it tells no time, but not for longer than
//! [`limits::CLOCKS_WAITED_FOR`]; and as long as they are not, nothing that lasts is made of the time: no checkpoint, no
//! stamp that later ones may not be before.
//!
//! Clocks that all go back, as after empty batteries, would let expired certificates in again. So no time is told that is
//! before the last checkpoint of the audit log, whose time every node applied (`authorization.log_time_floor`).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    limits,
    names::{NodeId, Timestamp},
};

/// What the leader knows of the clocks of others.
#[derive(Debug)]
pub(super) struct ClusterTime {
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    /// The time of the last leader that this node followed.
    followed: Mutex<Option<Heard>>,
    floor: AtomicI64,
    /// Whether the time that this node goes by is agreed, and its own as the leader.
    in_force: AtomicBool,
    telling: Mutex<Telling>,
}

/// A moment by the clocks that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The time.
    pub(super) time: Timestamp,
    /// Whether one wrong clock could not have made it.
    pub(super) agreed: bool,
}

/// Whether a leader tells the time.
#[derive(Debug, Clone, Copy)]
enum Telling {
    /// It leads no more, or was not asked yet.
    No,
    /// It knows too few clocks, since then on this node's boot clock.
    Waits(Duration),
    /// As long as it leads.
    Yes,
}

impl Default for ClusterTime {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            followed: Mutex::default(),
            floor: AtomicI64::new(i64::MIN),
            in_force: AtomicBool::new(false),
            telling: Mutex::new(Telling::No),
        }
    }
}

/// A member's clock when it last told it.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// Its wall clock minus this node's boot clock, milliseconds.
    ahead: i64,
    /// When, on this node's boot clock.
    at: Duration,
}

impl Heard {
    fn now(wall: Timestamp, boot: Duration) -> Self {
        Self { ahead: wall.0.saturating_sub(millis(boot)), at: boot }
    }

    /// What the clock says by now.
    fn at(&self, boot: Duration) -> i64 {
        self.ahead.saturating_add(millis(boot))
    }

    fn is_recent(&self, boot: Duration) -> bool {
        boot.saturating_sub(self.at) <= limits::CLOCK_HEARD_FOR
    }
}

fn millis(boot: Duration) -> i64 {
    i64::try_from(boot.as_millis()).unwrap_or(i64::MAX)
}

impl ClusterTime {
    /// A member's wall clock, just heard.
    pub(super) fn hear(&self, node: NodeId, wall: Timestamp, boot: Duration) {
        self.heard.lock().insert(node, Heard::now(wall, boot));
    }

    /// The time that a leader told, while this node follows it. A node that leads next has heard no clocks yet; the middle
    /// that its predecessor knew counts as two of them until it has.
    pub(super) fn follow(&self, time: Timestamp, boot: Duration) {
        *self.followed.lock() = Some(Heard::now(time, boot));
        *self.telling.lock() = Telling::No;
    }

    /// Nothing before this is told any more.
    pub(super) fn not_before(&self, seen: Timestamp) {
        self.floor.fetch_max(seen.0, Ordering::Relaxed);
    }

    /// This node goes by a time from now on: the leader's, or what a leader told it.
    pub(super) fn goes_by(&self, agreed_as_leader: bool) {
        self.in_force.store(agreed_as_leader, Ordering::Relaxed);
    }

    /// Whether something lasting may be made of the time that this node goes by.
    pub(super) fn is_to_last(&self) -> bool {
        self.in_force.load(Ordering::Relaxed)
    }

    /// Whether a leader tells such a moment to those who go by it.
    pub(super) fn may_be_told(&self, moment: Moment, boot: Duration) -> bool {
        let mut telling = self.telling.lock();
        *telling = match *telling {
            Telling::Yes => Telling::Yes,
            Telling::No | Telling::Waits(_) if moment.agreed => Telling::Yes,
            Telling::Waits(since) if boot.saturating_sub(since) >= limits::CLOCKS_WAITED_FOR => {
                Telling::Yes
            }
            Telling::Waits(since) => Telling::Waits(since),
            Telling::No => Telling::Waits(boot),
        };
        matches!(*telling, Telling::Yes)
    }

    /// The time, where this node's own wall clock says `own` and the cluster has so many members.
    pub(super) fn now(&self, own: Timestamp, boot: Duration, members: usize) -> Moment {
        let mut heard = self.heard.lock();
        heard.retain(|_, it| it.is_recent(boot));
        let others = heard.values().map(|it| it.at(boot));
        let mut clocks: Vec<i64> = others.chain([own.0]).collect();
        drop(heard);
        let followed = self.followed.lock().filter(|it| it.is_recent(boot));
        clocks.extend(followed.into_iter().flat_map(|it| [it.at(boot); 2]));
        clocks.sort_unstable();
        let spread =
            clocks.last().zip(clocks.first()).map_or(0, |(last, first)| last.abs_diff(*first));
        let agree = clocks.len() > 1 && u128::from(spread) <= limits::CLOCKS_AGREE.as_millis();
        let middle = |at: usize| clocks.get(at).copied().unwrap_or(own.0);
        let (low, high) = (middle((clocks.len() - 1) / 2), middle(clocks.len() / 2));
        let time = own.0.clamp(low, high).max(self.floor.load(Ordering::Relaxed));
        Moment { time: Timestamp(time), agreed: members < 2 || clocks.len() > 2 || agree }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: i64 = 1_800_000_000_000;
    const YEAR: i64 = 365 * 24 * 3_600_000;

    #[test]
    fn one_wrong_clock_of_three_is_never_the_time() {
        let check = |own: i64, others: &[i64], expected: i64| {
            let time = ClusterTime::default();
            let boot = Duration::from_secs(100);
            for (node, clock) in (2..).zip(others) {
                time.hear(NodeId(node), Timestamp(RIGHT + clock), boot);
            }
            let later = boot + Duration::from_secs(1);
            let now = time.now(Timestamp(RIGHT + own + 1000), later, 3).time;
            assert_eq!(now, Timestamp(RIGHT + expected + 1000), "{own} with {others:?}");
        };
        check(0, &[], 0);
        check(YEAR, &[], YEAR); // Nobody to ask.
        check(0, &[3, 5], 3);
        check(YEAR, &[3, 5], 5);
        check(-YEAR, &[3, 5], 3);
        check(4, &[-YEAR, 5], 4);
        check(4, &[YEAR, 5], 5);
        check(0, &[YEAR], 0); // Of two nobody can say which is right.
        check(-YEAR, &[0], -YEAR);
        check(-YEAR, &[YEAR, 1, 2, 3], 2); // The median of five.
        check(7, &[-YEAR, 1, YEAR], 7); // Between the middle two of four: 1 and 7.
    }

    #[test]
    fn a_new_leader_goes_on_with_the_time_of_the_last_until_it_has_heard_others() {
        let time = ClusterTime::default();
        let wrong = Timestamp(RIGHT + YEAR);
        time.follow(Timestamp(RIGHT), Duration::ZERO);
        let soon = Duration::from_secs(1);
        assert_eq!(time.now(wrong, soon, 3).time, Timestamp(RIGHT + 1000));
        time.hear(NodeId(2), Timestamp(RIGHT + 1002), soon);
        time.hear(NodeId(3), Timestamp(RIGHT + 1003), soon);
        assert_eq!(time.now(wrong, soon, 3).time, Timestamp(RIGHT + 1002));
        let late = soon + limits::CLOCK_HEARD_FOR + soon;
        assert_eq!(time.now(wrong, late, 3).time, wrong, "nobody was heard for long");
    }

    #[test]
    fn after_a_cold_start_one_wrong_clock_is_waited_out_and_nothing_lasting_is_made_of_it() {
        let boot = Duration::from_secs(100);
        let wrong = Timestamp(RIGHT + YEAR);
        let ms = Duration::from_millis;
        let time = ClusterTime::default();
        let look = |after: Duration, members: usize| {
            let now = time.now(wrong, boot + after, members);
            let told = time.may_be_told(now, boot + after);
            (now.time.0 - RIGHT - millis(after) < YEAR / 2, now.agreed, told)
        };
        assert_eq!(look(ms(0), 3), (false, false, false), "nobody was heard");
        time.hear(NodeId(2), Timestamp(RIGHT), boot);
        assert_eq!(look(ms(300), 3), (false, false, false), "of two nobody can say which is right");
        time.hear(NodeId(3), Timestamp(RIGHT), boot);
        assert_eq!(look(ms(400), 3), (true, true, true));
        // Whoever tells the time goes on, though others are not heard any more.
        let alone = limits::CLOCK_HEARD_FOR + ms(1);
        assert_eq!(look(alone, 3), (false, false, true));
        // Where the third never comes it is not waited for any longer, and nothing lasting is made of it still.
        time.follow(Timestamp(RIGHT), Duration::ZERO);
        time.hear(NodeId(2), Timestamp(RIGHT), boot + alone);
        assert_eq!(look(alone, 3), (false, false, false));
        let tired = alone + limits::CLOCKS_WAITED_FOR;
        assert_eq!(look(tired, 3), (false, false, true));
        // Two that agree are enough, and one where there is no other.
        time.hear(NodeId(2), Timestamp(wrong.0 + 1), boot + tired);
        assert_eq!(look(tired, 3), (false, true, true));
        let alone = ClusterTime::default();
        let now = alone.now(wrong, boot, 1);
        assert!(now.agreed && alone.may_be_told(now, boot));
    }

    #[test]
    fn clocks_that_were_not_heard_lately_do_not_count_and_time_has_a_floor() {
        let time = ClusterTime::default();
        time.hear(NodeId(2), Timestamp(RIGHT), Duration::ZERO);
        time.hear(NodeId(3), Timestamp(RIGHT), Duration::ZERO);
        let soon = limits::CLOCK_HEARD_FOR;
        assert_eq!(
            time.now(Timestamp(RIGHT + YEAR), soon, 3).time,
            Timestamp(RIGHT + millis(soon))
        );
        let late = soon + Duration::from_millis(1);
        assert_eq!(time.now(Timestamp(RIGHT + YEAR), late, 3).time, Timestamp(RIGHT + YEAR));
        time.not_before(Timestamp(RIGHT));
        time.not_before(Timestamp(RIGHT - YEAR));
        assert_eq!(time.now(Timestamp(RIGHT - YEAR), late, 3).time, Timestamp(RIGHT));
    }
}
