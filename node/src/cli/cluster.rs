//! `rookery cluster`: nodes, groups, joining and leaving.

use std::time::Duration;

use clap::Subcommand;
use rookery_client::{Client, proto::cluster::v1 as proto};

use super::{
    Column, Failed, Result, Row, Session, duration,
    output::{Format, column, time, wide},
    server,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show nodes and groups as every node sees them
    Status {
        /// Repeat until interrupted
        #[arg(long)]
        watch: bool,
        /// Time between two looks
        #[arg(long, value_parser = duration, default_value = "2s")]
        interval: Duration,
        /// Ask the node only about itself
        #[arg(long)]
        local: bool,
    },
    /// List the nodes and their addresses
    Nodes,
    /// Form a cluster of one node (the same as `rookery bootstrap`)
    Bootstrap(server::Bootstrap),
    /// Tokens with which a node may join
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Remove a node and revoke its certificate
    Remove {
        /// Id or name of the node
        node: String,
    },
    /// Make a learner of the cluster group a voter
    Promote {
        /// Id or name of the node
        node: String,
    },
    /// Make a voter of the cluster group a learner
    Demote {
        /// Id or name of the node
        node: String,
    },
    /// Hand leadership of a group to a node
    TransferLeader {
        /// Id or name of the node
        node: String,
        /// `cluster`, or the name of a database
        #[arg(long, default_value = "cluster")]
        group: String,
    },
    /// Build a snapshot of a group on the node that is asked
    Snapshot {
        /// `cluster`, or the name of a database
        #[arg(long, default_value = "cluster")]
        group: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum JoinToken {
    /// Make a single-use token; it is shown once
    Create {
        /// How long it is good for; at most 7d
        #[arg(long, value_parser = duration, default_value = "1h")]
        ttl: Duration,
    },
    /// List open tokens
    List,
    /// Revoke a token
    Revoke {
        /// Its id
        id: String,
    },
}

const NODES: &[Column] = &[
    column("id"),
    column("name"),
    column("role"),
    column("client_address"),
    wide("peer_address"),
    wide("thumbprint"),
];
const GROUPS: &[Column] = &[
    column("node"),
    column("reachable"),
    column("fresh"),
    column("group"),
    column("role"),
    column("leader_id"),
    column("term"),
    column("applied_index"),
    column("lag"),
    wide("committed_index"),
    wide("snapshot_index"),
    wide("voters"),
    wide("learners"),
    wide("registry_revision"),
    wide("resident_bytes"),
    wide("disk_free_bytes"),
    column("disk_full"),
    wide("disk_reserve_held"),
    wide("certificate_expires"),
    wide("version"),
    wide("state_hash"),
];
const TOKENS: &[Column] = &[column("id"), column("created"), column("expires"), wide("created_by")];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Status { watch, interval, local } => {
                status(session, watch, interval, local).await
            }
            Self::Nodes => {
                let topology = session.client()?.topology().await?;
                let rows: Vec<Row> = topology.nodes.iter().map(node_row).collect();
                session.out.list(NODES, "name", &rows)
            }
            Self::Bootstrap(bootstrap) => bootstrap.run(session).await,
            Self::JoinToken(verb) => verb.run(session).await,
            Self::Remove { node } => {
                let client = session.client()?;
                let (node_id, name) = node_of(&client, &node).await?;
                session.confirm("This removes the node and revokes its certificate", &name)?;
                client
                    .remove_node(proto::RemoveNodeRequest { node_id, request_id: String::new() })
                    .await?;
                done(session, "removed", node_id, &name)
            }
            Self::Promote { node } => {
                let client = session.client()?;
                let (node_id, name) = node_of(&client, &node).await?;
                client
                    .promote_node(proto::PromoteNodeRequest { node_id, request_id: String::new() })
                    .await?;
                done(session, "promoted", node_id, &name)
            }
            Self::Demote { node } => {
                let client = session.client()?;
                let (node_id, name) = node_of(&client, &node).await?;
                client
                    .demote_node(proto::DemoteNodeRequest { node_id, request_id: String::new() })
                    .await?;
                done(session, "demoted", node_id, &name)
            }
            Self::TransferLeader { node, group } => {
                let client = session.client()?;
                let (node_id, name) = node_of(&client, &node).await?;
                client
                    .transfer_leader(proto::TransferLeaderRequest { group: group.clone(), node_id })
                    .await?;
                let row =
                    Row::new().with("group", group).with("node_id", node_id).with("name", name);
                session.out.one("name", &row)
            }
            Self::Snapshot { group } => {
                let request = proto::TriggerSnapshotRequest { group: group.clone() };
                let made = session.client()?.trigger_snapshot(request).await?;
                let row =
                    Row::new().with("group", group).with("snapshot_index", made.snapshot_index);
                session.out.one("snapshot_index", &row)
            }
        }
    }
}

fn done(session: &mut Session, what: &'static str, node_id: u64, name: &str) -> Result<()> {
    session
        .out
        .one("name", &Row::new().with("node_id", node_id).with("name", name).with(what, true))
}

