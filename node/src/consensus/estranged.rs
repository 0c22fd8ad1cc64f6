//! Leaders that may not decide: whoever leads a database and hears no leader of the cluster group lets another node lead.
//!
//! Where a link is broken between two nodes alone, or in one direction, both may lead: the one the cluster group, the other
//! a database. The second has its majority, so nobody stands for election, but its registry is not fresh
//! ([`super::freshness`]), so it refuses every request, those of its followers included: the database would stand still for
//! as long as the link is broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use openraft::async_runtime::{Instant as _, WatchReceiver as _};

use super::{Consensus, Group};
use crate::{limits, names::GroupId};

impl Consensus {
    /// Looks at this node's freshness, as long as the node runs.
    pub(super) async fn watch_freshness(&self) {
        let mut look = tokio::time::interval(limits::ESTRANGED / 4);
        let mut handed_over: Option<Instant> = None;
        // To whom since this node was last fresh: whoever gave a database back hears no leader of the cluster either.
        let mut tried: BTreeMap<GroupId, BTreeSet<u64>> = BTreeMap::new();
        loop {
            look.tick().await;
            let stale = self.freshness.stale_for(self.clock.boot());
            if stale.is_zero() {
                tried.clear();
            }
            if !is_due(stale, handed_over.map(|at| at.elapsed())) {
                continue;
            }
            let groups = self.groups.all().into_iter();
            let led: Vec<_> = groups
                .filter(|group| group.id != GroupId::CLUSTER && has_majority(group))
                .collect();
            if led.is_empty() {
                continue;
            }
            handed_over = Some(Instant::now());
            tracing::info!(
                databases = led.len(),
                "this node hears no leader of the cluster, so it may decide nothing; the databases that it leads are \
                 handed over"
            );
            for group in led {
                let before = tried.entry(group.id).or_default();
                match self.hand_over_but(&group, before).await {
                    Some(to) => drop(before.insert(to)),
                    None => before.clear(), // Everybody was tried; then from the beginning.
                }
            }
        }
    }
}

/// Whether this node leads the group and a majority of its voters answers: one that is alone has nobody to hand over to.
fn has_majority(group: &Group) -> bool {
    let metrics = group.raft.metrics();
    let acknowledged = metrics.borrow_watched().last_quorum_acked;
    group.is_leader() && acknowledged.is_some_and(|at| at.elapsed() < limits::ESTRANGED)
}

/// Where no node hears a leader of the cluster, leadership does not go in circles: once in a while is enough.
fn is_due(stale: Duration, since_the_last: Option<Duration>) -> bool {
    stale >= limits::ESTRANGED
        && since_the_last.is_none_or(|since| since >= limits::ESTRANGED_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_handed_over_after_a_while_and_not_in_circles() {
        let (short, long) = (limits::ESTRANGED / 2, limits::ESTRANGED);
        for (stale, since_the_last, due) in [
            (Duration::ZERO, None, false),
            (short, None, false),
            (long, None, true),
            (long, Some(short), false),
            (long, Some(limits::ESTRANGED_PAUSE), true),
        ] {
            assert_eq!(is_due(stale, since_the_last), due, "{stale:?} {since_the_last:?}");
        }
    }
}
