//! From kill -9 of a leader to the next write that a client gets acknowledged, retrying through the other nodes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{
    arena::{Arena, DATABASE, MEMBERS},
    fault::{Action, Group},
    watch::{PLANTED, all_ready},
};
use crate::{
    caller::{Caller, put_request},
    cluster::HEAL_LIMIT,
};

/// Longest wait for one answer before the next node is asked.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// Kills of leaders of the database for each kill of a leader of the cluster group.
const KILLS_PER_CLUSTER_LEADER: usize = 5;

/// What was measured, each row in order of size.
#[derive(Debug, Default)]
pub struct Failovers {
    /// After the end of the node that led the database: its group had to elect another one.
    pub of_database: Vec<Duration>,
    /// After the end of the node that led the cluster group. Where another node led the database, its group needed no
    /// election, and the write waited at most for a leader of the cluster group.
    pub of_cluster: Vec<Duration>,
}

/// Times of `kills` failovers of the database, and of a fifth as many of the cluster group.
///
/// # Errors
/// The cluster does not come back within the contract's limit.
pub async fn measure(kills: usize, tell: fn(&str)) -> Result<Failovers> {
    let mut arena = Arena::start().await?;
    // What a node that is ready has to be able to read.
    arena.cluster.admin(0)?.put(DATABASE, PLANTED, "{}").await?;
    let mut failovers = Failovers::default();
    for kill in 0..kills {
        failovers.of_database.push(failover(&mut arena, Group::Database, kill, tell).await?);
    }
    for kill in 0..kills.div_ceil(KILLS_PER_CLUSTER_LEADER) {
        failovers.of_cluster.push(failover(&mut arena, Group::Cluster, kill, tell).await?);
    }
    failovers.of_database.sort_unstable();
    failovers.of_cluster.sort_unstable();
    arena.finish().await?;
    Ok(failovers)
}

/// Kills the leader of a group, and gives how long the next write of the database took; everything is well again then.
async fn failover(
    arena: &mut Arena,
    group: Group,
    kill: usize,
    tell: fn(&str),
) -> Result<Duration> {
    let leader = arena.cast(group).await?.leader;
    let others: Vec<Caller> = (0..MEMBERS)
        .filter(|at| *at != leader)
        .map(|at| arena.cluster.admin(at))
        .collect::<Result<_>>()?;
    for other in &others {
        other.put(DATABASE, "failover", "{}").await?; // The connections are open.
    }
    let began = Instant::now();
    arena.act(&Action::Kill(leader)).await?;
    next_write(&others, kill).await.with_context(|| format!("kill {kill} of {group:?}"))?;
    let took = began.elapsed();
    tell(&format!("kill {kill}: n{}, leader of {group:?}: {took:.2?}", leader + 1));
    arena.heal().await?;
    let ready = all_ready(arena, Instant::now()).await?;
    anyhow::ensure!(ready.after.is_some(), "not ready: {:?}", ready.notes);
    Ok(took)
}

/// One write under one request id, asked of one node after the other.
async fn next_write(callers: &[Caller], number: usize) -> Result<()> {
    let request = put_request(DATABASE, "failover", &format!("{{\"kill\":{number}}}"));
    let began = Instant::now();
    for caller in callers.iter().cycle() {
        let mut documents = caller.documents();
        let answer =
            tokio::time::timeout(ATTEMPT_LIMIT, documents.put_document(request.clone())).await;
        if matches!(answer, Ok(Ok(_))) {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < HEAL_LIMIT, "no write was acknowledged: {answer:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Least, median, 99th percentile and most of times in order.
#[must_use]
pub fn figures(times: &[Duration]) -> Option<[Duration; 4]> {
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1));
    Some([*times.first()?, *at(50)?, *at(99)?, *times.last()?])
}
