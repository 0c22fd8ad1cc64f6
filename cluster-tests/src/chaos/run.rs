//! One run: a cluster, clients, the schedule's steps, and the judgement.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    arena::{Arena, MEMBERS},
    contract::{self, Violation},
    effects::is_every_kind,
    fault::{Kind, actions},
    health::{Health, Interval},
    report::{Gate, Report, Totals},
    schedule::{Schedule, Step},
    watch::{Watch, all_ready},
    work::{BRIEF_PACE, PACE, Work},
};
use crate::cluster::HEAL_LIMIT;

/// Warnings tell of faults, and faults there are; they are counted in the report. Errors and panics are violations.
const EXPECTED_IN_LOGS: &str = " WARN ";
/// What a full run must have seen a minute: 200,000 operations on documents, as many decisions and 2,000 revocations in
/// 15 minutes.
const FULL: Rates = Rates { documents: 13_334, decisions: 13_334, revocations: 134 };
/// The same of a run with some kinds of faults alone, which may leave little time to work, or on a machine that does
/// other things, such as a test.
const BRIEF: Rates = Rates { documents: 1_250, decisions: 1_250, revocations: 30 };

/// So much a minute.
struct Rates {
    documents: u64,
    decisions: u64,
    revocations: u64,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Every kind of fault once, each as short as it allows.
    Once,
    /// Until so much time has passed.
    For(Duration),
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the schedule.
    pub seed: u64,
    /// How long.
    pub length: Length,
    /// The kinds of faults.
    pub kinds: Vec<Kind>,
    /// How many times the limits of L1 and L2 a step may take: 1 is the contract; more is for machines that others use
    /// too, where nothing but the figures in the report can be compared.
    pub patience: u32,
    /// Told of each step as it begins and ends.
    pub tell: fn(&str),
}

impl Plan {
    /// Whether every kind of fault comes, and not only as briefly as it can: then everything that is judged must have
    /// been seen. A run that gives each kind its shortest time cannot answer for nodes that are alone long enough, nor
    /// for followers that are away long enough to need a snapshot.
    fn is_full(&self) -> bool {
        match self.length {
            Length::Once => false,
            Length::For(_) => is_every_kind(&self.kinds),
        }
    }
}

/// Runs a plan from the first process to the report.
///
/// # Errors
/// The harness failed: nothing is known then.
pub async fn run(plan: &Plan) -> Result<Report> {
    let mut arena = Arena::start().await.context("starting the cluster")?;
    arena.cluster.expect_in_logs(EXPECTED_IN_LOGS);
    let (kinds, not_run) = possible(plan, &arena);
    let watch = Watch::start(&arena).await?;
    let pace = match plan.length {
        Length::Once => BRIEF_PACE,
        Length::For(_) => PACE,
    };
    let clocks_jump = kinds.iter().any(|kind| kind.sets_clocks());
    let work = Work::start(&arena, plan.seed, pace, clocks_jump).await?;
    let mut run = Run {
        plan,
        began: Instant::now(),
        health: Health::of(&(0..MEMBERS).collect::<Vec<_>>()),
        since: Instant::now(),
        intervals: Vec::new(),
        report: Report { seed: plan.seed, not_run, ..Report::default() },
        lost: false,
        arena,
        work,
    };
    run.report.rows = kinds.iter().map(|kind| (*kind, Default::default())).collect();
    let steps = match plan.length {
        Length::Once => kinds.len(),
        Length::For(_) => usize::MAX,
    };
    for step in Schedule::new(plan.seed, &kinds, plan.length == Length::Once).take(steps) {
        let over = matches!(plan.length, Length::For(limit) if run.began.elapsed() >= limit);
        // Where nodes do not come back, the steps that follow would only say so again.
        if over || run.lost {
            break;
        }
        run.step(&step).await.with_context(|| format!("step {}", step.name()))?;
    }
    run.finish(watch).await
}

/// The kinds that this machine can inject, and those that it cannot, with the reason.
fn possible(plan: &Plan, arena: &Arena) -> (Vec<Kind>, Vec<(Kind, String)>) {
    let loss = arena.network().loses_by_chance().err().map(|why| format!("{why:#}"));
    let why_not = |kind: &Kind| {
        if *kind == Kind::Loss {
            loss.clone()
        } else if kind.sets_clocks() {
            arena.no_clocks.clone()
        } else {
            None
        }
    };
    let mut kinds = Vec::new();
    let mut not_run = Vec::new();
    for kind in &plan.kinds {
        match why_not(kind) {
            None => kinds.push(*kind),
            Some(why) => not_run.push((*kind, why)),
        }
    }
    (kinds, not_run)
}

