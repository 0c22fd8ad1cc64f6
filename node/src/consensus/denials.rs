//! Denials on their way into the audit log: noted without waiting, counted where they are alike, written in bounds.
//!
//! ```text
//! denied call ── note ──► table: who, what, why ─► count, first, last ──(each second)──► RecordDenials in the log
//!                           │ full
//!                           └──► one count of what is not itemised, written like the others
//! ```
//!
//! Whoever denies a call never waits for the log. While no leader is there the table keeps what fits and counts the
//! rest. A flood writes at most [`limits::DENIALS_BURST`] records and then one every [`limits::DENIALS_REFILL`]; what is
//! alike goes on being counted meanwhile. Callers that are registered have a table and a budget of their own, so that a
//! flood by strangers does not hide what an insider tries. The log of the process gets one line a record.
//!
//! A denial of the last second before a crash is lost; at an orderly end what is noted is written first.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rookery_proto::log::v1::{self as log, ClusterCommand, RecordDenials, cluster_command};

use super::{Consensus, Error, State, fullness::DISK_FULL};
use crate::{
    limits,
    names::{RequestId, Thumbprint, Timestamp},
};

/// Longest wait for a batch to be applied; it is tried again under the same request id.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// What was denied, to whom and why. Denials that are equal are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Denial {
    /// Stable name of the operation.
    pub operation: String,
    /// The stable reason.
    pub reason: String,
    /// The rule's id; empty where no rule speaks.
    pub rule: String,
    /// The presented certificate.
    pub actor: Option<Thumbprint>,
    /// The database as the caller wrote it.
    pub database: String,
    /// Where it came from, without a port.
    pub remote: String,
    /// What else there is to say.
    pub details: String,
}

/// The denials of this node that are not in the log yet.
#[derive(Default)]
pub(super) struct Denials {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    registered: Class,
    others: Class,
}

/// A kind of callers with bounds of its own.
struct Class {
    noted: BTreeMap<Denial, Counted>,
    not_itemised: Option<Counted>,
    tokens: u32,
    refilled: Option<Duration>,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            noted: BTreeMap::new(),
            not_itemised: None,
            tokens: limits::DENIALS_BURST,
            refilled: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Counted {
    fn add(&mut self, at: Timestamp) {
        self.count += 1;
        self.last = at;
    }

    fn once(at: Timestamp) -> Self {
        Self { count: 1, first: at, last: at }
    }
}

impl Denials {
    /// Notes a denial; takes a lock and no time.
    pub(super) fn note(&self, denial: Denial, registered: bool, at: Timestamp) {
        let mut table = self.table.lock();
        let class = if registered { &mut table.registered } else { &mut table.others };
        if let Some(counted) = class.noted.get_mut(&denial) {
            counted.add(at);
        } else if class.noted.len() < limits::DENIALS_KEPT_MAX {
            class.noted.insert(denial, Counted::once(at));
        } else {
            let counted =
                class.not_itemised.get_or_insert(Counted { count: 0, ..Counted::once(at) });
            counted.add(at);
        }
    }

    /// Takes what may be written now, oldest first; at most one entry's worth.
    fn take(&self, now: Duration) -> Vec<log::Denial> {
        let mut table = self.table.lock();
        let mut taken = table.registered.take(now, limits::DENIALS_PER_ENTRY_MAX / 2);
        let left = limits::DENIALS_PER_ENTRY_MAX - taken.len();
        taken.extend(table.others.take(now, left));
        taken
    }
}

impl Class {
    fn take(&mut self, now: Duration, most: usize) -> Vec<log::Denial> {
        self.refill(now);
        let most = most.min(self.tokens as usize);
        let mut order: Vec<(Timestamp, Denial)> =
            self.noted.iter().map(|(denial, counted)| (counted.first, denial.clone())).collect();
        order.sort_unstable();
        // What overflowed goes with the first that has a place behind it, so that it is never put off for good.
        let overflow = self.not_itemised.filter(|_| most > 0);
        order.truncate(most - usize::from(overflow.is_some()));
        let mut taken = Vec::with_capacity(most);
        if let Some(counted) = overflow {
            self.not_itemised = None;
            let denial = Denial {
                operation: "various".to_owned(),
                reason: "NOT_ITEMISED".to_owned(),
                details: "more different denials than are kept; these were counted alone"
                    .to_owned(),
                ..Denial::default()
            };
            taken.push(message(denial, counted));
        }
        for (_, denial) in order {
            if let Some(counted) = self.noted.remove(&denial) {
                taken.push(message(denial, counted));
            }
        }
        self.tokens -= u32::try_from(taken.len()).unwrap_or(self.tokens).min(self.tokens);
        taken
    }

