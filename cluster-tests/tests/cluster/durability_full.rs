//! Full disks (F9): writes are refused in clear words, reads and revocations go on, and all of it ends by itself.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, reason},
    cluster::{Cluster, HEAL_LIMIT},
    disks::file_system::Disks,
    identity::Identity,
    wait::eventually,
    workload::Load,
};
use rookery_proto::security::v1::{Access, Clearance};
use tonic::Code;

const DATABASE: &str = "ledger";
/// Size of each node's file system.
const DISK_MIB: u32 = 224;
/// Writes are refused below the half of it, and it is given up below an eighth.
const RESERVE_MIB: u64 = 64;
/// Longest time until a node has seen that its disk is full, or is not.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);
/// When every node has heard that another one has room again.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
const WRITERS: usize = 4;

/// Nodes on small file systems.
struct Full {
    cluster: Cluster,
    disks: Disks,
    everywhere: Vec<Caller>,
}

impl Full {
    /// `None`, and told, where this machine mounts nothing.
    async fn start() -> Result<Option<Self>> {
        let Some(disks) = Disks::in_memory("a full disk", DISK_MIB, 3)? else { return Ok(None) };
        let reserve = RESERVE_MIB.to_string();
        let mut cluster = Cluster::prepare(3, &[("storage.reserve_mib", &reserve)]).await?;
        // Where not a byte is left, the engine cannot write its options down when compaction is paused.
        let engine = ["persist options", "compaction cannot be switched"];
        for part in ["is full", "leadership was not handed over"].into_iter().chain(engine) {
            cluster.expect_in_logs(part);
        }
        for (at, node) in cluster.nodes.iter_mut().enumerate() {
            node.keep_data_in(&disks.disk(at).point().join("data"));
            node.start()?;
        }
        cluster.ready().await?;
        cluster.admin(0)?.create_database(DATABASE, 3).await?;
        cluster.leader(DATABASE).await?;
        let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
        Ok(Some(Self { cluster, disks, everywhere }))
    }

    fn filler(&self, node: usize) -> PathBuf {
        self.disks.disk(node).point().join("filler")
    }

    /// Leaves `free_mib` on a node's disk; 0: not one byte.
    fn fill(&self, node: usize, free_mib: u64) -> Result<()> {
        let mut file = File::create(self.filler(node))?;
        let piece = vec![0; 1024 * 1024];
        loop {
            let found = rustix::fs::statvfs(self.disks.disk(node).point())?;
            if free_mib > 0 && found.f_bavail * found.f_frsize <= free_mib << 20 {
                return Ok(());
            }
            if file.write_all(&piece).is_err() {
                return Ok(());
            }
        }
    }

    fn empty(&self, node: usize) -> Result<()> {
        Ok(fs::remove_file(self.filler(node))?)
    }

    /// Waits until a node says of its disk that it is full, or that it is not.
    async fn says_full(&self, node: usize, full: bool, limit: Duration) -> Result<()> {
        eventually("what a node says of its disk", limit, async || {
            let status = self.cluster.status(node).await?;
            anyhow::ensure!(
                status.disk_full == full,
                "node {node}: full {}, {} bytes free, reserve held {}",
                status.disk_full,
                status.disk_free_bytes,
                status.disk_reserve_held
            );
            Ok(())
        })
        .await
    }

