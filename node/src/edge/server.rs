//! Puts the layers of a node together and runs them until it is told to stop, or may not go on.
//!
//! 1. Secrets are kept out of core dumps. 2. All sockets are bound, so that a taken port is found before anything is
//!    touched. 3. Master key, keyring, sentinel, store, in this order. 4. Consensus starts, if
//!    the node's identity and logs are what the sentinel knows. 5. Listeners, watchers, admin socket.
//!
//! The end, within ten seconds: clients finish what is under way and are turned away, leadership is handed over, the
//! groups stop, then the peer listener. A failure of the storage is another end: the process leaves at once with the
//! reason, because whatever it did next could rest on what was never written.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use axum::Router;
use rookery_proto::log::v1::Sentinel as SentinelRecord;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    authz::{DeniedReason, ServerOperation},
    clock::{Clock as _, SystemClock},
    cluster,
    config::{Config, Formation},
    consensus::{Consensus, Denial, Identity, Parts, Peers, peer_service},
    crypto::{self, Keyring, OpenedKeyring, SealingKey},
    edge::{
        Edge, Node, admin_router, admin_socket, client_router,
        connections::{Bounds, Connections},
        duties, history,
        listener::{self, Admission, Listener, Refusals, Surface},
        live::Live,
        metrics::Metrics,
        node_keys::{self, NodeKeys},
        ops,
        raft_engine::RaftEngine,
        recognition::Recognition,
        services, uses,
    },
    fault, limits,
    own_certificate::{self, Kept, OwnCertificate, Source},
    storage::{Rocks, Room, Sentinel},
    tls::{self, TlsIdentity},
};

/// Longest wait for consensus to hand over and stop.
const CONSENSUS_END: Duration = Duration::from_secs(6);

/// Runs a node until `shutdown` completes.
///
/// # Errors
/// Why it could not start, or what stopped it.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    fault::arm().map_err(anyhow::Error::msg)?;
    if let Err(error) = crypto::memory::harden() {
        tracing::warn!(%error, "core dumps of this process cannot be switched off");
    }
    let config = Arc::new(config);
    let sockets = Sockets::bind(&config)?;
    let (fatal, mut failed) = mpsc::channel(1);
    let running = Running::start(config, sockets, fatal).await?;
    tokio::select! {
        () = shutdown => {
            tracing::info!("stopping");
            running.stop().await
        }
        why = failed.recv() => {
            end_in_time();
            bail!("this node stops: {}", why.unwrap_or_else(|| "it lost its storage".to_owned()))
        }
    }
}

/// Longest time from a failure of the storage to the end of the process, whatever hangs on that storage.
const FAILED_END: Duration = Duration::from_secs(3);

/// Whoever waits for a disk that does not answer would keep the process from its end.
fn end_in_time() {
    std::thread::spawn(|| {
        std::thread::sleep(FAILED_END);
        tracing::error!("this node stops without waiting for its disk any longer");
        #[allow(clippy::disallowed_methods)] // Main waits for what will never come.
        std::process::exit(1);
    });
}

/// Completes when the process is told to end (SIGTERM, SIGINT). SIGHUP ends nothing: it has the
/// node's certificate looked at.
///
/// # Errors
/// The handlers cannot be installed.
pub fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => {} // Heard where the node's certificate is watched.
            }
        }
    })
}

/// All sockets of a node.
struct Sockets {
    client: TcpListener,
    peer: TcpListener,
    ops: TcpListener,
}

impl Sockets {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |key: &str, address| {
            listener::bind(address).with_context(|| format!("cannot listen on {address} ({key})"))
        };
        Ok(Self {
            client: bind("listen.client", config.listen.client)?,
            peer: bind("listen.peer", config.listen.peer)?,
            ops: bind("listen.ops", config.listen.ops)?,
        })
    }
}

/// The encrypted storage of a data folder.
struct Storage {
    store: Arc<Rocks>,
    room: Arc<Room>,
    keyring: Arc<Keyring>,
    /// The next master key opened the keyring.
    by_next: bool,
    sealing: Arc<SealingKey>,
    kept: Kept,
    sentinel: Sentinel,
    /// What the sentinel said before this start.
    expected: Option<SentinelRecord>,
}

