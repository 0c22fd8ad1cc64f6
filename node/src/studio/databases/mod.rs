//! Databases: which there are, where they are, how much is in them, who has access.
//!
//! | file | what |
//! | --- | --- |
//! | [`list`] | all that the visitor may read |
//! | [`create`] | a new one, on nodes that are chosen or counted |
//! | [`show`] | one of them: counts, collections, replicas, holders of grants |
//! | [`access`] | grants given and taken from the database's side |
//! | [`change`] | enable, disable, delete |
//!
//! A visitor with access to a database sees what the access lets them see. What takes Operator clearance is asked for by
//! Operators alone, so that a page is never refused as a whole for a part of it. Indexes of a database belong to [`show`].

pub mod access;
pub mod change;
pub mod create;
pub mod list;
pub mod show;

use std::time::Duration;

use rookery_proto::{
    cluster::v1::{GetStatusRequest, GroupStatus, NodeStatus},
    database::v1::{DatabaseState, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse},
};
use tonic::{Request, Status};

pub use super::words::several;
use super::{contract::Calls, visit::Frame, words};

/// How long a page waits for one of several answers, so that one database in trouble does not hold it up.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a database answers calls about its documents.
#[must_use]
pub fn is_enabled(state: i32) -> bool {
    state == i32::from(DatabaseState::Enabled)
}

/// The path of a database's own page.
fn path(database: &str) -> String {
    format!("/studio/database{}", words::query(&[("db", database)]))
}

fn documents_path(database: &str) -> String {
    format!("/studio/documents{}", words::query(&[("db", database)]))
}

/// All nodes with their groups; none for those who may not see them, or where they do not answer.
async fn nodes(calls: &Calls, frame: &Frame) -> Vec<NodeStatus> {
    if !frame.may("view-cluster-status") {
        return Vec::new();
    }
    let mut request = Request::new(GetStatusRequest { local_only: false });
    request.set_timeout(2 * PATIENCE);
    calls
        .cluster()
        .get_status(request)
        .await
        .map_or_else(|_| Vec::new(), |it| it.into_inner().nodes)
}

fn name(status: &NodeStatus) -> String {
    status.node.as_ref().map_or_else(String::new, |node| node.name.clone())
}

/// Counts a database, within [`PATIENCE`].
async fn counted(
    calls: &Calls,
    asked: GetDatabaseStatisticsRequest,
) -> Result<GetDatabaseStatisticsResponse, Status> {
    let mut request = Request::new(asked);
    request.set_timeout(PATIENCE);
    Ok(calls.databases().get_database_statistics(request).await?.into_inner())
}

/// A node of a database's group.
struct Replica {
    node: String,
    role: String,
    leads: bool,
    applied: String,
    /// Entries that the newest log has and this copy has not applied.
    lag: u64,
    hash: String,
}

/// The nodes that hold a database, as they say.
fn replicas(nodes: &[NodeStatus], database: &str) -> Vec<Replica> {
    let group = |node: &NodeStatus| -> Option<GroupStatus> {
        node.groups.iter().find(|it| it.group.eq_ignore_ascii_case(database)).cloned()
    };
    let groups: Vec<(String, u64, GroupStatus)> = nodes
        .iter()
        .filter_map(|node| Some((name(node), node.node.as_ref()?.id, group(node)?)))
        .collect();
    let newest = groups.iter().map(|(_, _, group)| group.last_log_index).max().unwrap_or(0);
    let replica = |(node, id, group): (String, u64, GroupStatus)| Replica {
        node,
        leads: group.leader_id == id,
        applied: words::count(group.applied_index),
        lag: newest.saturating_sub(group.applied_index),
        hash: words::short(&group.state_hash).to_owned(),
        role: group.role,
    };
    groups.into_iter().map(replica).collect()
}

#[cfg(test)]
mod tests {
    use rookery_proto::cluster::v1::Node;

    use super::*;

    #[test]
    fn a_copy_lags_by_what_the_newest_log_has_more() {
        let node = |id: u64, last_log_index: u64, applied_index: u64| NodeStatus {
            node: Some(Node { id, name: format!("n{id}"), ..Node::default() }),
            groups: vec![GroupStatus {
                group: "Sales".to_owned(),
                leader_id: 2,
                last_log_index,
                applied_index,
                ..GroupStatus::default()
            }],
            ..NodeStatus::default()
        };
        let silent = NodeStatus { groups: Vec::new(), ..node(4, 0, 0) };
        let nodes = [node(1, 90, 70), node(2, 100, 100), node(3, 100, 99), silent];
        let found = replicas(&nodes, "sales");
        let found: Vec<_> = found.iter().map(|it| (it.node.as_str(), it.lag, it.leads)).collect();
        assert_eq!(found, [("n1", 30, false), ("n2", 0, true), ("n3", 1, false)]);
        assert!(replicas(&nodes, "other").is_empty());
    }
}
