//! What a node does by itself for second factors: end sessions when their time is over, pass the cluster secret on.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    consensus::{Consensus, State},
    edge::{
        Edge,
        cluster_secret::{self, Secrets},
        connections::Connections,
    },
};

/// How often sessions are looked at: streams outlive their session by at most this.
const SESSIONS_INTERVAL: Duration = Duration::from_millis(500);
/// How often the cluster secret is looked at.
const SECRETS_INTERVAL: Duration = Duration::from_secs(1);

/// Ends the streams of sessions whose time is over, by the leader's clock. Calls need no help: each is decided anew.
pub async fn end_sessions(consensus: Arc<Consensus>, connections: Arc<Connections>) {
    let mut ticks = interval(SESSIONS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = consensus.leader_time();
    loop {
        ticks.tick().await;
        let now = consensus.leader_time();
        let ended: Vec<_> = consensus.registry().sessions_ended(looked, now).collect();
        if !ended.is_empty() {
            tracing::info!(certificates = ?ended, "sessions are over");
            connections.revoke(&ended);
        }
        looked = now;
    }
}

/// Keeps the cluster secret where it belongs, until `stop`.
pub async fn keep_cluster_secret(edge: Arc<Edge>, stop: CancellationToken) {
    let mut ticks = interval(SECRETS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let round = async {
            ticks.tick().await;
            if edge.engine.state() == State::Member {
                Secrets::new(edge.engine.as_ref(), &edge.node.sealing).tend().await?;
            }
            Ok::<_, cluster_secret::Error>(())
        };
        tokio::select! {
            done = round => if let Err(error) = done {
                tracing::debug!(%error, "the cluster secret was not passed on; it is tried again");
            },
            () = stop.cancelled() => return,
        }
    }
}
