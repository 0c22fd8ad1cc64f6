//! `rookery keys`: the keys that protect the data folders of the nodes. Each node is asked about its own.

use clap::{ArgGroup, Args, Subcommand};
use rookery_client::{
    Client,
    proto::{
        cluster::v1::Node,
        security::v1::{self as proto, rotate_data_key_request as rotated},
    },
};

use super::{
    Column, Failed, Result, Row, Session,
    contexts::Place,
    failed::Exit,
    output::{column, time, wide},
    server::SocketOf,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show keys, rotations under way and the protection of memory, on every node or on one
    Status {
        /// This node alone, by name or id
        #[arg(long)]
        node: Option<String>,
    },
    /// Put a new key in the place of one
    Rotate(Rotate),
}

/// What to rotate, and where.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true), group = ArgGroup::new("place").required(true))]
pub(super) struct Rotate {
    /// The master key: the node takes the one that [encryption.next] of its configuration names
    #[arg(long, group = "subject")]
    master: bool,
    /// The data key of a database: what it sealed is sealed again in the background
    #[arg(long, value_name = "NAME", group = "subject")]
    database: Option<String>,
    /// The data key of the cluster's state and of what the node knows of itself
    #[arg(long, group = "subject")]
    cluster: bool,
    /// The key of the storage engine's files; it ends with the next start of the node
    #[arg(long, group = "subject")]
    files: bool,
    /// On this node, by name or id
    #[arg(long, group = "place")]
    node: Option<String>,
    /// On every node, one after the other
    #[arg(long, group = "place")]
    all: bool,
}

const STATUS: &[Column] = &[
    column("node"),
    column("key"),
    column("id"),
    column("older"),
    column("rotation"),
    column("resealed"),
    column("records"),
    column("details"),
    wide("group_id"),
];
const ROTATED: &[Column] =
    &[column("node"), column("key"), column("started"), column("id"), column("details")];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Status { node } => status(session, node.as_deref()).await,
            Self::Rotate(rotate) => rotate.run(session).await,
        }
    }
}

/// The nodes that are meant, each with a client that calls it alone.
async fn nodes(client: &Client, named: Option<&str>) -> Result<Vec<(Node, Client)>> {
    let all = client.topology().await?.nodes;
    let meant = |node: &Node| named.is_none_or(|it| node.name == it || node.id.to_string() == it);
    let nodes: Vec<_> = all
        .into_iter()
        .filter(meant)
        .map(|node| {
            let pinned = client.pinned(&node.client_address);
            (node, pinned)
        })
        .collect();
    if nodes.is_empty() {
        let message = format!("there is no node {}", named.unwrap_or_default());
        return Err(Failed::new(Exit::NotFound, "not_found", message));
    }
    Ok(nodes)
}

async fn status(session: &mut Session, named: Option<&str>) -> Result<()> {
    let client = session.client()?;
    let (mut rows, mut silent) = (Vec::new(), None);
    for (node, pinned) in nodes(&client, named).await? {
        match pinned.get_key_status(proto::GetKeyStatusRequest {}).await {
            Ok(status) => rows.extend(rows_of(&node.name, status)),
            Err(error) => {
                super::message(&format!("{}: {error}", node.name));
                silent.get_or_insert(error);
            }
        }
    }
    session.out.list(STATUS, "key", &rows)?;
    silent.map_or(Ok(()), |error| Err(error.into()))
}

fn rows_of(node: &str, status: proto::GetKeyStatusResponse) -> Vec<Row> {
    let begin = |key: &str| Row::new().with("node", node).with("key", key);
    let mut rows = Vec::new();
    if let Some(master) = status.master_key {
        let details = match master.advice.as_str() {
            "" => format!("from {}", master.source),
            advice => format!("from {}: {advice}", master.source),
        };
        let rotation = if master.from_next { "rotated" } else { "" };
        let row = begin("master").with("id", master.id).with("older", "");
        rows.push(row.with("rotation", rotation).with("details", details));
    }
    for key in status.data_keys {
        let row =
            begin(&key.group).with("id", key.version).with("older", list(&key.older_versions));
        let row = rotation(row, key.rotation.unwrap_or_default(), "");
        rows.push(row.with("group_id", key.group_id));
    }
    if let Some(files) = status.file_key {
        let row =
            begin("files").with("id", files.version).with("older", list(&files.older_versions));
        let counted = format!("{} of {} files name an older key", files.older_files, files.files);
        rows.push(rotation(row, files.rotation.unwrap_or_default(), &counted));
    }
    if let Some(memory) = status.memory {
        rows.push(begin("memory").with("details", memory_words(&memory)));
    }
    let recovery = match status.recovery {
        None => "no recovery export was made".to_owned(),
        Some(it) => format!(
            "exported at {} for master key {}{}",
            time(it.made_unix_ms).as_str().unwrap_or_default(),
            it.master_key_id,
            if it.current { "" } else { ", which is not the current one: make another" }
        ),
    };
    rows.push(begin("recovery").with("details", recovery));
    rows
}

