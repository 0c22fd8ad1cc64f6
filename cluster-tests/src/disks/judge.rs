//! Starts a damaged node by itself, and tells refused from whole from wrong.
//!
//! The node is the only one of its cluster: nobody can repair it, and nobody else can be asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rookery_proto::{
    audit::v1::VerifyRequest,
    security::v1::{Access, Clearance, ListCertificatesRequest},
};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::damage;
use crate::{
    caller::Caller,
    cluster::{Cluster, local_status},
    identity::Identity,
    logs,
    node::{Addresses, Node},
    workload::read_all,
};

/// Longest time until a node serves or has refused.
const START_LIMIT: Duration = Duration::from_secs(15);
const DATABASES: [&str; 2] = ["ledger", "archive"];

/// A node that was killed, and everything that a client was told of it.
pub struct Specimen {
    /// The cluster that made it; its processes have ended.
    cluster: Cluster,
    /// Its folder as the kill left it.
    folder: PathBuf,
    earlier: PathBuf,
    content: Content,
    /// Lengths of the newest write-ahead log after acknowledged writes that came one by one.
    pub log_lengths: Vec<u64>,
}

/// What a client can read of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    documents: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// Thumbprints of the registered certificates of clients. Its own is what the operator puts into its file.
    certificates: BTreeSet<String>,
    /// Hash of the state by database.
    hashes: BTreeMap<String, String>,
}

/// What became of a damaged node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It ended with this line.
    Refused(String),
    /// It runs and refuses what is damaged with this code.
    Withheld(Code),
    /// Everything that was acknowledged is there, and nothing else.
    Whole,
    /// It promised something that does not hold.
    Wrong(String),
}

impl Specimen {
    /// Makes a node with tables, a write-ahead log, two databases, certificates and an audit log, and kills it.
    ///
    /// # Errors
    /// The node does not do what it is told.
    pub async fn make() -> Result<Self> {
        // Elections of a node that is alone shall not cost a second each.
        let settings = [
            ("raft.heartbeat_ms", "20"),
            ("raft.election_timeout_min_ms", "60"),
            ("raft.election_timeout_max_ms", "120"),
            ("authorization.last_used_interval_ms", "3600000"),
            super::SMALL_RESERVE,
        ];
        let mut cluster = Cluster::start_with(1, &settings).await?;
        for database in DATABASES {
            cluster.admin(0)?.create_database(database, 1).await?;
        }
        let mut log_lengths = Vec::new();
        for part in 0..2 {
            fill(&mut cluster, part).await?;
            if part == 0 {
                // A stop writes tables; what comes afterwards stands in the write-ahead log alone.
                anyhow::ensure!(cluster.nodes[0].stop().await? == 0);
                damage::copy(&cluster.nodes[0].data(), &cluster.folder().join("earlier"))?;
                cluster.nodes[0].start()?;
                cluster.ready().await?;
            }
        }
        for number in 0..8 {
            let id = format!("last/{number}");
            cluster.admin(0)?.put("ledger", &id, "{\"one\":\"by one\"}").await?;
            sleep(Duration::from_millis(50)).await; // What is applied is written behind the answer.
            log_lengths.push(fs::metadata(damage::newest_log(&cluster.nodes[0].data())?)?.len());
        }
        let content = content(&cluster.admin(0)?).await.map_err(anyhow::Error::from)?;
        cluster.nodes[0].kill()?;
        let folder = cluster.nodes[0].folder.clone();
        fs::remove_file(cluster.nodes[0].log())?;
        let earlier = cluster.folder().join("earlier");
        Ok(Self { cluster, folder, earlier, content, log_lengths })
    }

    /// The folder of the node: configuration, keys, data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A copy of the data folder from the middle of its life, when it was stopped.
    #[must_use]
    pub fn earlier(&self) -> &Path {
        &self.earlier
    }