struct Run<'a> {
    plan: &'a Plan,
    began: Instant,
    health: Health,
    /// Since when the health is what it is.
    since: Instant,
    intervals: Vec<Interval>,
    report: Report,
    /// A node never came back.
    lost: bool,
    work: Work,
    // Last: processes and network end after everything that speaks to them.
    arena: Arena,
}

impl Run<'_> {
    /// Faults, healing, readiness, calm.
    async fn step(&mut self, step: &Step) -> Result<()> {
        let name = step.name();
        let (began, before) = (Instant::now(), self.work.counts());
        self.work.mode(&name);
        self.inject(step, &name).await?;
        self.close_interval(&name);
        self.health.healing();
        self.arena.heal().await?;
        let healed = Instant::now();
        let ready = all_ready(&self.arena, healed).await?;
        self.close_interval(&name);
        self.note_deaths(&name);
        if let Some(took) = ready.after {
            self.note_recovery(step, took);
        }
        self.lost = ready.after.is_none();
        if ready.after.is_none_or(|took| took > HEAL_LIMIT * self.plan.patience) {
            let what = format!(
                "all nodes were ready after {:?}:\n{}",
                ready.after,
                ready.notes.join("\n")
            );
            self.violated("L2", &name, what);
        }
        self.arena.remove_spare().await?;
        self.close_interval(&name);
        self.health.healed();
        self.work.mode("healthy");
        let after = self.work.counts();
        for fault in &step.faults {
            let row = self.report.rows.entry(fault.kind).or_default();
            row.injected += 1;
            row.operations += after.operations - before.operations;
            row.changes += after.changes - before.changes;
        }
        (self.plan.tell)(&format!(
            "{:7.1} s  {name}: {:.1} s, {} operations on documents, {} changes of rights",
            (began - self.began).as_secs_f64(),
            began.elapsed().as_secs_f64(),
            after.operations - before.operations,
            after.changes - before.changes,
        ));
        tokio::time::sleep(Duration::from_millis(step.calm_ms)).await;
        self.close_interval("calm");
        self.note_deaths("calm");
        Ok(())
    }

    /// Carries out what the step's faults do, in order of time.
    async fn inject(&mut self, step: &Step, name: &str) -> Result<()> {
        let mut timed = Vec::new();
        for planned in &step.faults {
            let cast = self.arena.cast(planned.group).await?;
            timed.extend(actions(planned, &cast, &mut StdRng::seed_from_u64(planned.seed)));
        }
        timed.sort_by_key(|(at, _)| *at);
        let began = Instant::now();
        for (at, action) in timed {
            tokio::time::sleep_until((began + Duration::from_millis(at)).into()).await;
            self.close_interval(name);
            // What it ends is over when it begins, what it brings about when it is done.
            self.health.after(&action);
            self.arena.act(&action).await.with_context(|| format!("{action:?}"))?;
            self.since = Instant::now();
        }
        tokio::time::sleep_until((began + Duration::from_millis(step.ends_ms())).into()).await;
        Ok(())
    }

    fn close_interval(&mut self, step: &str) {
        let (from, to) = (self.since, Instant::now());
        self.since = to;
        let (health, step) = (self.health.clone(), step.to_owned());
        self.intervals.push(Interval { from, to, health, step });
    }

    fn note_recovery(&mut self, step: &Step, took: Duration) {
        for fault in &step.faults {
            self.report.rows.entry(fault.kind).or_default().recoveries.push(took);
        }
    }

    /// Every node is started again, so one that ended by itself would go unnoticed.
    fn note_deaths(&mut self, step: &str) {
        for what in self.arena.take_deaths() {
            self.violated("processes", step, what);
        }
    }

    fn violated(&mut self, promise: &'static str, step: &str, what: String) {
        let (step, at) = (step.to_owned(), self.began.elapsed());
        (self.plan.tell)(&format!("VIOLATION {promise} ({step}): {what}"));
        self.report.violations.push(Violation { promise, step, at, what });
    }

    /// Ends the clients, reads everything back, compares states and logs, and judges.
    async fn finish(self, watch: Watch) -> Result<Report> {
        let Self { plan, began, intervals, mut report, work, mut arena, .. } = self;
        report.took = began.elapsed();
        let seen = watch.finish().await?;
        let (judged, violations) = contract::judge(&intervals, &seen, began, plan.patience);
        report.violations.extend(violations);
        let verdict = work.finish(&arena).await.context("the final reads")?;
        let (compared, _) = seen.states();
        report.totals = Totals {
            majorities: judged.majorities as u64,
            refusals: judged.refusals.told() as u64,
            states: compared,
            ..verdict.totals
        };
        report.coverage.push(format!("L3: {}", judged.refusals));
        report.rejected.extend(verdict.rejected);
        report.coverage.extend(verdict.coverage);
        let mut broken = |promise, what| {
            let (step, at) = ("in the end".to_owned(), began.elapsed());
            report.violations.push(Violation { promise, step, at, what });
        };
        verdict.violations.into_iter().for_each(|(promise, what)| broken(promise, what));
        arena.take_deaths().into_iter().for_each(|what| broken("processes", what));
        if let Err(why) = arena.cluster.same_state().await {
            broken("S5", format!("{why:#}"));
        }
        report.coverage.extend(warnings(&arena));
        let effects = arena.effects();
        report.coverage.push(effects.text());
        report.rejected.extend(effects.lacks(plan.is_full()));
        let kept = keep_logs(&arena, plan.seed);
        if let Err(why) = arena.finish().await {
            broken("logs", format!("{why:#}"));
        }
        if report.violations.is_empty() {
            // Nobody will look at them.
            let _ = std::fs::remove_dir_all(&kept);
        } else {
            let kept = kept.display();
            report.coverage.push(format!("the logs of the nodes are kept in {kept}"));
        }
        attribute(&mut report, judged);
        report.hold_to(gate(plan, report.took));
        Ok(report)
    }
}

