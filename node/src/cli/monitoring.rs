//! `rookery cert connections`, `rookery cert cut` and `rookery metrics`: what goes on at the moment, over all nodes.

use std::time::Duration;

use clap::{Args, Subcommand};
use rookery_client::proto::monitoring::v1 as proto;

use super::{
    Column, Result, Row, Session, duration,
    failed::{Exit, Failed},
    output::{column, time, wide},
};
use crate::names::Thumbprint;

/// Connections a page.
const PAGE_SIZE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List open connections on all nodes; exit code 8 where a node did not answer
    Connections(Connections),
    /// Cut connections of a certificate. Its holder may connect again: `disable` keeps them out
    Cut(Cut),
}

#[derive(Debug, Args)]
pub(super) struct Connections {
    /// Only those of this certificate (SHA-256 thumbprint), with its secondaries
    thumbprint: Option<Thumbprint>,
    /// Only those of the node that is called
    #[arg(long)]
    local: bool,
}

#[derive(Debug, Args)]
pub(super) struct Cut {
    /// SHA-256 thumbprint
    thumbprint: Thumbprint,
    /// Only on this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only this connection of that node
    #[arg(long, requires = "node", value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
}

/// Calls and latencies of the last minutes by node; exit code 8 where a node did not answer
#[derive(Debug, Args)]
pub(super) struct Metrics {
    /// How far back; an hour is kept
    #[arg(long, value_parser = duration, default_value = "1m", value_name = "5m")]
    last: Duration,
    /// Only the node that is called
    #[arg(long)]
    local: bool,
}

const CONNECTIONS: &[Column] = &[
    column("node"),
    column("id"),
    column("name"),
    column("short"),
    column("remote_address"),
    column("surface"),
    column("opened"),
    column("last_call"),
    column("calls"),
    column("closing"),
    wide("thumbprint"),
];

const CUT: &[Column] = &[column("node"), column("answered"), column("cut"), column("why")];

const METRICS: &[Column] = &[
    column("node"),
    column("from"),
    column("calls"),
    column("calls_per_second"),
    column("failed"),
    column("denied"),
    column("p50_ms"),
    column("p99_ms"),
    wide("seconds"),
];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Connections(list) => list.run(session).await,
            Self::Cut(cut) => cut.run(session).await,
        }
    }
}

impl Connections {
    async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        let mut request = proto::ListConnectionsRequest {
            thumbprint: self.thumbprint.map_or_else(String::new, |it| it.to_string()),
            local_only: self.local,
            page_size: PAGE_SIZE,
            page_token: String::new(),
        };
        let mut rows = Vec::new();
        let mut nodes: Vec<proto::NodeAnswer> = Vec::new();
        loop {
            let page = client.list_connections(request.clone()).await?;
            rows.extend(page.connections.into_iter().map(connection));
            nodes.extend(page.nodes.into_iter().filter(|node| !node.answered));
            if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
                break;
            }
            request.page_token = page.next_page_token;
        }
        nodes.dedup_by_key(|node| node.node_id);
        session.out.list(CONNECTIONS, "id", &rows)?;
        all_answered(&nodes)
    }
}

fn connection(open: proto::Connection) -> Row {
    let short = open.thumbprint.get(..12).unwrap_or_default().to_owned();
    Row::new()
        .with("node", open.node)
        .with("node_id", open.node_id)
        .with("id", open.id)
        .with("name", open.name)
        .with("thumbprint", open.thumbprint)
        .with("short", short)
        .with("remote_address", open.remote_address)
        .with("surface", open.surface)
        .with("opened", time(open.opened_unix_ms))
        .with("last_call", time(open.last_call_unix_ms))
        .with("calls", open.calls)
        .with("closing", open.closing)
}

impl Cut {
    async fn run(self, session: &mut Session) -> Result<()> {
        let thumbprint = self.thumbprint.to_string();
        let what = match (&self.node, self.id) {
            (Some(node), Some(id)) => format!("This cuts connection {id} on {node} of"),
            (Some(node), None) => format!("This cuts the connections on {node} of"),
            (None, _) => "This cuts the connections on all nodes of".to_owned(),
        };
        session.confirm(&what, thumbprint.get(..12).unwrap_or_default())?;
        let request = proto::CloseConnectionsRequest {
            thumbprint,
            node: self.node.unwrap_or_default(),
            connection_id: self.id.unwrap_or_default(),
            request_id: String::new(),
        };
        let answer = session.client()?.close_connections(request).await?;
        let rows: Vec<Row> = answer.nodes.iter().cloned().map(cut).collect();
        session.out.list(CUT, "node", &rows)?;
        super::message(&answer.note);
        all_answered(&answer.nodes)
    }
}

fn cut(node: proto::NodeAnswer) -> Row {
    let count = node.answered.then_some(node.connections);
    Row::new()
        .with("node", node.node)
        .with("node_id", node.node_id)
        .with("answered", node.answered)
        .with("cut", count)
        .with("why", node.why)
}

impl Metrics {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let request = proto::GetMetricsRequest { local_only: self.local };
        let answer = session.client()?.get_metrics(request).await?;
        let last = i64::try_from(self.last.as_millis()).unwrap_or(i64::MAX);
        let mut rows = Vec::new();
        for node in &answer.nodes {
            let name = node.node.as_ref().map_or("", |node| &node.node);
            // Back from the node's own last sample, whatever its clock says.
            let newest = node.samples.last().map_or(0, |sample| sample.from_unix_ms);
            let shown =
                node.samples.iter().filter(|it| it.from_unix_ms > newest.saturating_sub(last));
            rows.extend(shown.map(|sample| self::sample(name, sample)));
        }
        session.out.list(METRICS, "node", &rows)?;
        all_answered(&answer.nodes.into_iter().filter_map(|node| node.node).collect::<Vec<_>>())
    }
}

#[allow(clippy::cast_precision_loss)] // Two digits after the point are shown.
fn sample(node: &str, sample: &proto::Sample) -> Row {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let seconds = f64::from(sample.duration_ms) / 1_000.0;
    let rate = if seconds > 0.0 { rounded(sample.calls as f64 / seconds) } else { 0.0 };
    let ms = |us: u64| (us > 0).then(|| rounded(us as f64 / 1_000.0));
    Row::new()
        .with("node", node)
        .with("from", time(sample.from_unix_ms))
        .with("seconds", seconds)
        .with("calls", sample.calls)
        .with("calls_per_second", rate)
        .with("failed", sample.failed)
        .with("denied", sample.denied)
        .with("p50_ms", ms(sample.p50_us))
        .with("p99_ms", ms(sample.p99_us))
}

/// Names the nodes whose part is missing; what was printed is not all there is.
fn all_answered(nodes: &[proto::NodeAnswer]) -> Result<()> {
    let silent: Vec<String> = nodes
        .iter()
        .filter(|node| !node.answered)
        .map(|node| format!("{}: {}", node.node, node.why))
        .collect();
    if silent.is_empty() {
        return Ok(());
    }
    let message = format!("not all nodes answered, so this is not all: {}", silent.join("; "));
    Err(Failed::new(Exit::Unavailable, "silent-nodes", message))
}
