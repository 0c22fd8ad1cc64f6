//! Who runs and who hears whom, at every moment: from this follows what the contract promises then.

use std::{collections::BTreeMap, time::Instant};

use super::fault::Action;
use crate::{fault_proxy::Kind as ToxicKind, net::Fate};

/// A directed link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Fine,
    /// Slow, lossy, or closed again and again: nothing is promised through it, in either way.
    Impaired,
    /// Nothing gets through.
    Cut,
}

/// A node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// It serves, as far as it is concerned.
    Up,
    /// It was started or resumed: it may serve, and need not yet.
    Recovering,
    /// It is dead or stands still.
    Down,
}

/// The nodes' state at one moment, as the faults made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Members with a vote, by position.
    voters: Vec<usize>,
    /// What the processes do, by position.
    processes: BTreeMap<usize, Process>,
    /// Links that are not fine; packets first, then proxies.
    packets: BTreeMap<(usize, usize), Link>,
    proxies: BTreeMap<(usize, usize), Link>,
    /// The membership is being changed, or bytes are sent one at a time, at the price of a system call each on the
    /// machine that all nodes share: for this time neither success nor refusal is promised.
    open: bool,
}

impl Health {
    /// All of `voters` are well.
    #[must_use]
    pub fn of(voters: &[usize]) -> Self {
        Self {
            voters: voters.to_vec(),
            processes: voters.iter().map(|&node| (node, Process::Up)).collect(),
            packets: BTreeMap::new(),
            proxies: BTreeMap::new(),
            open: false,
        }
    }

    /// What an action makes of it. Nodes that were started count as up once [`Health::healed`] says so.
    pub fn after(&mut self, action: &Action) {
        match action {
            Action::Kill(node) | Action::Stop(node) | Action::Pause(node) => {
                self.processes.insert(*node, Process::Down);
            }
            // Up again when it is ready: that is another promise (L2), judged by itself.
            Action::Start(node) | Action::Resume(node) => {
                if self.process(*node) == Process::Down {
                    self.processes.insert(*node, Process::Recovering);
                }
            }
            Action::Clock(..) | Action::Recreate | Action::Transfer(..) => {}
            Action::Impair(from, to, fate) => {
                // Loss slows everything that still passes (F29), a leader's heartbeats least of all.
                self.open |= matches!(fate, Fate::Lose(_));
                let link = match fate {
                    Fate::Drop => Link::Cut,
                    Fate::Reset | Fate::Lose(_) => Link::Impaired,
                };
                self.packets.insert((*from, *to), link);
            }
            Action::Mend(from, to) => {
                self.packets.insert((*from, *to), Link::Impaired); // TCP needs its time.
            }
            Action::Poison(from, to, toxic) => {
                self.open |= toxic.kind == ToxicKind::Slicer;
                self.proxies.insert((*from, *to), Link::Impaired);
            }
            Action::Enable(from, to, _) | Action::Cleanse(from, to) => {
                self.proxies.insert((*from, *to), Link::Impaired);
            }
            Action::Join | Action::Leave => self.open = true,
        }
    }

    /// Every fault is being ended: nothing is cut or down for sure any more, and nothing is well yet that was not.
    pub fn healing(&mut self) {
        for link in self.packets.values_mut().chain(self.proxies.values_mut()) {
            *link = Link::Impaired;
        }
        for process in self.processes.values_mut().filter(|process| **process == Process::Down) {
            *process = Process::Recovering;
        }
    }

    /// Every fault has ended and all nodes are ready.
    pub fn healed(&mut self) {
        self.processes.values_mut().for_each(|process| *process = Process::Up);
        self.packets.clear();
        self.proxies.clear();
        self.open = false;
    }

    fn link(&self, from: usize, to: usize) -> Link {
        let of = |links: &BTreeMap<_, _>| links.get(&(from, to)).copied().unwrap_or(Link::Fine);
        of(&self.packets).max(of(&self.proxies))
    }

