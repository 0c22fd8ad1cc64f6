//! The short form of chaos: every kind of fault once, in the order of a fixed seed, judged as the long form is, but for
//! the times of L1 and L2, which may be three times their limits on a machine that others use too.
//!
//! A test binary of its own: nothing else may run beside it (`.config/nextest.toml`). `CHAOS_SEED` takes another seed.

use anyhow::{Context as _, Result};
use cluster_tests::{
    chaos::{
        fault::Kind,
        report::End,
        run::{Length, Plan, run},
    },
    machine::not_run,
    net,
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
