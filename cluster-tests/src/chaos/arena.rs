//! The cluster with its network, its proxies and its clocks; carries actions out, and heals everything.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rookery_proto::{
    cluster::v1::{GetTopologyRequest, RemoveNodeRequest, TransferLeaderRequest},
    database::v1::DeleteDatabaseRequest,
};

use super::{
    clocks::Clocks,
    effects::{self, Effects},
    fault::{Action, Cast, Group},
};
use crate::{
    caller::{Caller, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    fault_proxy::Toxiproxy,
    net::Network,
    node::Addresses,
    wait::eventually,
};

/// Original members.
pub const MEMBERS: usize = 3;
/// The position of the node that comes and goes.
const SPARE: usize = MEMBERS;
const PLACES: usize = MEMBERS + 1;
/// Ports in each namespace.
const CLIENT_PORT: u16 = 7443;
const PEER_PORT: u16 = 7444;
const OPS_PORT: u16 = 7445;
const PROXY_API_PORT: u16 = 8474;
/// In a node's namespace, the port from which its proxy leads to the node at position 0.
const PROXY_PORT: u16 = 21_000;
/// Entries after which a snapshot is due: snapshots are built, sent and installed all the time.
const SNAPSHOT_AFTER: &str = "50";
/// The database of the workloads, on the original members.
pub const DATABASE: &str = "ledger";
/// The database that comes and goes.
pub const BRIEF: &str = "brief";
/// What the spare node is called.
const SPARE_NAME: &str = "n4";
/// How long joining or leaving is tried while other faults hold.
const CHANGE_LIMIT: Duration = Duration::from_secs(6);

/// A proxy process in a node's namespace.
struct Sidecar {
    process: Child,
    api: Toxiproxy,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // One that has ended by itself is gone either way.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A cluster in a network of its own.
pub struct Arena {
    /// The nodes; the spare one is at the end once it was made.
    pub cluster: Cluster,
    /// Why clocks cannot be set, where they cannot.
    pub no_clocks: Option<String>,
    /// Where the real Toxiproxy was found; the one of this crate else.
    pub proxy_version: String,
    clocks: Option<Clocks>,
    sidecars: Vec<Sidecar>,
    /// Whether the spare node belongs to the cluster.
    spare_is_member: bool,
    spares: usize,
    /// What became of the changes that were asked for; [`Arena::effects`] gives it with what the logs tell.
    effects: Effects,
    /// How spare nodes ended that ended by themselves, and others otherwise than with 0 when they were asked to, in
    /// words.
    wrong_ends: Vec<String>,
    // Last: everything in it is gone before it is.
    network: Network,
}

impl Arena {
    /// Starts three nodes in namespaces with proxies between them, and the databases.
    ///
    /// # Errors
    /// The machine lacks something, or the cluster does not serve.
    pub async fn start() -> Result<Self> {
        let network = Network::new(PLACES)?;
        let members: Vec<_> =
            (0..MEMBERS).map(|at| (format!("n{}", at + 1), addresses(&network, at))).collect();
        let settings = [("raft.snapshot_after_entries", SNAPSHOT_AFTER)];
        let mut cluster = Cluster::prepare_at(&members, &settings).await?;
        let (clocks, no_clocks) = match Clocks::new(&cluster.folder().join("clocks")) {
            Ok(clocks) => (Some(clocks), None),
            Err(why) => (None, Some(format!("{why:#}"))),
        };
        let mut sidecars = Vec::new();
        for place in 0..PLACES {
            sidecars.push(sidecar(&network, place).await?);
        }
        let proxy_version = sidecars[0].api.version().await?;
        for at in 0..MEMBERS {
            prepare(&mut cluster, at, &network, clocks.as_ref())?;
        }
        // Where it leads, whoever was away gets a snapshot; from the others, entries.
        cluster.nodes[MEMBERS - 1].set("raft.hold_entries_ms", "1000");
        let mut arena = Self {
            cluster,
            no_clocks,
            proxy_version,
            clocks,
            sidecars,
            spare_is_member: false,
            spares: 0,
            effects: Effects::default(),
            wrong_ends: Vec::new(),
            network,
        };
        for node in &mut arena.cluster.nodes {
            node.start()?;
        }
        arena.cluster.ready().await?;
        let admin = arena.cluster.admin(0)?;
        for database in [DATABASE, BRIEF] {
            admin.create_database(database, MEMBERS as u32).await?;
        }
        arena.cluster.ready().await?;
        Ok(arena)
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The administrator on each original member.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn admins(&self) -> Result<Vec<Caller>> {
        (0..MEMBERS).map(|at| self.cluster.admin(at)).collect()
    }

    /// Who plays which part, as things are now.
    ///
    /// # Errors
    /// There is no leader.
    pub async fn cast(&mut self, group: Group) -> Result<Cast> {
        let leader = self.cluster.leader(name_of(group)).await?;
        // The spare node leads at times; then it is about somebody else.
        let leader = if leader < MEMBERS { leader } else { 0 };
        let followers = (0..MEMBERS).filter(|at| *at != leader).collect();
        Ok(Cast { leader, followers })
    }

    /// What became of the changes that were asked for until now.
    #[must_use]
    pub fn effects(&self) -> Effects {
        let of_nodes =
            self.cluster.nodes.iter().map(|node| effects::snapshots_installed(&node.log()));
        let mut effects = self.effects.clone();
        effects.snapshots += of_nodes.sum::<usize>();
        effects
    }

    /// Every time since the last call that a node ended by itself, which no action has it do, or otherwise than with 0
    /// when it was asked to, in words.
    #[must_use]
    pub fn take_deaths(&mut self) -> Vec<String> {
        let mut deaths = std::mem::take(&mut self.wrong_ends);
        deaths.extend(self.cluster.take_deaths());
        deaths
    }

    /// Carries one action out. What the cluster refuses because of other faults is no error, but tried for a while.
    ///
    /// # Errors
    /// The harness could not do it.
    pub async fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Kill(at) => {
                if self.cluster.nodes[*at].running() {
                    self.cluster.nodes[*at].kill()?;
                }
            }
            Action::Stop(at) => {
                if self.cluster.nodes[*at].running() {
                    self.cluster.nodes[*at].resume()?;
                    match self.cluster.nodes[*at].stop().await {
                        Ok(0) => {}
                        Ok(code) => {
                            self.wrong_ends
                                .push(format!("n{} stopped with exit code {code}", at + 1));
                        }
                        Err(why) => self.wrong_ends.push(format!("{why:#}")),
                    }
                }
            }
            Action::Start(at) => {
                if !self.cluster.nodes[*at].running() {
                    self.cluster.nodes[*at].start()?;
                }
            }
            Action::Pause(at) => {
                if self.cluster.nodes[*at].running() {
                    self.cluster.nodes[*at].pause()?;
                }
            }
            Action::Resume(at) => {
                if self.cluster.nodes[*at].running() {
                    self.cluster.nodes[*at].resume()?;
                }
            }
            Action::Impair(from, to, fate) => self.network.impair(*from, *to, *fate)?,
            Action::Mend(from, to) => self.network.mend(*from, *to)?,
            Action::Poison(from, to, toxic) => self.proxy(*from).add(&link(*to), toxic).await?,
            Action::Cleanse(from, to) => self.cleanse(*from, *to).await?,
            Action::Enable(from, to, enabled) => {
                self.proxy(*from).set_enabled(&link(*to), *enabled).await?;
            }
            Action::Clock(at, seconds) => self.set_clock(*at, *seconds)?,
            Action::Transfer(group, to) => self.transfer(*group, *to).await,
            Action::Join => self.join().await?,
            Action::Leave => self.leave().await?,
            Action::Recreate => self.recreate().await?,
        }
        Ok(())
    }

    /// Ends every fault: links, proxies, clocks, processes, membership.
    ///
    /// # Errors
    /// The harness could not do it.
    pub async fn heal(&mut self) -> Result<()> {
        self.network.heal()?;
        for sidecar in &self.sidecars {
            sidecar.api.reset().await?;
        }
        for at in 0..MEMBERS {
            self.set_clock(at, 0)?;
            self.act(&Action::Resume(at)).await?;
            self.act(&Action::Start(at)).await?;
        }
        Ok(())
    }

    /// Removes the spare node, where a fault left it in the cluster.
    ///
    /// # Errors
    /// The cluster does not remove it, though all others are well.
    pub async fn remove_spare(&mut self) -> Result<()> {
        if self.cluster.nodes.len() > MEMBERS {
            self.act(&Action::Leave).await?;
        }
        anyhow::ensure!(!self.spare_is_member, "the node that joined could not be removed");
        Ok(())
    }

    /// Stops every node, and fails on an exit code other than 0 or a log line that nobody expected.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub async fn finish(self) -> Result<()> {
        let Self { cluster, sidecars, network, .. } = self;
        let outcome = cluster.finish().await;
        drop((sidecars, network));
        outcome
    }

    fn proxy(&self, from: usize) -> &Toxiproxy {
        &self.sidecars[from].api
    }

    async fn cleanse(&self, from: usize, to: usize) -> Result<()> {
        let proxies = self.proxy(from).proxies().await?;
        let toxics = proxies.get(&link(to)).map(|proxy| proxy.toxics.clone()).unwrap_or_default();
        for toxic in toxics {
            self.proxy(from).remove(&link(to), &toxic.name).await?;
        }
        Ok(())
    }

    fn set_clock(&self, at: usize, seconds: i64) -> Result<()> {
        self.clocks.as_ref().map_or(Ok(()), |clocks| clocks.set(&link(at), seconds))
    }

    async fn transfer(&mut self, group: Group, to: usize) {
        // One to whom leads already moves nothing.
        let leader = self.cluster.leader(name_of(group));
        let leader = tokio::time::timeout(Duration::from_millis(500), leader).await;
        let leads = matches!(leader, Ok(Ok(leader)) if leader == to);
        let node_id = to as u64 + 1;
        let request = TransferLeaderRequest { group: name_of(group).to_owned(), node_id };
        let Ok(admin) = self.cluster.admin(to) else { return };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(2));
        // Not where another fault is in the way.
        let moved = admin.cluster().transfer_leader(request).await.is_ok();
        if !leads {
            self.effects.transfers.note(moved);
        }
    }

    /// A new node with an empty folder joins through whichever member answers.
    async fn join(&mut self) -> Result<()> {
        anyhow::ensure!(self.cluster.nodes.len() == MEMBERS, "one spare node at a time");
        self.spares += 1;
        let folder = format!("spare-{}", self.spares);
        let at =
            self.cluster.add_passive_at(SPARE_NAME, &folder, addresses(&self.network, SPARE))?;
        prepare(&mut self.cluster, at, &self.network, self.clocks.as_ref())?;
        self.cluster.nodes[at].set("raft.snapshot_after_entries", SNAPSHOT_AFTER);
        self.cluster.nodes[at].start()?;
        let outcome = tokio::time::timeout(CHANGE_LIMIT, self.join_through_anybody(at)).await;
        let joined = matches!(outcome, Ok(true));
        self.effects.joins.note(joined);
        self.spare_is_member |= joined;
        Ok(())
    }

    async fn join_through_anybody(&mut self, at: usize) -> bool {
        for via in (0..MEMBERS).cycle() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Ok(admin) = self.cluster.admin(via) else { continue };
            let request = rookery_proto::cluster::v1::CreateJoinTokenRequest {
                lifetime_seconds: 60,
                request_id: request_id(),
            };
            let mut request = tonic::Request::new(request);
            request.set_timeout(Duration::from_secs(1));
            let Ok(token) = admin.cluster().create_join_token(request).await else { continue };
            let token = token.into_inner().token;
            let joined = self.cluster.join(at, via, &token).await;
            if joined.is_ok_and(|output| output.code == 0) {
                return true;
            }
        }
        false
    }

    async fn leave(&mut self) -> Result<()> {
        if self.cluster.nodes.len() == MEMBERS {
            return Ok(());
        }
        let removed = tokio::time::timeout(HEAL_LIMIT, self.remove_by_name()).await;
        let removed = removed.is_ok_and(|removed| removed.is_ok());
        // One that never joined, as far as is known, need not have been there to be removed.
        if self.spare_is_member {
            self.effects.removals.note(removed);
        }
        if removed {
            let mut spare = self.cluster.nodes.remove(SPARE);
            self.wrong_ends.extend(spare.take_deaths());
            if spare.running() {
                spare.kill()?;
            }
            self.effects.snapshots += effects::snapshots_installed(&spare.log());
            self.cluster.keep_log(&spare);
            self.spare_is_member = false;
        }
        Ok(())
    }

    /// Removes whichever member has the spare's name, until there is none.
    async fn remove_by_name(&self) -> Result<()> {
        eventually("the spare node is removed", HEAL_LIMIT, async || {
            let mut last = anyhow::anyhow!("nobody answered");
            for via in 0..MEMBERS {
                match remove_spare_through(&self.cluster.admin(via)?).await {
                    Ok(()) => return Ok(()),
                    Err(why) => last = why,
                }
            }
            Err(last)
        })
        .await
    }

    async fn recreate(&mut self) -> Result<()> {
        let admins = self.admins()?;
        let delete = DeleteDatabaseRequest { name: BRIEF.to_owned(), request_id: request_id() };
        let create = rookery_proto::database::v1::CreateDatabaseRequest {
            name: BRIEF.to_owned(),
            replicas: MEMBERS as u32,
            nodes: Vec::new(),
            request_id: request_id(),
        };
        let work = async {
            let deleted = ask_all(&admins, async |admin| {
                let mut databases = admin.databases();
                databases.delete_database(limited(delete.clone())).await.map(drop)
            })
            .await;
            let created = ask_all(&admins, async |admin| {
                let mut databases = admin.databases();
                databases.create_database(limited(create.clone())).await.map(drop)
            })
            .await;
            deleted && created
        };
        // Where other faults keep it from happening, what is left of it happens in the next step of its kind.
        let took_place = tokio::time::timeout(CHANGE_LIMIT, work).await.unwrap_or(false);
        self.effects.recreations.note(took_place);
        Ok(())
    }
}