/// The warnings of all nodes, by their beginning, and how often each came.
fn warnings(arena: &Arena) -> Vec<String> {
    let mut warnings: BTreeMap<String, usize> = BTreeMap::new();
    for node in &arena.cluster.nodes {
        let log = std::fs::read(node.log()).unwrap_or_default();
        for line in String::from_utf8_lossy(&log).lines() {
            let Some((_, said)) = line.split_once(EXPECTED_IN_LOGS) else { continue };
            let words: String = said.chars().filter(|letter| !letter.is_ascii_digit()).collect();
            *warnings.entry(words.chars().take(120).collect()).or_default() += 1;
        }
    }
    let mut lines: Vec<_> =
        warnings.into_iter().map(|(said, often)| format!("logged {often} times: {said}")).collect();
    lines.truncate(20);
    lines
}

/// Copies the logs of the nodes to where they outlive the cluster.
fn keep_logs(arena: &Arena, seed: u64) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rookery-chaos-{seed}"));
    let _ = std::fs::create_dir_all(&folder); // Then the copies fail too, and the folder is seen to be missing.
    for node in &arena.cluster.nodes {
        let _ = std::fs::copy(node.log(), folder.join(format!("{}.log", node.name)));
    }
    folder
}

/// Gives figures of steps to the rows of their kinds.
fn attribute(report: &mut Report, judged: contract::Judged) {
    let is_of = |step: &str, kind: &Kind| step.split(" + ").any(|name| name == kind.name());
    for (kind, row) in &mut report.rows {
        row.gaps.extend(judged.gaps.iter().filter(|(step, _)| is_of(step, kind)).map(|of| of.1));
        let refused = judged.refused.iter().filter(|(step, _)| is_of(step, kind));
        row.refusals += refused.map(|of| of.1).sum::<usize>();
        row.violations +=
            report.violations.iter().filter(|violation| is_of(&violation.step, kind)).count();
    }
}

fn gate(plan: &Plan, took: Duration) -> Gate {
    let full = plan.is_full();
    let rates = if full { FULL } else { BRIEF };
    let part = |a_minute: u64| a_minute * took.as_secs() / 60;
    let any = u64::from(full);
    let totals = Totals {
        documents: part(rates.documents),
        decisions: part(rates.decisions),
        revocations: part(rates.revocations),
        majorities: any,
        refusals: any,
        states: any,
    };
    let operations_each = match plan.length {
        Length::Once => 10,
        Length::For(_) => 50,
    };
    Gate { totals, operations_each, changes_each: any }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_run_is_held_to_more_than_a_short_one_and_one_with_some_kinds() {
        let quarter = Duration::from_mins(15);
        let of = |length, kinds: &[Kind]| {
            let plan = Plan { seed: 1, length, kinds: kinds.to_vec(), patience: 1, tell: |_| {} };
            let Gate { totals, operations_each, changes_each } = gate(&plan, quarter);
            (totals.documents, totals.refusals, operations_each, changes_each)
        };
        assert_eq!(of(Length::For(quarter), &Kind::ALL), (200_010, 1, 50, 1));
        assert_eq!(of(Length::For(quarter), &[Kind::KillAll]), (18_750, 0, 50, 0));
        assert_eq!(of(Length::Once, &Kind::ALL), (18_750, 0, 10, 0));
    }
}
