//! The first page: whether the cluster is well, what needs a hand, and how busy it is.

use askama::Template;
use rookery_proto::{
    cluster::v1::{GetStatusRequest, GetTopologyRequest, NodeStatus},
    database::v1::{Database, DatabaseState, ListDatabasesRequest},
    monitoring::v1::{GetMetricsRequest, NodeMetrics},
    security::v1::{ListNotificationsRequest, Notification},
};
use tonic::Status;

use super::{
    answer::{self, Answer, Refused},
    charts::{Chart, Hour},
    contract::Calls,
    health::{self, Quorum, Trouble},
    visit::{Frame, Visit},
    words,
};

/// Notices on the page.
const NOTICES_MAX: u32 = 10;
/// Databases on the page.
const DATABASES_MAX: u32 = 12;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    nodes: Vec<Row>,
    quorum: Quorum,
    troubles: Vec<Trouble>,
    notices: Vec<Notification>,
    more_notices: bool,
    databases: Vec<Shown>,
    more_databases: bool,
    activity: Option<Activity>,
}

/// What the last hour was like; or why that cannot be said.
struct Activity {
    rates: Chart,
    latencies: Chart,
    /// Nodes whose figures are missing, with the reason.
    missing: Vec<String>,
}

/// A node and its row.
struct Row {
    it: NodeStatus,
    name: String,
    role: String,
    address: String,
    leads: bool,
    /// Calls of the last hour: the path of a line, and words.
    spark: Option<(String, String)>,
    now: i64,
}

impl Row {
    fn of(it: NodeStatus, metrics: &[NodeMetrics], hour: Hour, now: i64) -> Self {
        let node = it.node.clone().unwrap_or_default();
        let own =
            metrics.iter().find(|told| told.node.as_ref().is_some_and(|it| it.node_id == node.id));
        let leads =
            it.groups.iter().any(|group| group.group == "cluster" && group.role == "leader");
        let spark = own.filter(|told| !told.samples.is_empty()).map(|told| hour.spark(told));
        Self {
            it,
            name: node.name,
            role: node.role,
            address: node.client_address,
            leads,
            spark,
            now,
        }
    }

    fn expires(&self) -> String {
        words::relative(self.it.certificate_not_after_unix_ms, self.now)
    }

    fn memory(&self) -> String {
        words::bytes(self.it.resident_bytes)
    }

    fn free(&self) -> String {
        words::bytes(self.it.disk_free_bytes)
    }
}

/// A database and its row.
struct Shown {
    it: Database,
    path: String,
}

impl Shown {
    fn of(it: Database, frame: &Frame) -> Self {
        // Below Operator there is no page of the database itself, only of its documents.
        let page = match frame.may("view-database-record") {
            true => "/studio/database",
            false => "/studio/documents",
        };
        let path = format!("{page}{}", words::query(&[("db", &it.name)]));
        Self { it, path }
    }

    fn enabled(&self) -> bool {
        self.it.state == i32::from(DatabaseState::Enabled)
    }
}

impl Overview {
    fn reachable(&self) -> usize {
        self.nodes.iter().filter(|row| row.it.reachable).count()
    }

    fn disabled(&self) -> usize {
        self.databases.iter().filter(|row| !row.enabled()).count()
    }

    fn grade(&self) -> &'static str {
        self.troubles.first().map_or("good", |worst| worst.grade.class())
    }

    fn sees_status(&self) -> bool {
        self.frame.may("view-cluster-status")
    }

    fn class(&self, notice: &Notification) -> &'static str {
        if notice.kind == "CERTIFICATE_EXPIRED" { "bad" } else { "warn" }
    }

    fn notice_path(&self, notice: &Notification) -> String {
        format!("/studio/certificate{}", words::query(&[("t", &notice.thumbprint)]))
    }

    fn days(&self, notice: &Notification) -> String {
        words::relative(notice.not_after_unix_ms, self.frame.now())
    }
}

/// `GET /studio`.
pub async fn page(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let (nodes, metrics, databases, notices) = tokio::join!(
        nodes(&calls, &frame),
        metrics(&calls, &frame),
        databases(&calls),
        notices(&calls),
    );
    let nodes = nodes.map_err(&refused)?;
    let (databases, more_databases) = databases.map_err(&refused)?;
    let (notices, more_notices) = notices.map_err(&refused)?;
    let metrics = metrics.map_err(&refused)?;
    drop(refused);
    let (hour, now) = (Hour::until(frame.now()), frame.now());
    let troubles = match frame.may("view-cluster-status") {
        true => health::troubles(&nodes, now),
        false => Vec::new(), // Who sees no status knows of no trouble.
    };
    let page = Overview {
        quorum: Quorum::of(&nodes),
        troubles,
        notices,
        more_notices,
        databases: databases.into_iter().map(|it| Shown::of(it, &frame)).collect(),
        more_databases,
        activity: metrics.as_deref().map(|metrics| activity(metrics, hour)),
        nodes: nodes
            .into_iter()
            .map(|it| Row::of(it, metrics.as_deref().unwrap_or_default(), hour, now))
            .collect(),
        frame,
    };
    Ok(answer::page(&page))
}

fn activity(metrics: &[NodeMetrics], hour: Hour) -> Activity {
    let silent = metrics.iter().filter_map(|told| told.node.as_ref()).filter(|it| !it.answered);
    Activity {
        rates: hour.rates(metrics),
        latencies: hour.latencies(metrics),
        missing: silent.map(|node| format!("{} ({})", node.node, node.why)).collect(),
    }
}

/// With their states for those who may see them, without for the others.
async fn nodes(calls: &Calls, frame: &Frame) -> Result<Vec<NodeStatus>, Status> {
    if frame.may("view-cluster-status") {
        let asked = GetStatusRequest { local_only: false };
        return Ok(calls.cluster().get_status(asked).await?.into_inner().nodes);
    }
    let topology = calls.cluster().get_topology(GetTopologyRequest {}).await?.into_inner();
    let known = topology.nodes.into_iter();
    let status = |node| NodeStatus { node: Some(node), reachable: true, ..NodeStatus::default() };
    Ok(known.map(status).collect())
}

async fn metrics(calls: &Calls, frame: &Frame) -> Result<Option<Vec<NodeMetrics>>, Status> {
    if !frame.may("view-metrics") {
        return Ok(None);
    }
    let told = calls.monitoring().get_metrics(GetMetricsRequest { local_only: false }).await?;
    Ok(Some(told.into_inner().nodes))
}

async fn databases(calls: &Calls) -> Result<(Vec<Database>, bool), Status> {
    let asked = ListDatabasesRequest { page_size: DATABASES_MAX, page_token: String::new() };
    let found = calls.databases().list_databases(asked).await?.into_inner();
    Ok((found.databases, !found.next_page_token.is_empty()))
}

async fn notices(calls: &Calls) -> Result<(Vec<Notification>, bool), Status> {
    let asked = ListNotificationsRequest { page_size: NOTICES_MAX, page_token: String::new() };
    let found = calls.trust().list_notifications(asked).await?.into_inner();
    Ok((found.notifications, !found.next_page_token.is_empty()))
}