/// Asks one after the other, under one request id, until one acknowledges or says that there is nothing to do; tells
/// whether it was acknowledged.
async fn ask_all(
    admins: &[Caller],
    mut ask: impl AsyncFnMut(&Caller) -> Result<(), tonic::Status>,
) -> bool {
    for admin in admins.iter().cycle() {
        match ask(admin).await {
            Ok(()) => return true,
            Err(status)
                if matches!(status.code(), tonic::Code::NotFound | tonic::Code::AlreadyExists) =>
            {
                return false;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    false
}

fn limited<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_secs(2));
    request
}

async fn remove_spare_through(admin: &Caller) -> Result<()> {
    let topology = admin.cluster().get_topology(limited(GetTopologyRequest {})).await?;
    let nodes = topology.into_inner().nodes;
    let Some(spare) = nodes.iter().find(|node| node.name == SPARE_NAME) else { return Ok(()) };
    let request = RemoveNodeRequest { node_id: spare.id, request_id: request_id() };
    admin.cluster().remove_node(limited(request)).await?;
    Ok(())
}

/// The name of a group in the status of nodes.
#[must_use]
pub fn name_of(group: Group) -> &'static str {
    match group {
        Group::Cluster => "cluster",
        Group::Database => DATABASE,
    }
}

/// The name of the node at a position, which is also that of the proxy that leads to it.
fn link(at: usize) -> String {
    format!("n{}", at + 1)
}

