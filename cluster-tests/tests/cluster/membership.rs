//! Nodes that come, go, and come back with less than they left with.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, Decision, reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    connection, contract,
    identity::Identity,
    wait::eventually,
};
use rookery_proto::{
    admin::v1::{
        GetNodeStateRequest, GetNodeStateResponse, admin_service_client::AdminServiceClient,
    },
    cluster::v1 as cluster,
    security::v1::{Access, Clearance, WhoAmIRequest},
};
use tonic::Code;

/// Entries that make the log so long that its start is purged with the settings below: purging goes by 256 entries.
const ENTRIES: usize = 350;
/// And entries are not kept for those who are away.
const SNAPSHOT_SOON: &[(&str, &str)] =
    &[("raft.snapshot_after_entries", "40"), ("raft.hold_entries_ms", "500")];

/// What a node says of itself on its admin socket.
async fn node_state(cluster: &Cluster, node: usize) -> Result<GetNodeStateResponse> {
    let channel = connection::unix_channel(&cluster.nodes[node].admin_socket())?;
    let mut admin = AdminServiceClient::new(channel);
    Ok(admin.get_node_state(GetNodeStateRequest {}).await?.into_inner())
}

/// Starts a passive node and waits until it answers on its admin socket.
pub(super) async fn start_passive(cluster: &mut Cluster, name: &str) -> Result<usize> {
    let node = cluster.add_passive(name)?;
    cluster.nodes[node].start()?;
    let this = &*cluster;
    eventually("the passive node answers", HEAL_LIMIT, async || {
        let state = node_state(this, node).await?;
        anyhow::ensure!(state.state == "passive", "it is {}", state.state);
        Ok(())
    })
    .await?;
    Ok(node)
}

