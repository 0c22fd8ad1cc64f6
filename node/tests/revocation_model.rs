//! A model of strict revocation, searched exhaustively: the protocol of `consensus/freshness.rs` over three nodes.
//!
//! The numbers of the steps are those of `freshness.rs`:
//!
//! | step | in the model |
//! | --- | --- |
//! | 1. a node notes its clock and asks | [`Action::Ask`] |
//! | 2. the leader notes the promise, 3. takes its commit index | [`Action::Receive`] |
//! | 3. and is confirmed by a quorum, then answers | [`Action::Confirm`] |
//! | 4. the node has applied the index: fresh until its question + L | [`Action::Hear`] |
//! | 5. the revocation is applied, nodes confirm or are waited out | [`Action::Wait`], [`Action::Confirmed`], [`Action::Acknowledge`] |
//! | 6. a new leader takes promises to end L after its election | [`Action::Elect`] |
//!
//! **Property S3**: no request that starts after the acknowledgement is allowed on any node. Beside it stand two
//! properties that keep it from holding for want of events: requests are allowed before, and a revocation is
//! acknowledged while a node is dead.
//!
//! What can happen in between:
//! - **Messages** are never taken out of the network. So each may be late, lost (never taken up), taken up twice, or
//!   overtake another one.
//! - **Pauses** need no action: every step but the passing of time is optional, so a node that does nothing while time
//!   passes is a paused one.
//! - **Crashes** take everything that is in memory: freshness, promises, leadership waits, channels with what is under
//!   way on them. The log and the term stay. A leader that comes back may lead on in its term, as openraft lets it.
//! - **Clocks**: time is discrete, [`LEASE`] is L. One node, or none, has a slow clock: it loses one tick in L + 1, which
//!   over one lease is the whole [`MARGIN`].
//! - **Leaders** change: a candidate whose log is as good as that of one voter takes over in a term of its own, while
//!   the old leader may go on believing. Raft itself is not what is checked here: replication is one step between two
//!   nodes that are up, and an election is one step of candidate and voter.
//!
//! What bounds the search: [`Bounds`]. Two requests suffice for S3, one of them after the acknowledgement: requests
//! change nothing that another request sees.
//!
//! **The model finds faults.** [`Fault`] lists mistakes that could be made in the protocol; each one planted must lead
//! to a request that is allowed too late, or the model would prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use stateright::{Checker as _, HasDiscoveries, Model, Property};

const NODES: usize = 3;
/// L in ticks.
const LEASE: u8 = 2;
/// The margin for clocks of different speed, in ticks.
const MARGIN: u8 = 1;
/// What every clock shows in the beginning: more than L and the margin, so that the first leader's wait is over.
const START: u8 = LEASE + MARGIN + 1;
/// The mark of the revocation among log entries, which are numbers of terms.
const REVOCATION: u8 = 0x80;
/// Entries that a log can hold: each leader's first one, and a revocation of each.
const LOG_MAX: usize = 6;

const S3: &str = "no request that starts after the acknowledgement is allowed";
const BEFORE: &str = "a request is allowed before";
const ONE_DEAD: &str = "a revocation is acknowledged while a node is dead";

/// A mistake planted in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Step 6: a new leader knows of no promises, and waits for none.
    NewLeaderDoesNotWait,
    /// Step 4: the lease counts from the answer.
    LeaseFromAnswer,
    /// Step 2 after step 3: the promise is noted when the answer is sent.
    PromiseAfterIndex,
    /// Step 5: promises are taken to end by the leader's clock, without a margin.
    NoMargin,
    /// Step 5: a node that does not confirm is not waited for.
    SilentNodeIgnored,
    /// A call takes the registry first and checks freshness afterwards.
    RegistryBeforeCheck,
    /// Step 3: the leader answers without having been confirmed by a quorum.
    LeaderNotConfirmed,
    /// Step 4: the node is fresh before it has applied the index.
    FreshBeforeApplied,
    /// Step 5: a node confirms what stands in its log, and not what it has applied.
    ConfirmedBeforeApplied,
    /// Step 4: the node counts a lease of its own that is longer than the leader's promise.
    OwnLease,
    /// Step 5: a former leader takes another leader's entry for its own, and waits for the promises that it knows.
    OtherLeadersEntry,
}

