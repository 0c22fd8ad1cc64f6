//! Revocations while a node is dead, stands still, leads and stands still, or is alone: acknowledged in bounded time, and
//! nobody allows anything afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_tests::{
    authorization_history::{self, Version},
    caller::{Caller, request_id},
    cluster::{Cluster, FAILOVER_LIMIT, HEAL_LIMIT},
    identity::Identity,
    lines::{self, Entrance, Line, Session, Watch},
    probes::{Call, Target},
};
use rookery_proto::{
    cluster::v1::RemoveNodeRequest,
    security::v1::{Access, Clearance, DeleteCertificateRequest},
};
use tonic::Status;

use Line::{Kept, New, Stream};

const SALES: Target<'_> = Target { database: "sales", id: "planted" };
const LINES: [Line; 6] = [
    Kept(Call::Read),
    Kept(Call::StaleRead),
    Kept(Call::Write),
    Kept(Call::Topology),
    New(Call::Topology),
    Stream,
];
const PAUSE: Duration = Duration::from_millis(4);
const BEFORE: Duration = Duration::from_millis(80);
const AFTER: Duration = Duration::from_millis(400);
/// L and the margin, with the defaults.
const LEASE: Duration = Duration::from_millis(1050);
/// What a busy machine adds.
const SLACK: Duration = Duration::from_millis(1500);

/// What has befallen the cluster when the revocation comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    FollowerStandsStill,
    FollowerDead,
    LeaderStandsStill,
    LeaderDead,
}

