//! Disks that stand still: a leader whose log waits for its disk lets another node lead.
//!
//! Such a leader is worse than a dead one: its heartbeats go out, so nobody stands for election, and its followers store
//! what it sends, but it applies and answers nothing. Reads and decisions of the other nodes go on meanwhile; its own
//! fail closed at their deadlines, and it is not ready.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::Consensus;
use crate::limits;

impl Consensus {
    /// Looks at the write that is under way, as long as the node runs.
    pub(super) async fn watch_disk(&self) {
        let mut look = tokio::time::interval(limits::DISK_STALL / 4);
        let mut handed_over: Option<Instant> = None;
        loop {
            look.tick().await;
            let waited = self.committer.writing_since().map(|since| since.elapsed());
            if !is_due(waited, handed_over.map(|at| at.elapsed())) {
                continue;
            }
            handed_over = Some(Instant::now());
            tracing::warn!(
                waited_ms = waited.unwrap_or_default().as_millis(),
                "the disk of this node stands still; what it leads is handed over"
            );
            let groups = self.groups.all();
            join_all(groups.iter().map(|group| self.hand_over(group))).await;
        }
    }
}

/// Where all disks are slow, leadership does not go in circles: once in a while is enough.
fn is_due(waited: Option<Duration>, since_the_last: Option<Duration>) -> bool {
    waited.is_some_and(|waited| waited >= limits::DISK_STALL)
        && since_the_last.is_none_or(|since| since >= limits::DISK_STALL_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_is_handed_over_after_a_stall_and_not_in_circles() {
        let (short, long) = (limits::DISK_STALL / 2, limits::DISK_STALL);
        for (waited, since_the_last, due) in [
            (None, None, false),
            (Some(short), None, false),
            (Some(long), None, true),
            (Some(long), Some(short), false),
            (Some(long), Some(limits::DISK_STALL_PAUSE), true),
        ] {
            assert_eq!(is_due(waited, since_the_last), due, "{waited:?} {since_the_last:?}");
        }
    }
}
