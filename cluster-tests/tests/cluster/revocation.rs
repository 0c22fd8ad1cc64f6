//! Rights that are taken away are gone on every node, on connections that were open, when the acknowledgement arrives.

use std::time::{Duration, Instant};

use anyhow::Result;
use cluster_tests::{
    caller::reason,
    cluster::Cluster,
    identity::Identity,
    probes::{self, Call, Target},
};
use rookery_proto::security::v1::{Access, Clearance};
use tonic::Status;

/// Revocations of each kind; each one is met by every prober on every node.
const ROUNDS: usize = 6;
const SALES: Target<'_> = Target { database: "sales", id: "planted" };

/// Calls that were judged after `revoke` was acknowledged.
async fn probe_through(
    cluster: &Cluster,
    identity: &Identity,
    calls: &[Call],
    reasons: &[&str],
    revoke: impl Future<Output = Result<(), Status>>,
) -> Result<usize> {
    Ok(probes::through(cluster, identity, SALES, calls, reasons, revoke).await?.after)
}

#[tokio::test]
async fn what_is_taken_away_is_gone_on_every_node_at_the_acknowledgement() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    let all = [Call::Read, Call::StaleRead, Call::Write, Call::Topology];
    let mut judged = 0;
    for round in 0..ROUNDS {
        let admin = cluster.admin(round % 3)?;
        let grants = [("sales", Access::ReadWrite)];
        let user = cluster.register(&format!("user-{round}"), Clearance::User, &grants).await?;
        let thumbprint = user.thumbprint();

        // Narrowed: reads go on, writes end.
        let narrow = admin.set_grants(&thumbprint, &[("sales", Access::Read)]);
        judged +=
            probe_through(&cluster, &user, &[Call::Write], &["DATABASE_ACCESS_DENIED"], narrow)
                .await?;
        for caller in cluster.everywhere(Some(&user))? {
            Call::Read.make(&caller, SALES).await?;
        }
        // The grant removed: reads end, what every registered certificate may do goes on.
        let remove = admin.set_grants(&thumbprint, &[]);
        let reads = [Call::Read, Call::StaleRead];
        judged +=
            probe_through(&cluster, &user, &reads, &["DATABASE_ACCESS_DENIED"], remove).await?;
        for caller in cluster.everywhere(Some(&user))? {
            Call::Topology.make(&caller, SALES).await?;
        }
        // Deleted: everything ends.
        admin.set_grants(&thumbprint, &grants).await?;
        let delete = admin.revoke(&thumbprint);
        judged += probe_through(&cluster, &user, &all, &["CERTIFICATE_UNKNOWN"], delete).await?;
    }
    anyhow::ensure!(judged > 100, "only {judged} calls were judged");
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_demoted_operator_and_a_deleted_database_take_their_rights_along() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(1)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "planted", "{}").await?;
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let demote = async {
        let request = rookery_proto::security::v1::EditCertificateRequest {
            thumbprint: operator.thumbprint(),
            clearance: Clearance::User.into(),
            request_id: cluster_tests::caller::request_id(),
            ..Default::default()
        };
        admin.security().edit_certificate(request).await.map(drop)
    };
    let calls = [Call::Read, Call::Write];
    probe_through(&cluster, &operator, &calls, &["DATABASE_ACCESS_DENIED"], demote).await?;

    // A grant dies with its database, and does not open the next one of that name.
    let user = cluster.register("user", Clearance::User, &[("sales", Access::Admin)]).await?;
    let delete = async {
        let request = rookery_proto::database::v1::DeleteDatabaseRequest {
            name: "sales".into(),
            request_id: cluster_tests::caller::request_id(),
        };
        admin.databases().delete_database(request).await.map(drop)
    };
    probe_through(&cluster, &user, &calls, &["DATABASE_ACCESS_DENIED"], delete).await?;
    admin.create_database("Sales", 3).await?;
    admin.put("Sales", "planted", "{}").await?;
    for caller in cluster.everywhere(Some(&user))? {
        for call in calls {
            let outcome = call.make(&caller, SALES).await;
            let denied = outcome.as_ref().is_err_and(|s| reason(s) == "DATABASE_ACCESS_DENIED");
            anyhow::ensure!(denied, "an old grant opened a new database: {outcome:?}");
        }
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_revocation_is_acknowledged_and_holds_while_a_node_stands_still() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "planted", "{}").await?;
    let user = cluster.register("user", Clearance::User, &[("sales", Access::Read)]).await?;
    let everywhere = cluster.everywhere(Some(&user))?;
    for caller in &everywhere {
        Call::Read.make(caller, SALES).await?;
    }
    // A follower of the cluster group, so that the acknowledgement does not wait for an election.
    let leader = cluster.leader("cluster").await?;
    let still = (leader + 1) % 3;
    let admin = cluster.admin(leader)?;
    cluster.nodes[still].pause()?;
    let start = Instant::now();
    admin.revoke(&user.thumbprint()).await?;
    let took = start.elapsed();
    anyhow::ensure!(took < Duration::from_secs(5), "the acknowledgement took {took:?}");
    cluster.nodes[still].resume()?;
    for _ in 0..50 {
        for (node, caller) in everywhere.iter().enumerate() {
            for call in [Call::Read, Call::StaleRead] {
                let outcome = call.make(caller, SALES).await;
                let what = call.name();
                anyhow::ensure!(outcome.is_err(), "n{}: a {what} was allowed", node + 1);
            }
        }
    }
    cluster.ready().await?;
    cluster.finish().await
}