impl Storage {
    /// Blocks. The sentinel comes before the store, because it tells a new folder from one that lost it.
    fn open(config: &Config) -> anyhow::Result<Self> {
        let folder = &config.node.data;
        let (current, next) = node_keys::sources(&config.encryption)?;
        let OpenedKeyring { keyring, by_next } =
            crypto::open_keyring(folder, &current, next.as_ref())?;
        let room = Arc::new(Room::open(folder, config.storage.reserve_bytes())?);
        let (sentinel, expected) = Sentinel::open(folder, &keyring)?;
        let named = |file: &str| format!("{} cannot be used", folder.join(file).display());
        let sealing = SealingKey::open_or_make(folder, &keyring);
        let sealing = Arc::new(sealing.with_context(|| named(crypto::SEALING_KEY_FILE))?);
        let kept = Kept::open(folder, keyring.clone());
        let kept = kept.with_context(|| named(own_certificate::KEPT_FILE))?;
        let store = Rocks::open_within(folder, keyring.clone(), room.clone())?;
        Ok(Self { store, room, keyring, by_next, sealing, kept, sentinel, expected })
    }
}

/// What runs.
struct Running {
    consensus: Arc<Consensus>,
    store: Arc<Rocks>,
    /// Clients, ops and the admin socket.
    clients: CancellationToken,
    client_tasks: Vec<JoinHandle<()>>,
    /// Peers, and what watches the registry.
    peers: CancellationToken,
    peer_tasks: Vec<JoinHandle<()>>,
}

impl Running {
    async fn start(
        config: Arc<Config>,
        sockets: Sockets,
        fatal: mpsc::Sender<String>,
    ) -> anyhow::Result<Self> {
        let source = Source::of(&config.tls);
        let found = spawn_blocking({
            let source = source.clone();
            move || source.read()
        });
        let found = found.await?;
        let formation = config.formation.file.as_deref().map(Formation::load).transpose()?;
        let storage = spawn_blocking({
            let config = config.clone();
            move || Storage::open(&config)
        });
        let Storage { store, room, keyring, by_next, sealing, mut kept, sentinel, expected } =
            storage.await??;
        let member = Identity::load_or_make(store.as_ref())?.is_member();
        let tls = own_certificate::begin(&mut kept, found, member)?;
        warn_of_dates(&tls.load());
        let node = Node {
            name: config.node.name.clone(),
            identity: tls.clone(),
            ca_pem: read_ca(&config)?,
            sealing: sealing.clone(),
        };
        let admin = bind_admin_socket(&config)?; // The folder is there and locked by now.
        let sentinel = Arc::new(sentinel);
        let parts = Parts {
            config: config.clone(),
            formation: formation.clone(),
            store: store.clone(),
            room,
            tls: tls.clone(),
            sealing_key: *sealing.public().as_bytes(),
            clock: Arc::new(SystemClock),
            sentinel: sentinel.clone(),
            expected,
            on_fatal: {
                let fatal = fatal.clone();
                Arc::new(move |why| drop(fatal.try_send(why))) // The first reason is the one told.
            },
        };
        store.on_failure({
            let fatal = fatal.clone();
            move |why| drop(fatal.try_send(why.to_owned()))
        });
        sentinel.on_failure(move |why| drop(fatal.try_send(why.to_owned())));
        let consensus = Consensus::start(parts).await?;
        let clock = Arc::new(SystemClock);
        let own = OwnCertificate::new(
            consensus.clone(),
            source,
            kept,
            tls.clone(),
            sealing.clone(),
            clock,
        );
        let keys = NodeKeys::start(node_keys::Parts {
            config: config.clone(),
            store: store.clone(),
            keyring,
            by_next,
            sealing,
            sentinel,
            own: own.clone(),
        })?;
        let mut running = Self {
            consensus: consensus.clone(),
            store: store.clone(),
            clients: CancellationToken::new(),
            client_tasks: Vec::new(),
            peers: CancellationToken::new(),
            peer_tasks: Vec::new(),
        };
        let metrics = Arc::new(Metrics::default());
        let live = Arc::new(Live {
            client: Connections::new(Bounds::CLIENT),
            peer: Connections::new(Bounds::PEER),
            metrics: metrics.clone(),
        });
        consensus.serve_with(live.clone());
        let edge = Arc::new(Edge {
            engine: Arc::new(RaftEngine { consensus: consensus.clone(), own: own.clone(), keys }),
            node,
            clock: Arc::new(SystemClock),
            metrics,
            work: Default::default(),
            recognition: Recognition::default(),
            code_checks: Arc::default(),
            live,
        });
        running.serve(&config, sockets, admin, &edge, formation)?;
        running.peer_tasks.push(tokio::spawn(own.clone().run()));
        running.peer_tasks.push(tokio::spawn(own_certificate::watch(own)));
        tracing::info!(
            node = config.node.name,
            certificate = %tls.load().thumbprint(),
            client = %config.listen.client,
            peer = %config.listen.peer,
            "started"
        );
        Ok(running)
    }

