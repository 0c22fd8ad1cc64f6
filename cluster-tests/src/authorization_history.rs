//! The exact checker of authorization histories: could these decisions have come from a permission with these versions?
//!
//! One history is about one right of one certificate. Its **versions** stand in the order in which one administrator
//! made them, each with the moment it was asked for and the moment it was acknowledged. **Requests** come from anywhere.
//! A version explains a request if
//! 1. it had been asked for when the request ended,
//! 2. no later version had been acknowledged when the request started,
//! 3. it allows what was allowed, and denies what was denied, and
//! 4. on the same node no earlier request was explained by a later version: a node's registry never goes back.
//!
//! Between nodes nothing is promised before the acknowledgement, so rule 4 holds for each node by itself.
//!
//! The sweep goes through the moments of one node in order and gives each request the **earliest** version that explains
//! it. All rules but the first are lower bounds, so an earlier choice never harms a later request, and the answer is
//! exact. A brute-force search over random histories agrees with it in the tests.

use std::{collections::BTreeMap, fmt, time::Duration};

/// A moment, since the history began.
pub type Moment = Duration;

/// How near to an acknowledgement a request is of interest.
pub const NEAR: Duration = Duration::from_millis(100);

/// A grant is acknowledged after a short wait for all nodes; a silent one may go on denying until its registry is not
/// fresh any more (a second by default) and it asks. Nothing is promised sooner, so denials count as late only afterwards.
pub const GRANT_LAG: Duration = Duration::from_millis(1_500);

/// A version of the permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// When it was asked for.
    pub invoked: Moment,
    /// When it was acknowledged; `None`: never.
    pub acknowledged: Option<Moment>,
    /// Whether it allows the request.
    pub allows: bool,
}

/// One decided request. Requests without a decision (no answer, node not ready) are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The node that decided.
    pub node: usize,
    /// Before it was sent.
    pub start: Moment,
    /// After the answer came; [`Moment::MAX`] for a write whose answer never came and whose effect was seen.
    pub end: Moment,
    /// What was decided.
    pub allowed: bool,
}

/// What a history that holds has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Decided requests.
    pub requests: usize,
    /// Versions that took the right away and were acknowledged.
    pub revocations: usize,
    /// Requests that started within [`NEAR`] after such an acknowledgement.
    pub near: usize,
}

impl Coverage {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            revocations: self.revocations + other.revocations,
            near: self.near + other.near,
        }
    }
}

/// A request that no version explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The request.
    pub request: Request,
    /// The first version that could explain it by rules 2 and 4.
    pub from: usize,
    /// The last one by rule 1.
    pub to: usize,
    /// When the version that rules out the earlier ones was acknowledged, where rule 2 did.
    pub acknowledged: Option<Moment>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, from, to, acknowledged } = self;
        let decided = if request.allowed { "allowed" } else { "denied" };
        let (node, start, end) = (request.node + 1, request.start, request.end);
        write!(
            f,
            "n{node} {decided} a request of {start:.1?} to {end:.1?}, which none of the versions {from} to {to} does"
        )?;
        match acknowledged {
            Some(at) => write!(
                f,
                "; version {from} was acknowledged {:.1?} before",
                start.saturating_sub(*at)
            ),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Violation {}

/// The versions, and for each one the next that allows and the next that denies.
struct Versions<'a> {
    versions: &'a [Version],
    next: Vec<[usize; 2]>,
}

impl<'a> Versions<'a> {
    fn new(versions: &'a [Version]) -> Self {
        let none = versions.len();
        let mut next = vec![[none; 2]; none + 1];
        for (at, version) in versions.iter().enumerate().rev() {
            next[at] = next[at + 1];
            next[at][usize::from(version.allows)] = at;
        }
        Self { versions, next }
    }

    /// Rule 1: the last version that was asked for before `end`.
    fn last_asked_for(&self, end: Moment) -> usize {
        self.versions.partition_point(|version| version.invoked < end).saturating_sub(1)
    }
}

/// At equal moments nothing counts as before: starts are looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Start(usize),
    Acknowledged(usize),
    End(usize),
}

/// Checks one history. The first version stands from the beginning: asked for and acknowledged at zero.
///
/// # Errors
/// The first request, by its start, that no version explains.
pub fn check(versions: &[Version], requests: &[Request]) -> Result<Coverage, Violation> {
    let versions = Versions::new(versions);
    let mut of_node: BTreeMap<usize, Vec<Request>> = BTreeMap::new();
    for request in requests {
        of_node.entry(request.node).or_default().push(*request);
    }
    for requests in of_node.values() {
        sweep(&versions, requests)?;
    }
    Ok(coverage(versions.versions, requests))
}

