//! The command line: `rookery <noun> <verb>`. Data goes to standard output, messages to standard error.
//!
//! ```text
//! Cli (clap) ── run ──> one function a verb ── Client, Admin or files ──> rows ── Out ──> table, json, …
//!                                        └───> Failed { exit code } ──> standard error
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`output`] | the one writer of standard output, and the formats |
//! | [`failed`] | exit codes |
//! | [`contexts`] | the contexts of this user |
//! | `server` | start, join, bootstrap, health, config |
//! | `init`, `dev` | PKI and configuration of a new cluster; a playground |
//! | `cluster`, `cert`, `cert_server`, `second_factor`, `db`, `doc` | the services |
//! | `effective`, `trust` | more verbs of `cert`: explain, policy, well-known admins, unused, notifications |
//! | `monitoring` | open connections, rates and latencies |
//! | `admin` | the admin socket |
//! | `keys`, `recover` | keys of running nodes; data folders of stopped ones |
//! | `audit` | the audit log: list, follow, verify, export |
//! | `bench` | a load generator |

mod admin;
mod audit;
mod bench;
mod cert;
mod cert_server;
mod cluster;
mod contexts;
mod db;
mod dev;
mod doc;
mod effective;
mod failed;
mod init;
mod keys;
mod monitoring;
mod output;
mod recover;
mod second_factor;
mod server;
mod trust;

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use rookery_client::{Client, Context, Options, proto::security::v1 as security, retry::Policy};

use failed::{Exit, Failed, Result};
use output::{Column, Format, Out, Row};

/// A document database cluster whose product is its security.
#[derive(Debug, Parser)]
#[command(name = "rookery", version, about, long_about = LONG_ABOUT, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "A document database cluster whose product is its security: server, administration and \
client in one program.\n\n`rookery dev` starts a secure playground on this machine.\n\nExit codes: 0 done, 1 unexpected, \
2 usage, 3 TLS or certificate refused, 4 not allowed, 5 not found, 6 conflict, 7 timed out, 8 unavailable, \
9 checked and found wanting.";

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Context to use instead of the current one [env: ROOKERY_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// A context.toml or a package (.zip) to use without importing it [env: ROOKERY_CONTEXT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    context_file: Option<PathBuf>,
    /// Call this node alone
    #[arg(long, global = true, value_name = "HOST:PORT", env = "ROOKERY_ADDRESS")]
    address: Option<String>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, env = "ROOKERY_OUTPUT", default_value_t)]
    output: Format,
    /// Longest time a call may take, such as 500ms, 30s or 2m
    #[arg(long, global = true, value_parser = duration, env = "ROOKERY_TIMEOUT", default_value = "30s")]
    timeout: Duration,
    /// What the change is known by: one whose outcome is unknown is carried out once, however often it is sent under its id
    #[arg(long, global = true, value_name = "UUID")]
    request_id: Option<uuid::Uuid>,
    /// Ask nothing: destructive commands go ahead
    #[arg(short = 'y', long, global = true)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a secure playground on this machine: keys, nodes, and a context for you
    Dev(dev::Dev),
    /// Make keys, certificates and configuration for a new cluster, or for one more node
    Init(init::Init),
    /// Run a node
    Start(server::Start),
    /// Form a cluster of one node out of a passive node
    Bootstrap(server::Bootstrap),
    /// Make a passive node join a cluster
    Join(server::Join),
    /// Ask a node whether it serves; exit code 0 or 8
    Health(server::Health),
    /// Check or show a node's configuration
    #[command(subcommand)]
    Config(server::ConfigVerb),
    /// Contexts: which cluster, as whom
    #[command(subcommand)]
    Context(contexts::Verb),
    /// Who the cluster takes you for
    Whoami,
    /// The cluster and its nodes
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Certificates: who is known, and what they may do
    #[command(subcommand)]
    Cert(cert::Verb),
    /// A node on this machine, as the owner of its files: no certificate needed
    #[command(subcommand)]
    Admin(admin::Verb),
    /// Your second factor: codes of an authenticator, and the session they open
    #[command(subcommand)]
    SecondFactor(second_factor::Verb),
    /// Databases
    #[command(subcommand)]
    Db(db::Verb),
    /// Documents
    #[command(subcommand)]
    Doc(doc::Verb),
    /// The audit log: who did what, and who was refused
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Calls and latencies of the last minutes by node; exit code 8 where a node did not answer
    Metrics(monitoring::Metrics),
    /// The keys that protect the data folders of the nodes
    #[command(subcommand)]
    Keys(keys::Verb),
    /// Write what opens this node's data folder without its master key: once, as the owner of its files
    RecoveryExport(keys::RecoveryExport),
    /// A data folder whose node does not run: check it, put it under another master key
    #[command(subcommand)]
    Recover(recover::Verb),
    /// Put load on a cluster and measure it
    Bench(bench::Bench),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print(); // Nobody is left to tell.
            return if e.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    // The process's own provider; a second installation is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let format = cli.global.output;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return report(format, &Failed::unexpected(format!("no runtime: {e}"))),
    };
    let ended = runtime.block_on(run(cli));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => report(format, &failed),
    }
}