    fn process(&self, node: usize) -> Process {
        self.processes.get(&node).copied().unwrap_or(Process::Down)
    }

    fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The largest set of voters that run and hear each other well, if it is a majority; else none. Writes are promised
    /// then.
    #[must_use]
    pub fn majority(&self) -> Vec<usize> {
        if self.open {
            return Vec::new();
        }
        let is_up = |node: &usize| self.process(*node) == Process::Up;
        let up: Vec<usize> = self.voters.iter().copied().filter(is_up).collect();
        let fine = |a, b| self.link(a, b) == Link::Fine && self.link(b, a) == Link::Fine;
        let mut best: Vec<usize> = Vec::new();
        for subset in 0..1_u32 << up.len() {
            let members: Vec<usize> =
                (0..up.len()).filter(|at| subset >> at & 1 == 1).map(|at| up[at]).collect();
            let connected = members.iter().all(|a| members.iter().all(|b| a == b || fine(*a, *b)));
            if connected && members.len() > best.len() {
                best = members;
            }
        }
        if best.len() >= self.quorum() { best } else { Vec::new() }
    }

    /// Voters that run and can reach no majority, in both ways and whatever the state of the links: they must refuse.
    #[must_use]
    pub fn isolated(&self) -> Vec<usize> {
        if self.open {
            return Vec::new();
        }
        let reaches = |a, b| self.link(a, b) != Link::Cut && self.link(b, a) != Link::Cut;
        let alone = |node: &usize| {
            let heard = |other: &&usize| {
                let runs = self.process(**other) != Process::Down;
                **other != *node && runs && reaches(*node, **other)
            };
            1 + self.voters.iter().filter(heard).count() < self.quorum()
        };
        let runs = |node: &usize| self.process(*node) != Process::Down;
        self.voters.iter().copied().filter(runs).filter(alone).collect()
    }
}

/// A time in which the health did not change.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Its beginning: when the action that made it had been carried out.
    pub from: Instant,
    /// Its end: when the next action began.
    pub to: Instant,
    /// The health.
    pub health: Health,
    /// The step's name.
    pub step: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(actions: &[Action], majority: &[usize], isolated: &[usize]) {
        let mut health = Health::of(&[0, 1, 2]);
        actions.iter().for_each(|action| health.after(action));
        assert_eq!(health.majority(), majority, "majority after {actions:?}");
        assert_eq!(health.isolated(), isolated, "isolated after {actions:?}");
        health.healing();
        assert!(health.isolated().is_empty(), "healing after {actions:?}");
        health.healed();
        assert_eq!(health, Health::of(&[0, 1, 2]));
    }

    fn cut(from: usize, to: usize) -> Action {
        Action::Impair(from, to, Fate::Drop)
    }

    #[test]
    fn writes_are_promised_to_majorities_and_refusals_to_who_is_alone() {
        check(&[], &[0, 1, 2], &[]);
        check(&[Action::Kill(1)], &[0, 2], &[]);
        check(&[Action::Kill(1), Action::Pause(2)], &[], &[0]);
        check(&[Action::Kill(1), Action::Start(1)], &[0, 2], &[]);
        check(&[Action::Kill(1), Action::Start(1), Action::Kill(2)], &[], &[]);
        check(&[cut(0, 1), cut(0, 2)], &[1, 2], &[0]);
        check(&[cut(1, 0), cut(2, 0)], &[1, 2], &[0]);
        check(&[cut(0, 1)], &[0, 2], &[]);
        check(&[cut(0, 1), cut(1, 2), cut(2, 0)], &[], &[0, 1, 2]);
        check(&[Action::Impair(0, 1, Fate::Lose(30))], &[], &[]);
        check(&[cut(0, 1), Action::Mend(0, 1)], &[0, 2], &[]);
        check(&[Action::Join], &[], &[]);
    }
}
