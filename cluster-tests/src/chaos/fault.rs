//! The kinds of faults, and what each one does when: data that the arena carries out.

use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    fault_proxy::{Attributes, Kind as ToxicKind, Stream, Toxic},
    net::Fate,
};

/// A kind of fault. The numbers are those of the catalogue in the robustness requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// F1: kill -9 of a follower.
    KillFollower,
    /// F1: kill -9 of a leader.
    KillLeader,
    /// F1: kill -9 of all nodes at once.
    KillAll,
    /// F1: kill -9 of one node after the other, sometimes of two at a time.
    KillStorm,
    /// F2: SIGSTOP of a follower.
    PauseFollower,
    /// F2: SIGSTOP of a leader.
    PauseLeader,
    /// F6: SIGTERM of a follower.
    StopFollower,
    /// F6: SIGTERM of a leader.
    StopLeader,
    /// F23, F25: a leader without its followers.
    LeaderInMinority,
    /// F23, F25: a follower without the others.
    LeaderInMajority,
    /// F23, F25: each node alone.
    EachAlone,
    /// F23: two nodes do not hear each other; the third hears both.
    Bridge,
    /// F24: nobody hears the leader; it hears all.
    MuteLeader,
    /// F24: the leader hears nobody; all hear it.
    DeafLeader,
    /// F24: nobody hears a follower.
    MuteFollower,
    /// F24: a follower hears nobody.
    DeafFollower,
    /// F23: packets between a node and the others are answered with resets.
    Refused,
    /// F26: latency and jitter.
    Latency,
    /// F27: few KB a second, while snapshots are due.
    Bandwidth,
    /// F28: connections that close late.
    SlowClose,
    /// F28: connections that are reset.
    ResetPeer,
    /// F28: one byte at a time.
    Slicer,
    /// F28: connections that end in the middle of a message.
    LimitData,
    /// F28, F31: connections that swallow everything.
    BlackHole,
    /// F29: a third of all packets is lost.
    Loss,
    /// F30: links stop one by one and come back in another order.
    SwizzleClog,
    /// F31: a node dies while nobody can hear it die.
    HalfOpen,
    /// F38: a node that is being brought up by a snapshot dies.
    DieCatchingUp,
    /// F33: the wall clock of a leader jumps by an hour.
    ClockLeader,
    /// F33: the wall clock of a follower jumps by an hour.
    ClockFollower,
    /// F33: wall clocks jump to and fro.
    ClockStrobe,
    /// F33: the wall clock of a node is 400 days late.
    ClockFar,
    /// F35: a node joins and is removed.
    Membership,
    /// F35, F1: a node joins while the leader dies.
    MembershipInTrouble,
    /// F35: leadership is handed around.
    Transfer,
    /// A database is deleted and made again under its name.
    Recreate,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 36] = [
        Self::KillFollower,
        Self::KillLeader,
        Self::KillAll,
        Self::KillStorm,
        Self::PauseFollower,
        Self::PauseLeader,
        Self::StopFollower,
        Self::StopLeader,
        Self::LeaderInMinority,
        Self::LeaderInMajority,
        Self::EachAlone,
        Self::Bridge,
        Self::MuteLeader,
        Self::DeafLeader,
        Self::MuteFollower,
        Self::DeafFollower,
        Self::Refused,
        Self::Latency,
        Self::Bandwidth,
        Self::SlowClose,
        Self::ResetPeer,
        Self::Slicer,
        Self::LimitData,
        Self::BlackHole,
        Self::Loss,
        Self::SwizzleClog,
        Self::HalfOpen,
        Self::DieCatchingUp,
        Self::ClockLeader,
        Self::ClockFollower,
        Self::ClockStrobe,
        Self::ClockFar,
        Self::Membership,
        Self::MembershipInTrouble,
        Self::Transfer,
        Self::Recreate,
    ];

    /// Its name in reports: lower case with hyphens.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Whether it needs clocks that can be set.
    #[must_use]
    pub fn sets_clocks(self) -> bool {
        matches!(self, Self::ClockLeader | Self::ClockFollower | Self::ClockStrobe | Self::ClockFar)
    }

    /// Whether it may come together with another one. Those that may not change the membership, or leave no majority
    /// by themselves.
    #[must_use]
    pub fn overlaps(self) -> bool {
        !matches!(
            self,
            Self::KillAll
                | Self::KillStorm
                | Self::EachAlone
                | Self::SwizzleClog
                | Self::Membership
                | Self::MembershipInTrouble
        )
    }

    /// Shortest and longest time that it holds, in milliseconds. Where a majority stays, it is longer than the time
    /// in which writes must succeed again, so that this is judged.
    fn hold_ms(self) -> (u64, u64) {
        match self {
            Self::KillFollower
            | Self::KillLeader
            | Self::StopLeader
            | Self::LeaderInMinority
            | Self::MuteLeader
            | Self::DeafLeader
            | Self::MuteFollower
            | Self::DeafFollower
            | Self::LeaderInMajority
            | Self::BlackHole
            | Self::HalfOpen => (4000, 8000),
            Self::PauseFollower | Self::PauseLeader => (100, 10_000),
            Self::KillAll => (100, 1500),
            Self::EachAlone | Self::Refused | Self::Bridge => (3000, 6000),
            Self::StopFollower | Self::ClockLeader | Self::ClockFollower | Self::ClockFar => {
                (1500, 5000)
            }
            Self::KillStorm | Self::SwizzleClog | Self::MembershipInTrouble => (4000, 8000),
            Self::Slicer => (1000, 2500),
            Self::Latency
            | Self::Bandwidth
            | Self::SlowClose
            | Self::ResetPeer
            | Self::LimitData
            | Self::Loss
            | Self::DieCatchingUp
            | Self::ClockStrobe
            | Self::Membership => (2500, 6000),
            Self::Transfer | Self::Recreate => (1000, 2500),
        }
    }
}

