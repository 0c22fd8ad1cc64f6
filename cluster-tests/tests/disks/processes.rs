//! Processes that stand still with requests in their sockets (F2), run out of files (F4), or find folders and keys
//! that others may enter (F22).

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, put_request},
    cluster::{Cluster, FAILOVER_LIMIT, HEAL_LIMIT},
    machine::{missing, not_run, run},
    wait::eventually,
};
use rookery_proto::{
    document::v1::GetDocumentRequest,
    security::v1::{Access, Clearance, WhoAmIRequest},
};
use tonic::Code;

use crate::errors::lead;

/// Requests of each kind that wait in the socket.
const WAITING: usize = 20;

#[tokio::test]
async fn a_leader_that_stood_still_answers_nothing_from_its_past() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for part in ["a call found", "not fresh"] {
        cluster.expect_in_logs(part);
    }
    cluster.admin(0)?.create_database("ledger", 3).await?;
    lead(&mut cluster, 0).await?;
    let user = cluster.register("user", Clearance::User, &[("ledger", Access::ReadWrite)]).await?;
    let (admin, caller) = (cluster.admin(0)?, cluster.nodes[0].caller(Some(&user))?);
    admin.put("ledger", "value", "{\"version\":1}").await?;
    // Both connections are open before it stands still.
    caller.get("ledger", "value").await?;
    admin.get("ledger", "value").await?;
    cluster.nodes[0].pause()?;
    let mut waiting = Vec::new();
    for number in 0..WAITING {
        for (who, caller) in [("admin", admin.clone()), ("user", caller.clone())] {
            waiting.push((who, "read", tokio::spawn(read(caller.clone()))));
            waiting.push((who, "write", tokio::spawn(write(caller, who, number))));
        }
    }
    // The requests are in the socket of the process that stands still, now that the others go on without it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let others = cluster.admin(1)?;
    eventually("another leader takes writes", 2 * FAILOVER_LIMIT, async || {
        others.put("ledger", "value", "{\"version\":2}").await.context("the write")
    })
    .await?;
    eventually("the revocation", HEAL_LIMIT, async || {
        match others.revoke(&user.thumbprint()).await {
            Err(status) if status.code() == Code::NotFound => Ok(()), // An earlier try did it.
            outcome => outcome.context("revoking"),
        }
    })
    .await?;
    cluster.nodes[0].resume()?;
    let mut told = std::collections::BTreeMap::new();
    for (who, what, task) in waiting {
        let outcome = task.await?;
        let stale = match (who, what, &outcome) {
            ("user", _, Ok(_)) => true,
            ("admin", "read", Ok(json)) => json != b"{\"version\":2}",
            _ => false,
        };
        let outcome = outcome.map_or_else(|code| format!("{code:?}"), |_| "Ok".to_owned());
        *told.entry(format!("{who} {what}: {outcome}")).or_insert(0) += 1;
        anyhow::ensure!(!stale, "a {what} of {who} that had waited was answered {outcome}");
    }
    println!("requests that waited in the socket of a paused leader: {told:?}");
    cluster.ready_within(HEAL_LIMIT).await?;
    let stored = cluster_tests::workload::read_all(&cluster.admin(0)?, "ledger", "user/").await?;
    anyhow::ensure!(stored.is_empty(), "writes of the revoked certificate: {stored:?}");
    cluster.same_state().await?;
    cluster.finish().await
}

async fn read(caller: Caller) -> Result<Vec<u8>, Code> {
    let request =
        GetDocumentRequest { database: "ledger".into(), id: "value".into(), stale_ok: false };
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(20));
    let answer = caller.documents().get_document(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok(answer.document.map(|document| document.json).unwrap_or_default())
}