    /// A certificate with rights, which are taken away; afterwards no node lets it in.
    async fn revoke(&self, victim: &Identity) -> Result<()> {
        eventually("a revocation on full disks", HEAL_LIMIT, async || {
            match self.everywhere[0].revoke(&victim.thumbprint()).await {
                Err(status) if status.code() != Code::NotFound => Err(status.into()),
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await?;
        for node in &self.cluster.nodes {
            let read = node.caller(Some(victim))?.get(DATABASE, "early").await;
            let denied = matches!(&read, Err(status) if status.code() == Code::Unauthenticated);
            anyhow::ensure!(denied, "{}: a revoked certificate read {read:?}", node.name);
        }
        Ok(())
    }

    async fn reads_everywhere(&self) -> Result<()> {
        for caller in &self.everywhere {
            let read = eventually("a read", HEAL_LIMIT, async || {
                Ok(caller.get(DATABASE, "early").await?)
            });
            anyhow::ensure!(read.await? == b"{}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn one_full_disk_stops_nobody_and_all_full_disks_stop_writes_alone() -> Result<()> {
    let Some(mut full) = Full::start().await? else { return Ok(()) };
    let grants = [(DATABASE, Access::Read)];
    let mut victims = Vec::new();
    for number in 0..3 {
        let name = format!("victim-{number}");
        victims.push(full.cluster.register(&name, Clearance::User, &grants).await?);
    }
    full.everywhere[0].put(DATABASE, "early", "{}").await?;
    let load = Load::start(&full.everywhere, DATABASE, WRITERS);
    load.progress(50, HEAL_LIMIT).await?;

    // A follower, then the leader: the others go on.
    for role in ["follower", "leader"] {
        let leader = full.cluster.leader(DATABASE).await?;
        let node = if role == "leader" { leader } else { (leader + 1) % 3 };
        full.fill(node, 20)?;
        full.says_full(node, true, NOTICE_LIMIT).await.context(role)?;
        eventually("another leader", HEAL_LIMIT, async || {
            for group in ["cluster", DATABASE] {
                let group = full.cluster.group(node, group).await?;
                anyhow::ensure!(group.role != "leader", "{} is led by the full node", group.group);
            }
            Ok(())
        })
        .await?;
        load.progress(50, HEAL_LIMIT).await.with_context(|| format!("a full {role}"))?;
        full.reads_everywhere().await.with_context(|| format!("a full {role}"))?;
        full.revoke(&victims.pop().context("a victim")?).await.context(role)?;
        full.empty(node)?;
        full.says_full(node, false, NOTICE_LIMIT).await.context(role)?;
        full.cluster.ready_within(HEAL_LIMIT).await?;
        // The others hear of it with a question for freshness; until then they count this disk as full.
        tokio::time::sleep(HEARD_WITHIN).await;
    }
    let written = load.finish().await?;
    full.cluster.same_state().await?;
    for caller in &full.everywhere {
        written.check(caller, DATABASE).await?;
    }

    // All of them, to the last byte: the reserve is given up for the revocation.
    for node in 0..3 {
        full.fill(node, 0)?;
    }
    for node in 0..3 {
        full.says_full(node, true, NOTICE_LIMIT).await?;
        eventually("the reserve is given up", NOTICE_LIMIT, async || {
            let status = full.cluster.status(node).await?;
            anyhow::ensure!(!status.disk_reserve_held, "the reserve of node {node} is held");
            Ok(())
        })
        .await?;
    }
    for caller in &full.everywhere {
        let refused = caller.put(DATABASE, "late", "{}").await;
        let status = refused.err().context("a write was taken on a full disk")?;
        anyhow::ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
        anyhow::ensure!(reason(&status) == "DISK_FULL", "{status:?}");
        anyhow::ensure!(status.message().contains("Make room"), "{status:?}");
    }
    full.reads_everywhere().await.context("all full")?;
    full.revoke(&victims.pop().context("a victim")?).await.context("all full")?;
    // A node that is started on a full disk.
    full.cluster.nodes[2].kill()?;
    full.cluster.nodes[2].start()?;
    full.cluster.ready_within(HEAL_LIMIT).await.context("a start on a full disk")?;
    full.reads_everywhere().await.context("after a start on a full disk")?;

    for node in 0..3 {
        full.empty(node)?;
    }
    eventually("a write once there is room", HEAL_LIMIT, async || {
        Ok(full.everywhere[0].put(DATABASE, "late", "{}").await.map(drop)?)
    })
    .await?;
    for node in 0..3 {
        full.says_full(node, false, NOTICE_LIMIT).await?;
        eventually("the reserve is restored", NOTICE_LIMIT, async || {
            let status = full.cluster.status(node).await?;
            anyhow::ensure!(status.disk_reserve_held, "the reserve of node {node} is not there");
            Ok(())
        })
        .await?;
    }
    full.cluster.same_state().await?;
    full.cluster.finish().await
}
