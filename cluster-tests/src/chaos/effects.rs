//! What became of the changes that faults ask of the cluster: asked for is not yet done, and a run in which one of them
//! never took place has not judged it.

use std::path::Path;

use super::fault::Kind;

/// What the engine of a node logs when it has put the state of a snapshot in the place of its own.
const INSTALLED: &str = "Done install complete snapshot";
/// What a node logs: as by default, and the line above, which the engine gives where it is told to.
pub const LOG_LEVEL: &str = "info,openraft=error,openraft::raft=off,openraft::core::heartbeat=off,\
                             openraft::core::sm::worker=info";

/// How often something was asked for, and how often it took place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Asked for.
    pub asked: usize,
    /// Acknowledged by the cluster.
    pub took_place: usize,
}

impl Tally {
    /// Once more.
    pub fn note(&mut self, took_place: bool) {
        self.asked += 1;
        self.took_place += usize::from(took_place);
    }
}

/// The changes of a run.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// Transfers of leadership to a node that did not lead.
    pub transfers: Tally,
    /// Nodes with an empty folder that joined.
    pub joins: Tally,
    /// Nodes that had joined and were removed.
    pub removals: Tally,
    /// Databases that were deleted and made again, both of it acknowledged.
    pub recreations: Tally,
    /// Snapshots that a node received and installed. Nobody asks for them: each one took place.
    pub snapshots: usize,
}

impl Effects {
    fn tallies(&self) -> [(&'static str, Tally); 4] {
        [
            ("transfers of leadership", self.transfers),
            ("joins", self.joins),
            ("removals", self.removals),
            ("recreations of a database", self.recreations),
        ]
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let told = |(what, Tally { asked, took_place }): &(&str, Tally)| {
            format!("{took_place} of {asked} {what}")
        };
        let tallies: Vec<_> = self.tallies().iter().map(told).collect();
        format!("took place: {}; {} snapshots installed", tallies.join(", "), self.snapshots)
    }

    /// What was asked for and never took place; where a run has every kind of fault (`full`), whatever never did.
    #[must_use]
    pub fn lacks(&self, full: bool) -> Vec<String> {
        let never = |tally: Tally| tally.took_place == 0 && (full || tally.asked > 0);
        let lacking = self.tallies().into_iter().filter(|(_, tally)| never(*tally));
        let mut lacks: Vec<_> = lacking
            .map(|(what, tally)| format!("0 of {} {what} took place", tally.asked))
            .collect();
        if full && self.snapshots == 0 {
            lacks.push("no snapshot was installed".to_owned());
        }
        lacks
    }
}

/// The snapshots that the writer of a log installed.
#[must_use]
pub fn snapshots_installed(log: &Path) -> usize {
    let log = std::fs::read(log).unwrap_or_default(); // A node that never ran has none.
    String::from_utf8_lossy(&log).lines().filter(|line| line.contains(INSTALLED)).count()
}

/// Whether these are all kinds of faults.
#[must_use]
pub fn is_every_kind(kinds: &[Kind]) -> bool {
    Kind::ALL.iter().all(|kind| kinds.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_took_place_is_lacking_if_it_was_asked_for_or_belongs_to_the_run() {
        let mut effects = Effects::default();
        assert_eq!(effects.lacks(false), Vec::<String>::new());
        assert_eq!(effects.lacks(true).len(), 5);
        effects.joins.note(false);
        assert_eq!(effects.lacks(false), ["0 of 1 joins took place"]);
        effects.joins.note(true);
        assert_eq!(effects.lacks(false), Vec::<String>::new());
        for tally in [&mut effects.transfers, &mut effects.removals, &mut effects.recreations] {
            tally.note(true);
        }
        assert_eq!(effects.lacks(true), ["no snapshot was installed"]);
        effects.snapshots = 1;
        assert_eq!(effects.lacks(true), Vec::<String>::new());
        let text = "took place: 1 of 1 transfers of leadership, 1 of 2 joins, 1 of 1 removals, \
                    1 of 1 recreations of a database; 1 snapshots installed";
        assert_eq!(effects.text(), text);
    }
}