/// Each mistake, and how many elections it takes to show.
const FAULTS: [(Fault, u8); 11] = [
    (Fault::NewLeaderDoesNotWait, 1),
    (Fault::LeaseFromAnswer, 0),
    (Fault::PromiseAfterIndex, 0),
    (Fault::NoMargin, 0),
    (Fault::SilentNodeIgnored, 0),
    (Fault::RegistryBeforeCheck, 0),
    (Fault::LeaderNotConfirmed, 1),
    (Fault::FreshBeforeApplied, 0),
    (Fault::ConfirmedBeforeApplied, 0),
    (Fault::OwnLease, 0),
    (Fault::OtherLeadersEntry, 1),
];

/// How far the search goes.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Ticks that pass.
    ticks: u8,
    /// Questions that are asked, by all nodes together.
    questions: u8,
    /// Elections.
    elections: u8,
    /// Crashes.
    crashes: u8,
}

struct Protocol {
    fault: Option<Fault>,
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Log {
    entries: [u8; LOG_MAX],
    len: u8,
}

impl Log {
    fn push(&mut self, entry: u8) {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
    }

    fn entries(&self) -> &[u8] {
        &self.entries[..usize::from(self.len)]
    }

    fn last_term(&self) -> u8 {
        self.entries().last().map_or(0, |entry| entry & !REVOCATION)
    }

    /// The position of the revocation, from 1.
    fn revocation(&self) -> Option<u8> {
        let at = self.entries().iter().position(|entry| entry & REVOCATION != 0)?;
        u8::try_from(at + 1).ok()
    }
}

/// A question that a leader has taken up, until a quorum confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pending {
    asked: u8,
    index: u8,
}

/// Step 5 under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Waiting {
    over: [u8; NODES],
    confirmed: [bool; NODES],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Node {
    down: bool,
    leads: bool,
    term: u8,
    log: Log,
    /// Committed as far as this node knows, which is applied.
    commit: u8,
    fresh_until: u8,
    /// Step 6: when this node's leadership was noticed.
    since: u8,
    promised: [u8; NODES],
    pending: [Option<Pending>; NODES],
    /// A client's revocation came to this node when it led in this term; 0: none did.
    revoking: u8,
    waiting: Option<Waiting>,
}

impl Node {
    /// Whether the registry of this node lacks the certificate.
    fn has_revoked(&self) -> bool {
        self.log.revocation().is_some_and(|index| index <= self.commit)
    }

    /// Whether the entry that this node proposed is applied here. The entry of another leader is not the same.
    fn has_applied_its_own(&self) -> bool {
        let applied = &self.log.entries()[..usize::from(self.commit)];
        self.revoking != 0 && applied.contains(&(REVOCATION | self.revoking))
    }

    fn follow(&mut self, term: u8) {
        *self = Self { term, leads: false, pending: [None; NODES], ..*self };
    }

