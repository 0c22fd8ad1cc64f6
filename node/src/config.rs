//! The node's configuration: `rookery.toml`, then `ROOKERY_SECTION__KEY`, then `--set`, checked as a whole.
//!
//! A later layer wins over an earlier one, and every value remembers which layer it came from
//! ([`Loaded::origin`]). Relative paths are taken from the folder of the file, whichever layer they
//! stand in. No secret is ever part of [`Config`]: keys are named by file, variable or command.
//!
//! | step | what it does | what it refuses |
//! | --- | --- | --- |
//! | [`load`] | reads and merges the layers, checks values against each other | unknown keys, wrong types, values out of bounds |
//! | [`Config::check_files`] | looks at the files that are named | missing files, keys that others can read |

mod formation;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use formation::{Administrator, Formation, FormationError, Member};

use crate::{
    limits,
    names::{NodeName, Thumbprint},
};

/// What every variable of the environment layer starts with.
const ENV_PREFIX: &str = "ROOKERY_";
/// What stands between section and key in a variable's name.
const ENV_SEPARATOR: &str = "__";
/// Longest configuration or formation file in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The keys of which exactly one names the master key.
const MASTER_KEY_KEYS: [&str; 6] = [
    "master_key_file",
    "master_key_env",
    "master_key_exec",
    "master_passphrase_file",
    "master_passphrase_exec",
    "master_passphrase_prompt",
];

/// The whole configuration of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What this was loaded from; `None` where it was put together otherwise.
    #[serde(skip)]
    pub loaded_from: Option<Arc<LoadedFrom>>,
    /// Who this node is and where its data lies.
    pub node: Node,
    /// Where it listens.
    pub listen: Listen,
    /// Where others reach it.
    pub advertise: Advertise,
    /// Its certificate and key.
    pub tls: Tls,
    /// Where the master key comes from.
    pub encryption: Encryption,
    /// How the data folder is kept.
    pub storage: Storage,
    /// The formation file, for a cluster that is made with all its nodes at once.
    pub formation: FormationSource,
    /// Settings for single peers, by node id or name.
    pub peers: BTreeMap<String, Peer>,
    /// Times of the Raft groups.
    pub raft: Raft,
    /// How fresh the registry must be.
    pub authorization: Authorization,
    /// What is logged, and how.
    pub log: Log,
}

/// Section `[node]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The node's name in its cluster.
    pub name: String,
    /// The data folder; made with mode 0700 where it is missing.
    pub data: PathBuf,
}

/// Section `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// gRPC, JSON and the Studio, for clients.
    pub client: SocketAddr,
    /// Raft and forwarded calls, for members only.
    pub peer: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics` over plain HTTP.
    pub ops: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            client: SocketAddr::from(([0, 0, 0, 0], 7443)),
            peer: SocketAddr::from(([0, 0, 0, 0], 7444)),
            ops: SocketAddr::from(([127, 0, 0, 1], 7445)),
        }
    }
}

/// Section `[advertise]`. After loading both are set: they default to the listen addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Advertise {
    /// `host:port` of the client listener as clients and other nodes reach it.
    pub client: String,
    /// `host:port` of the peer listener as other nodes reach it.
    pub peer: String,
}

/// Section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The node's certificate, PEM; a chain may follow it.
    pub certificate: PathBuf,
    /// The private key of the certificate, PEM, mode 0600.
    pub key: PathBuf,
    /// Certificate and key in one PKCS#12 file, mode 0600, in place of the two.
    pub pfx: Option<PathBuf>,
    /// A file with the password of `pfx`, mode 0600; absent: it has none.
    pub pfx_password_file: Option<PathBuf>,
    /// A command and its arguments, in place of all files; it prints certificate and key in PEM within 30 s.
    pub certificate_exec: Option<Vec<String>>,
    /// What clients verify this node with; goes into the packages it generates.
    pub ca: Option<PathBuf>,
    /// Accepts TLS 1.2 besides 1.3 on the client listener.
    pub tls12: bool,
}

/// Section `[encryption]`: exactly one of the first six is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encryption {
    /// A file of 32 raw bytes, mode 0600.
    pub master_key_file: Option<PathBuf>,
    /// The name of a variable that holds 64 hex digits.
    pub master_key_env: Option<String>,
    /// A command and its arguments; it prints 32 raw bytes or 64 hex digits within 30 s.
    pub master_key_exec: Option<Vec<String>>,
    /// A file with a passphrase, mode 0600.
    pub master_passphrase_file: Option<PathBuf>,
    /// A command and its arguments; it prints the passphrase within 30 s.
    pub master_passphrase_exec: Option<Vec<String>>,
    /// Asks for the passphrase at the terminal of `rookery start`.
    pub master_passphrase_prompt: bool,
    /// Section `[encryption.next]`: where `rookery keys rotate --master` takes the next master key from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<Encryption>>,
}

/// Section `[storage]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Room that is kept for revocations on a full disk, in MiB. Writes are refused below the half of it.
    pub reserve_mib: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { reserve_mib: 128 }
    }
}