    fn serve(
        &mut self,
        config: &Config,
        sockets: Sockets,
        (admin, admin_path): (UnixListener, PathBuf),
        edge: &Arc<Edge>,
        formation: Option<Formation>,
    ) -> anyhow::Result<()> {
        let identity = &edge.node.identity;
        let client = Listener {
            surface: Surface::Client,
            tcp: sockets.client,
            tls: tls::client_port_config(identity, config.tls.tls12)?,
            router: client_router(edge)?,
            connections: edge.live.client.clone(),
            metrics: edge.metrics.clone(),
            admission: None,
            refusals: None,
        };
        let service = peer_service::service(Arc::new(Peers(self.consensus.clone())));
        let peer = Listener {
            surface: Surface::Peer,
            tcp: sockets.peer,
            tls: tls::peer_port_config(identity)?,
            router: services::with(Router::new(), service),
            connections: edge.live.peer.clone(),
            metrics: edge.metrics.clone(),
            admission: Some(members_only(self.consensus.clone(), formation)),
            refusals: Some(note_refused_peers(self.consensus.clone())),
        };
        let connections = [client.connections.clone(), peer.connections.clone()];
        let ending = duties::end_sessions(self.consensus.clone(), client.connections.clone());
        self.peer_tasks.push(tokio::spawn(ending));
        let keeping = duties::keep_cluster_secret(edge.clone(), self.clients.clone());
        self.client_tasks.push(tokio::spawn(keeping));
        let revoking = close_revoked(self.consensus.clone(), connections);
        self.peer_tasks.push(tokio::spawn(revoking));
        // Of clients alone: an expired date does not cut a member off.
        let expiring = close_expired(self.consensus.clone(), client.connections.clone());
        self.peer_tasks.push(tokio::spawn(expiring));
        self.peer_tasks.push(tokio::spawn(listener::serve(peer, self.peers.clone())));
        self.client_tasks.push(tokio::spawn(listener::serve(client, self.clients.clone())));
        let pages = ops::router(edge.clone());
        self.client_tasks.push(tokio::spawn(ops::serve(sockets.ops, pages, self.clients.clone())));
        let every = Duration::from_millis(config.authorization.last_used_interval_ms);
        let recording = uses::record_regularly(edge.clone(), every, self.clients.clone());
        self.client_tasks.push(tokio::spawn(recording));
        let sampling = history::sample_regularly(edge.metrics.clone(), self.clients.clone());
        self.client_tasks.push(tokio::spawn(sampling));
        let (router, stop) = (admin_router(edge), self.clients.clone());
        let refusals = note_refused_users(self.consensus.clone());
        self.client_tasks.push(tokio::spawn(async move {
            admin_socket::serve(admin, &admin_path, router, stop, refusals).await;
        }));
        Ok(())
    }

    /// Ends gracefully; every step is bounded.
    ///
    /// # Errors
    /// What the storage could not write at the end.
    async fn stop(self) -> anyhow::Result<()> {
        self.clients.cancel();
        for task in self.client_tasks {
            let _ended = task.await; // Bounded by `limits::SHUTDOWN_GRACE`.
        }
        if timeout(CONSENSUS_END, self.consensus.shutdown()).await.is_err() {
            tracing::warn!(
                "consensus did not stop in time; the next start replays more of the log"
            );
        }
        self.peers.cancel();
        for task in self.peer_tasks {
            task.abort();
        }
        let store = self.store;
        spawn_blocking(move || store.flush()).await??;
        tracing::info!("stopped");
        Ok(())
    }
}

