//! Disks that fail (F10, F11, F21): the first failed write ends the process, nothing is acknowledged after it, and a
//! read that fails is never an empty answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_tests::{
    cluster::{Cluster, FAILOVER_LIMIT, HEAL_LIMIT},
    disks::{
        SMALL_RESERVE,
        device::{Device, Failing},
        file_system::{Disks, Kind},
        load::Ledger,
    },
    machine::{missing, not_run, run},
    workload::read_all,
};
use tonic::Code;

/// Longest time from a failed write to the end of the process.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that an acknowledgement which was on its way may still take.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
const WRITERS: usize = 6;

#[tokio::test]
async fn the_first_failed_fsync_ends_the_process() -> Result<()> {
    for (call, which) in [("fdatasync", 60), ("fdatasync", 150)] {
        one_failed_call(call, which).await.with_context(|| format!("{call} number {which}"))?;
    }
    Ok(())
}

/// One call of one thread fails once with EIO; the next one would succeed (fsyncgate).
async fn one_failed_call(call: &str, which: u32) -> Result<()> {
    if let Some(why) = missing(&["strace"], &[]) {
        not_run("EIO of one fsync", &why);
        return Ok(());
    }
    let mut cluster = Cluster::start(1).await?;
    cluster.admin(0)?.create_database("ledger", 1).await?;
    anyhow::ensure!(cluster.nodes[0].stop().await? == 0);
    let trace = cluster.folder().join("trace");
    let inject = format!("inject={call}:error=EIO:when={which}");
    let words = ["strace", "-D", "-f", "-ttt", "--seccomp-bpf", "-o", &trace.display().to_string()]
        .into_iter()
        .chain(["-e", "trace=fdatasync,fsync", "-e", &inject])
        .map(str::to_owned)
        .collect();
    cluster.nodes[0].launcher = words;
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    let mut ledger = Ledger::default();
    let load = ledger.start(&[cluster.admin(0)?], WRITERS, "load", &[]);
    let status = cluster.nodes[0].wait_exit(Duration::from_secs(60)).await;
    let (ended, ended_at) = (Instant::now(), since_1970()?);
    let load = ledger.finish(load).await?;
    let status = status?;
    let failed = failed_at(&std::fs::read_to_string(&trace)?).context("nothing was injected")?;
    let took = ended_at.saturating_sub(failed);
    let last = load.last.context("no write")?;
    println!(
        "{call} number {which} of a thread failed: it ended with {status} after {took:?}; {} writes before",
        load.writes
    );
    anyhow::ensure!(status.code().is_some_and(|code| code != 0), "it ended with {status}");
    anyhow::ensure!(took < END_LIMIT, "it ran on for {took:?}");
    let late = took.saturating_sub(ended.saturating_duration_since(last));
    anyhow::ensure!(late < ON_ITS_WAY, "a write was acknowledged {late:?} after the failure");
    anyhow::ensure!(cluster.nodes[0].logged("this node stops"), "it did not say why");
    anyhow::ensure!(!cluster.nodes[0].logged("panicked at"), "it panicked");
    cluster.nodes[0].forget_log()?;
    cluster.nodes[0].launcher.clear();
    cluster.nodes[0].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.leader("ledger").await?;
    ledger.check(&mut cluster).await?;
    cluster.finish().await
}

/// The time as `date` and traces tell it.
fn since_1970() -> Result<Duration> {
    let text = run("date", &["+%s.%N"])?;
    Ok(Duration::from_secs_f64(text.trim().parse().context("what date prints")?))
}

/// When the injected error came, from a trace with seconds since 1970.
fn failed_at(trace: &str) -> Option<Duration> {
    let line = trace.lines().find(|line| line.contains("(INJECTED)"))?;
    let seconds = line.split_whitespace().find(|word| word.contains('.'))?;
    Some(Duration::from_secs_f64(seconds.parse().ok()?))
}