impl Storage {
    /// The reserve in bytes.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_mib.saturating_mul(1024 * 1024)
    }
}

/// Section `[formation]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FormationSource {
    /// `cluster.toml`, as `rookery init` makes it; see [`Formation`].
    pub file: Option<PathBuf>,
}

/// Section `[peers.<id or name>]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// `host:port` to dial instead of the address the peer advertises.
    pub dial: String,
}

/// Section `[raft]`. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raft {
    /// Time between heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a follower asks for votes.
    pub election_timeout_min_ms: u64,
    /// Longest silence after which a follower asks for votes.
    pub election_timeout_max_ms: u64,
    /// Entries after the last snapshot that make the next one due.
    pub snapshot_after_entries: u64,
    /// How long a node keeps entries that stand in a snapshot already, and how long ago a follower may have answered last
    /// for a leader to hold entries for it. A follower that was away for less is brought up with entries; one that was
    /// silent for longer gets a snapshot when it returns.
    pub hold_entries_ms: u64,
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            election_timeout_min_ms: 600,
            election_timeout_max_ms: 1200,
            snapshot_after_entries: 10_000,
            hold_entries_ms: 30_000,
        }
    }
}

/// Section `[authorization]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// How long a node may decide on a registry that the leader confirmed, in milliseconds.
    pub freshness_ms: u64,
    /// SHA-256 thumbprints of certificates that are Cluster Admins as long as this stands here; for emergencies.
    pub well_known_admins: Vec<String>,
    /// How often this node tells the cluster which certificates it accepted, in milliseconds.
    pub last_used_interval_ms: u64,
    /// Whether dates are never decided by a time before the last checkpoint of the audit log, so that clocks which were all
    /// set back let no expired certificate in. False gets a cluster going again whose clocks all stood in the future once.
    pub log_time_floor: bool,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            freshness_ms: 1000,
            well_known_admins: Vec::new(),
            last_used_interval_ms: 60_000,
            log_time_floor: true,
        }
    }
}

impl Authorization {
    /// The well-known admins, each once and in order; what is no thumbprint was refused when the file was loaded.
    #[must_use]
    pub fn well_known_thumbprints(&self) -> Vec<Thumbprint> {
        let all: BTreeSet<Thumbprint> =
            self.well_known_admins.iter().filter_map(|text| text.parse().ok()).collect();
        all.into_iter().collect()
    }