/// [`check`] without rule 4, for requests that more than one node decides: writes, which the leader decides again, and
/// reads that are forwarded. Another request may come to another node.
///
/// # Errors
/// The first request that no version explains.
pub fn check_apart(versions: &[Version], requests: &[Request]) -> Result<Coverage, Violation> {
    let known = Versions::new(versions);
    let mut acknowledged: Vec<(Moment, usize)> = (0..)
        .zip(versions)
        .filter_map(|(at, version)| version.acknowledged.map(|moment| (moment, at)))
        .collect();
    acknowledged.sort_unstable();
    let mut last = 0;
    for (_, at) in &mut acknowledged {
        last = last.max(*at);
        *at = last;
    }
    for request in requests {
        let before = acknowledged.partition_point(|(moment, _)| *moment < request.start);
        let from = before.checked_sub(1).map_or(0, |at| acknowledged[at].1);
        let to = known.last_asked_for(request.end);
        if known.next[from][usize::from(request.allowed)] > to {
            let acknowledged = versions[from].acknowledged;
            return Err(Violation { request: *request, from, to, acknowledged });
        }
    }
    Ok(coverage(versions, requests))
}

fn sweep(versions: &Versions<'_>, requests: &[Request]) -> Result<(), Violation> {
    let acknowledgements = versions.versions.iter().enumerate().filter_map(|(at, version)| {
        version.acknowledged.map(|moment| (moment, Event::Acknowledged(at)))
    });
    let mut events: Vec<(Moment, Event)> = acknowledgements.collect();
    for (at, request) in requests.iter().enumerate() {
        events.push((request.start, Event::Start(at)));
        events.push((request.end, Event::End(at)));
    }
    events.sort_unstable();
    let (mut acknowledged, mut floor) = (0, 0);
    let mut explained_by = vec![0; requests.len()];
    for (_, event) in events {
        match event {
            Event::Acknowledged(at) => acknowledged = acknowledged.max(at),
            Event::End(at) => floor = floor.max(explained_by[at]),
            Event::Start(at) => {
                let request = requests[at];
                let from = floor.max(acknowledged);
                let to = versions.last_asked_for(request.end);
                let chosen = versions.next[from][usize::from(request.allowed)];
                if chosen > to {
                    let by_rule_2 = acknowledged == from;
                    let moment = versions.versions[from].acknowledged.filter(|_| by_rule_2);
                    return Err(Violation { request, from, to, acknowledged: moment });
                }
                explained_by[at] = chosen;
            }
        }
    }
    Ok(())
}

