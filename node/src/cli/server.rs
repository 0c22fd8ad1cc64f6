//! Running a node, and the commands that speak to the node on this machine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgGroup, Args, Subcommand};
use rookery_client::{
    Client, Context, Options,
    admin::{self, Admin},
    proto::admin::v1::GetNodeStateResponse,
    retry::Policy,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    Column, Failed, Out, Result, Row, Session, contexts::Place, failed::Exit, init::pki,
    output::column,
};
use crate::{
    certificates,
    config::{self, Config, Loaded, Overrides},
    edge,
    names::{CertificateName, Thumbprint},
    telemetry,
};

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 24 * 3600 * 1000;
/// A node's certificate with fewer days left is warned of.
const WARNED_DAYS: i64 = 30;

/// Where a node's configuration is.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "ROOKERY_CONFIG_FILE", default_value = "rookery.toml")]
    config: PathBuf,
    /// Set one value, over file and environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigFile {
    pub(super) fn load(&self) -> Result<Loaded> {
        Ok(config::load(&self.config, &Overrides::from_process(&self.set))?)
    }
}

/// `rookery start`
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    file: ConfigFile,
}

impl Start {
    pub(super) async fn run(self) -> Result<()> {
        let config = self.file.load()?.config;
        config.check_files(&self.file.config)?;
        telemetry::init(&config.log).map_err(|e| Failed::unexpected(e.to_string()))?;
        let failed = |e: anyhow::Error| Failed::unexpected(format!("{e:#}"));
        let told = edge::server::told_to_stop().map_err(|e| failed(e.into()))?;
        edge::server::run(config, told).await.map_err(failed)
    }
}

/// How to reach the admin socket.
#[derive(Debug, Args)]
pub(super) struct SocketOf {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// The admin socket, instead of the one that the configuration tells
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl SocketOf {
    pub(super) fn connect(&self, session: &Session) -> Result<Admin> {
        let path = match &self.socket {
            Some(path) => path.clone(),
            None => self.file.load()?.config.admin_socket(),
        };
        if !path.exists() {
            return Err(Failed::new(
                Exit::Unavailable,
                "unavailable",
                format!("there is no admin socket {}: is the node running?", path.display()),
            ));
        }
        Ok(admin::connect(&path).with_timeout(session.global.timeout))
    }
}

/// `rookery bootstrap`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("administrator").required(true))]
pub(super) struct Bootstrap {
    #[command(flatten)]
    socket: SocketOf,
    /// Certificate of the first Cluster Admin, PEM or DER
    #[arg(long, value_name = "FILE", group = "administrator")]
    admin_certificate: Option<PathBuf>,
    /// Make a certificate of this name for the first Cluster Admin
    #[arg(long, value_name = "NAME", group = "administrator", requires = "out")]
    generate_admin: Option<String>,
    /// What the Cluster Admin is called, where the certificate is given
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin_name: String,
    /// Where to write the package of the generated certificate
    #[arg(long, value_name = "ZIP")]
    out: Option<PathBuf>,
}

impl Bootstrap {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = self.socket.connect(session)?;
        if let Some(file) = &self.admin_certificate {
            let certificate = std::fs::read(file).map_err(|e| Failed::file(file, &e))?;
            let formed = admin.bootstrap(certificate, &self.admin_name).await?;
            return session.out.one("cluster_id", &formed_row(&formed));
        }
        let (Some(name), Some(out)) = (&self.generate_admin, &self.out) else {
            return Err(Failed::usage("give --admin-certificate, or --generate-admin with --out"));
        };
        CertificateName::parse(name).map_err(|e| Failed::usage(e.to_string()))?;
        let config = self.socket.file.load()?.config;
        // The cluster is formed once: a package that could not be made or written would lock everybody out.
        let place = Place::take(out)?;
        let made = pki::administrator(name)?;
        let state = admin.node_state().await?;
        let ca_pem = trusted_by_clients(&config, &state)?;
        let formed = admin.bootstrap(made.der.clone(), name).await?;
        let about = pki::About {
            ca_pem: &ca_pem,
            addresses: std::slice::from_ref(&config.advertise.client),
            nodes: &[Thumbprint::of(&state.certificate)],
            cluster_id: &formed.cluster_id,
        };
        let package = pki::package(name, &made, &about)?;
        let written = place.display();
        place.fill(&package.zip)?;
        super::message("The password of the PFX in the package is shown this once.");
        let row = formed_row(&formed).with("password", package.password.expose());
        let row = row.with("package", written);
        session.out.one("cluster_id", &row)
    }
}