/// Which group the word "leader" is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The cluster group: certificates, databases, nodes.
    Cluster,
    /// The group of the database that most workloads use.
    Database,
}

/// A fault as the schedule plans it: everything but who plays which part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The kind.
    pub kind: Kind,
    /// When it begins, after the beginning of the step.
    pub after_ms: u64,
    /// How long it holds.
    pub hold_ms: u64,
    /// Whose leader it is about.
    pub group: Group,
    /// Seed of its further choices.
    pub seed: u64,
}

impl Planned {
    /// Draws time, group and further choices. `briefly`: as short as the kind allows.
    #[must_use]
    pub fn draw(kind: Kind, dice: &mut StdRng, briefly: bool) -> Self {
        let (least, most) = kind.hold_ms();
        let most = if briefly { least + (most - least) / 8 } else { most };
        // Short pauses and long ones alike: by orders of magnitude.
        let hold_ms = if matches!(kind, Kind::PauseFollower | Kind::PauseLeader) {
            let (least, most) = if briefly { (300_f64, 4500_f64) } else { (100.0, 10_000.0) };
            dice.random_range(least.ln()..most.ln()).exp() as u64
        } else {
            dice.random_range(least..=most)
        };
        let group = if dice.random_bool(0.5) { Group::Cluster } else { Group::Database };
        Self { kind, after_ms: 0, hold_ms, group, seed: dice.random_range(0..u64::MAX) }
    }
}

/// Who plays which part in a step, by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// The leader that the fault is about.
    pub leader: usize,
    /// The other original members.
    pub followers: Vec<usize>,
}

/// One thing that is done to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// kill -9.
    Kill(usize),
    /// SIGTERM; the process must end with 0 in time.
    Stop(usize),
    /// Starts the process.
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// Packets from one to another meet this fate.
    Impair(usize, usize, Fate),
    /// Dropped packets from one to another come through again.
    Mend(usize, usize),
    /// A toxic on the proxy through which one dials another.
    Poison(usize, usize, Toxic),
    /// Every toxic on the proxy through which one dials another is gone.
    Cleanse(usize, usize),
    /// The proxy through which one dials another closes its connections, or opens again.
    Enable(usize, usize, bool),
    /// The wall clock is that many seconds off.
    Clock(usize, i64),
    /// The group's leader hands over to this node.
    Transfer(Group, usize),
    /// The spare node joins with an empty folder.
    Join,
    /// The spare node is removed.
    Leave,
    /// The database that comes and goes is deleted and made again.
    Recreate,
}

/// An action and when it is due, in milliseconds after the beginning of its step.
pub type Timed = (u64, Action);

/// What the fault does to this cast, in order of time.
#[must_use]
pub fn actions(planned: &Planned, cast: &Cast, dice: &mut StdRng) -> Vec<Timed> {
    let mut script = Script { planned, cast, dice, timed: Vec::new() };
    script.write();
    let mut timed = script.timed;
    timed.iter_mut().for_each(|(at, _)| *at += planned.after_ms);
    timed.sort_by_key(|(at, _)| *at);
    timed
}

struct Script<'a> {
    planned: &'a Planned,
    cast: &'a Cast,
    dice: &'a mut StdRng,
    timed: Vec<Timed>,
}

