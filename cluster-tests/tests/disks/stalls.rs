//! Disks that stand still or are slow (F19): a follower's holds nobody up, a leader's neither blocks decisions nor
//! lets a call hang beyond its deadline.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, put_request},
    cluster::{Cluster, HEAL_LIMIT},
    disks::{
        SMALL_RESERVE,
        device::Device,
        file_system::{Disks, Kind},
        load::{Ended, Ledger},
    },
    identity::Identity,
    machine::{missing, not_run, parameter},
};
use rookery_proto::security::v1::WhoAmIRequest;
use tonic::Code;

use crate::errors::lead;

const WRITERS: usize = 6;
/// How long each part of a comparison is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// What the machine itself may add to the 99th percentile: it runs other tests and no optimized program.
const NOISE: Duration = Duration::from_millis(60);
/// A deadline as careful clients set it.
const DEADLINE: Duration = Duration::from_secs(2);

async fn measure(ledger: &mut Ledger, callers: &[Caller], prefix: &str) -> Result<Ended> {
    let load = ledger.start(callers, WRITERS, prefix, &[]);
    tokio::time::sleep(MEASURED).await;
    ledger.finish(load).await
}

fn compare(what: &str, before: &Ended, during: &Ended) -> Result<()> {
    let (usual, now) = (before.p99(), during.p99());
    println!(
        "{what}: p99 {now:?} ({} writes), before {usual:?} ({} writes)",
        during.writes, before.writes
    );
    anyhow::ensure!(during.writes > 20, "only {} writes", during.writes);
    anyhow::ensure!(now < 2 * usual + NOISE, "{what}: p99 {now:?}, before {usual:?}");
    Ok(())
}