#[tokio::test]
async fn a_node_that_joins_by_snapshot_decides_and_holds_what_the_others_do() -> Result<()> {
    let mut cluster = Cluster::start_with(3, SNAPSHOT_SOON).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "a", "{}").await?;
    // Registered and revoked long before the join: the new node can know of both only from the snapshot.
    let reader = cluster.register("reader", Clearance::User, &[("sales", Access::Read)]).await?;
    let revoked = cluster.register("revoked", Clearance::Operator, &[]).await?;
    admin.revoke(&revoked.thumbprint()).await?;
    for number in 0..ENTRIES {
        let filler = Identity::new(&format!("filler-{number}"))?;
        admin.register(&filler, Clearance::User, &[]).await?;
    }
    let leader = cluster.leader("cluster").await?;
    let snapshot = cluster.group(leader, "cluster").await?.snapshot_index;
    anyhow::ensure!(snapshot > 0, "no snapshot was built");

    let fourth = start_passive(&mut cluster, "n4").await?;
    // With its own settings it would build no snapshot for long: one that it has was sent to it.
    let token = cluster.join_token(60).await?;
    let output = cluster.join(fourth, 0, &token).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    cluster.ready().await?;
    let group = cluster.group(fourth, "cluster").await?;
    anyhow::ensure!(group.snapshot_index > 0, "it joined by replaying the log: {group:?}");
    let states = cluster.same_state().await?;
    anyhow::ensure!(states.contains_key("sales") && states.contains_key("cluster"));

    let reader = cluster.nodes[fourth].caller(Some(&reader))?;
    anyhow::ensure!(reader.get("sales", "a").await? == b"{}");
    let refused = reader.put("sales", "b", "{}").await.err().context("a reader wrote")?;
    anyhow::ensure!(reason(&refused) == "DATABASE_ACCESS_DENIED", "{refused:?}");
    let revoked = cluster.nodes[fourth].caller(Some(&revoked))?;
    let refused = revoked.get("sales", "a").await.err().context("a revoked one read")?;
    anyhow::ensure!(reason(&refused) == "CERTIFICATE_UNKNOWN", "{refused:?}");

    // It holds databases like the others, and goes on after a restart.
    let request = rookery_proto::database::v1::CreateDatabaseRequest {
        name: "wide".into(),
        nodes: vec!["n2".into(), "n3".into(), "n4".into()],
        request_id: request_id(),
        ..Default::default()
    };
    admin.databases().create_database(request).await?;
    cluster.admin(fourth)?.put("wide", "a", r#"{"b":1}"#).await?;
    cluster.nodes[fourth].kill()?;
    cluster.nodes[fourth].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    anyhow::ensure!(admin.get("wide", "a").await? == br#"{"b":1}"#);
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_node_that_was_away_follows_a_leader_that_joined_meanwhile() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let away = (cluster.leader("cluster").await? + 1) % 3;
    let via = usize::from(away == 0); // The node that makes the token: its certificate is pinned.
    cluster.nodes[away].kill()?;
    let fourth = start_passive(&mut cluster, "n4").await?;
    let token = cluster.join_token(60).await?;
    let output = cluster.join(fourth, via, &token).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    cluster.ready().await?;
    let id = cluster.status(fourth).await?.node.context("it knows itself")?.id;
    eventually("the new node leads", HEAL_LIMIT, async || {
        let leader = cluster.leader("cluster").await?;
        if leader != fourth {
            let transfer = cluster::TransferLeaderRequest { group: "cluster".into(), node_id: id };
            cluster.admin(leader)?.cluster().transfer_leader(transfer).await?;
        }
        anyhow::ensure!(cluster.leader("cluster").await? == fourth, "not yet");
        Ok(())
    })
    .await?;
    // Its registry names three nodes; the leader is none of them.
    cluster.nodes[away].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.same_state().await?;
    anyhow::ensure!(cluster.nodes[away].logged("vouches for a node"), "nobody had to vouch");
    cluster.finish().await
}

#[tokio::test]
async fn a_follower_that_missed_the_log_is_brought_up_by_snapshot() -> Result<()> {
    let mut cluster = Cluster::start_with(3, SNAPSHOT_SOON).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    let behind = (cluster.leader("sales").await? + 1) % 3;
    let writer = cluster.admin((behind + 1) % 3)?;
    writer.put("sales", "deleted-meanwhile", "{}").await?;
    cluster.nodes[behind].kill()?;
    eventually("a write without the follower", HEAL_LIMIT, async || {
        Ok(writer.put("sales", "first", "{}").await.map(drop)?)
    })
    .await?;
    for number in 0..ENTRIES {
        let json = format!(r#"{{"number":{number},"text":"{}"}}"#, "x".repeat(2000));
        writer.put("sales", &format!("id/{number:04}"), &json).await?;
    }
    let delete = rookery_proto::document::v1::DeleteDocumentRequest {
        database: "sales".into(),
        id: "deleted-meanwhile".into(),
        request_id: request_id(),
        ..Default::default()
    };
    writer.documents().delete_document(delete).await?;
    // It builds no snapshot of its own from now on: one that it has was sent to it.
    cluster.nodes[behind].set("raft.snapshot_after_entries", "10000");
    cluster.nodes[behind].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    cluster.same_state().await?;
    let group = cluster.group(behind, "sales").await?;
    anyhow::ensure!(group.snapshot_index > 0, "no snapshot reached it: {group:?}");
    let reader = cluster.admin(behind)?;
    let stale = |id: &str| rookery_proto::document::v1::GetDocumentRequest {
        database: "sales".into(),
        id: id.into(),
        stale_ok: true,
    };
    let last = format!("id/{:04}", ENTRIES - 1);
    reader.documents().get_document(stale(&last)).await.context("its own copy has the last")?;
    let gone = reader.documents().get_document(stale("deleted-meanwhile")).await;
    anyhow::ensure!(gone.is_err_and(|status| status.code() == Code::NotFound));
    cluster.finish().await
}

#[tokio::test]
async fn a_passive_node_serves_nothing_until_it_is_bootstrapped_from_its_own_file_system()
-> Result<()> {
    // A cluster of nobody: only its temporary folder and ports are used.
    let mut cluster = Cluster::prepare(1, &[]).await?;
    let node = start_passive(&mut cluster, "lonely").await?;
    let stranger = Identity::new("first-admin")?;
    for identity in [None, Some(&stranger), Some(&cluster.nodes[node].identity)] {
        let caller = cluster.nodes[node].caller(identity)?;
        refuses_everything(&caller).await?;
        caller.security().who_am_i(WhoAmIRequest {}).await.context("whoami answers everybody")?;
    }
    let certificate = cluster.folder().join("first-admin.crt");
    std::fs::write(&certificate, stranger.certificate_pem())?;
    let path = certificate.display().to_string();
    let bootstrap = ["bootstrap", "--admin-certificate", &path, "--admin-name", "first-admin"];
    let output = cluster.nodes[node].run(&bootstrap).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    let admin = cluster.nodes[node].caller(Some(&stranger))?;
    eventually("it serves its first administrator", HEAL_LIMIT, async || {
        Ok(admin.create_database("first", 1).await?)
    })
    .await?;
    let again = cluster.nodes[node].run(&bootstrap).await?;
    anyhow::ensure!(again.code != 0, "it was bootstrapped twice: {again:?}");
    cluster.finish().await
}

/// Whoever forms a cluster gets a package that works, though the files that the configuration names are not there: a command
/// gives the certificate.
#[tokio::test]
async fn the_first_administrator_gets_a_package_wherever_the_nodes_certificate_comes_from()
-> Result<()> {
    let mut cluster = Cluster::prepare(1, &[]).await?;
    cluster.expect_in_logs("a certificate was registered over the admin socket");
    let at = cluster.add_passive("lonely")?;
    let folder = cluster.nodes[at].folder.clone();
    for kind in ["crt", "key"] {
        let given = folder.join(format!("given.{kind}"));
        std::fs::rename(folder.join(format!("node.{kind}")), given)?;
    }
    cluster.nodes[at].set("tls.certificate_exec", r#"["/bin/cat", "given.crt", "given.key"]"#);
    cluster.nodes[at].start()?;
    let node = &cluster.nodes[at];
    eventually("the passive node answers", HEAL_LIMIT, async || {
        let output = node.run(&["admin", "status"]).await?;
        anyhow::ensure!(output.code == 0, "{output:?}");
        Ok(())
    })
    .await?;
    let health = node.run(&["health"]).await?;
    anyhow::ensure!(health.code == 8, "a node without a cluster serves: {health:?}");
    let root = ["bootstrap", "--generate-admin", "root", "--out", "root.zip"];
    let second = ["admin", "generate", "second", "--clearance", "operator", "--out", "second.zip"];
    for (arguments, file) in [(&root[..], "root.zip"), (&second[..], "second.zip")] {
        let output = node.run(arguments).await?;
        anyhow::ensure!(output.code == 0, "{output:?}");
        let package = std::fs::read(folder.join(file))?;
        let caller = node.caller(Some(&Identity::from_package(file, &package)?))?;
        eventually("its holder is served", HEAL_LIMIT, async || {
            Ok(caller.cluster().get_topology(cluster::GetTopologyRequest {}).await?)
        })
        .await?;
        // The package alone is enough: what it verifies the node with fits.
        let whoami = node.run(&["--context-file", file, "whoami"]).await?;
        anyhow::ensure!(whoami.code == 0, "{whoami:?}");
    }
    let health = node.run(&["health"]).await?;
    anyhow::ensure!(health.code == 0, "{health:?}");
    cluster.finish().await
}

/// Each RPC of the client listener, `WhoAmI` apart, as whoever holds `caller`.
async fn refuses_everything(caller: &Caller) -> Result<()> {
    for rpc in contract::rpcs()? {
        if rpc.method == "WhoAmI" {
            continue;
        }
        let outcome = contract::call(&caller.channel, &rpc.path(), vec![Vec::new()]).await;
        anyhow::ensure!(outcome.is_err(), "{} was served by a passive node", rpc.path());
        let decision = Decision::of(&outcome);
        let why = format!("{}: {decision}", rpc.path());
        anyhow::ensure!(!matches!(decision, Decision::None(Code::Internal | Code::Unknown)), why);
    }
    Ok(())
}

#[tokio::test]
async fn a_wiped_node_neither_elects_itself_nor_forms_a_cluster_and_says_why() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.expect_in_logs("another folder");
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "a", "{}").await?;
    for node in &mut cluster.nodes {
        node.kill()?;
    }
    // Alone, with an empty folder and the formation file that once made the cluster: the others cannot contradict it.
    cluster.nodes[0].wipe()?;
    cluster.nodes[0].start()?;
    never_leads(&cluster, 0).await?;

    // With the others back it is told that the cluster knows it under another incarnation.
    cluster.nodes[1].start()?;
    cluster.nodes[2].start()?;
    let survivor = cluster.admin(1)?;
    eventually("the other two serve", HEAL_LIMIT, async || {
        Ok(survivor.put("sales", "b", "{}").await.map(drop)?)
    })
    .await?;
    let this = &cluster;
    eventually("the wiped node says why it does not serve", HEAL_LIMIT, async || {
        let state = node_state(this, 0).await?;
        anyhow::ensure!(state.state != "member", "it is a member again");
        let told = state.reason.contains("empty") && state.reason.contains("another folder");
        anyhow::ensure!(told, "its reason is {:?}", state.reason);
        Ok(())
    })
    .await?;
    never_leads(&cluster, 0).await?;
    let wiped = cluster.admin(0)?;
    anyhow::ensure!(wiped.get("sales", "a").await.is_err(), "the wiped node served a read");
    for id in ["a", "b"] {
        anyhow::ensure!(survivor.get("sales", id).await? == b"{}");
    }
    // Its vote would be a second majority: with n2 down as well, n3 must not find one.
    cluster.nodes[1].kill()?;
    let last = cluster.admin(2)?;
    for _ in 0..4 {
        let mut put = tonic::Request::new(cluster_tests::caller::put_request("sales", "c", "{}"));
        put.set_timeout(Duration::from_secs(1));
        let outcome = last.documents().put_document(put).await;
        anyhow::ensure!(outcome.is_err(), "a write was acknowledged with a wiped node's help");
    }
    cluster.nodes[1].start()?;
    eventually("two of three serve again", HEAL_LIMIT, async || {
        Ok(last.put("sales", "d", "{}").await.map(drop)?)
    })
    .await?;
    cluster.finish().await
}

/// For three of the longest election timeouts the node leads nothing.
async fn never_leads(cluster: &Cluster, node: usize) -> Result<()> {
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let Ok(state) = node_state(cluster, node).await else { continue };
        let groups = state.status.map(|status| status.groups).unwrap_or_default();
        let leads = groups.iter().any(|group| group.role == "leader");
        anyhow::ensure!(!leads, "the wiped node leads: {groups:?}");
        anyhow::ensure!(state.state != "member", "the wiped node is a member: {}", state.reason);
    }
    Ok(())
}

