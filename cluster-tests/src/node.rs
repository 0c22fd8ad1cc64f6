//! One node: its process, its signals, its log, its folder.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustls_pki_types::CertificateDer;

use crate::{
    binary,
    caller::Caller,
    connection,
    identity::{Identity, node_params},
    logs,
    ports::Ports,
};

/// Longest time a node may take to stop when asked (contract F6).
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The data folder where no test says otherwise, from the folder of the node.
const DATA: &str = "data";
/// The variable that arms fault points.
const FAULT_POINTS: &str = "FAILPOINTS";
/// Lines of the log that are told of a node that ended by itself.
const LAST_WORDS: usize = 20;

/// The addresses of a node's three TCP listeners.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// gRPC for clients.
    pub client: SocketAddr,
    /// Other nodes.
    pub peer: SocketAddr,
    /// Liveness and metrics.
    pub ops: SocketAddr,
}

impl Addresses {
    /// Three ports of the block.
    ///
    /// # Errors
    /// The block is used up.
    pub fn take(ports: &mut Ports) -> Result<Self> {
        Ok(Self { client: ports.take()?, peer: ports.take()?, ops: ports.take()? })
    }
}

/// A node of a test: a folder, addresses, and a process while it runs.
pub struct Node {
    /// Its name, such as "n1".
    pub name: String,
    /// Holds `rookery.toml` and the files it names.
    pub folder: PathBuf,
    /// Where it listens.
    pub addresses: Addresses,
    /// Its certificate and key.
    pub identity: Identity,
    /// `ROOKERY_` variables that it is started with.
    pub environment: Vec<(String, String)>,
    /// What stands before the command when it is started, such as another network namespace; empty: nothing.
    pub launcher: Vec<String>,
    data: PathBuf,
    process: Option<Child>,
    /// Whether the process was started to die: with a fault point, or on a disk that the test takes away.
    meant_to_die: bool,
    /// How earlier processes ended that nobody had asked to.
    deaths: Vec<String>,
}

impl Node {
    /// A node whose folder was made by `rookery init`.
    ///
    /// # Errors
    /// The folder lacks the certificate or the key.
    pub fn prepared(name: &str, folder: &Path, addresses: Addresses) -> Result<Self> {
        let identity = Identity::read(name, &folder.join("node.crt"), &folder.join("node.key"))?;
        Ok(Self::new(name, folder, addresses, identity))
    }

