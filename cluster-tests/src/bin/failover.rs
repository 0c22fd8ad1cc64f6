//! Failover: kill -9 of a leader to the next acknowledged write of a client that retries through the other nodes.
#![allow(clippy::print_stdout)] // Figures are the product.

use anyhow::{Context as _, Result};
use clap::Parser;
use cluster_tests::chaos::failover::{figures, measure};

/// Measures failovers of a cluster of three on this machine
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many leaders of the database are killed; a fifth as many of the cluster group come after them
    #[arg(long, default_value_t = 50)]
    kills: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let kills = Arguments::parse().kills;
    let failovers = measure(kills, |line| println!("{line}")).await?;
    let [least, median, late, most] =
        figures(&failovers.of_database).context("no kill, no figures")?;
    println!(
        "{kills} kills of the database's leader: \
         min {least:.2?}, median {median:.2?}, p99 {late:.2?}, max {most:.2?}"
    );
    let [_, median, _, most] = figures(&failovers.of_cluster).context("no kill, no figures")?;
    let kills = failovers.of_cluster.len();
    println!("{kills} kills of the cluster group's leader: median {median:.2?}, max {most:.2?}");
    Ok(())
}