#[tokio::test]
async fn a_join_token_admits_one_node_once_in_time_and_only_to_the_cluster_it_names() -> Result<()>
{
    let mut cluster = Cluster::start(3).await?;
    let node = start_passive(&mut cluster, "n4").await?;
    let token = cluster.join_token(60).await?;

    // Some character of the token's last part is the pin or the secret; whichever it is, it must matter.
    for position in [token.len() - 1, token.len() / 2] {
        let mut wrong = token.clone().into_bytes();
        wrong[position] = if wrong[position] == b'a' { b'b' } else { b'a' };
        let wrong = String::from_utf8(wrong)?;
        let output = cluster.join(node, 0, &wrong).await?;
        anyhow::ensure!(output.code != 0, "joined with a changed token");
        anyhow::ensure!(node_state(&cluster, node).await?.state == "passive");
    }
    let short = cluster.join_token(1).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await; // The token's life, not a wait for something.
    let output = cluster.join(node, 0, &short).await?;
    anyhow::ensure!(output.code != 0, "joined with an expired token: {output:?}");

    let revoked = cluster.join_token(60).await?;
    let list = cluster::ListJoinTokensRequest {};
    let listed = cluster.admin(0)?.cluster().list_join_tokens(list).await?.into_inner().tokens;
    let id = listed
        .iter()
        .map(|listed| listed.id.clone())
        .find(|id| revoked.contains(id.as_str()))
        .context("a token holds its id")?;
    let revoke = cluster::RevokeJoinTokenRequest { id, request_id: request_id() };
    cluster.admin(2)?.cluster().revoke_join_token(revoke).await?;
    let output = cluster.join(node, 0, &revoked).await?;
    anyhow::ensure!(output.code != 0, "joined with a revoked token: {output:?}");

    // The token names the node that made it, by its certificate; nobody else may answer in its place.
    let output = cluster.join(node, 2, &token).await?;
    anyhow::ensure!(output.code != 0, "joined through another node than the token names");
    anyhow::ensure!(node_state(&cluster, node).await?.state == "passive");
    let output = cluster.join(node, 0, &token).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    cluster.ready().await?;
    let fifth = start_passive(&mut cluster, "n5").await?;
    let output = cluster.join(fifth, 0, &token).await?;
    anyhow::ensure!(output.code != 0, "one token admitted two nodes");
    anyhow::ensure!(node_state(&cluster, fifth).await?.state == "passive");
    let members = cluster.admin(0)?.cluster().get_topology(cluster::GetTopologyRequest {}).await?;
    let names: Vec<_> = members.into_inner().nodes.into_iter().map(|node| node.name).collect();
    anyhow::ensure!(names == ["n1", "n2", "n3", "n4"], "{names:?}");
    cluster.finish().await
}
