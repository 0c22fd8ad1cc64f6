//! Processes that die, stop, stand still and come back: acknowledged writes stay, leadership moves, state is equal.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::Caller,
    cluster::{Cluster, FAILOVER_LIMIT, HEAL_LIMIT},
    wait::eventually,
    workload::Load,
};
use tonic::{Code, Status};

/// Acknowledged writes after each event, so that the load is known to run.
const PROGRESS: u64 = 50;
const WRITERS: usize = 6;

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_each_node_is_killed_in_turn() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = Load::start(&everywhere, "ledger", WRITERS);
    load.progress(PROGRESS, HEAL_LIMIT).await?;
    for at in 0..3 {
        cluster.nodes[at].kill()?;
        load.progress(PROGRESS, HEAL_LIMIT).await.context("after kill -9")?;
        cluster.nodes[at].start()?;
        cluster.ready_within(HEAL_LIMIT).await.context("after the restart")?;
        load.progress(PROGRESS, HEAL_LIMIT).await?;
    }
    let written = load.finish().await?;
    for caller in &everywhere {
        written.check(caller, "ledger").await?;
    }
    anyhow::ensure!(
        written.longest_gap < FAILOVER_LIMIT,
        "no write was acknowledged for {:?} while two of three nodes ran; allowed are {FAILOVER_LIMIT:?}",
        written.longest_gap
    );
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn all_nodes_killed_at_once_come_back_with_every_acknowledged_write() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = Load::start(&everywhere, "ledger", WRITERS);
    load.progress(2 * PROGRESS, HEAL_LIMIT).await?;
    for node in &mut cluster.nodes {
        node.kill()?;
    }
    let written = load.finish().await?;
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready_within(HEAL_LIMIT).await?;
    for caller in &cluster.everywhere(Some(&cluster.administrator))? {
        written.check(caller, "ledger").await?;
    }
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_leader_that_is_asked_to_stop_hands_over_and_exits_cleanly() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    for group in ["cluster", "ledger"] {
        let leader = cluster.leader(group).await?;
        let term = cluster.group(leader, group).await?.term;
        let other = (leader + 1) % 3;
        let code = cluster.nodes[leader].stop().await?;
        let stopped = Instant::now();
        anyhow::ensure!(code == 0, "exit code {code}");
        let admin = cluster.admin(other)?;
        eventually("a write after the handover", FAILOVER_LIMIT, async || {
            Ok(admin.put("ledger", &format!("after/{group}"), "{}").await.map(drop)?)
        })
        .await?;
        let took = stopped.elapsed();
        let successor = cluster.leader(group).await?;
        anyhow::ensure!(successor != leader);
        let status = cluster.group(successor, group).await?;
        // An election that nobody timed out for: the next term, at once.
        anyhow::ensure!(
            status.term == term + 1,
            "{group}: term {term} became {}; the first write took {took:?}",
            status.term
        );
        cluster.nodes[leader].start()?;
        cluster.ready_within(HEAL_LIMIT).await?;
    }
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_leader_that_stood_still_serves_nothing_from_its_past() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    let leader = cluster.leader("ledger").await?;
    let (old, other) = (cluster.admin(leader)?, cluster.admin((leader + 1) % 3)?);
    old.put("ledger", "balance", r#"{"amount":1}"#).await?;
    cluster.nodes[leader].pause()?;
    eventually("a write without the old leader", HEAL_LIMIT, async || {
        Ok(other.put("ledger", "balance", r#"{"amount":2}"#).await.map(drop)?)
    })
    .await?;
    cluster.nodes[leader].resume()?;
    for _ in 0..50 {
        match old.get("ledger", "balance").await {
            Ok(json) => anyhow::ensure!(json == br#"{"amount":2}"#, "an old value was served"),
            Err(status) => anyhow::ensure!(status.code() == Code::Unavailable, "{status:?}"),
        }
    }
    cluster.ready_within(HEAL_LIMIT).await?;
    anyhow::ensure!(old.get("ledger", "balance").await? == br#"{"amount":2}"#);
    cluster.same_state().await?;
    cluster.finish().await
}

/// A deadline as careful clients set it.
const DEADLINE: Duration = Duration::from_secs(1);

fn in_time<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn unavailable(status: &Status) -> bool {
    // Cancelled: this client's own deadline, in the moment of the server's answer.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// A read with a deadline; a refusal with the time it took.
async fn read_in_time(caller: &Caller) -> Result<(), (Status, Duration)> {
    let start = Instant::now();
    let request = rookery_proto::document::v1::GetDocumentRequest {
        database: "ledger".into(),
        id: "a".into(),
        stale_ok: false,
    };
    let outcome = caller.documents().get_document(in_time(request)).await;
    outcome.map(drop).map_err(|status| (status, start.elapsed()))
}

#[tokio::test]
async fn a_node_without_a_majority_answers_unavailable_and_serves_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    cluster.admin(0)?.put("ledger", "a", "{}").await?;
    cluster.nodes[1].kill()?;
    cluster.nodes[2].kill()?;
    let alone = cluster.admin(0)?;
    // What was fresh when the others died may be served for a moment; then nothing is.
    eventually("the lone node refuses", HEAL_LIMIT, async || {
        let (status, _) = read_in_time(&alone).await.err().context("it served a read")?;
        anyhow::ensure!(unavailable(&status), "{status:?}");
        Ok(())
    })
    .await?;
    // Without a deadline it does not wait for better times either.
    let start = Instant::now();
    let status = alone.get("ledger", "a").await.err().context("it served a read")?;
    let took = start.elapsed();
    anyhow::ensure!(
        status.code() == Code::Unavailable && took < Duration::from_secs(5),
        "after {took:?}: {status:?}"
    );
    for attempt in 0..3 {
        let start = Instant::now();
        let id = format!("b{attempt}");
        let put = in_time(cluster_tests::caller::put_request("ledger", &id, "{}"));
        let status = alone.documents().put_document(put).await.err().context("it took a write")?;
        anyhow::ensure!(unavailable(&status), "{status:?}");
        anyhow::ensure!(start.elapsed() < 2 * DEADLINE, "it hung for {:?}", start.elapsed());
        let (status, took) = read_in_time(&alone).await.err().context("it served a read")?;
        anyhow::ensure!(unavailable(&status), "{status:?}");
        anyhow::ensure!(took < 2 * DEADLINE, "it hung for {took:?}");
    }
    cluster.nodes[1].start()?;
    cluster.nodes[2].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    alone.get("ledger", "a").await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_data_folder_serves_one_process_at_a_time() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let second = cluster.nodes[0].run(&["start", "--config", "rookery.toml"]).await?;
    anyhow::ensure!(second.code != 0, "a second process started on the same folder");
    cluster.admin(0)?.create_database("still-served", 1).await?;
    cluster.ready().await?;
    cluster.finish().await
}