    /// Starts a copy of the node that `damage` has changed, and judges it.
    ///
    /// # Errors
    /// The copy cannot be made; whatever the node does is a verdict.
    pub async fn judge(
        &self,
        addresses: Addresses,
        damage: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Verdict> {
        let copy = tempfile::Builder::new().prefix("rookery-damaged-").tempdir()?;
        damage::copy(&self.folder, copy.path())?;
        damage(copy.path())?;
        let mut node = self.cluster.nodes[0].copied(copy.path(), addresses);
        node.start()?;
        let verdict = self.watch(&mut node).await?;
        if node.logged("panicked at") {
            let tail = logs::tail(&node.log(), 5);
            return Ok(Verdict::Wrong(format!("it panicked: {tail}")));
        }
        Ok(verdict)
    }

    async fn watch(&self, node: &mut Node) -> Result<Verdict> {
        let admin = node.caller(Some(&self.cluster.administrator))?;
        let start = Instant::now();
        loop {
            if !node.running() {
                return ended(node).await;
            }
            if serves(&admin).await {
                break;
            }
            if start.elapsed() > START_LIMIT {
                let tail = logs::tail(&node.log(), 5);
                return Ok(Verdict::Wrong(format!("neither refused nor served: {tail}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
        match content(&admin).await {
            Ok(found) if found == self.content => {}
            Ok(found) => return Ok(Verdict::Wrong(self.content.difference(&found))),
            Err(status) => return self.withheld(node, &status).await,
        }
        match admin.audit().verify(VerifyRequest {}).await {
            Ok(answer) if answer.get_ref().intact => Ok(Verdict::Whole),
            // The trail itself says that it is broken, and where.
            Ok(_broken) => Ok(Verdict::Withheld(Code::DataLoss)),
            Err(status) => self.withheld(node, &status).await,
        }
    }

    /// A call failed: as it should, or as if nothing were there.
    async fn withheld(&self, node: &mut Node, status: &Status) -> Result<Verdict> {
        // A node that finds its storage wrong may answer and end.
        sleep(Duration::from_millis(500)).await;
        if !node.running() {
            return ended(node).await;
        }
        let code = status.code();
        let withheld = matches!(code, Code::DataLoss | Code::Internal | Code::Unavailable);
        Ok(match withheld {
            true => Verdict::Withheld(code),
            false => Verdict::Wrong(format!("a read was answered {status:?}")),
        })
    }
}

async fn fill(cluster: &mut Cluster, part: usize) -> Result<()> {
    let admin = cluster.admin(0)?;
    for number in 0..40 {
        for database in DATABASES {
            let filler = "x".repeat(100 + number * 20);
            let json = format!("{{\"part\":{part},\"number\":{number},\"filler\":\"{filler}\"}}");
            admin.put(database, &format!("part{part}/{number:03}"), &json).await?;
        }
    }
    for number in 0..3 {
        let identity = Identity::new(&format!("c{part}-{number}"))?;
        admin.register(&identity, Clearance::User, &[("ledger", Access::Read)]).await?;
        if number == 0 {
            admin.revoke(&identity.thumbprint()).await?;
        }
    }
    Ok(())
}

async fn serves(admin: &Caller) -> bool {
    let status = tokio::time::timeout(Duration::from_secs(2), local_status(admin)).await;
    let Ok(Ok(status)) = status else { return false };
    status.authorization_fresh
        && status.groups.len() > DATABASES.len()
        && status.groups.iter().all(|group| group.leader_id != 0)
}

async fn content(admin: &Caller) -> Result<Content, Status> {
    let failed = |error: anyhow::Error| match error.downcast::<Status>() {
        Ok(status) => status,
        Err(error) => Status::unknown(format!("{error:#}")),
    };
    let mut documents = BTreeMap::new();
    for database in DATABASES {
        documents.insert(database, read_all(admin, database, "").await.map_err(failed)?);
    }
    let request = ListCertificatesRequest { page_size: 500, ..Default::default() };
    let list = admin.security().list_certificates(request).await?.into_inner();
    let clients =
        list.certificates.into_iter().filter(|it| it.clearance() != Clearance::ClusterNode);
    let certificates = clients.map(|it| it.thumbprint).collect();
    let status = local_status(admin).await.map_err(failed)?;
    let hashes = status.groups.into_iter().map(|group| (group.group, group.state_hash));
    let hashes = hashes.filter(|(group, _)| group != "cluster").collect();
    Ok(Content { documents, certificates, hashes })
}

async fn ended(node: &mut Node) -> Result<Verdict> {
    let status = node.wait_exit(Duration::from_secs(5)).await?;
    let text = fs::read_to_string(node.log()).context("what it said")?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(match status.code() {
        Some(code) if code != 0 && !line.is_empty() => Verdict::Refused(line.to_owned()),
        _ => Verdict::Wrong(format!("it ended with {status}: {line}")),
    })
}

impl Content {
    fn difference(&self, found: &Self) -> String {
        let mut text = String::new();
        for (database, expected) in &self.documents {
            let found = found.documents.get(database).cloned().unwrap_or_default();
            let missing = expected.keys().filter(|id| !found.contains_key(*id)).count();
            let more = found.keys().filter(|id| !expected.contains_key(*id)).count();
            let other = expected
                .iter()
                .filter(|(id, json)| found.get(*id).is_some_and(|found| found != *json));
            let other = other.count();
            text += &format!("{database}: {missing} missing, {more} too many, {other} changed; ");
        }
        if self.certificates != found.certificates {
            text += "other certificates; ";
        }
        if self.hashes != found.hashes {
            text += "other state hashes";
        }
        text
    }
}