fn memory_words(memory: &proto::MemoryStatus) -> String {
    let limit = match memory.limit_bytes {
        0 => "no limit".to_owned(),
        limit => format!("limit {} KiB", limit / 1024),
    };
    let off = |off: bool| if off { "off" } else { "ON" };
    format!(
        "{} of {} KiB locked, {limit}, {} KiB needed; core dumps {}, attaching {}",
        memory.locked_bytes / 1024,
        memory.held_bytes / 1024,
        memory.needed_bytes / 1024,
        off(memory.core_dumps_off),
        off(memory.dumpable_off)
    )
}

fn rotation(row: Row, rotation: proto::RotationStatus, otherwise: &str) -> Row {
    let details = if rotation.details.is_empty() { otherwise.to_owned() } else { rotation.details };
    row.with("rotation", rotation.phase)
        .with("resealed", rotation.resealed)
        .with("records", rotation.records)
        .with("details", details)
}

fn list(versions: &[u32]) -> String {
    versions.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

impl Rotate {
    async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        let (mut rows, mut failed) = (Vec::new(), None);
        for (node, pinned) in nodes(&client, self.node.as_deref()).await? {
            match self.on(&node.name, &pinned).await {
                Ok(row) => rows.push(row),
                // A database lives on some of the nodes.
                Err(error) if self.all && error.reason() == "NOT_HELD_HERE" => {}
                Err(error) => {
                    super::message(&format!("{}: {error}", node.name));
                    failed.get_or_insert(error);
                }
            }
        }
        session.out.list(ROTATED, "node", &rows)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn on(
        &self,
        node: &str,
        client: &Client,
    ) -> std::result::Result<Row, rookery_client::Error> {
        if self.master {
            let rotated = client.rotate_master_key(proto::RotateMasterKeyRequest {}).await?;
            let row = Row::new().with("node", node).with("key", "master").with("started", true);
            return Ok(row.with("id", rotated.id).with("details", rotated.advice));
        }
        let (subject, key) = match &self.database {
            Some(name) => (rotated::Subject::Database(name.clone()), name.as_str()),
            None if self.cluster => (rotated::Subject::Cluster(true), "cluster"),
            None => (rotated::Subject::Files(true), "files"),
        };
        let request = proto::RotateDataKeyRequest { subject: Some(subject) };
        let rotated = client.rotate_data_key(request).await?;
        let details = match rotated.started {
            true => "under way; see `rookery keys status`",
            false => "a rotation of it is under way already",
        };
        let row = Row::new().with("node", node).with("key", key);
        Ok(row.with("started", rotated.started).with("details", details))
    }
}

/// `rookery recovery-export`
#[derive(Debug, Args)]
pub(super) struct RecoveryExport {
    /// Where to write the file; it must not exist
    #[arg(long, value_name = "FILE")]
    out: std::path::PathBuf,
    /// Make another one, though one was made before
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    socket: SocketOf,
}

impl RecoveryExport {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let place = Place::take(&self.out)?;
        let exported = self.socket.connect(session)?.export_recovery(self.force).await?;
        let recovery_key = zeroize::Zeroizing::new(exported.recovery_key);
        let written = place.display();
        place.fill(&exported.content)?;
        super::message("The recovery key is shown this once. Keep it apart from the file.");
        let row = Row::new()
            .with("file", written)
            .with("recovery_key", recovery_key.as_str())
            .with("master_key", exported.master_key_id);
        session.out.one("file", &row)
    }
}
