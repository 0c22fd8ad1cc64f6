//! `rookery dev`: a secure playground on this machine, the same program and the same TLS as anywhere else.
//!
//! 1. make keys and configuration with `init`'s own functions, on free loopback ports;
//! 2. start the nodes as processes of this program, each in its own process group;
//! 3. wait until every node serves; 4. import the administrator's context and print what to try;
//! 5. on Ctrl-C, SIGTERM, or the end of a node: stop the others by their ids, and remove what is not to be kept.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use clap::Args;
use rookery_client::admin;
use tokio::process::{Child, Command};

use super::{
    Failed, Result, Row, Session,
    contexts::{Store, private_folder},
    failed::Exit,
    init::{NewNode, Plan},
    server,
};
use crate::config::{self, Overrides};

/// Longest time from the start of the processes until all serve.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time a node has to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two questions whether a node serves.
const POLL: Duration = Duration::from_millis(100);
/// Name of the imported context.
const CONTEXT: &str = "dev";
/// Bytes of a node's log that are shown where it fails.
const LOG_TAIL_BYTES: usize = 2_000;

/// `rookery dev`
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Folder for keys and data; used again where it holds a playground
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep the folder and the context afterwards
    #[arg(long)]
    keep: bool,
}

struct Running {
    name: String,
    folder: PathBuf,
    process: Child,
}

impl Dev {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let given = self.data.clone();
        let folder = given.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("rookery-dev-{}", uuid::Uuid::new_v4()))
        });
        let folder = std::path::absolute(&folder).map_err(|e| Failed::file(&folder, &e))?;
        private_folder(&folder)?;
        let store = Store::of_user()?;
        let before = store.current()?;
        let mut running = Vec::new();
        let ended = self.play(session, &folder, &store, &mut running).await;
        stop(&mut running).await;
        if !self.keep {
            store.forget(CONTEXT, before.as_deref())?;
            if given.is_none() {
                fs::remove_dir_all(&folder).map_err(|e| Failed::file(&folder, &e))?;
            }
        }
        ended
    }

    async fn play(
        &self,
        session: &mut Session,
        folder: &Path,
        store: &Store,
        running: &mut Vec<Running>,
    ) -> Result<()> {
        let names = prepared(folder, self.nodes)?;
        for name in &names {
            running.push(spawn(name, &folder.join(name))?);
        }
        for node in running.iter_mut() {
            ready(node).await?;
        }
        let package = folder.join("admin/admin.zip");
        let bytes = fs::read(&package).map_err(|e| Failed::file(&package, &e))?;
        store.import(&bytes, Some(CONTEXT), true)?;
        store.set_current(CONTEXT)?;
        print(session, running, folder)?;
        until_told(running).await
    }
}

/// Makes the playground's files where they are missing; gives the names of its nodes.
fn prepared(folder: &Path, count: u8) -> Result<Vec<String>> {
    if folder.join("admin/admin.zip").exists() {
        let mut names: Vec<String> = fs::read_dir(folder)
            .map_err(|e| Failed::file(folder, &e))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| folder.join(name).join("rookery.toml").exists())
            .collect();
        names.sort();
        return Ok(names);
    }
    // All are held until all are chosen, so that no two are the same.
    let mut held = Vec::new();
    let mut port = || -> Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0));
        let listener = listener.map_err(|e| Failed::unexpected(format!("no free port: {e}")))?;
        let address = listener.local_addr().map_err(|e| Failed::unexpected(e.to_string()))?;
        held.push(listener);
        Ok(address.port())
    };
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(NewNode {
            name: format!("n{number}"),
            client: format!("localhost:{}", port()?),
            peer: format!("localhost:{}", port()?),
            ops_port: port()?,
        });
    }
    let plan = Plan {
        nodes: &nodes,
        out: folder,
        admin: "admin",
        ca: None,
        san: &[],
        listen: std::net::Ipv4Addr::LOCALHOST.into(),
        data: Path::new("data"),
    };
    plan.cluster()?;
    Ok(nodes.into_iter().map(|node| node.name).collect())
}