impl Script<'_> {
    fn write(&mut self) {
        let (leader, hold) = (self.cast.leader, self.planned.hold_ms);
        let victim = self.cast.followers[self.dice.random_range(0..self.cast.followers.len())];
        let anybody = if self.dice.random_bool(0.5) { leader } else { victim };
        match self.planned.kind {
            Kind::KillFollower => self.between(Action::Kill(victim), Action::Start(victim)),
            Kind::KillLeader => self.between(Action::Kill(leader), Action::Start(leader)),
            Kind::KillAll => self.all(Action::Kill, Action::Start),
            Kind::KillStorm => self.storm(),
            Kind::PauseFollower => self.between(Action::Pause(victim), Action::Resume(victim)),
            Kind::PauseLeader => self.between(Action::Pause(leader), Action::Resume(leader)),
            Kind::StopFollower => self.between(Action::Stop(victim), Action::Start(victim)),
            Kind::StopLeader => self.between(Action::Stop(leader), Action::Start(leader)),
            Kind::LeaderInMinority => self.cut_off(leader, true, true, Fate::Drop),
            Kind::LeaderInMajority => self.cut_off(victim, true, true, Fate::Drop),
            Kind::EachAlone => {
                for node in self.everybody() {
                    self.cut_off(node, false, true, Fate::Drop);
                }
            }
            Kind::Bridge => {
                self.at(0, Action::Impair(leader, victim, Fate::Drop));
                self.at(0, Action::Impair(victim, leader, Fate::Drop));
            }
            Kind::MuteLeader => self.cut_off(leader, true, false, Fate::Drop),
            Kind::DeafLeader => self.cut_off(leader, false, true, Fate::Drop),
            Kind::MuteFollower => self.cut_off(victim, true, false, Fate::Drop),
            Kind::DeafFollower => self.cut_off(victim, false, true, Fate::Drop),
            Kind::Refused => self.cut_off(anybody, true, true, Fate::Reset),
            Kind::Loss => self.cut_off(anybody, true, true, Fate::Lose(30)),
            Kind::Latency
            | Kind::Bandwidth
            | Kind::SlowClose
            | Kind::ResetPeer
            | Kind::Slicer
            | Kind::LimitData
            | Kind::BlackHole => self.toxic(anybody),
            Kind::SwizzleClog => self.swizzle(),
            Kind::HalfOpen => {
                self.cut_off(victim, true, true, Fate::Drop);
                self.at(100, Action::Kill(victim));
                self.mend(hold - 500, victim);
                self.at(hold - 300, Action::Start(victim));
            }
            Kind::DieCatchingUp => {
                self.cut_off(victim, true, true, Fate::Drop);
                self.mend(hold - 800, victim);
                let after = self.dice.random_range(20..500);
                self.at(hold - 800 + after, Action::Kill(victim));
                self.at(hold, Action::Start(victim));
            }
            Kind::ClockLeader => self.jump(leader, 3600),
            Kind::ClockFollower => self.jump(victim, 3600),
            Kind::ClockFar => self.at(0, Action::Clock(anybody, -400 * 24 * 3600)),
            Kind::ClockStrobe => self.strobe(),
            Kind::Membership => {
                self.at(0, Action::Join);
                self.at(hold, Action::Leave);
            }
            Kind::MembershipInTrouble => {
                let after = self.dice.random_range(50..600);
                self.at(after, Action::Kill(anybody));
                self.at(after + 1, Action::Join);
                self.at(after + 2500, Action::Start(anybody));
                self.at(hold, Action::Leave);
            }
            Kind::Transfer => {
                for (place, follower) in (0..).zip(self.cast.followers.clone()) {
                    self.at(place * 600, Action::Transfer(self.planned.group, follower));
                }
            }
            Kind::Recreate => self.at(0, Action::Recreate),
        }
        // What ends with the step's healing holds until then.
        self.timed.retain(|(at, _)| *at <= hold);
    }

    fn at(&mut self, ms: u64, action: Action) {
        self.timed.push((ms, action));
    }

    fn between(&mut self, first: Action, last: Action) {
        self.at(0, first);
        self.at(self.planned.hold_ms, last);
    }

    fn everybody(&self) -> Vec<usize> {
        let mut all = self.cast.followers.clone();
        all.push(self.cast.leader);
        all.sort_unstable();
        all
    }

    fn all(&mut self, first: fn(usize) -> Action, last: fn(usize) -> Action) {
        for node in self.everybody() {
            self.at(0, first(node));
            self.at(self.planned.hold_ms, last(node));
        }
    }

    /// Nobody hears `node` (`mute`), it hears nobody (`deaf`), or both.
    fn cut_off(&mut self, node: usize, mute: bool, deaf: bool, fate: Fate) {
        for other in self.everybody() {
            if other == node {
                continue;
            }
            if mute {
                self.at(0, Action::Impair(node, other, fate));
            }
            if deaf {
                self.at(0, Action::Impair(other, node, fate));
            }
        }
    }

    fn mend(&mut self, at: u64, node: usize) {
        for other in self.everybody() {
            if other != node {
                self.at(at, Action::Mend(node, other));
                self.at(at, Action::Mend(other, node));
            }
        }
    }

    fn storm(&mut self) {
        let (mut at, end) = (0, self.planned.hold_ms.saturating_sub(1200));
        let all = self.everybody();
        while at < end {
            let node = all[self.dice.random_range(0..all.len())];
            self.at(at, Action::Kill(node));
            let back = at + self.dice.random_range(100..1200);
            self.at(back, Action::Start(node));
            at += self.dice.random_range(400..1400);
        }
    }

    fn strobe(&mut self) {
        let all = self.everybody();
        let mut at = 0;
        while at < self.planned.hold_ms {
            let node = all[self.dice.random_range(0..all.len())];
            let offset = self.dice.random_range(-3600..=3600);
            self.at(at, Action::Clock(node, offset));
            at += self.dice.random_range(100..300);
        }
    }

    fn jump(&mut self, node: usize, seconds: i64) {
        let sign = if self.dice.random_bool(0.5) { 1 } else { -1 };
        self.at(0, Action::Clock(node, sign * seconds));
    }

    /// Stops a node's links one by one, and brings them back in another order.
    fn swizzle(&mut self) {
        let all = self.everybody();
        let mut links = Vec::new();
        for &from in &all {
            links.extend(all.iter().filter(|to| **to != from).map(|&to| (from, to)));
        }
        links.shuffle(self.dice);
        let half = self.planned.hold_ms / 2;
        let pause = half / (links.len() as u64 + 1);
        for (place, &(from, to)) in (0..).zip(&links) {
            self.at(place * pause, Action::Impair(from, to, Fate::Drop));
        }
        links.shuffle(self.dice);
        for (place, &(from, to)) in (0..).zip(&links) {
            self.at(half + place * pause, Action::Mend(from, to));
        }
    }

    /// A toxic on every link of a node, or on all links; a slicer on one link, for its price in system calls.
    fn toxic(&mut self, node: usize) {
        let everywhere = self.planned.kind == Kind::Latency && self.dice.random_bool(0.5);
        let all = self.everybody();
        let mut links = Vec::new();
        for &from in &all {
            for &to in all.iter().filter(|to| **to != from) {
                if everywhere || from == node || to == node {
                    links.push((from, to));
                }
            }
        }
        if self.planned.kind == Kind::Slicer {
            links.shuffle(self.dice);
            links.truncate(1);
        }
        let (kind, numbers) = self.numbers();
        for (from, to) in links {
            for stream in [Stream::Upstream, Stream::Downstream] {
                self.at(0, Action::Poison(from, to, Toxic::new(kind, stream, numbers)));
            }
            // What happens to connections as they close is seen when they do.
            if self.planned.kind == Kind::SlowClose {
                self.at(self.planned.hold_ms / 2, Action::Enable(from, to, false));
                self.at(self.planned.hold_ms / 2 + 50, Action::Enable(from, to, true));
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm)] // Called for the kinds of toxics alone; the last of them is the black hole.
    fn numbers(&mut self) -> (ToxicKind, Attributes) {
        let dice = &mut *self.dice;
        let none = Attributes::default();
        match self.planned.kind {
            Kind::Latency => {
                let latency = dice.random_range(1..=250);
                let jitter = dice.random_range(0..=latency / 2);
                (ToxicKind::Latency, Attributes { latency, jitter, ..none })
            }
            Kind::Bandwidth => {
                let rate = dice.random_range(8..=64);
                (ToxicKind::Bandwidth, Attributes { rate, ..none })
            }
            Kind::SlowClose => {
                let delay = dice.random_range(200..=2000);
                (ToxicKind::SlowClose, Attributes { delay, ..none })
            }
            Kind::ResetPeer => {
                let timeout = dice.random_range(0..=800);
                (ToxicKind::ResetPeer, Attributes { timeout, ..none })
            }
            Kind::Slicer => {
                let delay = dice.random_range(0..=20);
                (ToxicKind::Slicer, Attributes { average_size: 1, delay, ..none })
            }
            Kind::LimitData => {
                let bytes = dice.random_range(500..=60_000);
                (ToxicKind::LimitData, Attributes { bytes, ..none })
            }
            _ => {
                let timeout = if dice.random_bool(0.7) { 0 } else { dice.random_range(500..=3000) };
                (ToxicKind::Timeout, Attributes { timeout, ..none })
            }
        }
    }
}