    fn lead(&mut self, term: u8, now: u8) {
        *self = Self { term, leads: true, since: now, promised: [0; NODES], ..*self };
        self.pending = [None; NODES];
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Question { from: usize, to: usize, asked: u8 },
    Answer { to: usize, asked: u8, index: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    time: u8,
    slow: Option<usize>,
    nodes: [Node; NODES],
    network: Vec<Message>,
    questions: u8,
    crashes: u8,
    acknowledged: bool,
    /// Only with a planted fault: the node at which a late request took a registry without the revocation, and did not
    /// check freshness yet.
    took: Option<usize>,
    /// A late request was allowed.
    allowed_late: bool,
}

/// One write of all bytes: the search spends its time here.
impl std::hash::Hash for State {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        let mut bytes = [0_u8; 192];
        let mut at = 0;
        let mut put = |byte: u8| {
            bytes[at] = byte;
            at += 1;
        };
        let option = |node: Option<usize>| node.map_or(9, |node| node as u8);
        put(self.time);
        put(option(self.slow) * 16 + option(self.took));
        put(self.questions * 16 + self.crashes);
        put(u8::from(self.acknowledged) * 2 + u8::from(self.allowed_late));
        for node in &self.nodes {
            put(u8::from(node.down) * 2 + u8::from(node.leads));
            put(node.term * 16 + node.log.len);
            put(node.commit * 16 + node.revoking);
            put(node.fresh_until);
            put(node.since);
            for at in 0..NODES {
                put(node.promised[at]);
                put(node.pending[at].map_or(0, |pending| 16 * pending.asked + pending.index));
                put(node
                    .waiting
                    .map_or(99, |waiting| waiting.over[at] * 2 + u8::from(waiting.confirmed[at])));
            }
            for entry in node.log.entries() {
                put(*entry);
            }
        }
        for message in &self.network {
            match *message {
                Message::Question { from, to, asked } => {
                    put(1 + from as u8 * 16 + to as u8 * 4);
                    put(asked);
                }
                Message::Answer { to, asked, index } => {
                    put(2 + to as u8 * 4);
                    put(asked * 16 + index);
                }
            }
        }
        hasher.write(&bytes[..at]);
    }
}

impl State {
    /// The boot clock of a node.
    fn clock(&self, node: usize) -> u8 {
        let lost = if self.slow == Some(node) { self.time.div_ceil(LEASE + 1) } else { 0 };
        START + self.time - lost
    }

    fn send(&mut self, message: Message) {
        if let Err(place) = self.network.binary_search(&message) {
            self.network.insert(place, message);
        }
    }

    fn is_fresh(&self, node: usize) -> bool {
        self.clock(node) < self.nodes[node].fresh_until
    }

    /// Whether a request that comes to a node now is allowed: freshness is checked, then the registry is taken. What a
    /// registry has got it keeps, so no later moment between the two allows more.
    fn allows(&self, node: usize) -> bool {
        self.is_fresh(node) && !self.nodes[node].has_revoked()
    }

    fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..NODES).filter(|node| !self.nodes[*node].down)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Elect { candidate: usize, voter: usize },
    Replicate { leader: usize, follower: usize },
    Crash { node: usize },
    Restart { node: usize, leads: bool },
    Revoke { leader: usize },
    Ask { node: usize, leader: usize },
    Receive { message: Message },
    Confirm { leader: usize, asker: usize, voter: usize },
    Hear { message: Message },
    Wait { node: usize },
    Confirmed { leader: usize, node: usize },
    Acknowledge { leader: usize },
    Request { node: usize },
    Take { node: usize },
    Check,
}

impl Protocol {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Entries of one log: each leader's first one, and a revocation of each.
    fn log_max(&self) -> u8 {
        2 * (self.bounds.elections + 1)
    }

    /// Step 5: when every promise to `node` has passed, as the leader believes.
    fn over(&self, leader: &Node, node: usize) -> u8 {
        let inherited =
            if self.has(Fault::NewLeaderDoesNotWait) { 0 } else { leader.since + LEASE };
        let margin = if self.has(Fault::NoMargin) { 0 } else { MARGIN };
        leader.promised[node].max(inherited) + margin
    }

    fn elections(&self, state: &State, actions: &mut Vec<Action>) {
        for candidate in state.up() {
            for voter in state.up().filter(|voter| *voter != candidate) {
                let (c, v) = (&state.nodes[candidate], &state.nodes[voter]);
                let is_as_good = (c.log.last_term(), c.log.len) >= (v.log.last_term(), v.log.len);
                let within = c.term.max(v.term) <= self.bounds.elections;
                if is_as_good
                    && within
                    && c.log.len < self.log_max()
                    && !(c.leads && c.term >= v.term)
                {
                    actions.push(Action::Elect { candidate, voter });
                }
            }
        }
    }

