//! Several nodes that know each other: made by the binary itself, waited for with deadlines, and looked at in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rookery_proto::{
    cluster::v1::{GetStatusRequest, GroupStatus, NodeStatus},
    security::v1::{Access, Clearance, WhoAmIRequest},
};
use tempfile::TempDir;

use crate::{
    binary,
    caller::Caller,
    identity::Identity,
    logs,
    node::{Addresses, Node},
    ports::Ports,
    wait::eventually,
};

/// Longest time from the start of all processes to a cluster that serves, on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest time until all nodes are ready again after a fault has ended (contract L2).
pub const HEAL_LIMIT: Duration = Duration::from_secs(10);
/// Longest time without a successful write while a majority is healthy (contract L1), at the default timeouts:
/// twice the longest election timeout and a second.
pub const FAILOVER_LIMIT: Duration = Duration::from_millis(2 * 1200 + 1000);

/// A cluster of real processes. Ends them when it is dropped; [`Cluster::finish`] also judges their logs.
pub struct Cluster {
    /// The nodes in the order of their names; the first ones were made by `rookery init` and have ids from 1.
    pub nodes: Vec<Node>,
    /// The first Cluster Admin, made by `rookery init`.
    pub administrator: Identity,
    /// The client package of the administrator.
    pub package: PathBuf,
    expected_log_lines: Vec<String>,
    former_logs: Vec<PathBuf>,
    ports: Option<Ports>,
    folder: TempDir,
    finished: bool,
}

impl Cluster {
    /// Starts `count` nodes and waits until each one serves.
    ///
    /// # Errors
    /// The binary is missing or fails, or the cluster does not serve within [`START_LIMIT`].
    pub async fn start(count: usize) -> Result<Self> {
        Self::start_with(count, &[]).await
    }

    /// [`Cluster::start`] with configuration keys, such as `("raft.snapshot_after_entries", "50")`.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(count: usize, settings: &[(&str, &str)]) -> Result<Self> {
        let mut cluster = Self::prepare(count, settings).await?;
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Makes folders, keys and certificates of `count` nodes with `rookery init`, and starts nothing.
    ///
    /// # Errors
    /// The binary is missing or fails.
    pub async fn prepare(count: usize, settings: &[(&str, &str)]) -> Result<Self> {
        let mut ports = Ports::claim()?;
        let mut members = Vec::new();
        for number in 1..=count {
            members.push((format!("n{number}"), Addresses::take(&mut ports)?));
        }
        let mut cluster = Self::prepare_at(&members, settings).await?;
        cluster.ports = Some(ports);
        Ok(cluster)
    }

    /// [`Cluster::prepare`] for members at addresses of the caller's choice, such as in network namespaces.
    ///
    /// # Errors
    /// The binary is missing or fails.
    pub async fn prepare_at(
        members: &[(String, Addresses)],
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rookery-cluster-").tempdir()?;
        let pki = folder.path().join("pki");
        init(folder.path(), &pki, members).await?;
        let mut nodes = Vec::new();
        for (name, addresses) in members {
            let mut node = Node::prepared(name, &pki.join(name), *addresses)?;
            for (key, value) in settings {
                node.set(key, value);
            }
            nodes.push(node);
        }
        let package = pki.join("admin/admin.zip");
        let bytes = fs::read(&package).context("the administrator's package")?;
        Ok(Self {
            nodes,
            administrator: Identity::from_package("admin", &bytes)?,
            package,
            expected_log_lines: Vec::new(),
            former_logs: Vec::new(),
            ports: None,
            folder,
            finished: false,
        })
    }

    /// A folder of this cluster for whatever a test writes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Declares that log lines with `part` are to be expected in this test.
    pub fn expect_in_logs(&mut self, part: &str) {
        self.expected_log_lines.push(part.to_owned());
    }

    /// Looks at the log of a node in the end, though the node is no part of the cluster any more.
    pub fn keep_log(&mut self, node: &Node) {
        self.former_logs.push(node.log());
    }

