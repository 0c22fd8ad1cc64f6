//! The open connections of a certificate on its page, and cutting them.

use rookery_proto::monitoring::v1::{
    CloseConnectionsRequest, Connection, ListConnectionsRequest, NodeAnswer,
};
use serde::Deserialize;
use tonic::Status;

use super::{Shown, actions::Act};
use crate::studio::{contract::Calls, visit::Frame, words};

/// Connections on the page, the oldest of each node first.
const ROWS_MAX: u32 = 50;

/// The open connections of a certificate.
pub struct Open {
    /// Those on the page.
    pub rows: Vec<Connection>,
    /// How many there are.
    pub total: u64,
    /// Nodes that did not tell, with the reason.
    pub silent: Vec<String>,
    /// Why the visitor may not cut them; empty where they may.
    pub why_not: String,
    now: i64,
}

impl Open {
    /// `None` for visitors who may not look.
    pub async fn of(calls: &Calls, frame: &Frame, c: &Shown) -> Result<Option<Self>, Status> {
        if !frame.may("view-connections") {
            return Ok(None);
        }
        let asked = ListConnectionsRequest {
            thumbprint: c.it.thumbprint.clone(),
            page_size: ROWS_MAX,
            ..ListConnectionsRequest::default()
        };
        let found = calls.monitoring().list_connections(asked).await?.into_inner();
        Ok(Some(Self {
            total: found.nodes.iter().map(|node| node.connections).sum(),
            silent: found.nodes.iter().filter(|node| !node.answered).map(named).collect(),
            rows: found.connections,
            why_not: c.why_not(Act::Cut),
            now: frame.now(),
        }))
    }

    /// Why the visitor cannot cut all of them.
    #[must_use]
    pub fn why_not_all(&self) -> &str {
        match self.why_not.as_str() {
            "" if self.total == 0 => "There is nothing to cut.",
            why => why,
        }
    }

    /// A moment, from now.
    #[must_use]
    pub fn relative(&self, unix_ms: &i64) -> String {
        words::relative(*unix_ms, self.now)
    }

    /// A number in groups.
    #[must_use]
    pub fn count(&self, number: &u64) -> String {
        words::count(*number)
    }
}

fn named(node: &NodeAnswer) -> String {
    format!("{}: {}", node.node, node.why)
}

/// What is to be cut: all connections of a certificate, or one on a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cut {
    /// The certificate.
    pub t: String,
    node: String,
    id: u64,
}

impl Cut {
    /// Cuts them.
    pub async fn done(self, calls: &Calls) -> Result<Done, Status> {
        let asked = CloseConnectionsRequest {
            thumbprint: self.t,
            node: self.node,
            connection_id: self.id,
            request_id: String::new(),
        };
        let told = calls.monitoring().close_connections(asked).await?.into_inner();
        let cut = told.nodes.iter().filter(|node| node.connections > 0);
        Ok(Done {
            count: told.nodes.iter().map(|node| node.connections).sum(),
            by_node: cut.map(|node| format!("{} on {}", node.connections, node.node)).collect(),
            silent: told.nodes.iter().filter(|node| !node.answered).map(named).collect(),
            note: told.note,
        })
    }
}

/// What was cut.
pub struct Done {
    /// On all nodes together.
    pub count: u64,
    /// On each node where there was something to cut.
    pub by_node: Vec<String>,
    /// Nodes that did not answer.
    pub silent: Vec<String>,
    /// What it means for the holder.
    pub note: String,
}