    fn replication(&self, state: &State, actions: &mut Vec<Action>) {
        for leader in state.up().filter(|node| state.nodes[*node].leads) {
            let l = &state.nodes[leader];
            for follower in state.up().filter(|node| *node != leader) {
                let f = &state.nodes[follower];
                let news = f.log != l.log || f.term != l.term || f.commit < l.commit;
                let hears = f.term <= l.term;
                let counts = l.commit < l.log.len;
                if !hears || news || counts {
                    actions.push(Action::Replicate { leader, follower });
                }
            }
            let is_asked = l.revoking != 0 || state.acknowledged;
            if !is_asked && l.log.len < self.log_max() {
                actions.push(Action::Revoke { leader });
            }
        }
    }

    fn freshness(&self, state: &State, actions: &mut Vec<Action>) {
        let leaders = || state.up().filter(|node| state.nodes[*node].leads);
        if state.questions < self.bounds.questions {
            for node in state.up().filter(|node| !self.is_out(&state.nodes[*node])) {
                actions.extend(
                    leaders()
                        .filter(|leader| state.nodes[node].leads == (*leader == node))
                        .map(|leader| Action::Ask { node, leader }),
                );
            }
        }
        for message in &state.network {
            let (Message::Question { to, .. } | Message::Answer { to, .. }) = *message;
            let node = &state.nodes[to];
            if node.down {
                continue;
            }
            actions.push(match message {
                Message::Question { .. } => Action::Receive { message: *message },
                Message::Answer { .. } => Action::Hear { message: *message },
            });
        }
        for leader in leaders() {
            let pending = state.nodes[leader].pending;
            let hears = |voter: &usize| {
                *voter != leader && state.nodes[*voter].term <= state.nodes[leader].term
            };
            let Some(voter) = state.up().find(hears) else { continue };
            let askers = (0..NODES).filter(|asker| pending[*asker].is_some());
            actions.extend(askers.map(|asker| Action::Confirm { leader, asker, voter }));
        }
    }

    fn acknowledgement(&self, state: &State, actions: &mut Vec<Action>) {
        if state.acknowledged {
            return;
        }
        for leader in state.up() {
            let node = &state.nodes[leader];
            let Some(waiting) = &node.waiting else {
                let others =
                    self.has(Fault::OtherLeadersEntry) && node.revoking != 0 && node.has_revoked();
                if node.has_applied_its_own() || others {
                    actions.push(Action::Wait { node: leader });
                }
                continue;
            };
            let silent = (0..NODES).filter(|node| !waiting.confirmed[*node] && *node != leader);
            actions.extend(silent.map(|node| Action::Confirmed { leader, node }));
            actions.push(Action::Acknowledge { leader });
        }
    }

    /// Step 3 is over: the leader is one, and the answer goes out.
    fn answer(&self, next: &mut State, leader: usize, asker: usize, pending: Pending) {
        let now = next.clock(leader);
        let Pending { asked, index } = pending;
        next.nodes[leader].pending[asker] = None;
        if self.has(Fault::PromiseAfterIndex) {
            let promised = &mut next.nodes[leader].promised[asker];
            *promised = (*promised).max(now + LEASE);
        }
        if asker == leader {
            let until = &mut next.nodes[leader].fresh_until;
            *until = (*until).max(asked + LEASE);
        } else {
            next.send(Message::Answer { to: asker, asked, index });
        }
    }

    /// Steps 2 and 3.
    fn receive(&self, next: &mut State, from: usize, to: usize, asked: u8) -> Option<()> {
        let now = next.clock(to);
        let leader = &mut next.nodes[to];
        // An index can be read once an entry of the leader's own term is committed.
        let may_read = leader
            .log
            .entries()
            .get(usize::from(leader.commit).checked_sub(1)?)
            .is_some_and(|entry| entry & !REVOCATION == leader.term);
        if !leader.leads || !may_read {
            return None;
        }
        if from != to && !self.has(Fault::PromiseAfterIndex) {
            leader.promised[from] = leader.promised[from].max(now + LEASE);
        }
        let pending = Pending { asked, index: leader.commit };
        if self.has(Fault::LeaderNotConfirmed) {
            self.answer(next, to, from, pending);
        } else {
            leader.pending[from] = Some(pending);
        }
        Some(())
    }