    /// The administrator on one node.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn admin(&self, node: usize) -> Result<Caller> {
        self.nodes[node].caller(Some(&self.administrator))
    }

    /// One identity on every node, in their order.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn everywhere(&self, identity: Option<&Identity>) -> Result<Vec<Caller>> {
        self.nodes.iter().map(|node| node.caller(identity)).collect()
    }

    /// Makes a certificate, registers it through the first node that runs, and waits until every running node knows it.
    ///
    /// # Errors
    /// The registration is refused.
    pub async fn register(
        &mut self,
        name: &str,
        clearance: Clearance,
        grants: &[(&str, Access)],
    ) -> Result<Identity> {
        let identity = Identity::new(name)?;
        let node = self.running()[0];
        let admin = self.admin(node)?;
        admin
            .register(&identity, clearance, grants)
            .await
            .with_context(|| format!("registering {name}"))?;
        self.known_everywhere(&identity).await?;
        Ok(identity)
    }

    /// Waits until every running node has applied the registration of `identity`.
    ///
    /// # Errors
    /// Not within [`HEAL_LIMIT`].
    pub async fn known_everywhere(&mut self, identity: &Identity) -> Result<()> {
        for at in self.running() {
            let caller = self.nodes[at].caller(Some(identity))?;
            eventually("a registered certificate is known", HEAL_LIMIT, async || {
                let who = caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
                anyhow::ensure!(who.registered, "{} does not know it", who.node);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The positions of the nodes whose processes run.
    pub fn running(&mut self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&at| self.nodes[at].running()).collect()
    }

    /// Waits until every running node serves: it knows the leader of each group it holds, and its registry is fresh.
    ///
    /// # Errors
    /// Not within [`START_LIMIT`], with what the last node that did not serve said.
    pub async fn ready(&mut self) -> Result<()> {
        self.ready_within(START_LIMIT).await
    }

    /// [`Cluster::ready`] within another time.
    ///
    /// # Errors
    /// Not within `limit`, or a node has ended by itself.
    pub async fn ready_within(&mut self, limit: Duration) -> Result<()> {
        self.nobody_died()?;
        for at in self.running() {
            let name = self.nodes[at].name.clone();
            let admin = self.admin(at)?;
            let outcome = eventually(&format!("{name} serves"), limit, async || {
                let status = local_status(&admin).await?;
                anyhow::ensure!(status.authorization_fresh, "its registry is not fresh");
                let leaderless: Vec<_> =
                    status.groups.iter().filter(|g| g.leader_id == 0).map(|g| &g.group).collect();
                anyhow::ensure!(leaderless.is_empty(), "no leader in {leaderless:?}");
                anyhow::ensure!(!status.groups.is_empty(), "it holds no group");
                Ok(())
            })
            .await;
            if outcome.is_err() {
                self.nobody_died()?;
            }
            outcome?;
        }
        Ok(())
    }

    /// No process has ended that nobody had asked to end.
    ///
    /// # Errors
    /// The first one that has, with its last words.
    fn nobody_died(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.died() {
                anyhow::bail!(node.told_death(status));
            }
        }
        Ok(())
    }

    /// Every time since the last call that a process of the cluster ended though nobody had asked it to, in words.
    #[must_use]
    pub fn take_deaths(&mut self) -> Vec<String> {
        self.nodes.iter_mut().flat_map(Node::take_deaths).collect()
    }

    /// What one node says of itself.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn status(&self, node: usize) -> Result<NodeStatus> {
        local_status(&self.admin(node)?).await
    }

    /// One group as one node sees it.
    ///
    /// # Errors
    /// The node does not answer, or does not hold the group.
    pub async fn group(&self, node: usize, group: &str) -> Result<GroupStatus> {
        let status = self.status(node).await?;
        status
            .groups
            .into_iter()
            .find(|candidate| candidate.group == group)
            .with_context(|| format!("{} does not hold {group}", self.nodes[node].name))
    }

    /// The position of the leader of a group, as soon as the running nodes agree on one that runs.
    ///
    /// # Errors
    /// They do not within [`HEAL_LIMIT`].
    pub async fn leader(&mut self, group: &str) -> Result<usize> {
        let running = self.running();
        let this = &*self;
        eventually(&format!("a leader of {group}"), HEAL_LIMIT, async || {
            let mut seen = BTreeSet::new();
            let mut ids = BTreeMap::new();
            for &at in &running {
                let status = this.status(at).await?;
                ids.insert(status.node.context("a status without node")?.id, at);
                if let Some(group) = status.groups.iter().find(|g| g.group == group) {
                    seen.insert(group.leader_id);
                }
            }
            let leader = seen.pop_first().context("no node holds it")?;
            anyhow::ensure!(seen.is_empty(), "nodes see {leader} and {seen:?}");
            ids.get(&leader)
                .copied()
                .with_context(|| format!("the leader is {leader}, which is down"))
        })
        .await
    }

    /// Waits until all running nodes that hold a group have applied the same entries, and compares their state hashes.
    /// Gives the hash and applied index of each group.
    ///
    /// # Errors
    /// They do not come to rest at one index, their hashes differ there (contract S5), or a node has ended by itself.
    pub async fn same_state(&mut self) -> Result<BTreeMap<String, (u64, String)>> {
        self.nobody_died()?;
        let running = self.running();
        let this = &*self;
        eventually("equal state on all nodes", HEAL_LIMIT, async || {
            let mut groups: BTreeMap<String, BTreeSet<(u64, String)>> = BTreeMap::new();
            for &at in &running {
                for group in this.status(at).await?.groups {
                    anyhow::ensure!(!group.state_hash.is_empty(), "{} has no hash", group.group);
                    let at_index = (group.applied_index, group.state_hash);
                    groups.entry(group.group).or_default().insert(at_index);
                }
            }
            for (group, states) in &groups {
                anyhow::ensure!(states.len() == 1, "{group} has the states {states:?}");
            }
            Ok(groups
                .into_iter()
                .filter_map(|(name, mut all)| Some((name, all.pop_first()?)))
                .collect())
        })
        .await
    }

    /// Adds a node that belongs to no cluster, with its own certificate; it is not started.
    ///
    /// # Errors
    /// Its folder cannot be written.
    pub fn add_passive(&mut self, name: &str) -> Result<usize> {
        let ports = self.ports.as_mut().context("a cluster whose addresses were given to it")?;
        let addresses = Addresses::take(ports)?;
        self.add_passive_at(name, name, addresses)
    }

    /// [`Cluster::add_passive`] at addresses and in a folder (below the cluster's) of the caller's choice.
    ///
    /// # Errors
    /// Its folder cannot be written.
    pub fn add_passive_at(
        &mut self,
        name: &str,
        folder: &str,
        addresses: Addresses,
    ) -> Result<usize> {
        self.nodes.push(Node::passive(name, &self.folder.path().join(folder), addresses)?);
        Ok(self.nodes.len() - 1)
    }

    /// Makes a join token that lives for `seconds`, through the first node that runs.
    ///
    /// # Errors
    /// The call is refused.
    pub async fn join_token(&mut self, seconds: u64) -> Result<String> {
        let node = self.running()[0];
        let request = rookery_proto::cluster::v1::CreateJoinTokenRequest {
            lifetime_seconds: seconds,
            request_id: crate::caller::request_id(),
        };
        let answer = self.admin(node)?.cluster().create_join_token(request).await?;
        Ok(answer.into_inner().token)
    }

    /// Has the running passive node at `position` join through the client listener of node `via`.
    ///
    /// # Errors
    /// The command cannot be run; its own failure is in the output.
    pub async fn join(&self, position: usize, via: usize, token: &str) -> Result<binary::Output> {
        let address = self.nodes[via].addresses.client.to_string();
        self.nodes[position].run(&["join", &address, token]).await
    }

    /// Stops every node with SIGTERM, and fails on an exit code other than 0, a log line that nobody expected, or a
    /// process that ended, now or earlier, though nobody had asked it to. A test in which a node is to end by itself
    /// waits for that with [`Node::wait_exit`], starts the node with a fault point, or keeps its data on a disk of its
    /// own.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub async fn finish(mut self) -> Result<()> {
        let mut problems = Vec::new();
        for node in &mut self.nodes {
            problems.extend(node.take_deaths());
            if node.running() {
                match node.stop().await {
                    Ok(0) => {}
                    Ok(code) => {
                        problems.push(format!("{} stopped with exit code {code}", node.name))
                    }
                    Err(error) => problems.push(error.to_string()),
                }
            }
            if node.log().exists() {
                problems.extend(logs::unexpected(&node.log(), &self.expected_log_lines)?);
            }
        }
        for log in &self.former_logs {
            problems.extend(logs::unexpected(log, &self.expected_log_lines)?);
        }
        anyhow::ensure!(problems.is_empty(), "in the end:\n{}", problems.join("\n"));
        self.finished = true;
        Ok(())
    }
}

