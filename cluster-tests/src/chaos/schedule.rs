//! Which faults come in which order: drawn from the seed, deck by deck, so that every kind comes as often as any other.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::fault::{Kind, Planned};

/// The chance that two faults overlap, where both kinds may.
const OVERLAP: f64 = 0.25;

/// One step: faults that overlap, or one alone, and the calm after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// One or two.
    pub faults: Vec<Planned>,
    /// How long nothing happens after all nodes are ready again, in milliseconds.
    pub calm_ms: u64,
}

impl Step {
    /// When the last of its faults ends, in milliseconds.
    #[must_use]
    pub fn ends_ms(&self) -> u64 {
        self.faults.iter().map(|fault| fault.after_ms + fault.hold_ms).max().unwrap_or(0)
    }

    /// The kinds, for people.
    #[must_use]
    pub fn name(&self) -> String {
        let names: Vec<_> = self.faults.iter().map(|fault| fault.kind.name()).collect();
        names.join(" + ")
    }
}

/// An endless schedule.
#[derive(Debug)]
pub struct Schedule {
    dice: StdRng,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    briefly: bool,
    /// Whether the first deck, in which every kind comes alone, is through.
    alone: bool,
}

impl Schedule {
    /// The schedule of a seed over these kinds. The first deck has every kind alone; `briefly`: as short as each allows.
    #[must_use]
    pub fn new(seed: u64, kinds: &[Kind], briefly: bool) -> Self {
        let dice = StdRng::seed_from_u64(seed);
        Self { dice, kinds: kinds.to_vec(), deck: Vec::new(), briefly, alone: true }
    }

    fn draw(&mut self) -> Option<Kind> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.deck.shuffle(&mut self.dice);
        }
        self.deck.pop()
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let kind = self.draw()?;
        let mut faults = vec![Planned::draw(kind, &mut self.dice, self.briefly)];
        let overlap = self.dice.random_bool(OVERLAP);
        let next = self.deck.last().copied().filter(|next| next.overlaps());
        if !self.alone && overlap && kind.overlaps() && next.is_some() {
            self.deck.pop();
            let mut second = Planned::draw(next?, &mut self.dice, self.briefly);
            second.after_ms = self.dice.random_range(0..=faults[0].hold_ms / 2);
            faults.push(second);
        }
        self.alone &= !self.deck.is_empty();
        let calm_ms = self.dice.random_range(100..=if self.briefly { 200 } else { 800 });
        Some(Step { faults, calm_ms })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::chaos::fault::{Action, Cast, actions};

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_one_another() {
        let steps = |seed| Schedule::new(seed, &Kind::ALL, false).take(100).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn every_kind_comes_once_in_a_deck_and_alone_in_the_first() {
        let first: Vec<_> = Schedule::new(1, &Kind::ALL, true)
            .take(Kind::ALL.len())
            .map(|step| step.faults)
            .collect();
        assert!(first.iter().all(|faults| faults.len() == 1));
        let mut kinds: Vec<_> = first.iter().map(|faults| faults[0].kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, Kind::ALL);
        let mut often: BTreeMap<Kind, usize> = BTreeMap::new();
        for step in Schedule::new(2, &Kind::ALL, false).take(1000) {
            for fault in &step.faults {
                *often.entry(fault.kind).or_default() += 1;
            }
        }
        let (least, most) = (often.values().min().unwrap(), often.values().max().unwrap());
        assert!(most - least <= 1, "{often:?}");
    }

    #[test]
    fn faults_are_the_same_for_the_same_cast_and_do_something_within_their_time() {
        let cast = Cast { leader: 1, followers: vec![0, 2] };
        for step in Schedule::new(3, &Kind::ALL, false).take(500) {
            for planned in &step.faults {
                let of = || actions(planned, &cast, &mut StdRng::seed_from_u64(planned.seed));
                let timed = of();
                assert_eq!(timed, of());
                assert!(!timed.is_empty(), "{planned:?}");
                assert!(timed.windows(2).all(|two| two[0].0 <= two[1].0), "{timed:?}");
                assert!(
                    timed.iter().all(|(at, _)| *at <= step.ends_ms()),
                    "{planned:?}: {timed:?}"
                );
                let by_leader = |action: &Action| *action == Action::Kill(1);
                if planned.kind == Kind::KillLeader {
                    assert!(timed.iter().any(|(_, action)| by_leader(action)));
                }
            }
        }
    }
}