fn report(format: Format, failed: &Failed) -> ExitCode {
    if failed.is_broken_pipe() {
        return ExitCode::SUCCESS;
    }
    message(&failed.render(format));
    failed.exit.into()
}

/// Writes a message for people to standard error.
fn message(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}"); // Nobody is left to tell.
}

async fn run(cli: Cli) -> Result<()> {
    let mut session = Session { out: Out::stdout(cli.global.output), global: cli.global };
    match cli.command {
        Command::Dev(dev) => dev.run(&mut session).await,
        Command::Init(init) => init.run(&mut session),
        Command::Start(start) => start.run().await,
        Command::Bootstrap(bootstrap) => bootstrap.run(&mut session).await,
        Command::Join(join) => join.run(&mut session).await,
        Command::Health(health) => health.run(&mut session).await,
        Command::Config(verb) => verb.run(&mut session),
        Command::Context(verb) => verb.run(&mut session),
        Command::Whoami => whoami(&mut session).await,
        Command::Cluster(verb) => verb.run(&mut session).await,
        Command::Cert(verb) => verb.run(&mut session).await,
        Command::Admin(verb) => verb.run(&mut session).await,
        Command::SecondFactor(verb) => verb.run(&mut session).await,
        Command::Db(verb) => verb.run(&mut session).await,
        Command::Doc(verb) => verb.run(&mut session).await,
        Command::Audit(verb) => verb.run(&mut session).await,
        Command::Metrics(metrics) => metrics.run(&mut session).await,
        Command::Keys(verb) => verb.run(&mut session).await,
        Command::RecoveryExport(export) => export.run(&mut session).await,
        Command::Recover(verb) => verb.run(&mut session),
        Command::Bench(bench) => bench.run(&mut session).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rookery", &mut script);
            session.out.bytes(&script)
        }
    }
}

/// One run of the program: the global flags and the writer.
struct Session {
    global: Global,
    out: Out,
}

impl Session {
    /// The context that flags, environment and the user's choice give, in this order.
    fn context(&self) -> Result<Context> {
        let context =
            contexts::resolve(self.global.context_file.as_deref(), self.global.context.as_deref())?;
        // For contexts that stand in no folder, and for programs.
        Ok(match std::env::var("ROOKERY_SESSION") {
            Ok(token) => context.with_session(rookery_client::Session::new(&token, i64::MAX)),
            Err(_) => context,
        })
    }

    fn client(&self) -> Result<Client> {
        self.client_of(&self.context()?)
    }

    fn client_of(&self, context: &Context) -> Result<Client> {
        let Global { timeout, request_id, .. } = self.global;
        let options = Options { timeout, policy: Policy::default(), request_id };
        let client = Client::with_options(context, options)?;
        Ok(match &self.global.address {
            Some(address) => client.pinned(address),
            None => client,
        })
    }