    /// A node that belongs to no cluster, with a self-signed certificate of its own.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn passive(name: &str, folder: &Path, addresses: Addresses) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let key = rcgen::KeyPair::generate()?;
        let identity = Identity::signed(name, &node_params(name)?, &key)?;
        let secret = |file: &str, content: &[u8]| -> Result<()> {
            let path = folder.join(file);
            fs::write(&path, content)?;
            Ok(fs::set_permissions(path, Permissions::from_mode(0o600))?)
        };
        secret("node.crt", identity.certificate_pem().as_bytes())?;
        secret("node.key", key.serialize_pem().as_bytes())?;
        secret("master.key", &rand::random::<[u8; 32]>())?;
        secret("rookery.toml", configuration(name, addresses).as_bytes())?;
        Ok(Self::new(name, folder, addresses, identity))
    }

    fn new(name: &str, folder: &Path, addresses: Addresses, identity: Identity) -> Self {
        let (name, folder) = (name.to_owned(), folder.to_owned());
        let data = folder.join(DATA);
        Self {
            name,
            folder,
            addresses,
            identity,
            environment: Vec::new(),
            launcher: Vec::new(),
            data,
            process: None,
            meant_to_die: false,
            deaths: Vec::new(),
        }
    }

    /// The same node with a copy of its folder, at other addresses; for one that stands alone.
    #[must_use]
    pub fn copied(&self, folder: &Path, addresses: Addresses) -> Self {
        let mut copy = Self::new(&self.name, folder, addresses, self.identity.clone());
        copy.environment.clone_from(&self.environment);
        copy.set("listen.client", &addresses.client.to_string());
        copy.set("listen.peer", &addresses.peer.to_string());
        copy.set("listen.ops", &addresses.ops.to_string());
        copy
    }

    /// The configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("rookery.toml")
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Has the node keep its data in `folder` from the next start on, such as on another file system.
    pub fn keep_data_in(&mut self, folder: &Path) {
        self.set("node.data", &folder.display().to_string());
        folder.clone_into(&mut self.data);
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data().join("admin.sock")
    }

    /// Everything the node ever printed.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log.txt")
    }

    /// Its certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.identity.leaf()
    }

    /// Sets a configuration key for the next start, such as `raft.snapshot_after_entries`.
    pub fn set(&mut self, key: &str, value: &str) {
        let name = format!("ROOKERY_{}", key.to_uppercase().replace('.', "__"));
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_owned()));
    }

    /// Starts the process; does not wait until it serves. That the one before ended by itself is kept for
    /// [`Node::take_deaths`].
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        anyhow::ensure!(!self.running(), "{} runs already", self.name);
        if let Some(status) = self.died() {
            self.note_death(status);
        }
        let has_fault_point = self.environment.iter().any(|(name, _)| name == FAULT_POINTS);
        self.meant_to_die = has_fault_point || self.data != self.folder.join(DATA);
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = binary::launched(&self.launcher)?.into_std();
        command
            .arg("start")
            .arg("--config")
            .arg(self.configuration())
            .envs(self.environment.iter().cloned())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", self.name))?;
        // For people who must clean up after a test run that was itself killed.
        fs::write(self.folder.join("pid"), child.id().to_string())?;
        self.process = Some(child);
        Ok(())
    }

    /// Whether its process runs.
    #[must_use]
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// How its process ended, if nobody had asked it to: by neither [`Node::kill`] nor [`Node::stop`], nor was its end
    /// waited for.
    #[must_use]
    pub fn died(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Every time since the last call that its process ended though nobody had asked it to, in words. The end of a
    /// process that was started to die counts only where nothing took its place.
    #[must_use]
    pub fn take_deaths(&mut self) -> Vec<String> {
        let mut deaths = std::mem::take(&mut self.deaths);
        if let Some(status) = self.died() {
            self.process = None;
            deaths.push(self.told_death(status));
        }
        deaths
    }

    fn note_death(&mut self, status: ExitStatus) {
        if !self.meant_to_die {
            self.deaths.push(self.told_death(status));
        }
    }

    /// Such an end in words, with the last ones of the node.
    pub(crate) fn told_death(&self, status: ExitStatus) -> String {
        let tail = logs::tail(&self.log(), LAST_WORDS);
        format!("{} ended by itself ({status}), with the last words\n{tail}", self.name)
    }

    /// kill -9, and waits until the process is gone. That it had ended by itself before is kept for
    /// [`Node::take_deaths`].
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().with_context(|| format!("{} is down", self.name))?;
        if let Some(status) = child.try_wait()? {
            self.note_death(status);
            return Ok(());
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and gives its exit code.
    ///
    /// # Errors
    /// It does not run, has ended by itself before, or has not ended after [`STOP_LIMIT`].
    pub async fn stop(&mut self) -> Result<i32> {
        if let Some(status) = self.died() {
            anyhow::bail!(self.told_death(status));
        }
        self.signal("TERM")?;
        self.ended(STOP_LIMIT).await
    }

    /// Waits until the process ends by itself; gives its exit code, -1 after a signal.
    ///
    /// # Errors
    /// It does not run, or not ended within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<i32> {
        Ok(self.wait_exit(limit).await?.code().unwrap_or(-1))
    }

    /// Waits until the process ends by itself, and gives how it ended: its exit code, or the signal.
    ///
    /// # Errors
    /// It does not run, or not ended within `limit`.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = self.process.as_mut().with_context(|| format!("{} is down", self.name))?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            anyhow::ensure!(start.elapsed() < limit, "{} runs on after {limit:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.process = None;
        Ok(status)
    }

    /// SIGSTOP: the process stands still and keeps its connections.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT: a paused process goes on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} is down", self.name))?;
        let script = format!("kill -s {name} {pid}");
        let status = Command::new("sh").args(["-c", &script]).status()?;
        anyhow::ensure!(status.success(), "{script}: {status}");
        Ok(())
    }

    /// Removes the data folder, as a new disk would; the configuration stays.
    ///
    /// # Errors
    /// The node runs, or the folder cannot be removed.
    pub fn wipe(&mut self) -> Result<()> {
        anyhow::ensure!(!self.running(), "{} still runs", self.name);
        fs::remove_dir_all(self.data()).context("wiping a data folder")
    }

    /// Speaks to the client listener as `identity`, or without a certificate.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn caller(&self, identity: Option<&Identity>) -> Result<Caller> {
        let channel = connection::channel(self.addresses.client, self.certificate(), identity)?;
        Ok(Caller { channel })
    }

    /// Runs a command of the binary with this node's configuration and environment.
    ///
    /// # Errors
    /// It does not end.
    pub async fn run(&self, arguments: &[&str]) -> Result<binary::Output> {
        binary::run(&self.folder, &self.environment, arguments).await
    }

    /// Whether the log holds `part`.
    #[must_use]
    pub fn logged(&self, part: &str) -> bool {
        let bytes = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(part)
    }

    /// Empties the log, so that a later look sees only what comes now.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget_log(&self) -> Result<()> {
        File::create(self.log()).map(drop).context("emptying a log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            // A node that ended by itself cannot be killed any more; either way it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn configuration(name: &str, addresses: Addresses) -> String {
    let Addresses { client, peer, ops } = addresses;
    format!(
        "[node]\nname = \"{name}\"\ndata = \"data\"\n\
         [listen]\nclient = \"{client}\"\npeer = \"{peer}\"\nops = \"{ops}\"\n\
         [advertise]\nclient = \"{client}\"\npeer = \"{peer}\"\n\
         [tls]\ncertificate = \"node.crt\"\nkey = \"node.key\"\n\
         [encryption]\nmaster_key_file = \"master.key\"\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A node whose process ended by itself a moment ago.
    fn dead(folder: &Path) -> Node {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = Addresses { client: nowhere, peer: nowhere, ops: nowhere };
        let mut node = Node::passive("n1", folder, addresses).unwrap();
        node.process = Some(Command::new("false").spawn().unwrap());
        while node.running() {
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    }

    #[tokio::test]
    async fn an_end_that_nobody_asked_for_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut node = dead(folder.path());
        assert_eq!(node.died().unwrap().code(), Some(1));
        assert!(node.stop().await.is_err());
        let told = node.take_deaths();
        assert!(told.len() == 1 && told[0].contains("n1 ended by itself"), "{told:?}");
        assert_eq!(node.take_deaths(), Vec::<String>::new());
        let mut node = dead(folder.path());
        node.kill().unwrap(); // It comes too late.
        assert_eq!(node.take_deaths().len(), 1);
        let mut node = dead(folder.path());
        assert_eq!(node.ended(STOP_LIMIT).await.unwrap(), 1); // Somebody waited for it.
        assert_eq!(node.take_deaths().len(), 0);
    }

    #[test]
    fn a_process_that_was_started_to_die_may_unless_it_stays_dead() {
        let folder = tempfile::tempdir().unwrap();
        let mut node = dead(folder.path());
        node.meant_to_die = true;
        assert_eq!(node.take_deaths().len(), 1);
        let mut node = dead(folder.path());
        node.meant_to_die = true;
        node.kill().unwrap();
        assert_eq!(node.take_deaths().len(), 0);
    }
}
