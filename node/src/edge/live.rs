//! What goes on here at the moment, for administrators: the open connections of both listeners, and the last hour.

use std::sync::Arc;

use rookery_proto::{
    monitoring::v1::{Connection as ConnectionMessage, Sample},
    peer::v1::{LocalConnections, LocalConnectionsAnswer},
};

use crate::{
    authz::Permit,
    consensus::local::{self, Local},
    edge::{
        connections::{Connection, Connections},
        listener::Surface,
        metrics::Metrics,
    },
    limits,
    names::Thumbprint,
};

/// The connections and figures of this node.
pub struct Live {
    /// The connections of the client listener.
    pub client: Arc<Connections>,
    /// The connections of the peer listener.
    pub peer: Arc<Connections>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Local for Live {
    fn connections(&self, _: &Permit, asked: &LocalConnections) -> LocalConnectionsAnswer {
        let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let limit = limit.min(limits::PAGE_SIZE_MAX + 1); // One more tells whether another page follows.
        let Ok(whose) = local::thumbprints(&asked.thumbprints) else {
            return LocalConnectionsAnswer::default();
        };
        let mut total = 0;
        let mut connections = Vec::new();
        for (surface, open) in [(Surface::Client, &self.client), (Surface::Peer, &self.peer)] {
            let (page, all) = open.list(&whose, asked.after, limit);
            total += all;
            connections.extend(page.iter().map(|connection| shown(connection, surface)));
        }
        connections.sort_unstable_by_key(|connection| connection.id);
        connections.truncate(limit);
        LocalConnectionsAnswer { connections, total: total as u64 }
    }

    fn cut(&self, _: &Permit, whose: &[Thumbprint], only: Option<u64>) -> u64 {
        let cut = self.client.cut(whose, only) + self.peer.cut(whose, only);
        if cut > 0 {
            tracing::info!(certificates = ?whose, connections = cut, "connections were cut");
        }
        cut as u64
    }

    fn samples(&self, _: &Permit) -> Vec<Sample> {
        self.metrics.history.samples()
    }
}

fn shown(connection: &Connection, surface: Surface) -> ConnectionMessage {
    let thumbprint = connection.certificate.as_ref().map(|it| it.thumbprint.to_string());
    let remote =
        std::net::SocketAddr::new(connection.remote.ip().to_canonical(), connection.remote.port());
    ConnectionMessage {
        id: connection.id,
        thumbprint: thumbprint.unwrap_or_default(),
        remote_address: remote.to_string(),
        surface: surface.name().to_owned(),
        opened_unix_ms: connection.opened.0,
        last_call_unix_ms: connection.last_call().map_or(0, |at| at.0),
        calls: connection.calls(),
        closing: connection.ending().reason().map_or_else(String::new, |it| it.words().to_owned()),
        ..ConnectionMessage::default()
    }
}