/// PEM of what clients verify the node with: its `tls.ca`, or the certificate that it presents.
pub(super) fn trusted_by_clients(config: &Config, state: &GetNodeStateResponse) -> Result<String> {
    match &config.tls.ca {
        Some(ca) => Ok(String::from_utf8_lossy(&read(ca)?).into_owned()),
        None => Ok(certificates::certificate_pem(&state.certificate)),
    }
}

fn formed_row(formed: &rookery_client::proto::admin::v1::BootstrapResponse) -> Row {
    Row::new()
        .with("cluster_id", formed.cluster_id.clone())
        .with("node_id", formed.node_id)
        .with("admin_thumbprint", formed.admin_thumbprint.clone())
}

/// `rookery join`
#[derive(Debug, Args)]
pub(super) struct Join {
    /// host:port of a member's client listener; https:// may stand before it
    url: String,
    /// From `rookery cluster join-token create`; `-` reads it from standard input
    token: String,
    #[command(flatten)]
    socket: SocketOf,
}

impl Join {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let address = self.url.trim_start_matches("https://").trim_end_matches('/');
        config::host_and_port(address)
            .map_err(|why| Failed::usage(format!("the address {why}")))?;
        let token = if self.token == "-" { read_line()? } else { self.token.clone() };
        let joined = self.socket.connect(session)?.join(address, token.trim()).await?;
        let row = Row::new().with("cluster_id", joined.cluster_id).with("node_id", joined.node_id);
        session.out.one("node_id", &row)
    }
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| Failed::unexpected(format!("standard input: {e}")))?;
    Ok(line)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Failed::file(path, &e))
}

/// `rookery health`
#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    socket: SocketOf,
}

impl Health {
    /// Asks the node on its admin socket what it presents, and its client listener, expecting just that, whether it serves.
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let config = self.socket.file.load()?.config;
        let address = session.global.address.clone().unwrap_or_else(|| own_address(&config));
        let admin = self.socket.connect(session)?;
        let state = admin.node_state().await?;
        let days_left = days_left(&state);
        let (serving, status) = match serving(&address, &state, session.global.timeout).await? {
            // It answers, and turns every caller away.
            (true, _) if days_left < 0 => (false, "SERVER_CERTIFICATE_EXPIRED".to_owned()),
            told => told,
        };
        warn_of_expiry(&state.node_name, days_left);
        let row = Row::new()
            .with("node", state.node_name)
            .with("address", address)
            .with("serving", serving)
            .with("status", status.clone())
            .with("certificate_days_left", days_left);
        session.out.one("status", &row)?;
        if serving {
            Ok(())
        } else {
            Err(Failed::new(Exit::Unavailable, "unavailable", format!("not serving: {status}")))
        }
    }
}

/// Whole days that the certificate which the node presents is still valid.
fn days_left(state: &GetNodeStateResponse) -> i64 {
    let until = state.status.as_ref().map_or(0, |status| status.certificate_not_after_unix_ms);
    until.saturating_sub(jiff::Timestamp::now().as_millisecond()).div_euclid(DAY_MS)
}

/// Says on standard error that the certificate of a node runs out.
pub(super) fn warn_of_expiry(node: &str, days_left: i64) {
    if days_left < 0 {
        super::message(&format!("warning: the certificate of node {node} has expired"));
    } else if days_left < WARNED_DAYS {
        let left = format!("expires in {days_left} days; replace it in time");
        super::message(&format!("warning: the certificate of node {node} {left}"));
    }
}