    fn problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        const KEY: &str = "authorization.well_known_admins";
        if self.freshness_ms > 60_000 {
            refuse("authorization.freshness_ms", "is out of bounds".into(), "choose 0 to 60000");
        }
        if !(1_000..=3_600_000).contains(&self.last_used_interval_ms) {
            refuse(
                "authorization.last_used_interval_ms",
                "is out of bounds".into(),
                "choose 1000 to 3600000; 60000 is usual",
            );
        }
        for (place, text) in self.well_known_admins.iter().enumerate() {
            if let Err(why) = text.parse::<Thumbprint>() {
                refuse(
                    KEY,
                    format!("holds at place {}: a thumbprint that {}", place + 1, why.why),
                    "print it with `openssl x509 -in FILE -noout -fingerprint -sha256`",
                );
            }
        }
        if self.well_known_admins.len() > limits::WELL_KNOWN_ADMINS_MAX {
            let most = limits::WELL_KNOWN_ADMINS_MAX;
            refuse(KEY, format!("holds more than {most}"), "register administrators instead");
        }
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rookery::edge=debug`.
    pub level: String,
    /// One line of text or one JSON object an event.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Which layer a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This variable of the environment.
    Env(String),
    /// A flag on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag --set"),
        }
    }
}

/// A configuration with the origin of each of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of a dotted key, such as `node.name`, came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Every key that has a value, with the value in TOML and its origin, in order of the keys.
    #[must_use]
    pub fn values(&self) -> Vec<(String, String, Origin)> {
        let table = toml::Table::try_from(&self.config).unwrap_or_default();
        let mut leaves = Vec::new();
        walk("", &table, &mut |key, value| leaves.push((key.to_owned(), value.to_string())));
        leaves
            .into_iter()
            .map(|(key, value)| {
                let origin = self.origin(&key).clone();
                (key, value, origin)
            })
            .collect()
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which layer set the value, or the file that lacks it.
    pub origin: Origin,
    /// The dotted key.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, problem, advice } = self;
        if *origin == Origin::Default {
            write!(f, "{key} {problem}; {advice}")
        } else {
            write!(f, "{origin}: {key} {problem}; {advice}")
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; name the file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or holds a key or a type that no section knows.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// Values that cannot be used.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The layers above the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The environment: all variables, of which only `ROOKERY_SECTION__KEY` are looked at.
    pub env: Vec<(String, String)>,
    /// `section.key=value`, as `--set` takes it.
    pub set: Vec<String>,
}

impl Overrides {
    /// The environment of this process and the flags given.
    #[must_use]
    pub fn from_process(set: &[String]) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { env, set: set.to_vec() }
    }

    /// Without the variables that are not looked at: some hold secrets.
    fn relevant(&self) -> Self {
        let looked_at = |(name, _): &&(String, String)| {
            name.strip_prefix(ENV_PREFIX).is_some_and(|rest| rest.contains(ENV_SEPARATOR))
        };
        let env = self.env.iter().filter(looked_at).cloned().collect();
        Self { env, set: self.set.clone() }
    }
}

/// The file and the layers above it, to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedFrom {
    path: PathBuf,
    overrides: Overrides,
}

impl LoadedFrom {
    /// The configuration as the file is now.
    ///
    /// # Errors
    /// As [`load`].
    pub fn again(&self) -> Result<Config, Error> {
        load(&self.path, &self.overrides).map(|loaded| loaded.config)
    }
}

/// Loads the configuration of a node: file, then environment, then flags; then checks it.
///
/// # Errors
/// [`Error::Read`] and [`Error::Parse`] for the file, [`Error::Invalid`] with every problem at once.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Error> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = read_bounded(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let mut loaded = parse(&text, &path, overrides)?;
    let from = LoadedFrom { path, overrides: overrides.relevant() };
    loaded.config.loaded_from = Some(Arc::new(from));
    Ok(loaded)
}

/// [`load`] for a file whose text is at hand; `path` names it and its folder.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Loaded, Error> {
    let unparsable = |e: toml::de::Error| Error::Parse {
        path: path.to_owned(),
        message: e.to_string().trim_end().to_owned(),
    };
    // Typed first: its messages carry the line.
    toml::from_str::<Config>(text).map_err(unparsable)?;
    let mut table: toml::Table = toml::from_str(text).map_err(unparsable)?;
    let mut origins = BTreeMap::new();
    walk("", &table, &mut |key, _| {
        origins.insert(key.to_owned(), Origin::File(path.to_owned()));
    });
    let mut problems = Vec::new();
    for (key, value, origin) in layer(overrides, &mut problems) {
        match typed(&key, &value) {
            Ok(value) => set(&mut table, &mut origins, &key, value, origin),
            Err(problem) => problems.push(Problem {
                origin,
                key,
                problem,
                advice: "compare it with `rookery config show`".to_owned(),
            }),
        }
    }
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    let mut config: Config = table.try_into().map_err(unparsable)?;
    config.resolve(path.parent().unwrap_or(Path::new("/")));
    config.default_advertised();
    let problems = config.problems(path, &origins);
    if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(Error::Invalid(problems)) }
}

/// The values of environment and flags, in the order in which they win.
fn layer(overrides: &Overrides, problems: &mut Vec<Problem>) -> Vec<(String, String, Origin)> {
    let mut values = Vec::new();
    let mut env: Vec<_> = overrides.env.iter().collect();
    env.sort();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        if rest.contains(ENV_SEPARATOR) {
            let key = rest.replace(ENV_SEPARATOR, ".").to_ascii_lowercase();
            values.push((key, value.clone(), Origin::Env(name.clone())));
        }
    }
    for assignment in &overrides.set {
        match assignment.split_once('=') {
            Some((key, value)) => {
                values.push((key.trim().to_owned(), value.trim().to_owned(), Origin::Flag));
            }
            None => problems.push(Problem {
                origin: Origin::Flag,
                key: assignment.clone(),
                problem: "has no value".to_owned(),
                advice: "write --set section.key=value".to_owned(),
            }),
        }
    }
    values
}

/// Finds the TOML value that the key takes: the text itself, or the text read as TOML.
fn typed(key: &str, text: &str) -> Result<toml::Value, String> {
    let fits = |value: &toml::Value| {
        let mut table = toml::Table::new();
        set(&mut table, &mut BTreeMap::new(), key, value.clone(), Origin::Default);
        table.try_into::<Config>().map(|_| ()).map_err(|e| e.message().to_owned())
    };
    let string = toml::Value::String(text.to_owned());
    let Err(first) = fits(&string) else { return Ok(string) };
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"));
    match parsed {
        Some(value) => fits(&value).map(|()| value).map_err(|e| format!("is refused: {e}")),
        None => Err(format!("is refused: {first}")),
    }
}

/// Puts one value into the tree. One master key source of a higher layer replaces those below it.
fn set(
    table: &mut toml::Table,
    origins: &mut BTreeMap<String, Origin>,
    key: &str,
    value: toml::Value,
    origin: Origin,
) {
    let mut parts: Vec<&str> = key.split('.').collect();
    let Some(last) = parts.pop() else { return };
    let mut here = table;
    for part in parts {
        let entry =
            here.entry(part.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !entry.is_table() {
            *entry = toml::Value::Table(toml::Table::new());
        }
        match entry.as_table_mut() {
            Some(table) => here = table,
            None => return,
        }
    }
    if let Some(section) = key.strip_suffix(last)
        && MASTER_KEY_KEYS.contains(&last)
        && section.starts_with("encryption.")
    {
        for other in MASTER_KEY_KEYS {
            let lower = format!("{section}{other}");
            if origins.get(&lower).is_some_and(|o| *o != origin && !same_layer(o, &origin)) {
                here.remove(other);
                origins.remove(&lower);
            }
        }
    }
    here.insert(last.to_owned(), value);
    origins.insert(key.to_owned(), origin);
}

fn same_layer(a: &Origin, b: &Origin) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn walk(prefix: &str, table: &toml::Table, visit: &mut dyn FnMut(&str, &toml::Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value.as_table() {
            Some(table) => walk(&key, table, visit),
            None => visit(&key, value),
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("{length} bytes are too many")));
    }
    std::fs::read_to_string(path)
}

impl Config {
    /// What the admin socket is called: `<data>/admin.sock`.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.node.data.join("admin.sock")
    }

    /// Where to dial a peer instead of its advertised address, by its id or its name.
    #[must_use]
    pub fn dial(&self, id: u64, name: &str) -> Option<&str> {
        let peer = self.peers.get(&id.to_string()).or_else(|| self.peers.get(name))?;
        Some(&peer.dial)
    }

    /// Looks at the files that are named: they exist, and nobody else can read the keys.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every problem at once.
    pub fn check_files(&self, loaded_from: &Path) -> Result<(), Error> {
        let mut problems = Vec::new();
        let mut look = |key: &str, path: &Path, secret: bool| {
            if let Some((problem, advice)) = file_problem(path, secret) {
                problems.push(Problem {
                    origin: Origin::File(loaded_from.to_owned()),
                    key: key.to_owned(),
                    problem: format!("names {}, {problem}", path.display()),
                    advice,
                });
            }
        };
        if self.tls.certificate_exec.is_none() && self.tls.pfx.is_none() {
            look("tls.certificate", &self.tls.certificate, false);
            look("tls.key", &self.tls.key, true);
        }
        for (key, file) in
            [("tls.pfx", &self.tls.pfx), ("tls.pfx_password_file", &self.tls.pfx_password_file)]
        {
            if let Some(file) = file {
                look(key, file, true);
            }
        }
        if let Some(ca) = &self.tls.ca {
            look("tls.ca", ca, false);
        }
        // Where a next source is named, either may be the one that is needed: the start finds out.
        let current = self.encryption.files().filter(|_| self.encryption.next.is_none());
        for (key, file) in current {
            look(key, file, true);
        }
        if let Some(file) = &self.formation.file {
            look("formation.file", file, false);
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }

    fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| {
            if !path.as_os_str().is_empty() && path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        resolve(&mut self.node.data);
        resolve(&mut self.tls.certificate);
        resolve(&mut self.tls.key);
        self.tls.pfx.iter_mut().for_each(resolve);
        self.tls.pfx_password_file.iter_mut().for_each(resolve);
        self.tls.ca.iter_mut().for_each(resolve);
        self.encryption.files_mut().for_each(resolve);
        self.encryption.next.iter_mut().flat_map(|next| next.files_mut()).for_each(resolve);
        self.formation.file.iter_mut().for_each(resolve);
    }

    fn default_advertised(&mut self) {
        let listen = [self.listen.client, self.listen.peer];
        for (to, from) in
            [&mut self.advertise.client, &mut self.advertise.peer].into_iter().zip(listen)
        {
            if to.is_empty() && !from.ip().is_unspecified() {
                *to = from.to_string();
            }
        }
    }

    fn problems(&self, path: &Path, origins: &BTreeMap<String, Origin>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, problem: String, advice: &str| {
            let origin = origins.get(key).cloned().unwrap_or(Origin::File(path.to_owned()));
            problems.push(Problem {
                origin,
                key: key.to_owned(),
                problem,
                advice: advice.to_owned(),
            });
        };
        self.node_problems(&mut refuse);
        self.address_problems(&mut refuse);
        self.tls_problems(&mut refuse);
        self.encryption.problems(&mut refuse);
        self.storage_problems(&mut refuse);
        self.time_problems(&mut refuse);
        self.authorization.problems(&mut refuse);
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            refuse(
                "log.level",
                format!("is refused: {e}"),
                "write error, warn, info, debug or trace",
            );
        }
        problems
    }

    fn node_problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        if self.node.name.is_empty() {
            refuse("node.name", "is missing".into(), "give the node a name, such as \"n1\"");
        } else if let Err(e) = NodeName::parse(&self.node.name) {
            refuse("node.name", e.why, "give the node a name, such as \"n1\"");
        }
        if self.node.data.as_os_str().is_empty() {
            refuse("node.data", "is missing".into(), "name a folder that only this node uses");
        }
    }

    fn tls_problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        let elsewhere = self.tls.certificate_exec.is_some() || self.tls.pfx.is_some();
        if self.tls.certificate.as_os_str().is_empty() && !elsewhere {
            refuse("tls.certificate", "is missing".into(), "`rookery init` makes a certificate");
        }
        if self.tls.certificate_exec.is_some() && self.tls.pfx.is_some() {
            let why = "and tls.pfx are both set".into();
            refuse("tls.certificate_exec", why, "name one source of the certificate");
        }
        if self.tls.certificate_exec.as_ref().is_some_and(Vec::is_empty) {
            let advice =
                "write the command and its arguments, such as [\"get-certificate\", \"n1\"]";
            refuse("tls.certificate_exec", "is empty".into(), advice);
        }
        if self.tls.key.as_os_str().is_empty() && !elsewhere {
            refuse("tls.key", "is missing".into(), "`rookery init` makes a key");
        }
    }

    fn address_problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        const PORT: &str = "write address:port with a port from 1 to 65535";
        for (key, listen) in
            [("listen.client", self.listen.client), ("listen.peer", self.listen.peer)]
        {
            if listen.port() == 0 {
                refuse(key, "has port 0".into(), PORT);
            }
        }
        for (key, other, address) in [
            ("advertise.client", "listen.client", &self.advertise.client),
            ("advertise.peer", "listen.peer", &self.advertise.peer),
        ] {
            if address.is_empty() {
                refuse(
                    key,
                    format!("is missing, and {other} is the unspecified address"),
                    "write the host:port at which others reach this node",
                );
            } else if let Err(why) = host_and_port(address) {
                refuse(key, why, "write host:port, such as \"n1.example:7443\"");
            }
        }
        for (name, peer) in &self.peers {
            if let Err(why) = host_and_port(&peer.dial) {
                refuse(&format!("peers.{name}.dial"), why, "write the host:port to dial");
            }
        }
        if self.listen.client == self.listen.peer {
            refuse(
                "listen.peer",
                "is the address of listen.client too".into(),
                "give it its own port",
            );
        }
    }

    fn storage_problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        if !limits::RESERVE_MIB.contains(&self.storage.reserve_mib) {
            refuse(
                "storage.reserve_mib",
                "is out of bounds".into(),
                "choose 16 to 65536; 128 is usual",
            );
        }
    }

    fn time_problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        let raft = &self.raft;
        if !(10..=10_000).contains(&raft.heartbeat_ms) {
            refuse("raft.heartbeat_ms", "is out of bounds".into(), "choose 10 to 10000");
        }
        if raft.election_timeout_min_ms < raft.heartbeat_ms.saturating_mul(2) {
            refuse(
                "raft.election_timeout_min_ms",
                format!("is less than two heartbeats of {} ms", raft.heartbeat_ms),
                "choose at least three heartbeats, so that one lost message elects nobody",
            );
        }
        if raft.election_timeout_max_ms <= raft.election_timeout_min_ms {
            refuse(
                "raft.election_timeout_max_ms",
                "is not greater than raft.election_timeout_min_ms".into(),
                "choose twice the minimum, so that candidates do not meet",
            );
        }
        if raft.election_timeout_max_ms > 120_000 {
            refuse(
                "raft.election_timeout_max_ms",
                "is out of bounds".into(),
                "choose at most 120000",
            );
        }
        if raft.snapshot_after_entries == 0 {
            refuse(
                "raft.snapshot_after_entries",
                "is 0".into(),
                "choose 1 or more; 10000 is usual",
            );
        }
        if raft.hold_entries_ms > 3_600_000 {
            refuse(
                "raft.hold_entries_ms",
                "is out of bounds".into(),
                "choose at most 3600000; 30000 is usual",
            );
        }
    }
}

fn file_problem(path: &Path, secret: bool) -> Option<(String, String)> {
    use std::os::unix::fs::PermissionsExt as _;
    /// Anybody else may read or write, or the group may write.
    const TOO_OPEN: u32 = 0o027;
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) => return Some((format!("which cannot be read: {e}"), "check the path".to_owned())),
    };
    if !metadata.is_file() {
        return Some(("which is no file".to_owned(), "check the path".to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if secret && mode & TOO_OPEN != 0 {
        let problem = format!("which others may read or write (mode {mode:04o})");
        return Some((problem, format!("run: chmod 600 {}", path.display())));
    }
    None
}

/// Splits `host:port`; IPv6 addresses stand in brackets, which are taken off.
///
/// # Errors
/// What is wrong, in words that continue the key's name.
pub fn host_and_port(address: &str) -> Result<(&str, u16), String> {
    let (host, port) = address.rsplit_once(':').ok_or("has no port")?;
    let port = match port.parse::<u16>() {
        // `+80` and `080` would be other spellings of an address that must be there once.
        Ok(number) if number != 0 && !port.starts_with(['+', '0']) => number,
        Ok(_) | Err(_) => return Err(format!("has no usable port ({port:?})")),
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_is_name = |h: &str| {
        !h.is_empty()
            && h.len() <= 253
            && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    match inner {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => Ok((v6, port)),
        None if host_is_name(host) => Ok((host, port)),
        Some(_) | None => Err(format!("has no usable host ({host:?})")),
    }
}

/// Where the master key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MasterKeySource<'a> {
    /// A file.
    File(&'a Path),
    /// A variable of the environment.
    Env(&'a str),
    /// A command with its arguments.
    Exec(&'a [String]),
    /// A passphrase in a file.
    PassphraseFile(&'a Path),
    /// A passphrase from a command with its arguments.
    PassphraseExec(&'a [String]),
    /// A passphrase that is typed.
    PassphrasePrompt,
}

impl Encryption {
    /// The source that is configured; `None` only before validation.
    #[must_use]
    pub fn source(&self) -> Option<MasterKeySource<'_>> {
        let commands = [
            self.master_key_exec.as_deref().map(MasterKeySource::Exec),
            self.master_passphrase_exec.as_deref().map(MasterKeySource::PassphraseExec),
            self.master_passphrase_prompt.then_some(MasterKeySource::PassphrasePrompt),
        ];
        let file = self.master_key_file.as_deref().map(MasterKeySource::File);
        let env = self.master_key_env.as_deref().map(MasterKeySource::Env);
        let words = self.master_passphrase_file.as_deref().map(MasterKeySource::PassphraseFile);
        file.or(env).or(words).or_else(|| commands.into_iter().flatten().next())
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let file = self.master_key_file.as_deref();
        let words = self.master_passphrase_file.as_deref();
        let file = file.map(|file| ("encryption.master_key_file", file));
        file.into_iter().chain(words.map(|file| ("encryption.master_passphrase_file", file)))
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.master_key_file.iter_mut().chain(&mut self.master_passphrase_file)
    }

    fn problems(&self, refuse: &mut dyn FnMut(&str, String, &str)) {
        self.problems_of("encryption", refuse);
        let Some(next) = &self.next else { return };
        next.problems_of("encryption.next", refuse);
        if next.next.is_some() {
            let advice = "rotate to the next master key first";
            refuse("encryption.next.next", "has no meaning".into(), advice);
        }
        if next.source() == self.source() {
            let problem = "names the source of the current master key".into();
            refuse("encryption.next", problem, "give the next key a place of its own");
        }
    }

    /// What is wrong with the source in this section.
    fn problems_of(&self, section: &str, refuse: &mut dyn FnMut(&str, String, &str)) {
        const ADVICE: &str = "set exactly one of master_key_file, master_key_env, master_key_exec, \
                              master_passphrase_file, master_passphrase_exec and master_passphrase_prompt";
        let given = [
            self.master_key_file.is_some(),
            self.master_key_env.is_some(),
            self.master_key_exec.is_some(),
            self.master_passphrase_file.is_some(),
            self.master_passphrase_exec.is_some(),
            self.master_passphrase_prompt,
        ];
        match given.iter().filter(|given| **given).count() {
            1 => {}
            0 => refuse(section, "names no master key".into(), ADVICE),
            n => refuse(section, format!("names {n} master keys"), ADVICE),
        }
        for (key, command) in [
            ("master_key_exec", &self.master_key_exec),
            ("master_passphrase_exec", &self.master_passphrase_exec),
        ] {
            if command.as_ref().is_some_and(|c| c.first().is_none_or(String::is_empty)) {
                let key = format!("{section}.{key}");
                refuse(&key, "is empty".into(), "write [\"/path/of/command\"]");
            }
        }
        if self.master_key_env.as_ref().is_some_and(String::is_empty) {
            let key = format!("{section}.master_key_env");
            refuse(&key, "is empty".into(), "write the variable's name");
        }
    }
}

#[cfg(test)]
mod tests;
