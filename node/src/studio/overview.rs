//! The first page: whether the cluster is well, what needs a hand, and how busy it is.

use askama::Template;
use rookery_proto::{
    cluster::v1::{GetStatusRequest, GetTopologyRequest, NodeStatus},
    database::v1::{Database, ListDatabasesRequest},
    monitoring::v1::{GetMetricsRequest, NodeMetrics},
    security::v1::{ListNotificationsRequest, Notification},
};
use tonic::Status;

use super::{
    answer::{self, Answer, Refused},
    charts::{Chart, Hour},
    contract::Calls,
    databases::is_enabled,
    health::{self, Quorum, Trouble},
    visit::{Frame, Visit},
    words,
};
use crate::limits;

/// Notices on the page: the most urgent.
const NOTICES_SHOWN: usize = 10;
/// Notices that are looked through for those; they come in the order of thumbprints.
const NOTICES_MAX: usize = 10_000;
/// Databases on the page.
const DATABASES_SHOWN: usize = 12;
/// Of either, at once.
const PAGE_SIZE: u32 = limits::PAGE_SIZE_MAX as u32;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    nodes: Vec<Row>,
    quorum: Quorum,
    troubles: Vec<Trouble>,
    notices: Vec<Notification>,
    noticed: Counted,
    databases: Vec<Shown>,
    counted: Counted,
    disabled: usize,
    activity: Option<Activity>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    number: usize,
    /// There are more than were counted.
    more: bool,
}

impl Counted {
    fn words(&self) -> String {
        format!("{}{}", words::count(self.number as u64), if self.more { "+" } else { "" })
    }

    fn called(&self, thing: &str) -> String {
        words::plural(self.number as u64, thing)
    }
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
        is_enabled(self.it.state)
    }
}

impl Overview {
    fn reachable(&self) -> usize {
        self.nodes.iter().filter(|row| row.it.reachable).count()
    }

    fn grade(&self) -> &'static str {
        self.troubles.first().map_or("good", |worst| worst.grade.class())
    }

    fn sees_status(&self) -> bool {
        self.frame.may("view-cluster-status")
    }

    /// Where the certificates stand that are not on the page; empty: all are, or the visitor may not see them.
    fn all_notices(&self) -> &'static str {
        let is_all = self.notices.len() == self.noticed.number && !self.noticed.more;
        match is_all || !self.frame.may("list-certificates") {
            true => "",
            false => "/studio/certificates?sort=expiry",
        }
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
    let (mut notices, more_notices) = notices.map_err(&refused)?;
    let metrics = metrics.map_err(&refused)?;
    drop(refused);
    let (hour, now) = (Hour::until(frame.now()), frame.now());
    let troubles = match frame.may("view-cluster-status") {
        true => health::troubles(&nodes, now),
        false => Vec::new(), // Who sees no status knows of no trouble.
    };
    let noticed = Counted { number: notices.len(), more: more_notices };
    let counted = Counted { number: databases.len(), more: more_databases };
    notices.sort_by_key(|notice| urgency(notice, now));
    notices.truncate(NOTICES_SHOWN);
    let page = Overview {
        quorum: Quorum::of(&nodes),
        troubles,
        notices,
        noticed,
        counted,
        disabled: databases.iter().filter(|it| !is_enabled(it.state)).count(),
        databases: databases
            .into_iter()
            .take(DATABASES_SHOWN)
            .map(|it| Shown::of(it, &frame))
            .collect(),
        activity: metrics.as_deref().map(|metrics| activity(metrics, hour)),
        nodes: nodes
            .into_iter()
            .map(|it| Row::of(it, metrics.as_deref().unwrap_or_default(), hour, now))
            .collect(),
        frame,
    };
    Ok(answer::page(&page))
}

/// The soonest to expire first; then those that have expired, the last one first.
fn urgency(notice: &Notification, now: i64) -> (bool, u64) {
    (notice.not_after_unix_ms < now, notice.not_after_unix_ms.abs_diff(now))
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

/// All of them up to a bound, and whether there are more.
async fn databases(calls: &Calls) -> Result<(Vec<Database>, bool), Status> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let asked = ListDatabasesRequest { page_size: PAGE_SIZE, page_token };
        let found = calls.databases().list_databases(asked).await?.into_inner();
        all.extend(found.databases);
        page_token = found.next_page_token;
        if page_token.is_empty() || all.len() >= limits::DATABASES_MAX {
            return Ok((all, !page_token.is_empty()));
        }
    }
}

/// The same.
async fn notices(calls: &Calls) -> Result<(Vec<Notification>, bool), Status> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let asked = ListNotificationsRequest { page_size: PAGE_SIZE, page_token };
        let found = calls.trust().list_notifications(asked).await?.into_inner();
        all.extend(found.notifications);
        page_token = found.next_page_token;
        if page_token.is_empty() || all.len() >= NOTICES_MAX {
            return Ok((all, !page_token.is_empty()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_still_be_renewed_in_time_comes_first() {
        let mut ends = [300, 50, 110, 100, 99, 1_000, 0];
        ends.sort_by_key(|end| {
            urgency(&Notification { not_after_unix_ms: *end, ..Notification::default() }, 100)
        });
        assert_eq!(ends, [100, 110, 300, 1_000, 99, 50, 0]);
    }

    #[test]
    fn a_count_says_where_it_ends() {
        let told = [(0, false), (1, false), (2, false), (10_000, true)].map(|(number, more)| {
            let counted = Counted { number, more };
            format!("{} {}", counted.words(), counted.called("database"))
        });
        let expected = ["0 databases", "1 database", "2 databases", "10\u{202f}000+ databases"];
        assert_eq!(told, expected);
    }
}