/// Whether the client listener of a node that presents this certificate serves, and in which words.
pub(super) async fn serving(
    address: &str,
    node: &GetNodeStateResponse,
    limit: Duration,
) -> Result<(bool, String)> {
    let client = Client::with_options(
        &visitor(address, node)?,
        Options { timeout: limit, policy: Policy::once(), request_id: None },
    )?;
    let channel = match client.channel() {
        Ok(channel) => channel,
        Err(e) => return Ok((false, e.to_string())),
    };
    let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
    request.set_timeout(limit);
    Ok(match tokio::time::timeout(limit, HealthClient::new(channel).check(request)).await {
        Ok(Ok(answer)) => {
            let status = answer.into_inner().status();
            (status == ServingStatus::Serving, status.as_str_name().to_owned())
        }
        Ok(Err(status)) => (false, rookery_client::Error::from_status(&status).to_string()),
        Err(_) => (false, format!("no answer within {:.1} s", limit.as_secs_f64())),
    })
}

/// A caller without a certificate, which health takes, for the holder of the key of the node's certificate alone. By which
/// name it is called is not looked at here: the certificate says itself which names it is good for.
fn visitor(address: &str, node: &GetNodeStateResponse) -> Result<Context> {
    let unfit =
        |e: certificates::Refused| Failed::unexpected(format!("the node's certificate: {e}"));
    let names = certificates::parse(&node.certificate).map_err(unfit)?.alternative_names;
    let ca = certificates::certificate_pem(&node.certificate);
    let addresses = vec![address.to_owned()];
    let context = Context::from_pem(&node.node_name, addresses, &[], &[], ca.as_bytes())?;
    Ok(match names.iter().find_map(|name| host_of(name)) {
        Some(host) => context.with_server_name(&host),
        None => context,
    })
}

/// A host that a name of a certificate is good for, such as of `DNS:*.example.com`.
fn host_of(name: &str) -> Option<String> {
    let (kind, host) = name.split_once(':')?;
    ["DNS", "IP"].contains(&kind).then(|| match host.strip_prefix("*.") {
        Some(domain) => format!("node.{domain}"),
        None => host.to_owned(),
    })
}

/// The listener as this machine reaches it.
fn own_address(config: &Config) -> String {
    let listen = config.listen.client;
    if listen.ip().is_unspecified() {
        format!("127.0.0.1:{}", listen.port())
    } else {
        listen.to_string()
    }
}

/// `rookery config`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Check a configuration and the files it names; exit code 0 or 9
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Show the values that are in force
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// Show where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

const VALUES: &[Column] = &[column("key"), column("value")];
const VALUES_AND_ORIGINS: &[Column] = &[column("key"), column("value"), column("origin")];

impl ConfigVerb {
    pub(super) fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Check { file } => check(&file, &mut session.out),
            Self::Show { file, origin } => {
                let rows: Vec<Row> = file.load()?.values().into_iter().map(value_row).collect();
                let columns = if origin { VALUES_AND_ORIGINS } else { VALUES };
                session.out.list(columns, "key", &rows)
            }
        }
    }
}

fn value_row((key, value, origin): (String, String, config::Origin)) -> Row {
    Row::new().with("key", key).with("value", value).with("origin", origin.to_string())
}

fn check(file: &ConfigFile, out: &mut Out) -> Result<()> {
    let checked = config::load(&file.config, &Overrides::from_process(&file.set))
        .and_then(|loaded| loaded.config.check_files(&file.config).map(|()| loaded))
        .map_err(|e| Failed::wanting(e.to_string()))?;
    if let Some(path) = &checked.config.formation.file {
        config::Formation::load(path).map_err(|e| Failed::wanting(e.to_string()))?;
    }
    let row = Row::new()
        .with("file", file.config.display().to_string())
        .with("node", checked.config.node.name)
        .with("ok", true);
    out.one("file", &row)
}
