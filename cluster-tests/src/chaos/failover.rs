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

/// Times of `kills` failovers, in order of size. Leaders of the cluster and of the database die by turns.
///
/// # Errors
/// The cluster does not come back within the contract's limit.
pub async fn measure(kills: usize, tell: fn(&str)) -> Result<Vec<Duration>> {
    let mut arena = Arena::start().await?;
    // What a node that is ready has to be able to read.
    arena.cluster.admin(0)?.put(DATABASE, PLANTED, "{}").await?;
    let mut times = Vec::new();
    for kill in 0..kills {
        let group = if kill % 2 == 0 { Group::Database } else { Group::Cluster };
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
        next_write(&others, kill).await.with_context(|| format!("kill {kill}"))?;
        let took = began.elapsed();
        tell(&format!("kill {kill}: n{}, leader of {group:?}: {took:.2?}", leader + 1));
        times.push(took);
        arena.heal().await?;
        let ready = all_ready(&arena, Instant::now()).await?;
        anyhow::ensure!(ready.after.is_some(), "not ready: {:?}", ready.notes);
    }
    times.sort_unstable();
    arena.finish().await?;
    Ok(times)
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
