//! Power cuts (F12): whatever was acknowledged is there when the power is back, writes and revocations alike.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    cluster::{Cluster, HEAL_LIMIT},
    disks::{
        SMALL_RESERVE,
        file_system::{Disks, Kind},
        load::Ledger,
    },
    machine::parameter,
};

/// Writers of the load.
const WRITERS: usize = 8;
/// Certificates that may be revoked in one round.
const VICTIMS: usize = 40;
/// Shortest and longest load before the cut, in milliseconds.
const LOAD_MS: std::ops::Range<u64> = 200..900;

#[tokio::test]
async fn three_nodes_on_ext4_keep_what_they_acknowledged() -> Result<()> {
    power_cuts(Kind::Ext4, 3).await
}

#[tokio::test]
async fn three_nodes_on_xfs_keep_what_they_acknowledged() -> Result<()> {
    power_cuts(Kind::Xfs, 3).await
}

#[tokio::test]
async fn one_node_on_ext4_keeps_what_it_acknowledged() -> Result<()> {
    power_cuts(Kind::Ext4, 1).await
}

#[tokio::test]
async fn one_node_on_xfs_keeps_what_it_acknowledged() -> Result<()> {
    power_cuts(Kind::Xfs, 1).await
}

async fn power_cuts(kind: Kind, count: usize) -> Result<()> {
    let rounds: u32 = parameter("POWER_CUT_ROUNDS", 2)?;
    let fault = format!("power cut of {count} node(s)");
    let Some(disks) = Disks::on_images(&fault, kind, count)? else { return Ok(()) };
    the_cut_is_real(&disks)?;
    let mut cluster = Cluster::prepare(count, &[SMALL_RESERVE]).await?;
    for (number, node) in cluster.nodes.iter_mut().enumerate() {
        node.keep_data_in(&disks.disk(number).data());
        node.start()?;
    }
    cluster.ready().await?;
    cluster.admin(0)?.create_database("ledger", count.try_into()?).await?;
    let mut ledger = Ledger::default();
    for round in 1..=rounds {
        one_cut(&disks, &mut cluster, &mut ledger, round)
            .await
            .with_context(|| format!("round {round} on {kind}"))?;
    }
    let acknowledged = (ledger.documents.len(), ledger.revoked.len());
    println!(
        "power cuts of {count} node(s) on {kind}: {rounds} rounds, {} writes and {} revocations acknowledged, lost = 0",
        acknowledged.0, acknowledged.1
    );
    anyhow::ensure!(acknowledged.0 > 0 && acknowledged.1 > 0, "a load without acknowledgements");
    cluster.finish().await
}

async fn one_cut(
    disks: &Disks,
    cluster: &mut Cluster,
    ledger: &mut Ledger,
    round: u32,
) -> Result<()> {
    let victims = ledger.register(cluster, VICTIMS).await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = ledger.start(&everywhere, WRITERS, &format!("round{round}"), &victims);
    load.progress(20, HEAL_LIMIT).await?;
    let term = cluster.group(0, "ledger").await?.term;
    let until = Duration::from_millis(rand::random_range(LOAD_MS));
    tokio::time::sleep(until).await;
    disks.cut()?;
    for node in &mut cluster.nodes {
        // It may have noticed the dead disk, and ended by itself.
        if node.running() {
            node.kill()?;
        }
        // What nodes say while their disk goes away under them is not judged, except for a panic.
        anyhow::ensure!(!node.logged("panicked at"), "{} panicked", node.name);
        node.forget_log()?;
    }
    ledger.finish(load).await?;
    disks.replay()?;
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.leader("ledger").await?;
    // A leader that took up its old term again would give log ids out twice.
    let now = cluster.group(0, "ledger").await?.term;
    anyhow::ensure!(now > term, "term {term} before the cut, {now} afterwards");
    ledger.check(cluster).await?;
    cluster.same_state().await.map(drop)
}

/// What was written and not fsynced is gone after a cut, or these tests prove nothing; what was fsynced is there.
fn the_cut_is_real(disks: &Disks) -> Result<()> {
    let point = disks.disk(0).point();
    let (kept, lost) = (point.join("fsynced"), point.join("written"));
    fs::write(&kept, [7; 100_000])?;
    fs::File::open(&kept)?.sync_all()?;
    fs::File::open(point)?.sync_all()?;
    fs::write(&lost, [7; 100_000])?;
    disks.cut()?;
    anyhow::ensure!(fs::write(point.join("after"), b"").is_err(), "a dead disk takes writes");
    disks.replay()?;
    anyhow::ensure!(fs::read(&kept)? == [7; 100_000], "the cut took what was fsynced");
    let left = fs::metadata(&lost).map_or(0, |it| it.len());
    anyhow::ensure!(left < 100_000, "the cut kept {left} bytes that nobody had fsynced");
    Ok(fs::remove_file(kept)?)
}
