//! The list: state, nodes and how far they are behind, documents, size.

use askama::Template;
use axum::extract::Query;
use futures::StreamExt as _;
use rookery_proto::{
    cluster::v1::NodeStatus,
    database::v1::{
        Database, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse, ListDatabasesRequest,
    },
};
use serde::Deserialize;

use super::{Replica, counted, is_enabled, nodes, replicas};
use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    visit::{Frame, Visit},
    words,
};

/// Databases a page.
const PAGE_SIZE: u32 = 50;
/// Databases that are counted at once.
const COUNTED_AT_ONCE: usize = 8;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    page: String,
}

#[derive(Template)]
#[template(path = "databases/list.html")]
struct List {
    frame: Frame,
    databases: Vec<Row>,
    first: bool,
    next: String,
}

struct Row {
    it: Database,
    enabled: bool,
    created: String,
    /// The nodes and how far each is behind; only names for those who may not see more.
    replicas: Vec<Replica>,
    /// Nodes that hold it and were not heard of.
    silent: Vec<String>,
    documents: String,
    bytes: String,
}

impl Row {
    fn of(
        it: Database,
        size: Option<GetDatabaseStatisticsResponse>,
        status: &[NodeStatus],
    ) -> Self {
        let replicas = replicas(status, &it.name);
        let heard = |node: &String| replicas.iter().any(|it| it.node == *node);
        let none = || words::NONE.to_owned();
        Self {
            enabled: is_enabled(it.state),
            created: words::date(it.created_unix_ms),
            silent: it.nodes.iter().filter(|node| !heard(node)).cloned().collect(),
            documents: size.as_ref().map_or_else(none, |size| words::count(size.documents)),
            bytes: size.as_ref().map_or_else(none, |size| words::bytes(size.bytes)),
            replicas,
            it,
        }
    }

    fn path(&self) -> String {
        super::path(&self.it.name)
    }

    fn documents_path(&self) -> String {
        super::documents_path(&self.it.name)
    }
}

/// `GET /studio/databases`.
pub async fn page(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let first = asked.page.is_empty();
    let request = ListDatabasesRequest { page_size: PAGE_SIZE, page_token: asked.page };
    let found =
        calls.databases().list_databases(request).await.map_err(Refused::on(&frame))?.into_inner();
    let next = match found.next_page_token.as_str() {
        "" => String::new(),
        token => format!("/studio/databases{}", words::query(&[("page", token)])),
    };
    let (sizes, status) = tokio::join!(sizes(&calls, &found.databases), nodes(&calls, &frame));
    let rows = found.databases.into_iter().zip(sizes);
    let databases = rows.map(|(it, size)| Row::of(it, size, &status)).collect();
    Ok(answer::page(&List { frame, databases, first, next }))
}

/// What nodes have of each database, at once and not from its leader: one that has none still has copies to count.
async fn sizes(
    calls: &Calls,
    databases: &[Database],
) -> Vec<Option<GetDatabaseStatisticsResponse>> {
    let names: Vec<Option<String>> =
        databases.iter().map(|it| is_enabled(it.state).then(|| it.name.clone())).collect();
    let size = |name: Option<String>| async move {
        let asked = GetDatabaseStatisticsRequest {
            name: name?,
            page_size: 1,
            page_token: String::new(),
            stale_ok: true,
        };
        counted(calls, asked).await.ok()
    };
    futures::stream::iter(names).map(size).buffered(COUNTED_AT_ONCE).collect().await
}