    /// Step 4.
    fn hear(&self, next: &mut State, to: usize, asked: u8, index: u8) -> Option<()> {
        let now = next.clock(to);
        let node = &mut next.nodes[to];
        if node.commit < index && !self.has(Fault::FreshBeforeApplied) {
            return None;
        }
        let from = if self.has(Fault::LeaseFromAnswer) { now } else { asked };
        let lease = if self.has(Fault::OwnLease) { 2 * LEASE } else { LEASE };
        let until = node.fresh_until.max(from + lease);
        (until > node.fresh_until).then(|| node.fresh_until = until)
    }

    fn replicate(next: &mut State, leader: usize, follower: usize) {
        let l = next.nodes[leader];
        let f = &mut next.nodes[follower];
        if f.term > l.term {
            let term = f.term;
            return next.nodes[leader].follow(term);
        }
        if f.term < l.term {
            f.follow(l.term);
        }
        f.log = l.log;
        f.commit = f.commit.max(l.commit);
        if l.log.last_term() == l.term {
            next.nodes[leader].commit = l.log.len;
        }
    }

    fn elect(next: &mut State, candidate: usize, voter: usize) {
        let term = next.nodes[candidate].term.max(next.nodes[voter].term) + 1;
        let now = next.clock(candidate);
        next.nodes[voter].follow(term);
        let leader = &mut next.nodes[candidate];
        leader.lead(term, now); // Step 6.
        leader.log.push(term);
    }

    fn crash(next: &mut State, node: usize) {
        let Node { leads, term, log, commit, .. } = next.nodes[node];
        next.nodes[node] = Node { down: true, leads, term, log, commit, ..Node::default() };
        next.crashes += 1;
        next.network.retain(|message| match message {
            Message::Question { from, to, .. } => *from != node && *to != node,
            Message::Answer { to, .. } => *to != node,
        });
        next.took = next.took.filter(|at| *at != node);
    }

    /// Step 5, its beginning: the promises as they stand when the revocation is applied at the leader.
    fn wait(&self, next: &mut State, node: usize) {
        let leader = next.nodes[node];
        let over = std::array::from_fn(|other| self.over(&leader, other));
        let confirmed = std::array::from_fn(|other| other == node);
        next.nodes[node].waiting = Some(Waiting { over, confirmed });
    }

    fn acknowledge(&self, next: &mut State, leader: usize) -> Option<()> {
        let now = next.clock(leader);
        let waiting = next.nodes[leader].waiting?;
        let settled = |node: usize| {
            waiting.confirmed[node]
                || now >= waiting.over[node]
                || self.has(Fault::SilentNodeIgnored)
        };
        (0..NODES).all(settled).then(|| next.acknowledged = true)
    }
}

impl Protocol {
    /// Requests after the acknowledgement, where they would be allowed.
    fn requests(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.acknowledged {
            return;
        }
        for node in state.up() {
            if state.allows(node) {
                actions.push(Action::Request { node });
            }
            if self.has(Fault::RegistryBeforeCheck) && !state.nodes[node].has_revoked() {
                actions.push(Action::Take { node });
            }
        }
        if state.took.is_some_and(|node| state.is_fresh(node)) {
            actions.push(Action::Check);
        }
    }

    /// Whether a node allows nothing for good: it has applied the revocation, and looks at its registry afterwards.
    fn is_out(&self, node: &Node) -> bool {
        node.has_revoked() && !self.has(Fault::RegistryBeforeCheck)
    }