    fn refill(&mut self, now: Duration) {
        let since = *self.refilled.get_or_insert(now);
        let refills = now.saturating_sub(since).as_millis() / limits::DENIALS_REFILL.as_millis();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        if refills > 0 {
            self.tokens = self.tokens.saturating_add(refills).min(limits::DENIALS_BURST);
            self.refilled = Some(since + limits::DENIALS_REFILL.saturating_mul(refills));
        }
    }
}

fn message(denial: Denial, counted: Counted) -> log::Denial {
    tracing::info!(
        operation = denial.operation,
        reason = denial.reason,
        rule = denial.rule,
        actor = ?denial.actor,
        database = ?denial.database,
        remote = denial.remote,
        count = counted.count,
        "denied"
    );
    log::Denial {
        operation: cut(denial.operation),
        reason: cut(denial.reason),
        rule: cut(denial.rule),
        actor: denial.actor.map_or_else(Vec::new, |actor| actor.as_bytes().to_vec()),
        database: cut(denial.database),
        remote: cut(denial.remote),
        count: counted.count,
        first_unix_ms: counted.first.0,
        last_unix_ms: counted.last.0,
        details: cut(denial.details),
    }
}

/// Bounds what goes into the log; apply escapes it and cuts it to its own bound.
fn cut(mut text: String) -> String {
    let most = text.floor_char_boundary(4 * limits::AUDIT_TEXT_CHARS_MAX);
    text.truncate(most);
    text
}

impl Consensus {
    /// Notes a denial for the audit log. Never waits; nothing is noted where there is no cluster.
    pub fn note_denial(&self, denial: Denial) {
        let registry = self.cluster.registry();
        if registry.is_formed() {
            let registered = denial.actor.is_some_and(|it| registry.certificate(&it).is_some());
            self.denials.note(cut_early(denial), registered, self.clock.wall());
        }
    }

    /// A member's duty: writes what was noted, about every second.
    pub(super) async fn write_denials(self: Arc<Self>) {
        let mut under_way = None;
        loop {
            tokio::time::sleep(limits::DENIALS_INTERVAL).await;
            under_way = self.write_noted(under_way.take()).await;
        }
    }

    /// Writes one batch; gives it back where it must be tried again.
    async fn write_noted(&self, under_way: Option<UnderWay>) -> Option<UnderWay> {
        let batch = match under_way {
            Some(batch) => batch,
            None => {
                let denials = self.denials.take(self.clock.boot());
                if denials.is_empty() {
                    return None;
                }
                UnderWay { id: RequestId::random(), denials }
            }
        };
        let denials = RecordDenials { denials: batch.denials.clone() };
        let command = cluster_command::Command::RecordDenials(denials);
        let command = ClusterCommand { command: Some(command) };
        let deadline = Instant::now() + WRITE_TIMEOUT;
        match self.propose_as_member_under(batch.id, command, deadline).await {
            Ok(_) => None,
            // They wait for room, and count meanwhile.
            Err(Error::Refused(refusal)) if refusal.reason == DISK_FULL => Some(batch),
            Err(error @ (Error::Refused(_) | Error::Denied(_))) => {
                tracing::warn!(%error, denials = batch.denials.len(), "denials were not recorded");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "denials wait for the log");
                Some(batch)
            }
        }
    }

    /// At an orderly end: writes what is noted, if the log takes it at once.
    pub(super) async fn write_last_denials(&self) {
        if *self.state.borrow() == State::Member {
            let written = self.write_noted(None);
            drop(tokio::time::timeout(limits::DENIALS_INTERVAL, written).await);
        }
    }
}

/// A batch that may or may not be in the log already.
struct UnderWay {
    id: RequestId,
    denials: Vec<log::Denial>,
}

/// What a stranger sends is bounded before it is kept.
fn cut_early(denial: Denial) -> Denial {
    Denial { database: cut(denial.database), details: cut(denial.details), ..denial }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn denial(number: usize) -> Denial {
        Denial { operation: "view-node".into(), remote: number.to_string(), ..Denial::default() }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    const NOW: Duration = Duration::from_secs(1_000);

    #[test]
    fn equal_denials_are_one_record_with_their_count_and_times() {
        let denials = Denials::default();
        for ms in 5..25 {
            denials.note(denial(1), false, at(ms));
        }
        let taken = denials.take(NOW);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].count, taken[0].first_unix_ms, taken[0].last_unix_ms), (20, 5, 24));
        assert!(denials.take(NOW).is_empty());
    }

    #[test]
    fn nothing_is_lost_without_a_count_and_a_flood_is_bounded() {
        const FLOOD: usize = 20_000;
        let denials = Denials::default();
        for number in 0..FLOOD {
            denials.note(denial(number), false, at(1));
        }
        let mut counted = 0;
        let mut records = 0;
        for second in 0..3_600 {
            let taken = denials.take(NOW + Duration::from_secs(second));
            assert!(taken.len() <= limits::DENIALS_PER_ENTRY_MAX);
            records += taken.len();
            counted += taken.iter().map(|it| it.count).sum::<u64>();
        }
        assert_eq!(counted, FLOOD as u64);
        assert_eq!(records, limits::DENIALS_KEPT_MAX + 1);
    }

    #[test]
    fn the_budget_is_a_burst_and_then_a_trickle() {
        let denials = Denials::default();
        let mut records = 0;
        for second in 0..100 {
            for number in 0..300 {
                denials.note(denial(second * 300 + number), false, at(1));
            }
            records += denials.take(NOW + Duration::from_secs(second as u64)).len();
        }
        let trickle = 100 / usize::try_from(limits::DENIALS_REFILL.as_secs()).unwrap();
        assert!(records <= limits::DENIALS_BURST as usize + trickle, "{records} records");
        assert!(records >= limits::DENIALS_BURST as usize);
    }

    #[test]
    fn a_flood_by_strangers_does_not_hide_a_registered_caller() {
        let denials = Denials::default();
        for second in 0..20 {
            for number in 0..1_000 {
                denials.note(denial(number), false, at(1));
            }
            denials.take(NOW + Duration::from_secs(second));
        }
        denials.note(Denial { rule: "B1.16a".into(), ..denial(1) }, true, at(2));
        let taken = denials.take(NOW + Duration::from_secs(20));
        assert!(taken.iter().any(|it| it.rule == "B1.16a"));
    }
}
