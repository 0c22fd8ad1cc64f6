//! Running a node, and the commands that speak to the node on this machine.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use rookery_client::{
    Client, Context, Options,
    admin::{self, Admin},
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
        // The node is formed once: a package that could not be written would lock everybody out.
        let place = Place::take(out)?;
        let made = pki::administrator(name)?;
        let formed = admin.bootstrap(made.der.clone(), name).await?;
        let ca = read(config.tls.ca.as_ref().unwrap_or(&config.tls.certificate))?;
        let about = pki::About {
            ca_pem: &String::from_utf8_lossy(&ca),
            addresses: std::slice::from_ref(&config.advertise.client),
            nodes: &[Thumbprint::of(&pki::certificate(&config.tls.certificate)?)],
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
    file: ConfigFile,
}

impl Health {
    /// Asks the node's own client listener, as the node. `--address` asks another one.
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let config = self.file.load()?.config;
        let address = session.global.address.clone().unwrap_or_else(|| own_address(&config));
        let context = node_context(&config, &address)?;
        let options = Options { timeout: session.global.timeout, policy: Policy::once() };
        let client = Client::with_options(&context, options)?;
        let (serving, status) = serving(&client, session.global.timeout).await;
        let days_left = own_days_left(&config)?;
        warn_of_expiry(&config.node.name, days_left);
        let row = Row::new()
            .with("node", config.node.name)
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

/// Whole days that the node's own certificate is still valid.
fn own_days_left(config: &Config) -> Result<i64> {
    let der = pki::certificate(&config.tls.certificate)?;
    let parsed = certificates::parse(&der).map_err(|e| Failed::usage(e.to_string()))?;
    let left = parsed.not_after.0.saturating_sub(jiff::Timestamp::now().as_millisecond());
    Ok(left.div_euclid(DAY_MS))
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

/// Whether the node behind the client serves, and in which words.
pub(super) async fn serving(client: &Client, limit: std::time::Duration) -> (bool, String) {
    let channel = match client.channel() {
        Ok(channel) => channel,
        Err(e) => return (false, e.to_string()),
    };
    let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
    request.set_timeout(limit);
    match tokio::time::timeout(limit, HealthClient::new(channel).check(request)).await {
        Ok(Ok(answer)) => {
            let status = answer.into_inner().status();
            (status == ServingStatus::Serving, status.as_str_name().to_owned())
        }
        Ok(Err(status)) => (false, rookery_client::Error::from_status(&status).to_string()),
        Err(_) => (false, format!("no answer within {:.1} s", limit.as_secs_f64())),
    }
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

/// What a node is as a client of itself: its own certificate, and its advertised name for the server.
pub(super) fn node_context(config: &Config, address: &str) -> Result<Context> {
    let certificate = read(&config.tls.certificate)?;
    let key = zeroize::Zeroizing::new(read(&config.tls.key)?);
    let ca = match &config.tls.ca {
        Some(ca) => read(ca)?,
        None => certificate.clone(),
    };
    let context =
        Context::from_pem(&config.node.name, vec![address.to_owned()], &certificate, &key, &ca)?;
    let host = config::host_and_port(&config.advertise.client).map(|(host, _)| host.to_owned());
    Ok(match host {
        Ok(host) => context.with_server_name(&host),
        Err(_) => context,
    })
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