fn coverage(versions: &[Version], requests: &[Request]) -> Coverage {
    let mut revocations: Vec<Moment> = versions
        .windows(2)
        .filter(|pair| pair[0].allows && !pair[1].allows)
        .filter_map(|pair| pair[1].acknowledged)
        .collect();
    revocations.sort_unstable();
    let is_near = |request: &&Request| {
        let before = revocations.partition_point(|moment| *moment < request.start);
        before > 0 && request.start - revocations[before - 1] <= NEAR
    };
    Coverage {
        requests: requests.len(),
        revocations: revocations.len(),
        near: requests.iter().filter(is_near).count(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ms(moment: u64) -> Moment {
        Duration::from_millis(moment)
    }

    /// `(asked for, acknowledged, allows)`; acknowledged at 0 but for the first: never.
    fn versions(all: &[(u64, u64, bool)]) -> Vec<Version> {
        let version = |(at, (invoked, acknowledged, allows)): (usize, &(u64, u64, bool))| Version {
            invoked: ms(*invoked),
            acknowledged: (at == 0 || *acknowledged > 0).then(|| ms(*acknowledged)),
            allows: *allows,
        };
        all.iter().enumerate().map(version).collect()
    }

    /// `(node, start, end, allowed)`.
    fn requests(all: &[(usize, u64, u64, bool)]) -> Vec<Request> {
        let request = |(node, start, end, allowed): &(usize, u64, u64, bool)| Request {
            node: *node,
            start: ms(*start),
            end: ms(*end),
            allowed: *allowed,
        };
        all.iter().map(request).collect()
    }

    #[test]
    fn each_kind_of_violation_is_caught_and_nothing_else() {
        type History<'a> = (&'a str, bool, &'a [(u64, u64, bool)], &'a [(usize, u64, u64, bool)]);
        let revoked: &[_] = &[(0, 0, true), (100, 200, false)];
        let granted: &[_] = &[(0, 0, false), (100, 200, true)];
        let twice: &[_] = &[(0, 0, true), (100, 200, false), (300, 400, true)];
        let unknown: &[_] = &[(0, 0, true), (100, 0, false)];
        let table: &[History<'_>] = &[
            (
                "allowed before, denied after",
                true,
                revoked,
                &[(0, 10, 20, true), (0, 210, 220, false)],
            ),
            ("allowed after the acknowledgement", false, revoked, &[(0, 201, 220, true)]),
            ("allowed, started at the acknowledgement", true, revoked, &[(0, 200, 220, true)]),
            ("allowed, started before and ended after", true, revoked, &[(0, 199, 500, true)]),
            ("denied before it was asked for", false, revoked, &[(0, 10, 20, false)]),
            ("denied while it was under way", true, revoked, &[(0, 90, 101, false)]),
            ("a node goes back", false, revoked, &[(0, 110, 120, false), (0, 130, 140, true)]),
            (
                "overlapping requests go either way",
                true,
                revoked,
                &[(0, 110, 140, false), (0, 130, 150, true)],
            ),
            (
                "two nodes differ while it is under way",
                true,
                revoked,
                &[(0, 110, 120, false), (1, 130, 140, true)],
            ),
            ("denied after the grant was acknowledged", false, granted, &[(0, 201, 210, false)]),
            ("allowed before the grant was asked for", false, granted, &[(0, 50, 60, true)]),
            ("allowed between the revocation and the grant", false, twice, &[(0, 210, 290, true)]),
            ("allowed again once the grant is asked for", true, twice, &[(0, 210, 301, true)]),
            ("a revocation without an answer, either way", true, unknown, &[(0, 900, 910, true)]),
            ("and then back", false, unknown, &[(0, 900, 910, false), (0, 920, 930, true)]),
            (
                "a write seen later counts from its start",
                false,
                revoked,
                &[(2, 250, 9_000_000, true)],
            ),
        ];
        for (what, holds, of, made) in table {
            let checked = check(&versions(of), &requests(made));
            assert_eq!(checked.is_ok(), *holds, "{what}: {checked:?}");
        }
    }

    #[test]
    fn without_an_order_each_request_is_explained_by_itself() {
        let mut dice = Dice(20_261_122);
        let (mut legal, mut illegal) = (0, 0);
        for round in 0..30_000 {
            let (versions, mut requests) = random_history(&mut dice);
            // One node for each request: rule 4 has nothing to order.
            for (at, request) in requests.iter_mut().enumerate() {
                request.node = at;
            }
            let apart = check_apart(&versions, &requests).is_ok();
            let by_sweep = check(&versions, &requests).is_ok();
            assert_eq!(apart, by_sweep, "round {round}\n{versions:?}\n{requests:?}");
            *(if apart { &mut legal } else { &mut illegal }) += 1;
        }
        assert!(legal > 5_000 && illegal > 5_000, "{legal} legal, {illegal} illegal");
    }

    #[test]
    fn coverage_counts_what_came_right_after_a_revocation() {
        let made = requests(&[
            (0, 150, 160, false),
            (0, 210, 220, false),
            (1, 290, 299, false),
            (0, 301, 320, false),
        ]);
        let covered = check(&versions(&[(0, 0, true), (100, 200, false)]), &made).unwrap();
        assert_eq!(covered, Coverage { requests: 4, revocations: 1, near: 2 });
    }

    /// Tries every way to explain the requests.
    fn brute_force(versions: &[Version], requests: &[Request]) -> bool {
        fn explains(versions: &[Version], request: &Request, at: usize) -> bool {
            let later = &versions[at + 1..];
            versions[at].allows == request.allowed
                && (at == 0 || versions[at].invoked < request.end)
                && !later
                    .iter()
                    .any(|v| v.acknowledged.is_some_and(|moment| moment < request.start))
        }
        fn search(versions: &[Version], requests: &[Request], chosen: &mut Vec<usize>) -> bool {
            let Some(request) = requests.get(chosen.len()) else { return true };
            for at in 0..versions.len() {
                let in_order = requests.iter().zip(chosen.iter()).all(|(other, choice)| {
                    let same = other.node == request.node;
                    (!same || other.end >= request.start || *choice <= at)
                        && (!same || request.end >= other.start || at <= *choice)
                });
                if !in_order || !explains(versions, request, at) {
                    continue;
                }
                chosen.push(at);
                if search(versions, requests, chosen) {
                    return true;
                }
                chosen.pop();
            }
            false
        }
        search(versions, requests, &mut Vec::new())
    }

    /// xorshift64*: small, and the same everywhere.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
        }
    }

    fn random_history(dice: &mut Dice) -> (Vec<Version>, Vec<Request>) {
        let mut now = 0;
        let mut made = vec![(0, 0, dice.below(2) == 0)];
        for _ in 0..dice.below(4) {
            let invoked = now + dice.below(4);
            let acknowledged = invoked + 1 + dice.below(4);
            let unknown = dice.below(5) == 0;
            made.push((invoked, if unknown { 0 } else { acknowledged }, dice.below(2) == 0));
            now = acknowledged;
        }
        let request = |dice: &mut Dice| {
            let start = dice.below(now + 4);
            (dice.below(2) as usize, start, start + 1 + dice.below(4), dice.below(2) == 0)
        };
        let asked: Vec<_> = (0..dice.below(5)).map(|_| request(dice)).collect();
        (versions(&made), requests(&asked))
    }

    #[test]
    fn the_sweep_agrees_with_brute_force() {
        let seed = std::env::var("AUTHZ_SEED").map_or(20_261_122, |seed| seed.parse().unwrap());
        let mut dice = Dice(seed | 1);
        let (mut legal, mut illegal) = (0, 0);
        for round in 0..30_000 {
            let (versions, requests) = random_history(&mut dice);
            let swept = check(&versions, &requests);
            let found = brute_force(&versions, &requests);
            assert_eq!(
                swept.is_ok(),
                found,
                "AUTHZ_SEED={seed}, round {round}: {swept:?}\n{versions:?}\n{requests:?}"
            );
            *(if found { &mut legal } else { &mut illegal }) += 1;
        }
        assert!(legal > 5_000 && illegal > 5_000, "{legal} legal, {illegal} illegal");
    }
}
