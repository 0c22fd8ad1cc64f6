//! All workloads over three nodes of which one dies and one stands still; every checker looks at what the clients saw.
//!
//! `HISTORY_SEED` repeats the choices of a run (not its timing), `HISTORY_SECONDS` makes it longer; `HISTORY_RATE` is the
//! number of operations a second on documents, `HISTORY_CHANGES` that of changes of rights (0: as many as are answered).

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    cluster::{Cluster, HEAL_LIMIT},
    history::{self, Gate, Recorder, Verdict},
    workloads::{
        Load, Nodes, Plan,
        authorization::{self, Administrators, Door},
        settle,
    },
};

const SECONDS_DEFAULT: u64 = 15;

fn number(name: &str, or: u64) -> Result<u64> {
    std::env::var(name)
        .map_or(Ok(or), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// 0 is no bound.
fn rate(name: &str, or: u64) -> Result<Option<f64>> {
    let rate = number(name, or)?;
    Ok((rate > 0).then_some(rate as f64))
}

/// A leader dies and comes back, another stands still and goes on.
async fn trouble(cluster: &mut Cluster, recorder: &Recorder, part: Duration) -> Result<()> {
    tokio::time::sleep(part).await;
    let leader = cluster.leader("ledger").await?;
    recorder.mode("kill -9 of the leader");
    cluster.nodes[leader].kill()?;
    tokio::time::sleep(part).await;
    cluster.nodes[leader].start()?;
    cluster.ready_within(2 * HEAL_LIMIT).await?;
    recorder.mode("healthy again");
    tokio::time::sleep(part).await;
    let leader = cluster.leader("ledger").await?;
    recorder.mode("pause of the leader");
    cluster.nodes[leader].pause()?;
    tokio::time::sleep(part).await;
    cluster.nodes[leader].resume()?;
    cluster.ready_within(2 * HEAL_LIMIT).await?;
    recorder.mode("healthy in the end");
    tokio::time::sleep(part).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr)] // The seed, for whoever has to repeat the run, and what it saw.
async fn histories_hold_while_a_node_dies_and_another_stands_still() -> Result<()> {
    let seed = number("HISTORY_SEED", rand::random())?;
    let seconds = number("HISTORY_SECONDS", SECONDS_DEFAULT)?;
    eprintln!("HISTORY_SEED={seed} HISTORY_SECONDS={seconds}");
    let mut cluster = Cluster::start(3).await?;
    // Calls that were given up while a node stood still are all there when it goes on.
    cluster.expect_in_logs("remotely-reset pending-accept streams reached limit");
    cluster.admin(0)?.create_database("ledger", 3).await?;
    let admins = cluster.everywhere(Some(&cluster.administrator))?;
    let (nodes, recorder) = (Arc::new(Nodes::new(admins.clone())), Arc::new(Recorder::default()));
    let doors = cluster.nodes.iter().map(Door::of).collect();
    let changes_per_second = rate("HISTORY_CHANGES", 8)?;
    let plan = authorization::Plan { changes_per_second, ..authorization::Plan::default() };
    let administrators = Administrators::start(&nodes, doors, recorder.began(), plan, seed).await?;
    let plan = Plan { operations_per_second: rate("HISTORY_RATE", 150)?, ..Plan::default() };
    let load = Load::start(&nodes, &recorder, plan, seed);
    let troubled = trouble(&mut cluster, &recorder, Duration::from_secs(seconds) / 5).await;
    let answers = load.finish().await?;
    let decisions = administrators.finish().await?;
    troubled?;
    eprintln!("{:?}, {} writes unknown", answers.failures, answers.unresolved.len());
    let resolved = settle(&nodes, &admins, &recorder, &answers).await?;
    eprintln!("{resolved} of them have an outcome now");
    let history = recorder.finish();

    // As much as a machine that is busy with other things manages.
    let gate = authorization::Gate { revocations_min: seconds, near_min_by_node: seconds / 2 };
    eprintln!("{}", decisions.judge(&history.modes, &gate).passed()?);
    let gate =
        Gate { known_min: 20 * seconds, known_min_by_mode: 5, final_nodes: 3, ..Gate::default() };
    let verdict = history::judge(&history, &gate);
    if !matches!(verdict, Verdict::Passed(_)) {
        let path = std::env::temp_dir().join(format!("rookery-history-{seed}.jsonl"));
        history.write(&path)?;
        eprintln!("the history stands in {}", path.display());
    }
    eprintln!("{}", verdict.passed()?);
    cluster.finish().await
}
