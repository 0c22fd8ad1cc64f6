//! A data folder that was rolled back is refused on the word of one peer, stays refused, and its node joins anew.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::request_id,
    cluster::{Cluster, HEAL_LIMIT},
    disks::damage,
    logs,
    wait::eventually,
    workload::Load,
};
use rookery_proto::cluster::v1::RemoveNodeRequest;

const DATABASE: &str = "ledger";
const WRITERS: usize = 4;
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

/// The copy is of the very session that the node then lived on in, as a snapshot of a running machine is: the folder has
/// had no start since that anybody could count.
#[tokio::test]
async fn a_rolled_back_folder_is_refused_for_good_and_its_node_joins_anew() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for part in ["older copy", "this node stops"] {
        cluster.expect_in_logs(part);
    }
    cluster.admin(0)?.create_database(DATABASE, 3).await?;
    cluster.leader(DATABASE).await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = Load::start(&everywhere, DATABASE, WRITERS);
    load.progress(50, HEAL_LIMIT).await?;

    // A consistent copy of a running node: it stands still meanwhile.
    let victim = 2;
    let copy = cluster.folder().join("copy");
    cluster.nodes[victim].pause()?;
    damage::copy(&cluster.nodes[victim].data(), &copy)?;
    cluster.nodes[victim].resume()?;
    load.progress(50, HEAL_LIMIT).await?;
    tokio::time::sleep(Duration::from_secs(3)).await; // The ticks of a folder are counted by the clock.
    cluster.nodes[victim].kill()?;
    fs::remove_dir_all(cluster.nodes[victim].data())?;
    damage::copy(&copy, &cluster.nodes[victim].data())?;

    // One of the two that know better is enough.
    cluster.nodes[0].kill()?;
    let refused = refuse(&mut cluster, victim).await?;
    anyhow::ensure!(refused.contains("node 2 has seen it at start"), "{refused}");
    cluster.nodes[1].kill()?;
    let alone = refuse(&mut cluster, victim).await.context("a second start, with nobody there")?;
    anyhow::ensure!(alone.contains("older copy of itself"), "{alone}");
    for at in [0, 1] {
        cluster.nodes[at].start()?;
    }
    cluster.ready_within(HEAL_LIMIT).await?;
    load.progress(50, HEAL_LIMIT).await?;

    // The way back: remove, wipe, join anew under a fresh id.
    let admin = cluster.admin(0)?;
    eventually("the removal", HEAL_LIMIT, async || {
        let remove = RemoveNodeRequest { node_id: 3, request_id: request_id() };
        Ok(admin.cluster().remove_node(remove).await.map(drop)?)
    })
    .await?;
    cluster.nodes[victim].wipe()?;
    let joined = cluster.add_passive("n4")?;
    cluster.nodes[joined].start()?;
    let token = cluster.join_token(600).await?;
    eventually("the admin socket", HEAL_LIMIT, async || {
        anyhow::ensure!(cluster.nodes[joined].admin_socket().exists());
        Ok(())
    })
    .await?;
    let output = cluster.join(joined, 0, &token).await?;
    anyhow::ensure!(output.code == 0, "{}", output.stderr);
    anyhow::ensure!(output.stdout.contains('4'), "{}", output.stdout);
    cluster.ready_within(HEAL_LIMIT).await?;
    let written = load.finish().await?;
    for at in [0, 1, joined] {
        written.check(&cluster.admin(at)?, DATABASE).await.with_context(|| format!("node {at}"))?;
    }
    cluster.same_state().await?;
    cluster.finish().await
}

/// Starts the node, which ends by itself with a line that says why.
async fn refuse(cluster: &mut Cluster, node: usize) -> Result<String> {
    let node = &mut cluster.nodes[node];
    node.start()?;
    let status = node.wait_exit(REFUSAL_LIMIT).await?;
    anyhow::ensure!(status.code().is_some_and(|code| code != 0), "{status}");
    let words = logs::tail(&node.log(), 1);
    for part in ["cluster remove", "delete the data folder", "join anew"] {
        anyhow::ensure!(words.contains(part), "its last words are: {words}");
    }
    Ok(words)
}
