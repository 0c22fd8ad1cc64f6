//! Power cuts (F12): whatever was acknowledged is there when the power is back, writes and revocations alike.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::request_id,
    cluster::{Cluster, HEAL_LIMIT},
    disks::{
        SMALL_RESERVE,
        file_system::{Disks, Kind},
        load::Ledger,
    },
    machine::parameter,
    wait::eventually,
};
use rookery_proto::database::v1::DeleteDatabaseRequest;
use tonic::Code;

/// Writers of the load.
const WRITERS: usize = 8;
/// Certificates that may be revoked in one round.
const VICTIMS: usize = 40;
/// Shortest and longest load before the cut, in milliseconds.
const LOAD_MS: std::ops::Range<u64> = 200..900;
/// Shortest and longest time that a deletion has before the cut, in milliseconds.
const DELETION_MS: std::ops::Range<u64> = 0..60;

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
    for round in 1..=rounds {
        cut_while_deleting(&disks, &mut cluster, round)
            .await
            .with_context(|| format!("deletion {round} on {kind}"))?;
        ledger.check(&mut cluster).await?;
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
    cut(disks, cluster)?;
    ledger.finish(load).await?;
    back(disks, cluster).await?;
    cluster.leader("ledger").await?;
    // A leader that took up its old term again would give log ids out twice.
    let now = cluster.group(0, "ledger").await?.term;
    anyhow::ensure!(now > term, "term {term} before the cut, {now} afterwards");
    ledger.check(cluster).await?;
    cluster.same_state().await.map(drop)
}

/// The power goes while a database is shredded: no node is left with a database that it takes for its own and whose key is
/// gone. Nothing else is written meanwhile, whose fsync would take the deletion along.
async fn cut_while_deleting(disks: &Disks, cluster: &mut Cluster, round: u32) -> Result<()> {
    let admin = cluster.admin(0)?;
    let doomed = format!("doomed{round}");
    admin.create_database(&doomed, cluster.nodes.len().try_into()?).await?;
    admin.put(&doomed, "a", "{}").await?;
    let name = doomed.clone();
    let request = DeleteDatabaseRequest { name, request_id: request_id() };
    let deleting = tokio::spawn(async move { admin.databases().delete_database(request).await });
    tokio::time::sleep(Duration::from_millis(rand::random_range(DELETION_MS))).await;
    cut(disks, cluster)?;
    // Either answer is right: the power went.
    let _outcome = deleting.await?;
    back(disks, cluster).await?;
    let admin = cluster.admin(0)?;
    // It is there, whole, or it is not.
    eventually("it is there or not", HEAL_LIMIT, async || {
        match admin.get(&doomed, "a").await {
            Ok(content) => anyhow::ensure!(content == b"{}", "{content:?}"),
            Err(status) => anyhow::ensure!(status.code() == Code::NotFound, "{status:?}"),
        }
        Ok(())
    })
    .await?;
    cluster.same_state().await.map(drop)
}

/// Cuts the power of all nodes.
fn cut(disks: &Disks, cluster: &mut Cluster) -> Result<()> {
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
    Ok(())
}

/// Gives the power back; the nodes start unaided.
async fn back(disks: &Disks, cluster: &mut Cluster) -> Result<()> {
    disks.replay()?;
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready_within(HEAL_LIMIT).await
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