    /// Asks for the name of what is to be destroyed, unless `--yes` was given.
    fn confirm(&self, what: &str, name: &str) -> Result<()> {
        if self.global.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Failed::usage(format!(
                "{what} {name:?}: add --yes where nobody can be asked"
            )));
        }
        let prompt = format!("{what}. Type its name ({name}) to go ahead");
        let typed: String = dialoguer::Input::new()
            .with_prompt(prompt)
            .allow_empty(true)
            .interact_text()
            .map_err(|e| Failed::unexpected(e.to_string()))?;
        if typed.trim() == name { Ok(()) } else { Err(Failed::usage("nothing was done")) }
    }
}

async fn whoami(session: &mut Session) -> Result<()> {
    let me = session.client()?.whoami().await?;
    session.out.one("name", &whoami_row(me))
}

fn whoami_row(me: security::WhoAmIResponse) -> Row {
    Row::new()
        .with("registered", me.registered)
        .with("name", me.name)
        .with("clearance", clearance_name(me.clearance))
        .with("databases", grants(&me.grants))
        .with("state", me.state)
        .with("valid_from", output::time(me.not_before_unix_ms))
        .with("expires", output::time(me.not_after_unix_ms))
        .with("days_left", if me.not_after_unix_ms == 0 { None } else { Some(me.days_left) })
        .with("well_known", me.well_known)
        .with("thumbprint", me.thumbprint)
        .with("node", me.node)
        .with("cluster_id", me.cluster_id)
        .with("registry_revision", me.registry_revision)
}

/// How much a certificate may do; always written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ClearanceArg {
    /// Documents of the databases it is granted
    User,
    /// Databases, tasks and certificates of Users
    Operator,
    /// Everything
    ClusterAdmin,
    /// A member of the cluster
    ClusterNode,
}

impl From<ClearanceArg> for i32 {
    fn from(clearance: ClearanceArg) -> Self {
        (match clearance {
            ClearanceArg::User => security::Clearance::User,
            ClearanceArg::Operator => security::Clearance::Operator,
            ClearanceArg::ClusterAdmin => security::Clearance::ClusterAdmin,
            ClearanceArg::ClusterNode => security::Clearance::ClusterNode,
        }) as Self
    }
}

fn clearance_name(number: i32) -> &'static str {
    match security::Clearance::try_from(number) {
        Ok(security::Clearance::User) => "User",
        Ok(security::Clearance::Operator) => "Operator",
        Ok(security::Clearance::ClusterAdmin) => "ClusterAdmin",
        Ok(security::Clearance::ClusterNode) => "ClusterNode",
        Ok(security::Clearance::Unspecified) | Err(_) => "",
    }
}

/// `{"sales": "ReadWrite"}`.
fn grants(grants: &[security::Grant]) -> serde_json::Value {
    grants
        .iter()
        .map(|grant| {
            let access = match security::Access::try_from(grant.access) {
                Ok(security::Access::Read) => "Read",
                Ok(security::Access::ReadWrite) => "ReadWrite",
                Ok(security::Access::Admin) => "Admin",
                Ok(security::Access::Unspecified) | Err(_) => "",
            };
            (grant.database.clone(), serde_json::Value::from(access))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Parses `sales:rw`.
fn grant(text: &str) -> std::result::Result<security::Grant, String> {
    let (database, access) = text
        .rsplit_once(':')
        .ok_or("write DATABASE:ACCESS with r, rw or admin, such as sales:rw")?;
    let access = match access {
        "r" | "read" | "Read" => security::Access::Read,
        "rw" | "read-write" | "ReadWrite" => security::Access::ReadWrite,
        "admin" | "Admin" => security::Access::Admin,
        other => return Err(format!("the access {other:?} is none of r, rw, admin")),
    };
    crate::names::DatabaseName::parse(database).map_err(|e| e.to_string())?;
    Ok(security::Grant { database: database.to_owned(), access: access.into() })
}

/// Parses `250ms`, `30s`, `5m`, `12h`, `7d`; a number alone is seconds.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    const BAD: &str = "write a number and a unit, such as 500ms, 30s, 5m, 12h or 7d";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| BAD)?;
    let ms = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    ms.filter(|ms| *ms > 0 && *ms <= 100 * 365 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| BAD.to_owned())
}

#[cfg(test)]
mod tests;