impl JoinToken {
    async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        match self {
            Self::Create { ttl } => {
                let request = proto::CreateJoinTokenRequest {
                    lifetime_seconds: ttl.as_secs().max(1),
                    request_id: String::new(),
                };
                let made = client.create_join_token(request).await?;
                let row = Row::new()
                    .with("token", made.token)
                    .with("id", made.id)
                    .with("expires", time(made.expires_unix_ms));
                session.out.one("token", &row)
            }
            Self::List => {
                let tokens = client.list_join_tokens(proto::ListJoinTokensRequest {}).await?.tokens;
                let row = |token: proto::JoinToken| {
                    Row::new()
                        .with("id", token.id)
                        .with("created", time(token.created_unix_ms))
                        .with("expires", time(token.expires_unix_ms))
                        .with("created_by", token.created_by)
                };
                let rows: Vec<Row> = tokens.into_iter().map(row).collect();
                session.out.list(TOKENS, "id", &rows)
            }
            Self::Revoke { id } => {
                let request =
                    proto::RevokeJoinTokenRequest { id: id.clone(), request_id: String::new() };
                client.revoke_join_token(request).await?;
                session.out.one("id", &Row::new().with("id", id).with("revoked", true))
            }
        }
    }
}

/// Finds a node by its id or its name.
async fn node_of(client: &Client, text: &str) -> Result<(u64, String)> {
    let nodes = client.topology().await?.nodes;
    let id = text.parse::<u64>().ok();
    nodes
        .into_iter()
        .find(|node| node.name.eq_ignore_ascii_case(text) || Some(node.id) == id)
        .map(|node| (node.id, node.name))
        .ok_or_else(|| {
            Failed::not_found(format!("there is no node {text}; see `rookery cluster nodes`"))
        })
}

pub(super) fn node_row(node: &proto::Node) -> Row {
    Row::new()
        .with("id", node.id)
        .with("name", node.name.clone())
        .with("role", node.role.clone())
        .with("client_address", node.client_address.clone())
        .with("peer_address", node.peer_address.clone())
        .with("thumbprint", node.thumbprint.clone())
}

async fn status(session: &mut Session, watch: bool, interval: Duration, local: bool) -> Result<()> {
    let client = session.client()?;
    loop {
        let request = proto::GetStatusRequest { local_only: local };
        match client.get_status(request).await {
            Ok(status) => {
                if watch && matches!(session.out.format, Format::Table | Format::Wide) {
                    session.out.bytes(b"\x1b[2J\x1b[H")?;
                }
                session.out.list(GROUPS, "node", &status_rows(&status))?;
                status.nodes.iter().for_each(warn_of_expiry);
            }
            // Someone who watches wants to see the cluster come back.
            Err(e) if watch => super::message(&format!("error: {e}")),
            Err(e) => return Err(e.into()),
        }
        if !watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn warn_of_expiry(status: &proto::NodeStatus) {
    let (Some(node), not_after) = (&status.node, status.certificate_not_after_unix_ms) else {
        return;
    };
    if not_after != 0 {
        let left = not_after.saturating_sub(jiff::Timestamp::now().as_millisecond());
        server::warn_of_expiry(&node.name, left.div_euclid(server::DAY_MS));
    }
}

/// One row a node and group; a node that did not answer has one row without a group.
fn status_rows(status: &proto::GetStatusResponse) -> Vec<Row> {
    let none = proto::GroupStatus::default();
    status
        .nodes
        .iter()
        .flat_map(|node| {
            let groups = if node.groups.is_empty() {
                std::slice::from_ref(&none)
            } else {
                node.groups.as_slice()
            };
            groups.iter().map(|group| group_row(node, group)).collect::<Vec<_>>()
        })
        .collect()
}

pub(super) fn group_row(status: &proto::NodeStatus, group: &proto::GroupStatus) -> Row {
    let node = status.node.clone().unwrap_or_default();
    Row::new()
        .with("node", node.name)
        .with("node_id", node.id)
        .with("reachable", status.reachable)
        .with("fresh", status.authorization_fresh)
        .with("group", group.group.clone())
        .with("group_id", group.group_id)
        .with("role", group.role.clone())
        .with("leader_id", group.leader_id)
        .with("term", group.term)
        .with("last_log_index", group.last_log_index)
        .with("committed_index", group.committed_index)
        .with("applied_index", group.applied_index)
        .with("lag", group.last_log_index.saturating_sub(group.applied_index))
        .with("snapshot_index", group.snapshot_index)
        .with("voters", group.voters.clone())
        .with("learners", group.learners.clone())
        .with("registry_revision", status.registry_revision)
        .with("resident_bytes", status.resident_bytes)
        .with("disk_free_bytes", status.disk_free_bytes)
        .with("disk_full", status.disk_full)
        .with("disk_reserve_held", status.disk_reserve_held)
        .with("certificate_expires", time(status.certificate_not_after_unix_ms))
        .with("version", status.version.clone())
        .with("state_hash", group.state_hash.clone())
}
