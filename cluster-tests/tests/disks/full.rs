//! Full disks of a majority (F9); those of one node and of all are `durability_full` in `tests/cluster`. Writes are refused
//! with a reason, reads and revocations go on, and writes come back by themselves when there is room again.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::reason,
    cluster::{Cluster, HEAL_LIMIT},
    disks::{SMALL_RESERVE, file_system::Disks, load::Ledger},
    wait::eventually,
};
use tonic::Code;

/// Size of each disk. The reserve is 16 MiB, the smallest there is, and what the store takes at first a few.
const DISK_MEGABYTES: u32 = 160;
const WRITERS: usize = 4;

#[tokio::test]
async fn full_disks_of_a_majority_refuse_writes_and_take_revocations() -> Result<()> {
    let Some(disks) = Disks::in_memory("full disks of a majority", DISK_MEGABYTES, 3)? else {
        return Ok(());
    };
    let mut cluster = Cluster::prepare(3, &[SMALL_RESERVE]).await?;
    for part in ["full", "room", "reserve", "handed", "a call found"] {
        cluster.expect_in_logs(part);
    }
    for (number, node) in cluster.nodes.iter_mut().enumerate() {
        node.keep_data_in(&disks.disk(number).data());
        node.start()?;
    }
    cluster.ready().await?;
    anyhow::ensure!(cluster.nodes[0].data().join("reserve").is_file(), "there is no reserve");
    cluster.admin(0)?.create_database("ledger", 3).await?;
    let mut ledger = Ledger::default();
    let victims = ledger.register(&mut cluster, 6).await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = ledger.start(&everywhere, WRITERS, "before", &[]);
    load.progress(50, HEAL_LIMIT).await?;
    let mut fillers = Vec::new();
    for number in [0, 1] {
        fillers.push(fill(&disks, number)?);
    }
    eventually("writes are refused", HEAL_LIMIT, async || {
        for caller in &everywhere {
            let status = caller.put("ledger", "refused", "{}").await.err();
            let status = status.context("a write was taken")?;
            anyhow::ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
            anyhow::ensure!(reason(&status) == "DISK_FULL", "{status:?}");
        }
        Ok(())
    })
    .await?;
    let before = ledger.finish(load).await?;
    // Reads and revocations go on, through every node.
    let revoking = ledger.start(&everywhere, 0, "none", &victims);
    eventually("the revocations", HEAL_LIMIT, async || {
        anyhow::ensure!(revoking.revocations_are_done(), "they are under way");
        Ok(())
    })
    .await?;
    let revoked = ledger.finish(revoking).await?.revocations;
    anyhow::ensure!(revoked == victims.len(), "{revoked} of {} were acknowledged", victims.len());
    ledger.check(&mut cluster).await.context("while the disks are full")?;
    anyhow::ensure!(cluster.running().len() == 3, "a node ended");
    for filler in fillers {
        fs::remove_file(filler)?;
    }
    eventually("writes are taken again", HEAL_LIMIT, async || {
        for caller in &everywhere {
            caller.put("ledger", "after", "{}").await.context("the write")?;
        }
        Ok(())
    })
    .await?;
    println!(
        "full disks of a majority: {} writes before, {revoked} revocations while full, lost = 0; writes came back by themselves",
        before.writes
    );
    ledger.check(&mut cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// Takes all of a disk; gives the file that does.
fn fill(disks: &Disks, number: usize) -> Result<PathBuf> {
    let path = disks.disk(number).point().join("filler");
    let mut free = disks.disk(number).free()?;
    let file = fs::File::create(&path)?;
    // Writing, not allocating: a tmpfs gives pages only for what is written.
    let block = vec![0x5a; 1 << 20];
    let mut written = 0;
    while free > 0 {
        let some = block.len().min(usize::try_from(free)?);
        let Ok(()) = std::os::unix::fs::FileExt::write_all_at(&file, &block[..some], written)
        else {
            break;
        };
        written += some as u64;
        free -= some as u64;
    }
    anyhow::ensure!(written > 0, "there was nothing to fill");
    Ok(path)
}