async fn write(caller: Caller, who: &str, number: usize) -> Result<Vec<u8>, Code> {
    let mut request = tonic::Request::new(put_request("ledger", &format!("{who}/{number}"), "{}"));
    request.set_timeout(Duration::from_secs(20));
    let answer = caller.documents().put_document(request).await;
    answer.map(|_| Vec::new()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_node_without_free_files_goes_on_and_recovers() -> Result<()> {
    if let Some(why) = missing(&["prlimit"], &[]) {
        not_run("no free files", &why);
        return Ok(());
    }
    let mut cluster = Cluster::start(1).await?;
    cluster.expect_in_logs("Too many open files");
    cluster.admin(0)?.create_database("ledger", 1).await?;
    let admin = cluster.admin(0)?;
    admin.put("ledger", "a", "{}").await?;
    let pid = cluster.nodes[0].pid().context("a process")?;
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    run("prlimit", &[&format!("--pid={pid}"), &format!("--nofile={}:", open + 4)])?;
    let address = cluster.nodes[0].addresses.client;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(tokio::net::TcpStream::connect(address).await?);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for number in 0..20 {
        admin.put("ledger", &format!("{number}"), "{}").await.context("the open connection")?;
    }
    let busy = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    anyhow::ensure!(busy >= open + 3, "{busy} files are open, of {} allowed", open + 4);
    drop(held);
    let fresh = cluster.admin(0)?;
    eventually("a new connection", HEAL_LIMIT, async || {
        fresh.security().who_am_i(WhoAmIRequest {}).await.map(drop).context("who")
    })
    .await?;
    anyhow::ensure!(cluster.nodes[0].running());
    run("prlimit", &[&format!("--pid={pid}"), "--nofile=20000:"])?;
    cluster.finish().await
}

#[tokio::test]
async fn folders_and_keys_that_others_may_read_are_refused() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.admin(0)?.create_database("ledger", 1).await?;
    anyhow::ensure!(cluster.nodes[0].stop().await? == 0);
    let node = &mut cluster.nodes[0];
    for (file, mode) in [
        ("data", 0o755),
        ("data", 0o710),
        ("data/store", 0o755),
        ("master.key", 0o644),
        ("master.key", 0o640),
        ("node.key", 0o644),
    ] {
        let path = node.folder.join(file);
        let before = fs::metadata(&path)?.permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let start = tokio::time::timeout(
            Duration::from_secs(10),
            node.run(&["start", "--config", "rookery.toml"]),
        );
        let output = start.await.map_err(|_| anyhow::anyhow!("{file} {mode:o}: it runs"))??;
        fs::set_permissions(&path, before)?;
        let told = output.stderr.lines().last().unwrap_or_default().to_owned();
        println!("{file} {mode:o}: {told}");
        anyhow::ensure!(output.code != 0, "{file} {mode:o}: it ended with 0");
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        anyhow::ensure!(told.contains(&name), "{file} {mode:o}: {told}");
    }
    node.start()?;
    cluster.ready().await?;
    // A second process is refused, and the first one goes on.
    let second = cluster.nodes[0].run(&["start", "--config", "rookery.toml"]).await?;
    anyhow::ensure!(second.code != 0, "a second process started on the same folder");
    cluster.admin(0)?.put("ledger", "a", "{}").await?;
    cluster.finish().await
}

#[tokio::test]
async fn the_memory_of_a_node_leaves_it_in_no_way() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let node = &mut cluster.nodes[0];
    let pid = node.pid().context("a process")?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core = core.context("a limit of core files")?;
    anyhow::ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    // Root looks in whatever happens; nobody else may.
    match missing(&["setpriv", "cat"], &[]) {
        Some(why) => not_run("reading a node's memory as another user", &why),
        None => {
            let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", "cat"];
            for file in ["mem", "maps", "environ"] {
                let path = format!("/proc/{pid}/{file}");
                let read = run("setpriv", &[&arguments[..], &[&path]].concat());
                let told = read.err().map(|error| error.to_string()).unwrap_or_default();
                anyhow::ensure!(told.contains("ermission denied"), "{path}: {told}");
            }
        }
    }
    // A crash leaves no file.
    run("sh", &["-c", &format!("kill -s ABRT {pid}")])?;
    let status = node.wait_exit(Duration::from_secs(10)).await?;
    anyhow::ensure!(status.code().is_none(), "SIGABRT ended it with {status}");
    for folder in [node.folder.clone(), node.data()] {
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            anyhow::ensure!(!name.starts_with("core"), "{name} in {}", folder.display());
        }
    }
    node.start()?;
    cluster.ready().await?;
    cluster.finish().await
}
