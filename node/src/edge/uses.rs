//! Which certificates were accepted here lately, until the cluster is told.
//!
//! ```text
//! request ─► connection: noted in this minute? ──yes──► nothing (one load)
//!                         └──no──► a map under a lock, once a minute and connection ─► RecordUse, once an interval
//! ```
//!
//! The bench `decide` says what the first line costs a request.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rookery_proto::log::v1::{ClusterCommand, RecordUse, Use, cluster_command::Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    edge::Edge,
    limits,
    names::{Thumbprint, Timestamp},
};

const MINUTE_MS: i64 = 60_000;
/// How long a node that stops tries to tell what it still knows.
const LAST_TRY: Duration = Duration::from_secs(1);

/// The minute of Unix time that a moment lies in.
pub fn minute(at: Timestamp) -> i64 {
    at.0.div_euclid(MINUTE_MS)
}

/// Uses that the cluster was not told of yet.
#[derive(Debug, Default)]
pub struct Uses {
    waiting: Mutex<BTreeMap<Thumbprint, i64>>,
}

impl Uses {
    /// Notes a use in a minute. A full map takes no new certificate; they call again.
    pub fn note(&self, thumbprint: Thumbprint, minute: i64) {
        let mut waiting = self.waiting.lock();
        let full = waiting.len() >= limits::USES_WAITING_MAX;
        match waiting.entry(thumbprint) {
            Entry::Occupied(mut known) => *known.get_mut() = minute.max(*known.get()),
            Entry::Vacant(new) if !full => drop(new.insert(minute)),
            Entry::Vacant(_) => {}
        }
    }

    fn take(&self) -> BTreeMap<Thumbprint, i64> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Puts back what could not be told.
    fn put_back(&self, untold: impl IntoIterator<Item = (Thumbprint, i64)>) {
        untold.into_iter().for_each(|(thumbprint, minute)| self.note(thumbprint, minute));
    }
}

/// Tells the cluster of the uses of this node every `interval`, and once more at the end.
pub async fn record_regularly(edge: Arc<Edge>, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = sleep(interval) => record(&edge, limits::DEADLINE_DEFAULT).await,
            () = stop.cancelled() => {
                let _given_up = timeout(LAST_TRY, record(&edge, LAST_TRY)).await;
                return;
            }
        }
    }
}

/// One round: everything that waits and that the cluster does not know already, in commands of bounded size.
async fn record(edge: &Edge, within: Duration) {
    let registry = edge.engine.registry();
    let news = |(thumbprint, minute): &(Thumbprint, i64)| {
        registry.last_use(thumbprint).is_none_or(|last| self::minute(last.at) < *minute)
    };
    let uses: Vec<(Thumbprint, i64)> =
        edge.recognition.uses.take().into_iter().filter(news).collect();
    let Some(node) = registry.member(&edge.node.identity.load().thumbprint()) else { return };
    let node_id = node.id;
    let mut chunks = uses.chunks(limits::USES_PER_COMMAND_MAX);
    while let Some(chunk) = chunks.next() {
        let used = |(thumbprint, minute): &(Thumbprint, i64)| Use {
            thumbprint: thumbprint.as_bytes().to_vec(),
            at_unix_ms: minute * MINUTE_MS,
        };
        let record = RecordUse { node_id, uses: chunk.iter().map(used).collect() };
        let command = ClusterCommand { command: Some(Command::RecordUse(record)) };
        let told = edge.engine.propose_as_member(command, Instant::now() + within).await;
        if let Err(error) = told {
            tracing::debug!(%error, "the uses of certificates are not recorded yet");
            edge.recognition.uses.put_back(chunk.iter().copied());
            chunks.for_each(|rest| edge.recognition.uses.put_back(rest.iter().copied()));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_minute_of_a_certificate_waits_and_comes_back_when_it_was_not_told() {
        let uses = Uses::default();
        let (alice, bob) = (Thumbprint::of(b"alice"), Thumbprint::of(b"bob"));
        uses.note(alice, 7);
        uses.note(bob, 7);
        uses.note(alice, 6);
        let taken = uses.take();
        assert_eq!(taken, BTreeMap::from([(alice, 7), (bob, 7)]));
        assert!(uses.take().is_empty());
        uses.note(alice, 8);
        uses.put_back(taken);
        assert_eq!(uses.take(), BTreeMap::from([(alice, 8), (bob, 7)]));
    }

    #[test]
    fn what_waits_is_bounded() {
        let uses = Uses::default();
        let thumbprint = |n: usize| Thumbprint::of(&n.to_be_bytes());
        (0..limits::USES_WAITING_MAX + 5).for_each(|n| uses.note(thumbprint(n), 1));
        uses.note(thumbprint(0), 2);
        let taken = uses.take();
        assert_eq!(taken.len(), limits::USES_WAITING_MAX);
        assert_eq!(taken.get(&thumbprint(0)), Some(&2));
    }
}
