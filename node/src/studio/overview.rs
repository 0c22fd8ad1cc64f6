//! The first page: whether the cluster is well, at a glance.

use askama::Template;
use rookery_proto::{
    cluster::v1::{GetStatusRequest, GetTopologyRequest, NodeStatus},
    security::v1::{ListNotificationsRequest, Notification},
};

use super::{
    answer::{self, Answer, Refused},
    visit::{Frame, Visit},
    words,
};

/// Notices on the page.
const NOTICES_MAX: u32 = 10;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    nodes: Vec<NodeStatus>,
    notices: Vec<Notification>,
}

impl Overview {
    fn reachable(&self) -> usize {
        self.nodes.iter().filter(|node| node.reachable).count()
    }

    fn expires(&self, node: &NodeStatus) -> String {
        words::relative(node.certificate_not_after_unix_ms, self.frame.now())
    }

    fn memory(&self, node: &NodeStatus) -> String {
        words::bytes(node.resident_bytes)
    }
}

/// `GET /studio`.
pub async fn page(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let nodes = match frame.may("view-cluster-status") {
        true => {
            calls
                .cluster()
                .get_status(GetStatusRequest { local_only: false })
                .await
                .map_err(&refused)?
                .into_inner()
                .nodes
        }
        false => {
            let topology = calls
                .cluster()
                .get_topology(GetTopologyRequest {})
                .await
                .map_err(&refused)?
                .into_inner();
            let known = topology.nodes.into_iter();
            known
                .map(|node| NodeStatus {
                    node: Some(node),
                    reachable: true,
                    ..NodeStatus::default()
                })
                .collect()
        }
    };
    let asked = ListNotificationsRequest { page_size: NOTICES_MAX, page_token: String::new() };
    let notices =
        calls.trust().list_notifications(asked).await.map_err(&refused)?.into_inner().notifications;
    drop(refused);
    Ok(answer::page(&Overview { frame, nodes, notices }))
}