/// An expired certificate of its own keeps no node from starting: it is how the next one gets here.
fn warn_of_dates(identity: &TlsIdentity) {
    if identity.not_after() < SystemClock.wall() {
        tracing::error!(
            thumbprint = %identity.thumbprint(),
            "this node's certificate has EXPIRED: clients are turned away until it is replaced (a new file, or \
             `rookery cert server replace`); the admin socket and the other nodes are served"
        );
    }
}

/// What clients verify this cluster with; `None`: the node certificates themselves.
fn read_ca(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(path) = &config.tls.ca else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {} (tls.ca)", path.display()))?;
    Ok(Some(text))
}

fn bind_admin_socket(config: &Config) -> anyhow::Result<(UnixListener, PathBuf)> {
    let path = config.admin_socket();
    let listener = admin_socket::bind(&path)
        .with_context(|| format!("cannot listen on the admin socket {}", path.display()))?;
    Ok((listener, path))
}

/// Who may stay connected to the peer listener: members, and before there is a registry the nodes that are named by the
/// record of a node that joins, or by the formation file.
fn members_only(consensus: Arc<Consensus>, formation: Option<Formation>) -> Admission {
    Arc::new(move |certificate| {
        let Some(certificate) = certificate else { return false };
        let registry = consensus.registry();
        if registry.is_formed() {
            // Who was away when a member joined has no record of it to compare with; the thumbprint was vouched for.
            let registered = registry.certificate(&certificate.thumbprint);
            return consensus.is_any_member(&certificate.thumbprint)
                && registered.is_none_or(|registered| *registered.der == *certificate.der);
        }
        let identity = consensus.identity();
        let joins = identity
            .peers
            .values()
            .any(|member| member.thumbprint == certificate.thumbprint.as_bytes());
        let forms = formation.iter().flat_map(|formation| &formation.nodes);
        joins || forms.map(|node| node.thumbprint).any(|it| it == certificate.thumbprint)
    })
}

/// Tells the audit log whom the peer listener refused.
fn note_refused_peers(consensus: Arc<Consensus>) -> Refusals {
    Arc::new(move |certificate, remote| {
        let reason = match certificate {
            Some(_) => DeniedReason::NotAMember,
            None => DeniedReason::CertificateRequired,
        };
        consensus.note_denial(Denial {
            operation: ServerOperation::PeerCall.name().to_owned(),
            reason: reason.code().to_owned(),
            rule: ServerOperation::PeerCall.rule_id().to_owned(),
            actor: certificate.map(|it| it.thumbprint),
            remote: remote.ip().to_canonical().to_string(),
            details: "a connection to the peer listener".to_owned(),
            ..Denial::default()
        });
    })
}

/// Tells the audit log which users the admin socket refused.
fn note_refused_users(consensus: Arc<Consensus>) -> admin_socket::Refusals {
    Arc::new(move |user| {
        consensus.note_denial(Denial {
            operation: "admin-socket".to_owned(),
            reason: "USER_REFUSED".to_owned(),
            remote: user.map_or_else(|| "an unknown user".to_owned(), |user| format!("uid {user}")),
            ..Denial::default()
        });
    })
}

/// Closes the connections of certificates that lost rights, as soon as the registry says so.
async fn close_revoked(consensus: Arc<Consensus>, connections: [Arc<Connections>; 2]) {
    let mut changes = consensus.registry_changes();
    let mut before = consensus.registry();
    while changes.changed().await.is_ok() {
        let after = consensus.registry();
        let lost = cluster::lost_rights(&before, &after);
        if !lost.is_empty() {
            tracing::info!(certificates = ?lost, revision = after.revision, "rights were taken away");
            connections.iter().for_each(|connections| connections.revoke(&lost));
        }
        before = after;
    }
}

/// Closes the connections of certificates that have expired, by the leader's clock.
async fn close_expired(consensus: Arc<Consensus>, connections: Arc<Connections>) {
    loop {
        tokio::time::sleep(limits::EXPIRY_LOOK_INTERVAL).await;
        let ended = connections.expire(consensus.leader_time());
        if ended > 0 {
            tracing::info!(connections = ended, "certificates have expired");
        }
    }
}