#[tokio::test]
async fn a_leader_whose_disk_fails_ends_and_the_others_go_on() -> Result<()> {
    let Some(device) = Device::start("EIO of all writes", Kind::Ext4)? else { return Ok(()) };
    let mut disks = Disks::empty()?;
    disks.add(device.file())?;
    let mut cluster = Cluster::prepare(3, &[SMALL_RESERVE]).await?;
    cluster.nodes[0].keep_data_in(&disks.disk(0).data());
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    lead(&mut cluster, 0).await?;
    let mut ledger = Ledger::default();
    let others = [cluster.admin(1)?, cluster.admin(2)?];
    let load = ledger.start(&others, WRITERS, "load", &[]);
    load.progress(50, HEAL_LIMIT).await?;
    // What its followers tell of calls that were with it.
    cluster.expect_in_logs("a call found its group stopped");
    device.fail(Failing::Writes, true)?;
    let start = Instant::now();
    let status = cluster.nodes[0].wait_exit(2 * END_LIMIT).await?;
    let took = start.elapsed();
    load.progress(50, FAILOVER_LIMIT).await.context("the others go on")?;
    println!("all writes of the leader's disk failed: it ended with {status} after {took:?}");
    anyhow::ensure!(status.code().is_some_and(|code| code != 0), "it ended with {status}");
    anyhow::ensure!(took < END_LIMIT, "it ran on for {took:?}");
    anyhow::ensure!(!cluster.nodes[0].logged("panicked at"), "it panicked");
    cluster.nodes[0].forget_log()?;
    device.fail(Failing::Writes, false)?;
    disks.replay()?;
    cluster.nodes[0].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.leader("ledger").await?;
    ledger.finish(load).await?;
    ledger.check(&mut cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// Has the node at this position lead the database.
pub async fn lead(cluster: &mut Cluster, position: usize) -> Result<()> {
    let node_id = cluster.status(position).await?.node.context("a node")?.id;
    cluster_tests::wait::eventually("the chosen leader", HEAL_LIMIT, async || {
        if cluster.group(position, "ledger").await?.leader_id == node_id {
            return Ok(());
        }
        let group = "ledger".to_owned();
        let request = rookery_proto::cluster::v1::TransferLeaderRequest { group, node_id };
        let leader = cluster.leader("ledger").await?;
        let _another_try = cluster.admin(leader)?.cluster().transfer_leader(request).await;
        anyhow::bail!("another node leads")
    })
    .await
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_ends_the_process() -> Result<()> {
    let Some(disks) = Disks::on_images("read-only remount", Kind::Ext4, 1)? else {
        return Ok(());
    };
    let mut cluster = Cluster::prepare(1, &[SMALL_RESERVE]).await?;
    cluster.nodes[0].keep_data_in(&disks.disk(0).data());
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    cluster.admin(0)?.create_database("ledger", 1).await?;
    let mut ledger = Ledger::default();
    let load = ledger.start(&[cluster.admin(0)?], WRITERS, "load", &[]);
    load.progress(50, HEAL_LIMIT).await?;
    disks.disk(0).abort()?;
    let start = Instant::now();
    let status = cluster.nodes[0].wait_exit(2 * END_LIMIT).await?;
    let took = start.elapsed();
    println!("the disk became read-only: it ended with {status} after {took:?}");
    anyhow::ensure!(status.code().is_some_and(|code| code != 0), "it ended with {status}");
    anyhow::ensure!(took < END_LIMIT, "it ran on for {took:?}");
    anyhow::ensure!(!cluster.nodes[0].logged("panicked at"), "it panicked");
    ledger.finish(load).await?;
    cluster.nodes[0].forget_log()?;
    disks.replay()?;
    cluster.nodes[0].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.leader("ledger").await?;
    ledger.check(&mut cluster).await?;
    cluster.finish().await
}

/// Documents large enough that they cannot all be in a cache by chance.
const LARGE: usize = 300;

#[tokio::test]
async fn a_read_that_fails_is_never_an_empty_answer() -> Result<()> {
    let Some(device) = Device::start("EIO of reads", Kind::Ext4)? else { return Ok(()) };
    let mut disks = Disks::empty()?;
    disks.add(device.file())?;
    let mut cluster = Cluster::prepare(1, &[SMALL_RESERVE]).await?;
    cluster.nodes[0].keep_data_in(&disks.disk(0).data());
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    let admin = cluster.admin(0)?;
    admin.create_database("ledger", 1).await?;
    for number in 0..LARGE {
        admin.put("ledger", &format!("{number:03}"), &large(number)).await?;
    }
    anyhow::ensure!(cluster.nodes[0].stop().await? == 0);
    disks.replay()?; // No page of it stays in memory.
    cluster.nodes[0].start()?;
    cluster.leader("ledger").await?;
    device.fail(Failing::Reads, true)?;
    let mut refused = 0;
    for number in 0..LARGE {
        match cluster.admin(0)?.get("ledger", &format!("{number:03}")).await {
            Ok(json) => anyhow::ensure!(json == large(number).as_bytes(), "{number} is wrong"),
            Err(status) => {
                let code = status.code();
                // A node that meets the error in a file it needs ends, and the connection with it.
                // What has a cause is the client's own word for that, and no answer.
                let ended = std::error::Error::source(&status).is_some();
                let told =
                    ended || matches!(code, Code::Unavailable | Code::Internal | Code::DataLoss);
                anyhow::ensure!(told, "document {number} was answered {status:?}");
                refused += 1;
            }
        }
    }
    if cluster.nodes[0].running()
        && let Ok(all) = read_all(&cluster.admin(0)?, "ledger", "").await
    {
        anyhow::ensure!(all.len() == LARGE, "a list of {} documents", all.len());
    }
    println!(
        "reads failed: {refused} of {LARGE} documents were refused, none was missing or wrong"
    );
    if refused == 0 {
        not_run("EIO of reads", "every block was in memory");
    }
    device.fail(Failing::Reads, false)?;
    if cluster.nodes[0].running() {
        cluster.nodes[0].kill()?;
    }
    anyhow::ensure!(!cluster.nodes[0].logged("panicked at"), "it panicked");
    cluster.nodes[0].forget_log()?;
    disks.replay()?;
    cluster.nodes[0].start()?;
    cluster.leader("ledger").await?;
    let all = read_all(&cluster.admin(0)?, "ledger", "").await?;
    anyhow::ensure!(all.len() == LARGE && all["000"] == large(0), "{} documents", all.len());
    cluster.finish().await
}

fn large(number: usize) -> String {
    let filler = format!("{number}-").repeat(60_000 / 4);
    format!("{{\"number\":{number},\"filler\":\"{filler}\"}}")
}