/// Deletes a registration, through whichever of `admins` answers: one request, asked until it is acknowledged.
async fn revoke(admins: &[Caller], thumbprint: &str) -> Result<()> {
    let request =
        DeleteCertificateRequest { thumbprint: thumbprint.to_owned(), request_id: request_id() };
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < HEAL_LIMIT {
        for admin in admins {
            let mut attempt = tonic::Request::new(request.clone());
            attempt.set_timeout(Duration::from_secs(3));
            match admin.security().delete_certificate(attempt).await {
                Ok(_) => return Ok(()),
                Err(status) => last = Some(status),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("not acknowledged: {last:?}")
}

async fn revoked_in(trouble: Trouble, cluster: &mut Cluster) -> Result<()> {
    let holder = cluster
        .register(&format!("{trouble:?}"), Clearance::User, &[("sales", Access::ReadWrite)])
        .await?;
    let leader = cluster.leader("cluster").await?;
    let (hit, limit) = match trouble {
        Trouble::FollowerStandsStill | Trouble::FollowerDead => ((leader + 1) % 3, LEASE),
        // A new leader waits a whole lease from its election.
        Trouble::LeaderStandsStill | Trouble::LeaderDead => (leader, FAILOVER_LIMIT + LEASE),
    };
    let mut admins = Vec::new();
    for node in (0..3).filter(|node| *node != hit) {
        admins.push(cluster.admin(node)?);
    }
    let watch = Watch::start(cluster, &[0, 1, 2], &holder, SALES, &LINES, PAUSE).await?;
    tokio::time::sleep(BEFORE).await;
    match trouble {
        Trouble::FollowerStandsStill | Trouble::LeaderStandsStill => cluster.nodes[hit].pause()?,
        Trouble::FollowerDead | Trouble::LeaderDead => cluster.nodes[hit].kill()?,
    }
    let invoked = watch.now();
    revoke(&admins, &holder.thumbprint()).await?;
    let acknowledged = watch.now();
    match trouble {
        Trouble::FollowerStandsStill | Trouble::LeaderStandsStill => cluster.nodes[hit].resume()?,
        Trouble::FollowerDead | Trouble::LeaderDead => cluster.nodes[hit].start()?,
    }
    tokio::time::sleep(AFTER).await;
    cluster.ready_within(HEAL_LIMIT).await?;
    tokio::time::sleep(AFTER).await;
    let versions = [
        Version { invoked: Duration::ZERO, acknowledged: Some(Duration::ZERO), allows: true },
        Version { invoked, acknowledged: Some(acknowledged), allows: false },
    ];
    for (line, requests) in lines::by_line(watch.finish().await?) {
        authorization_history::check(&versions, &requests).with_context(|| format!("{line:?}"))?;
        let late = |node: usize| {
            requests.iter().any(|request| request.node == node && request.start > acknowledged)
        };
        anyhow::ensure!((0..3).all(late), "{line:?}: a node decided nothing afterwards");
    }
    let took = acknowledged - invoked;
    anyhow::ensure!(took < limit + SLACK, "acknowledged after {took:?}");
    Ok(())
}

async fn check(troubles: &[Trouble]) -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    for &trouble in troubles {
        revoked_in(trouble, &mut cluster).await.with_context(|| format!("{trouble:?}"))?;
    }
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_revocation_holds_around_a_follower_in_trouble() -> Result<()> {
    check(&[Trouble::FollowerStandsStill, Trouble::FollowerDead]).await
}

#[tokio::test]
async fn a_revocation_holds_around_a_leader_in_trouble() -> Result<()> {
    check(&[Trouble::LeaderStandsStill, Trouble::LeaderDead]).await
}

/// The two others stand still, so whichever node is left has nobody to be confirmed by.
#[tokio::test]
async fn a_node_that_is_alone_serves_nobody_until_it_is_fresh_again() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    let holder =
        cluster.register("holder", Clearance::User, &[("sales", Access::ReadWrite)]).await?;
    let leader = cluster.leader("cluster").await?;
    for alone in [leader, (leader + 1) % 3] {
        let entrance = Entrance::of(&cluster.nodes[alone], &holder);
        let mut sessions = Vec::new();
        for line in LINES {
            let mut session = Session::new(line, &entrance)?;
            session.make(SALES).await?;
            sessions.push((line, session));
        }
        let others: Vec<usize> = (0..3).filter(|node| *node != alone).collect();
        for other in &others {
            cluster.nodes[*other].pause()?;
        }
        tokio::time::sleep(LEASE).await;
        let until = Instant::now() + LEASE;
        while Instant::now() < until {
            for (line, session) in &mut sessions {
                let made = tokio::time::timeout(Duration::from_millis(300), session.make(SALES));
                let outcome = made.await.unwrap_or_else(|_| Err(Status::unavailable("")));
                anyhow::ensure!(outcome.is_err(), "{line:?}: n{} allowed it alone", alone + 1);
            }
        }
        for other in &others {
            cluster.nodes[*other].resume()?;
        }
        cluster.ready_within(HEAL_LIMIT).await?;
        for (line, session) in &mut sessions {
            let mut again = session.make(SALES).await;
            if again.is_err() {
                again = session.make(SALES).await; // On a connection or stream that was given up.
            }
            again.with_context(|| format!("{line:?}, healed"))?;
        }
        cluster.leader("cluster").await?;
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_removed_nodes_certificate_opens_nothing_any_more() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.expect_in_logs("peer"); // The removed node is refused by its former peers.
    let leader = cluster.leader("cluster").await?;
    let removed = (leader + 1) % 3;
    let (admin, node) = (cluster.admin(leader)?, cluster.nodes[removed].identity.clone());
    let stay: Vec<usize> = (0..3).filter(|at| *at != removed).collect();
    let lines = [Kept(Call::Topology), New(Call::Topology), Stream];
    let node = Identity { name: "a node".into(), ..node };
    let watch = Watch::start(&cluster, &stay, &node, SALES, &lines, PAUSE).await?;
    tokio::time::sleep(BEFORE).await;
    let invoked = watch.now();
    let node_id = removed as u64 + 1;
    admin.cluster().remove_node(RemoveNodeRequest { node_id, request_id: request_id() }).await?;
    let acknowledged = watch.now();
    tokio::time::sleep(AFTER).await;
    let versions = [
        Version { invoked: Duration::ZERO, acknowledged: Some(Duration::ZERO), allows: true },
        Version { invoked, acknowledged: Some(acknowledged), allows: false },
    ];
    for (line, requests) in lines::by_line(watch.finish().await?) {
        let checked = authorization_history::check(&versions, &requests);
        let coverage = checked.with_context(|| format!("{line:?}"))?;
        anyhow::ensure!(coverage.near > 0, "{line:?}: nobody asked after the acknowledgement");
    }
    let took = acknowledged - invoked;
    anyhow::ensure!(took < LEASE + SLACK, "acknowledged after {took:?}");
    cluster.finish().await
}