    /// Forgets what has no effect any more, so that states which differ in nothing else are one: leases and promises
    /// that have passed, questions whose answer would be too late, step 5 once it is over, and the freshness of nodes
    /// that have applied the revocation, which allow nothing for good.
    fn forget(&self, state: &mut State) {
        let late =
            |clock: u8, asked: u8| asked + LEASE <= clock && !self.has(Fault::LeaseFromAnswer);
        let clocks: [u8; NODES] = std::array::from_fn(|node| state.clock(node));
        state.network.retain(|message| match *message {
            Message::Question { from: node, asked, .. }
            | Message::Answer { to: node, asked, .. } => !late(clocks[node], asked),
        });
        let revoked: [bool; NODES] = std::array::from_fn(|node| self.is_out(&state.nodes[node]));
        state.network.retain(|message| match *message {
            Message::Question { from: node, .. } | Message::Answer { to: node, .. } => {
                !revoked[node]
            }
        });
        let acknowledged = state.acknowledged;
        for (node, now) in state.nodes.iter_mut().zip(clocks) {
            let passed = |until: u8, over: u8| if over <= now { 0 } else { until };
            node.fresh_until = passed(node.fresh_until, node.fresh_until);
            node.promised = node.promised.map(|until| passed(until, until + MARGIN));
            node.since = passed(node.since, node.since + LEASE + MARGIN);
            if self.is_out(node) {
                node.fresh_until = 0;
            }
            for asker in 0..NODES {
                let (clock, revoked) = (clocks[asker], revoked[asker]);
                let pending = &mut node.pending[asker];
                *pending = pending.filter(|pending| !revoked && !late(clock, pending.asked));
                if revoked {
                    node.promised[asker] = 0;
                }
            }
            if let Some(waiting) = &mut node.waiting {
                waiting.over = waiting.over.map(|over| passed(over, over));
            }
            if acknowledged {
                (node.since, node.promised) = (0, [0; NODES]);
                (node.revoking, node.waiting) = (0, None);
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    /// Node 0 leads, everything is committed everywhere, and nobody is fresh. Nodes 1 and 2 are alike.
    fn init_states(&self) -> Vec<State> {
        let mut log = Log::default();
        log.push(1);
        let node = Node { term: 1, log, commit: 1, ..Node::default() };
        let leader = Node { leads: true, ..node };
        let state = |slow| State {
            time: 0,
            slow,
            nodes: [leader, node, node],
            network: Vec::new(),
            questions: 0,
            crashes: 0,
            acknowledged: false,
            took: None,
            allowed_late: false,
        };
        [None, Some(0), Some(1)].map(state).to_vec()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.allowed_late || state.nodes.iter().all(|node| self.is_out(node)) {
            return; // A fault is found, or nothing can go wrong any more.
        }
        if state.time < self.bounds.ticks {
            actions.push(Action::Tick);
        }
        self.elections(state, actions);
        self.replication(state, actions);
        self.freshness(state, actions);
        self.acknowledgement(state, actions);
        for node in 0..NODES {
            let Node { down, leads, .. } = state.nodes[node];
            if down {
                actions.push(Action::Restart { node, leads });
                if leads {
                    actions.push(Action::Restart { node, leads: false });
                }
            } else if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash { node });
            }
        }
        self.requests(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Tick => next.time += 1,
            Action::Elect { candidate, voter } => Self::elect(&mut next, candidate, voter),
            Action::Replicate { leader, follower } => {
                Self::replicate(&mut next, leader, follower);
            }
            Action::Crash { node } => Self::crash(&mut next, node),
            Action::Restart { node, leads } => {
                let (term, now) = (next.nodes[node].term, next.clock(node));
                next.nodes[node].down = false;
                match leads {
                    true => next.nodes[node].lead(term, now), // Step 6.
                    false => next.nodes[node].follow(term),
                }
            }
            Action::Revoke { leader } => {
                let node = &mut next.nodes[leader];
                node.revoking = node.term;
                node.log.push(REVOCATION | node.term);
            }
            Action::Ask { node, leader } => {
                next.questions += 1;
                let asked = next.clock(node);
                match node == leader {
                    true => self.receive(&mut next, node, node, asked)?,
                    false => next.send(Message::Question { from: node, to: leader, asked }),
                }
            }
            Action::Receive { message: Message::Question { from, to, asked } } => {
                next.network.retain(|message| *message != Message::Question { from, to, asked });
                self.receive(&mut next, from, to, asked)?;
            }
            Action::Hear { message: Message::Answer { to, asked, index } } => {
                self.hear(&mut next, to, asked, index)?;
            }
            Action::Receive { message: Message::Answer { .. } }
            | Action::Hear { message: Message::Question { .. } } => return None,
            Action::Confirm { leader, asker, .. } => {
                let pending = next.nodes[leader].pending[asker]?;
                self.answer(&mut next, leader, asker, pending);
            }
            Action::Wait { node } => self.wait(&mut next, node),
            Action::Confirmed { leader, node } => {
                let index = next.nodes[leader].log.revocation()?;
                let other = &next.nodes[node];
                let known = match self.has(Fault::ConfirmedBeforeApplied) {
                    true => other.log.revocation().is_some(),
                    false => other.commit >= index,
                };
                if other.down || !known {
                    return None;
                }
                next.nodes[leader].waiting.as_mut()?.confirmed[node] = true;
            }
            Action::Acknowledge { leader } => self.acknowledge(&mut next, leader)?,
            Action::Request { .. } | Action::Check => next.allowed_late = true,
            Action::Take { node } => next.took = Some(node),
        }
        self.forget(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(S3, |_, state: &State| !state.allowed_late),
            Property::sometimes(BEFORE, |_, state: &State| {
                !state.acknowledged && state.up().any(|node| state.allows(node))
            }),
            Property::sometimes(ONE_DEAD, |_, state: &State| {
                state.acknowledged && state.nodes.iter().any(|node| node.down)
            }),
        ]
    }
}

/// Searches everything within `bounds`; gives the number of different states.
fn holds(bounds: Bounds) -> usize {
    let start = std::time::Instant::now();
    let checker = Protocol { fault: None, bounds }.checker().threads(2).spawn_bfs().join();
    println!(
        "{bounds:?}: {} states, {} deep, {:.1?}",
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    if let Some(path) = checker.discovery(S3) {
        panic!("{bounds:?}: a request was allowed too late:\n{:#?}", path.into_actions());
    }
    checker.assert_any_discovery(BEFORE);
    if bounds.crashes > 0 {
        checker.assert_any_discovery(ONE_DEAD);
    }
    checker.unique_state_count()
}

const WITH_ELECTION: Bounds = Bounds { ticks: 4, questions: 1, elections: 1, crashes: 0 };

#[test]
fn every_planted_fault_is_found() {
    for (fault, elections) in FAULTS {
        let bounds = Bounds { elections, ..WITH_ELECTION };
        let checker = Protocol { fault: Some(fault), bounds }
            .checker()
            .threads(2)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let path = checker.discovery(S3);
        assert!(path.is_some(), "{fault:?} was not found in {} states", checker.state_count());
        let steps = path.unwrap().into_actions().len();
        println!("{fault:?}: found in {steps} steps, {} states", checker.unique_state_count());
    }
}

#[test]
fn the_protocol_holds_with_leaders_that_change() {
    assert!(holds(WITH_ELECTION) > 500_000);
}

#[test]
fn the_protocol_holds_with_nodes_that_crash() {
    assert!(holds(Bounds { ticks: 4, questions: 2, elections: 0, crashes: 1 }) > 300_000);
}

/// Some ten million states; for changes of the protocol: `cargo test --test revocation_model -- --ignored`.
#[test]
#[ignore = "takes many minutes"]
fn the_protocol_holds_within_wider_bounds() {
    holds(Bounds { ticks: 3, questions: 1, elections: 1, crashes: 1 });
    holds(Bounds { ticks: 4, questions: 2, elections: 1, crashes: 0 });
    holds(Bounds { ticks: 4, questions: 1, elections: 1, crashes: 1 });
}
