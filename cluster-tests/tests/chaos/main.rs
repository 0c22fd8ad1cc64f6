//! The short form of chaos, and a fault that its schedule meets only where leaders happen to be apart.
//!
//! The short form: every kind of fault once, in the order of a fixed seed, judged as the long form is, but for
//! the times of L1 and L2, which may be three times their limits on a machine that others use too.
//!
//! A test binary of its own: nothing else may run beside it (`.config/nextest.toml`). `CHAOS_SEED` takes another seed.

use std::time::Instant;

use anyhow::{Context as _, Result};
use cluster_tests::{
    chaos::{
        arena::{Arena, DATABASE},
        fault::{Action, Group, Kind},
        report::End,
        run::{Length, Plan, run},
    },
    cluster::{FAILOVER_LIMIT, HEAL_LIMIT},
    machine::not_run,
    net::{self, Fate},
    wait::eventually,
};

/// A seed whose first deck is as good as any.
const SEED: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr)] // The seed and the report, for whoever has to repeat the run.
async fn every_kind_of_fault_leaves_the_contract_standing() -> Result<()> {
    if let Err(why) = net::available() {
        for kind in Kind::ALL {
            not_run(&kind.name(), &format!("{why:#}"));
        }
        eprintln!("{} of {} kinds not run", Kind::ALL.len(), Kind::ALL.len());
        return Ok(());
    }
    let seed = match std::env::var("CHAOS_SEED") {
        Ok(text) => text.parse().with_context(|| format!("CHAOS_SEED={text}"))?,
        Err(_) => SEED,
    };
    eprintln!("CHAOS_SEED={seed}");
    let plan = Plan {
        seed,
        length: Length::Once,
        kinds: Kind::ALL.to_vec(),
        patience: 3,
        tell: |line| eprintln!("{line}"),
    };
    let report = run(&plan).await?;
    for (kind, why) in &report.not_run {
        not_run(&kind.name(), why);
    }
    eprintln!("{}", report.text());
    anyhow::ensure!(report.end() == End::Passed, "{}", report.text());
    Ok(())
}

/// n3 leads the cluster group, n1 a database, and only the link between the two is broken: n1 keeps its majority, but may
/// decide nothing, and so n2 has to lead, though n3 has as much of the log of a database that nobody writes to.
#[tokio::test]
#[allow(clippy::print_stderr)] // How long it took.
async fn a_database_whose_leader_hears_no_leader_of_the_cluster_is_led_by_another() -> Result<()> {
    if let Err(why) = net::available() {
        not_run("a link broken between two leaders", &format!("{why:#}"));
        return Ok(());
    }
    let mut arena = Arena::start().await?;
    let (cluster, database, third) = (2, 0, 1);
    eventually("the leaders are apart", HEAL_LIMIT, async || {
        for (group, to) in [(Group::Cluster, cluster), (Group::Database, database)] {
            arena.act(&Action::Transfer(group, to)).await?;
            let leader = arena.cast(group).await?.leader;
            anyhow::ensure!(leader == to, "n{} leads {group:?}", leader + 1);
        }
        Ok(())
    })
    .await?;
    let caller = arena.cluster.admin(third)?;
    caller.put(DATABASE, "before", "{}").await?;
    for (from, to) in [(cluster, database), (database, cluster)] {
        arena.act(&Action::Impair(from, to, Fate::Drop)).await?;
    }
    // Within the lease n1 may still decide; from then on nobody may, until another node leads.
    tokio::time::sleep(FAILOVER_LIMIT / 2).await;
    let began = Instant::now();
    eventually("a write while the link is broken", 2 * FAILOVER_LIMIT, async || {
        Ok(caller.put(DATABASE, "during", "{}").await?)
    })
    .await?;
    eprintln!("a write was acknowledged after {:.2?}", FAILOVER_LIMIT / 2 + began.elapsed());
    arena.heal().await?;
    arena.cluster.ready().await?;
    let leader = arena.cluster.leader(DATABASE).await?;
    anyhow::ensure!(leader == third, "n{} leads", leader + 1);
    arena.finish().await
}