#[tokio::test]
async fn a_follower_whose_fsyncs_are_slow_holds_nobody_up() -> Result<()> {
    if let Some(why) = missing(&["strace"], &[]) {
        not_run("slow fsync", &why);
        return Ok(());
    }
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    lead(&mut cluster, 0).await?;
    let mut ledger = Ledger::default();
    let callers = [cluster.admin(0)?, cluster.admin(1)?];
    let before = measure(&mut ledger, &callers, "before").await?;
    anyhow::ensure!(cluster.nodes[2].stop().await? == 0);
    for delay_ms in [50, 400] {
        let inject = format!("inject=fdatasync,fsync:delay_enter={}", delay_ms * 1000);
        let words = ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null"];
        let words = words.into_iter().chain(["-e", "trace=fdatasync,fsync", "-e", &inject]);
        cluster.nodes[2].launcher = words.map(str::to_owned).collect();
        cluster.nodes[2].start()?;
        cluster.ready().await?;
        lead(&mut cluster, 0).await?;
        let during = measure(&mut ledger, &callers, &format!("slow{delay_ms}")).await?;
        compare(&format!("a follower's fsyncs take {delay_ms} ms longer"), &before, &during)?;
        cluster.nodes[2].kill()?;
    }
    cluster.nodes[2].launcher.clear();
    cluster.nodes[2].start()?;
    cluster.ready().await?;
    cluster.leader("ledger").await?;
    ledger.check(&mut cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_follower_whose_disk_stands_still_holds_nobody_up() -> Result<()> {
    let Some((device, _disks, mut cluster)) = with_a_device("stalled disk of a follower").await?
    else {
        return Ok(());
    };
    cluster.expect_in_logs("the disk of this node stands still");
    lead(&mut cluster, 1).await?;
    let mut ledger = Ledger::default();
    let callers = [cluster.admin(1)?, cluster.admin(2)?];
    let before = measure(&mut ledger, &callers, "before").await?;
    device.pause()?;
    let during = measure(&mut ledger, &callers, "stalled").await;
    device.resume()?;
    compare("a follower's disk stands still", &before, &during?)?;
    cluster.ready_within(HEAL_LIMIT).await?;
    ledger.check(&mut cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_leader_whose_disk_stands_still_blocks_no_decision() -> Result<()> {
    let Some((device, _disks, mut cluster)) = with_a_device("stalled disk of a leader").await?
    else {
        return Ok(());
    };
    // What a node says that cannot write for a while.
    for part in ["a call found", "not fresh", "deadline", "the disk of this node stands still"] {
        cluster.expect_in_logs(part);
    }
    lead(&mut cluster, 0).await?;
    cluster.admin(0)?.put("ledger", "kept", "{}").await?;
    let stranger = Identity::new("stranger")?;
    let stall = Duration::from_secs(parameter("STALL_SECONDS", 6)?);
    device.pause()?;
    let watched = watch(&cluster, &stranger, stall).await;
    device.resume()?;
    let watched = watched?;
    println!("the disk of the leader of `ledger` stands still for {stall:?}:\n{watched}");
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.leader("ledger").await?;
    cluster.admin(0)?.put("ledger", "after", "{}").await?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// Calls of one kind on one node during a stall.
#[derive(Debug, Default)]
struct Calls {
    answered: usize,
    failed: usize,
    longest: Duration,
}

/// Asks all nodes again and again, each for a decision, a read and a write.
///
/// Every call must end at its deadline. The nodes whose disks are well decide again as soon as another one leads: at
/// most the calls of one deadline fail there. The node whose disk stands still fails closed, and says that it is not
/// ready.
async fn watch(cluster: &Cluster, stranger: &Identity, stall: Duration) -> Result<String> {
    let mut tasks = Vec::new();
    for (at, node) in cluster.nodes.iter().enumerate() {
        for kind in ["decision", "denial", "read", "write"] {
            let caller = match kind {
                "denial" => node.caller(Some(stranger))?,
                _ => cluster.admin(at)?,
            };
            let task = tokio::spawn(repeat(caller, kind, stall));
            tasks.push((node.name.clone(), kind, task));
        }
    }
    let ops = format!("http://{}/readyz", cluster.nodes[0].addresses.ops);
    let ready = tokio::spawn(async move {
        tokio::time::sleep(stall / 2).await;
        readiness(&ops).await
    });
    let mut text = String::new();
    let mut problems = Vec::new();
    for (node, kind, task) in tasks {
        let calls = task.await?.with_context(|| format!("{kind} on {node}"))?;
        text += &format!("  {node} {kind}: {calls:?}\n");
        if calls.longest > DEADLINE + Duration::from_secs(1) {
            problems.push(format!("a {kind} on {node} took {:?}", calls.longest));
        }
        let sick = node == cluster.nodes[0].name;
        if !sick && (calls.failed > 2 || calls.answered < 10) {
            problems.push(format!("{kind}s on {node}: {calls:?}"));
        }
    }
    let ready = ready.await?;
    text += &format!("  it says of itself at half time: {ready}");
    if !ready.starts_with("503") {
        problems.push(format!("the node whose disk stands still says of itself: {ready}"));
    }
    anyhow::ensure!(problems.is_empty(), "{}\n{text}", problems.join("\n"));
    Ok(text)
}

/// The status line of a page, or that there was none.
async fn readiness(url: &str) -> String {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<String>();
    let Ok(uri) = url.parse() else { return format!("{url} is no address") };
    match tokio::time::timeout(DEADLINE, client.get(uri)).await {
        Ok(Ok(answer)) => answer.status().to_string(),
        Ok(Err(error)) => format!("no answer: {error}"),
        Err(_) => "no answer in time".to_owned(),
    }
}

async fn repeat(caller: Caller, kind: &'static str, stall: Duration) -> Result<Calls> {
    let mut calls = Calls::default();
    let end = Instant::now() + stall;
    let mut number = 0;
    while Instant::now() < end {
        let start = Instant::now();
        number += 1;
        let outcome = one(&caller, kind, number).await;
        calls.longest = calls.longest.max(start.elapsed());
        match outcome {
            Ok(()) => calls.answered += 1,
            Err(Code::NotFound) => anyhow::bail!("a document is gone"),
            Err(_) => calls.failed += 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(calls)
}

async fn one(caller: &Caller, kind: &str, number: usize) -> Result<(), Code> {
    fn bounded<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(DEADLINE);
        request
    }
    let read = || rookery_proto::document::v1::GetDocumentRequest {
        database: "ledger".into(),
        id: "kept".into(),
        stale_ok: false,
    };
    match kind {
        "decision" => {
            let who = caller.security().who_am_i(bounded(WhoAmIRequest {})).await;
            match who {
                Ok(answer) if answer.get_ref().registered => Ok(()),
                Ok(_) => Err(Code::Unknown),
                Err(status) => Err(status.code()),
            }
        }
        "denial" => match caller.documents().get_document(bounded(read())).await {
            Err(status) if status.code() == Code::Unauthenticated => Ok(()),
            Err(status) => Err(status.code()),
            Ok(_) => Err(Code::NotFound), // A stranger who reads is worse than anything.
        },
        "read" => {
            let read = caller.documents().get_document(bounded(read())).await;
            read.map(drop).map_err(|status| status.code())
        }
        _ => {
            let put = put_request("ledger", &format!("during/{number}"), "{}");
            let put = caller.documents().put_document(bounded(put)).await;
            put.map(drop).map_err(|status| status.code())
        }
    }
}

/// Three nodes, the first on a device that can stand still, with the database `ledger`.
async fn with_a_device(fault: &str) -> Result<Option<(Device, Disks, Cluster)>> {
    let Some(device) = Device::start(fault, Kind::Ext4)? else { return Ok(None) };
    let mut disks = Disks::empty()?;
    disks.add(device.file())?;
    let mut cluster = Cluster::prepare(3, &[SMALL_RESERVE]).await?;
    cluster.nodes[0].keep_data_in(&disks.disk(0).data());
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    Ok(Some((device, disks, cluster)))
}