impl Drop for Cluster {
    /// A test that did not come to its end shows the last words of each node.
    #[allow(clippy::print_stderr)] // Where a test's reader looks.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for node in &self.nodes {
            if node.log().exists() {
                eprintln!(
                    "---- the log of {} ends with\n{}",
                    node.name,
                    logs::tail(&node.log(), 25)
                );
            }
        }
    }
}

/// What a node says of itself.
///
/// # Errors
/// It does not answer.
pub async fn local_status(admin: &Caller) -> Result<NodeStatus> {
    let answer = admin.cluster().get_status(GetStatusRequest { local_only: true }).await?;
    answer.into_inner().nodes.into_iter().next().context("a status without nodes")
}

/// `rookery init`: makes keys, certificates, configuration of all members, and the administrator's package.
async fn init(folder: &Path, out: &Path, members: &[(String, Addresses)]) -> Result<()> {
    let nodes: Vec<String> = members
        .iter()
        .map(|(name, Addresses { client, peer, ops })| {
            format!("{name}={}:{}:{}:{}", client.ip(), client.port(), peer.port(), ops.port())
        })
        .collect();
    let (nodes, out) = (nodes.join(","), out.display().to_string());
    // On loopback nobody else shall reach the tests' nodes; in a namespace each node has an address of its own.
    let loopback = members.iter().all(|(_, addresses)| addresses.client.ip().is_loopback());
    let listen = if loopback { "127.0.0.1" } else { "0.0.0.0" };
    let arguments = ["init", "--nodes", &nodes, "--out", &out, "--listen", listen];
    binary::succeed(folder, &[], &arguments).await.map(drop)
}
