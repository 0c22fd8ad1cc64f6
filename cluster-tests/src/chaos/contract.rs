//! S5 and L1 to L3 of the contract, judged from what was watched.

use std::time::{Duration, Instant};

use tonic::Code;

use super::{
    health::Interval,
    watch::{Asked, Seen, Told},
};
use crate::cluster::FAILOVER_LIMIT;

/// L3: how long after it was cut off a node may still serve what it was confirmed for: the lease of the registry
/// (1 s), its margin, and what a busy machine adds between the cut and the note of it.
pub const GRACE: Duration = Duration::from_millis(1_300);

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The promise, such as "L1".
    pub promise: &'static str,
    /// The step in which it was broken.
    pub step: String,
    /// When, since the run began.
    pub at: Duration,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { promise, step, at, what } = self;
        write!(f, "{promise} at {:.1} s ({step}): {what}", at.as_secs_f64())
    }
}

/// What the liveness promises were judged on.
#[derive(Debug, Default)]
pub struct Judged {
    /// Times with a healthy majority that were longer than the limit of L1.
    pub majorities: usize,
    /// By step: the longest time without an acknowledged write while a majority was healthy.
    pub gaps: Vec<(String, Duration)>,
    /// What nodes that were alone answered after the grace.
    pub refusals: Refusals,
    /// By step: how often they refused.
    pub refused: Vec<(String, usize)>,
}

/// What clients of nodes that were alone were told, all of it as promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// UNAVAILABLE.
    pub unavailable: usize,
    /// DEADLINE_EXCEEDED, by the node itself.
    pub deadline: usize,
    /// Calls whose deadline passed on the client's side before an answer came.
    pub too_late: usize,
    /// Calls whose connection failed. They say nothing of the node's refusals.
    pub broken: usize,
}

impl Refusals {
    /// How often a node itself refused.
    #[must_use]
    pub fn told(&self) -> usize {
        self.unavailable + self.deadline
    }

    fn add(&mut self, other: Self) {
        self.unavailable += other.unavailable;
        self.deadline += other.deadline;
        self.too_late += other.too_late;
        self.broken += other.broken;
    }
}

impl std::fmt::Display for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unavailable, deadline, too_late, broken } = self;
        write!(
            f,
            "{unavailable} times UNAVAILABLE and {deadline} times DEADLINE_EXCEEDED from nodes that were alone, \
             {too_late} deadlines that passed before an answer, {broken} connections that failed"
        )
    }
}

/// Judges the intervals of a run that began at `began`; L1 is broken at `patience` times its limit.
#[must_use]
pub fn judge(
    intervals: &[Interval],
    seen: &Seen,
    began: Instant,
    patience: u32,
) -> (Judged, Vec<Violation>) {
    let (mut judged, mut violations) = (Judged::default(), Vec::new());
    let mut acknowledged: Vec<(Instant, usize)> = {
        let writes = seen.writes.lock();
        let served = writes.iter().filter(|write| write.told == Told::Served);
        served.map(|write| (write.end, write.node)).collect()
    };
    acknowledged.sort_unstable();
    for run in runs(intervals, |interval| interval.health.majority()) {
        if run.nodes.is_empty() {
            continue;
        }
        let gap = longest_gap(&acknowledged, &run);
        judged.majorities += usize::from(run.to - run.from > FAILOVER_LIMIT);
        judged.gaps.push((run.step.clone(), gap));
        if gap > FAILOVER_LIMIT * patience {
            let who: Vec<_> = run.nodes.iter().map(|node| format!("n{}", node + 1)).collect();
            violations.push(Violation {
                promise: "L1",
                step: run.step.clone(),
                at: run.from - began,
                what: format!("no write succeeded for {gap:?} with the majority {who:?} healthy"),
            });
        }
    }
    for run in runs(intervals, |interval| interval.health.isolated()) {
        let refusals = alone(&run, seen, began, &mut violations);
        judged.refusals.add(refusals);
        judged.refused.push((run.step, refusals.told()));
    }
    let (_, differ) = seen.states();
    violations.extend(differ.into_iter().map(|(at, what)| {
        let during = intervals.iter().rev().find(|interval| interval.from <= at);
        let step = during.map(|interval| interval.step.clone()).unwrap_or_default();
        Violation { promise: "S5", step, at: at - began, what }
    }));
    (judged, violations)
}

/// Intervals in a row in which the same nodes have something in common.
struct Run {
    from: Instant,
    to: Instant,
    nodes: Vec<usize>,
    step: String,
}

fn runs(intervals: &[Interval], of: impl Fn(&Interval) -> Vec<usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for interval in intervals {
        let nodes = of(interval);
        match runs.last_mut() {
            Some(last) if last.nodes == nodes && last.step == interval.step => {
                last.to = interval.to
            }
            Some(_) | None => runs.push(Run {
                from: interval.from,
                to: interval.to,
                nodes,
                step: interval.step.clone(),
            }),
        }
    }
    runs
}

/// The longest time within the run without an acknowledgement of its nodes, its beginning and end included.
fn longest_gap(acknowledged: &[(Instant, usize)], run: &Run) -> Duration {
    let first = acknowledged.partition_point(|(at, _)| *at < run.from);
    let within = acknowledged[first..].iter().take_while(|(at, _)| *at <= run.to);
    let mut last = run.from;
    let mut gap = Duration::ZERO;
    for (at, _) in within.filter(|(_, node)| run.nodes.contains(node)) {
        gap = gap.max(*at - last);
        last = *at;
    }
    gap.max(run.to - last)
}