fn addresses(network: &Network, place: usize) -> Addresses {
    let at = |port| SocketAddr::new(network.address(place), port);
    Addresses { client: at(CLIENT_PORT), peer: at(PEER_PORT), ops: at(OPS_PORT) }
}

/// Has the node at a position start in its namespace, dial its peers through its proxy, and look at its own clock.
fn prepare(
    cluster: &mut Cluster,
    at: usize,
    network: &Network,
    clocks: Option<&Clocks>,
) -> Result<()> {
    let node = &mut cluster.nodes[at];
    node.set("log.level", effects::LOG_LEVEL);
    node.launcher = network.launcher(at);
    if let Some(clocks) = clocks {
        node.launcher.extend(clocks.launcher(&link(at))?);
    }
    for other in (0..PLACES).filter(|other| *other != at) {
        let port = PROXY_PORT + u16::try_from(other)?;
        node.set(&format!("peers.{}.dial", link(other)), &format!("127.0.0.1:{port}"));
    }
    Ok(())
}

/// Starts a proxy in the namespace, with one proxy to each other place: the real Toxiproxy where `TOXIPROXY_BIN` names
/// it, the one of this crate else.
async fn sidecar(network: &Network, place: usize) -> Result<Sidecar> {
    let launcher = network.launcher(place);
    let mut command = Command::new(&launcher[0]);
    command.args(&launcher[1..]);
    let api = SocketAddr::new(network.address(place), PROXY_API_PORT);
    match std::env::var_os("TOXIPROXY_BIN") {
        Some(real) => {
            let (host, port) = (api.ip().to_string(), api.port().to_string());
            command.arg(real).args(["-host", &host, "-port", &port]);
        }
        None => {
            command.arg(beside("fault-proxy")?).args(["--listen", &api.to_string()]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().context("starting a fault proxy")?;
    let sidecar = Sidecar { process, api: Toxiproxy::at(api) };
    eventually("the fault proxy answers", HEAL_LIMIT, async || {
        sidecar.api.version().await.map(drop)
    })
    .await?;
    for other in (0..PLACES).filter(|other| *other != place) {
        let listen = format!("127.0.0.1:{}", PROXY_PORT + u16::try_from(other)?);
        let upstream = addresses(network, other).peer.to_string();
        sidecar.api.create(&link(other), &listen, &upstream).await?;
    }
    Ok(sidecar)
}

/// A program of this crate that was built beside the running one.
///
/// # Errors
/// There is none; the error tells how to build it.
pub fn beside(name: &str) -> Result<std::path::PathBuf> {
    let program = std::env::current_exe().context("the path of this program")?;
    let folders = program.ancestors().skip(1).take(2);
    let found = folders.map(|folder: &Path| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no `{name}`; run `cargo build --workspace --bins` first"))
}