fn spawn(name: &str, folder: &Path) -> Result<Running> {
    let program = std::env::current_exe().map_err(|e| Failed::unexpected(e.to_string()))?;
    let path = folder.join("log.txt");
    let log = fs::OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|e| Failed::file(&path, &e))?;
    let errors = log.try_clone().map_err(|e| Failed::file(&path, &e))?;
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        // What is meant for this command would configure every node alike.
        if variable.to_string_lossy().starts_with("ROOKERY_") {
            command.env_remove(variable);
        }
    }
    let process = command
        .arg("start")
        .arg("--config")
        .arg(folder.join("rookery.toml"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0) // Ctrl-C reaches this process alone, which stops the nodes in order.
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Failed::unexpected(format!("starting {name}: {e}")))?;
    Ok(Running { name: name.to_owned(), folder: folder.to_owned(), process })
}

/// Waits until a node serves.
async fn ready(node: &mut Running) -> Result<()> {
    let path = node.folder.join("rookery.toml");
    let config = config::load(&path, &Overrides::default())?.config;
    let address = config.listen.client.to_string();
    let limit = Duration::from_secs(2);
    let admin = admin::connect(&config.admin_socket()).with_timeout(limit);
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let (serving, status) = match admin.node_state().await {
            Ok(state) => server::serving(&address, &state, limit).await?,
            Err(error) => (false, error.to_string()), // It is not up yet.
        };
        if serving {
            return Ok(());
        }
        if let Ok(Some(exit)) = node.process.try_wait() {
            return Err(node.failed(&format!("ended with {exit}")));
        }
        if Instant::now() >= deadline {
            return Err(node.failed(&format!("does not serve: {status}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Running {
    fn failed(&self, what: &str) -> Failed {
        let log = fs::read(self.folder.join("log.txt")).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]);
        let message = format!("node {} {what}; its log ends with\n{}", self.name, tail.trim_end());
        Failed::new(Exit::Unavailable, "unavailable", message)
    }
}

fn print(session: &mut Session, running: &[Running], folder: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for node in running {
        let path = node.folder.join("rookery.toml");
        let config = config::load(&path, &Overrides::default())?.config;
        rows.push(
            Row::new()
                .with("name", node.name.clone())
                .with("client_address", config.advertise.client)
                .with("ops_address", config.listen.ops.to_string())
                .with("pid", node.process.id().unwrap_or_default())
                .with("folder", node.folder.display().to_string()),
        );
    }
    let columns = [
        super::output::column("name"),
        super::output::column("client_address"),
        super::output::column("ops_address"),
        super::output::column("pid"),
        super::output::wide("folder"),
    ];
    session.out.list(&columns, "name", &rows)?;
    let name = program_name();
    super::message(&format!(
        "\nThe cluster serves, and the context `{CONTEXT}` is the current one. In another terminal try:\n\n  \
         {name} whoami\n  {name} cluster status\n  {name} db create sales\n  \
         {name} doc put sales orders/1 '{{\"total\":12.50}}' --collection Orders\n  \
         {name} doc get sales orders/1\n  \
         {name} cert generate alice --clearance user --db sales:r --out alice.zip\n  \
         {name} --context-file alice.zip doc get sales orders/1\n\n\
         Keys, data and logs are in {}. Ctrl-C stops everything.",
        folder.display()
    ));
    Ok(())
}

fn program_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    program.map_or_else(|| "rookery".to_owned(), |program| program.display().to_string())
}

/// Waits for Ctrl-C, SIGTERM, or a node that ends by itself.
async fn until_told(running: &mut [Running]) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| Failed::unexpected(e.to_string()))?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                for node in running.iter_mut() {
                    if let Ok(Some(exit)) = node.process.try_wait() {
                        return Err(node.failed(&format!("ended with {exit}")));
                    }
                }
            }
        }
    }
}

/// Asks all nodes to stop, then waits for each, and ends those that do not.
async fn stop(running: &mut [Running]) {
    for node in running.iter() {
        if let Some(pid) = node.process.id() {
            terminate(pid);
        }
    }
    for node in running.iter_mut() {
        if tokio::time::timeout(STOP_TIMEOUT, node.process.wait()).await.is_err() {
            super::message(&format!("warning: {} did not stop and is killed", node.name));
            let _ = node.process.kill().await; // It may have ended meanwhile.
        }
    }
}

/// SIGTERM to a child that has not been waited for, so the id is still its own.
fn terminate(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM); // It may have ended meanwhile.
    }
}
