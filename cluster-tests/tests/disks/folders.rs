//! Data folders that are another node's (F17) or of another time (F16).

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    cluster::{Cluster, HEAL_LIMIT},
    disks::{damage, load::Ledger},
    logs,
    wait::eventually,
    workload::read_all,
};
use tonic::Code;

/// Longest time until a node has refused its folder.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

fn swap(one: &Path, other: &Path) -> Result<()> {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside)?;
    fs::rename(other, one)?;
    Ok(fs::rename(aside, other)?)
}

#[tokio::test]
async fn the_folder_of_another_node_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("ledger", 3).await?;
    cluster.admin(0)?.put("ledger", "a", "{}").await?;
    for node in &mut cluster.nodes {
        anyhow::ensure!(node.stop().await? == 0);
    }
    // With their master keys, and without: each node has its own.
    for files in [&["data"][..], &["data", "master.key"]] {
        let exchange = |cluster: &Cluster| -> Result<()> {
            for file in files {
                let path = |at: usize| cluster.nodes[at].folder.join(file);
                swap(&path(0), &path(1))?;
            }
            Ok(())
        };
        exchange(&cluster)?;
        cluster.nodes[2].start()?; // Somebody who could be asked.
        for at in [0, 1] {
            let node = &mut cluster.nodes[at];
            node.start()?;
            let ended = node.wait_exit(REFUSAL_LIMIT).await;
            let status = ended.with_context(|| {
                format!("{files:?} of another node: {}", logs::tail(&node.log(), 5))
            })?;
            println!("{files:?} swapped: {}: {}", node.name, logs::tail(&node.log(), 1));
            anyhow::ensure!(status.code().is_some_and(|code| code != 0), "{status}");
            node.forget_log()?;
        }
        anyhow::ensure!(cluster.nodes[2].stop().await? == 0);
        exchange(&cluster)?;
    }
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    cluster.leader("ledger").await?;
    anyhow::ensure!(cluster.admin(0)?.get("ledger", "a").await? == b"{}");
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_folder_of_an_earlier_time_never_counts() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for part in ["older", "rolled back", "copy", "fewer", "shorter", "error:", "stops", "behind"] {
        cluster.expect_in_logs(part);
    }
    cluster.admin(0)?.create_database("ledger", 3).await?;
    let mut ledger = Ledger::default();
    let victims = ledger.register(&mut cluster, 4).await?;
    cluster.admin(1)?.put("ledger", "early", "{}").await?;
    anyhow::ensure!(cluster.nodes[0].stop().await? == 0);
    let copy = cluster.folder().join("copy");
    damage::copy(&cluster.nodes[0].data(), &copy)?;
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = ledger.start(&everywhere, 6, "late", &victims);
    load.progress(100, HEAL_LIMIT).await?;
    eventually("revocations", HEAL_LIMIT, async || {
        let listed = cluster.admin(1)?.revoke(&victims[3].thumbprint()).await;
        match listed {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            outcome => outcome.context("revoking the last one"),
        }
    })
    .await?;
    ledger.finish(load).await?;
    anyhow::ensure!(cluster.nodes[0].stop().await? == 0);
    fs::remove_dir_all(cluster.nodes[0].data())?;
    damage::copy(&copy, &cluster.nodes[0].data())?;
    cluster.nodes[0].start()?;
    let ended = cluster.nodes[0].wait_exit(REFUSAL_LIMIT).await;
    match ended {
        Ok(status) => {
            println!("rolled back: {status}: {}", logs::tail(&cluster.nodes[0].log(), 1));
            anyhow::ensure!(status.code().is_some_and(|code| code != 0), "{status}");
        }
        Err(_) => {
            let tail = logs::tail(&cluster.nodes[0].log(), 8);
            let stored = read_all(&cluster.admin(0)?, "ledger", "").await;
            let served = stored.map(|all| all.len()).map_err(|error| format!("{error:#}"));
            anyhow::bail!(
                "a node with a folder of an earlier time runs on; it served {served:?}:\n{tail}"
            );
        }
    }
    ledger.check(&mut cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}