/// L3 for the nodes that are alone in this run: they refuse with one of two codes, and in time; whatever else they do is
/// a violation.
fn alone(run: &Run, seen: &Seen, began: Instant, violations: &mut Vec<Violation>) -> Refusals {
    let mut refusals = Refusals::default();
    let mut broken = |asked: &Asked, what: String| {
        violations.push(Violation {
            promise: "L3",
            step: run.step.clone(),
            at: asked.start - began,
            what: format!("n{}, {}: {what}", asked.node + 1, asked.call.name()),
        });
    };
    let (writes, probes) = (seen.writes.lock(), seen.probes.lock());
    for asked in writes.iter().chain(probes.iter()) {
        let is_of_run = run.nodes.contains(&asked.node) && asked.start >= run.from + GRACE;
        // What began while it was alone may be served once it is not.
        if !is_of_run || asked.end > run.to {
            continue;
        }
        match asked.told {
            Told::Served => {
                broken(
                    asked,
                    format!("served {:.2?} after it was cut off", asked.start - run.from),
                );
            }
            Told::Nothing => broken(asked, format!("no answer in {:?}", asked.end - asked.start)),
            Told::Refused(Code::Unavailable) => refusals.unavailable += 1,
            Told::Refused(Code::DeadlineExceeded) => refusals.deadline += 1,
            Told::Refused(code) => broken(asked, format!("refused with {code:?}")),
            Told::TooLate => refusals.too_late += 1,
            Told::Broken => refusals.broken += 1,
        }
    }
    refusals
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        chaos::{fault::Action, health::Health},
        net::Fate,
        probes::Call,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// n1 is cut off for `seconds`; `served` are the seconds in which nodes served, with the node.
    fn check(seconds: u32, served: &[(u32, usize)], promises: &[&str]) {
        let told: Vec<_> = served.iter().map(|(at, node)| (*at, *node, Told::Served)).collect();
        let (_, broken) = judged(seconds, &told);
        assert_eq!(broken, promises, "{seconds} s, {served:?}");
    }

    /// n1 is cut off for `seconds`; `told` is what clients were told, in which second and by which node.
    fn judged(seconds: u32, told: &[(u32, usize, Told)]) -> (Refusals, Vec<&'static str>) {
        let began = Instant::now();
        let mut health = Health::of(&[0, 1, 2]);
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            health.after(&Action::Impair(from, to, Fate::Drop));
        }
        let interval =
            Interval { from: began, to: began + seconds * SECOND, health, step: "x".into() };
        let seen = Seen::default();
        for &(second, node, told) in told {
            let start = began + second * SECOND;
            let (end, call) = (start + SECOND / 10, Call::Write);
            seen.writes.lock().push(Asked { node, start, end, told, call });
        }
        let (judged, violations) = judge(&[interval], &seen, began, 1);
        let broken = violations.iter().map(|violation| violation.promise).collect();
        (judged.refusals, broken)
    }

    #[test]
    fn silence_of_a_majority_and_service_of_one_that_is_alone_are_seen() {
        check(3, &[], &[]);
        check(5, &[], &["L1"]);
        check(5, &[(2, 1), (4, 2)], &[]);
        check(9, &[(2, 1), (3, 2), (8, 1)], &["L1"]);
        check(5, &[(1, 0), (2, 1)], &[]); // Within the grace.
        check(5, &[(2, 1), (3, 0)], &["L3"]);
        check(5, &[(3, 0)], &["L1", "L3"]); // Its writes are no writes of the majority.
    }

    #[test]
    fn who_is_alone_may_refuse_with_two_codes_and_must_answer() {
        let check = |told: Told, refusals: Refusals, promises: &[&str]| {
            let seen = judged(3, &[(1, 1, Told::Served), (2, 0, told)]);
            assert_eq!(seen, (refusals, promises.to_vec()), "{told:?}");
        };
        let none = Refusals::default();
        check(Told::Refused(Code::Unavailable), Refusals { unavailable: 1, ..none }, &[]);
        check(Told::Refused(Code::DeadlineExceeded), Refusals { deadline: 1, ..none }, &[]);
        check(Told::TooLate, Refusals { too_late: 1, ..none }, &[]);
        check(Told::Broken, Refusals { broken: 1, ..none }, &[]);
        check(Told::Refused(Code::Internal), none, &["L3"]);
        check(Told::Refused(Code::PermissionDenied), none, &["L3"]);
        check(Told::Nothing, none, &["L3"]);
        check(Told::Served, none, &["L3"]);
        // A write that failed is none that succeeded.
        assert_eq!(judged(5, &[(2, 1, Told::Refused(Code::Unavailable))]).1, ["L1"]);
    }

    #[test]
    fn states_that_differ_at_one_index_are_seen() {
        let seen = Seen::default();
        seen.note_for_tests(0, (1, 7), "a");
        seen.note_for_tests(1, (1, 7), "a");
        seen.note_for_tests(1, (1, 8), "b");
        assert_eq!(judge(&[], &seen, Instant::now(), 1).1.len(), 0);
        seen.note_for_tests(2, (1, 8), "c");
        let (_, violations) = judge(&[], &seen, Instant::now(), 1);
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].promise, "S5");
    }
}
