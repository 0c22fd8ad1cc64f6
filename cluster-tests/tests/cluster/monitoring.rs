//! Who is connected and how many calls there are, over all nodes: listed, cut, counted, and who may not.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, reason, request_id},
    cluster::Cluster,
    connection,
    identity::Identity,
    wait::eventually,
};
use futures::{StreamExt as _, stream};
use rookery_proto::{
    audit::v1::{Filter, ListRecordsRequest, TailRecordsRequest, TailRecordsResponse},
    cluster::v1::TransferLeaderRequest,
    log::v1::{AuditOutcome, AuditRecord},
    monitoring::v1::{
        CloseConnectionsRequest, CloseConnectionsResponse, Connection, GetMetricsRequest,
        ListConnectionsRequest, ListConnectionsResponse, NodeAnswer,
    },
    peer::v1::{
        self as peer, channel_request, channel_response, forward_request, forward_response,
        local_call, peer_service_client::PeerServiceClient,
    },
    security::v1::{Clearance, WhoAmIRequest},
};
use tonic::{Code, Status, Streaming};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn connections_of_a_certificate_are_seen_and_cut_from_any_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let watcher = cluster.register("watcher", Clearance::Operator, &[]).await?;
    let bystander = cluster.register("bystander", Clearance::Operator, &[]).await?;
    let mut tails = Vec::new();
    let mut others = Vec::new();
    for at in [0, 1] {
        tails.push(tail(&cluster.nodes[at].caller(Some(&watcher))?).await?);
        others.push(tail(&cluster.nodes[at].caller(Some(&bystander))?).await?);
    }
    let third = cluster.admin(2)?;

    // Listed from the node that has none of them, once those are closed through which it was registered.
    let listed = eventually("the two streams alone are open", SOON, async || {
        let listed = list(&third, &watcher, 0, "").await?;
        let nodes: Vec<_> = listed.connections.iter().map(|it| it.node.as_str()).collect();
        anyhow::ensure!(nodes == ["n1", "n2"], "{listed:#?}");
        Ok(listed)
    })
    .await?;
    let open = &listed.connections;
    for connection in open {
        anyhow::ensure!(connection.thumbprint == watcher.thumbprint(), "{connection:?}");
        anyhow::ensure!(connection.name == "watcher", "{connection:?}");
        anyhow::ensure!(connection.surface == "client", "{connection:?}");
        anyhow::ensure!(connection.remote_address.starts_with("127.0.0.1:"), "{connection:?}");
        anyhow::ensure!(connection.calls >= 1, "{connection:?}");
        let began = connection.opened_unix_ms;
        anyhow::ensure!(began > 0 && connection.last_call_unix_ms >= began, "{connection:?}");
    }
    anyhow::ensure!(answered(&listed.nodes) == ["n1", "n2", "n3"], "{:?}", listed.nodes);
    // Others come and go meanwhile.
    let pages = async || pages_hold_every_connection_once(&third).await;
    eventually("all pages hold what is open", SOON, pages).await?;
    calls_are_counted(&cluster, &third).await.context("counts")?;

    // One of them is cut, and the other one lives.
    let one = open.iter().find(|it| it.node == "n1").context("one on n1")?;
    let cut = close(&third, &watcher, "n1", one.id).await?;
    anyhow::ensure!(counts(&cut) == [("n1".to_owned(), 1)], "{cut:?}");
    anyhow::ensure!(cut.note.contains("may connect again"), "{}", cut.note);
    ended(&mut tails[0]).await.context("the stream on n1")?;
    lives(&cluster, &mut tails[1]).await.context("the stream on n2")?;

    // All of them are cut; nobody else's are, and the certificate opens the next one.
    let cut = close(&third, &watcher, "", 0).await?;
    let n2 = cut.nodes.iter().find(|node| node.node == "n2").context("n2")?;
    anyhow::ensure!(n2.connections >= 1, "{cut:?}");
    ended(&mut tails[1]).await.context("the stream on n2")?;
    for tail in &mut others {
        lives(&cluster, tail).await.context("a stream of somebody else")?;
    }
    for node in &cluster.nodes {
        let again = node.caller(Some(&watcher))?;
        let who = again.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
        anyhow::ensure!(who.registered, "{who:?}");
    }
    the_connection_itself_closes(&third, one).await?;
    cuts_stand_in_the_audit_log(&third, &watcher).await.context("audit")?;
    operators_do_not_reach_administrators(&mut cluster, &bystander).await.context("operator")?;
    a_node_that_is_told_decides_again(&mut cluster, &bystander).await.context("a peer's word")?;
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_silent_node_is_named_and_nobody_waits_for_it() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader("cluster").await?;
    let silent = (leader + 1) % 3;
    let name = cluster.nodes[silent].name.clone();
    cluster.nodes[silent].pause()?;
    let admin = cluster.admin(leader)?;
    let began = std::time::Instant::now();
    let listed = list_all(&admin, 0, "").await?;
    let told = listed.nodes.iter().find(|node| node.node == name).context("it is left out")?;
    anyhow::ensure!(!told.answered && !told.why.is_empty(), "{told:?}");
    let metrics = admin.monitoring().get_metrics(GetMetricsRequest::default()).await?.into_inner();
    anyhow::ensure!(metrics.nodes.len() == 3, "{metrics:?}");
    let told = metrics.nodes.iter().filter_map(|node| node.node.as_ref());
    let silent_ones: Vec<_> = told.filter(|node| !node.answered).map(|node| &node.node).collect();
    anyhow::ensure!(silent_ones == [&name], "{silent_ones:?}");
    let took = began.elapsed();
    anyhow::ensure!(took < Duration::from_secs(8), "two questions took {took:?}");
    let local = ListConnectionsRequest { local_only: true, ..Default::default() };
    let local = admin.monitoring().list_connections(local).await?.into_inner();
    anyhow::ensure!(local.nodes.len() == 1 && local.nodes[0].answered, "{:?}", local.nodes);
    cluster.nodes[silent].resume()?;
    cluster.ready().await?;
    cluster.finish().await
}

#[tokio::test]
async fn samples_hold_the_calls_of_every_node_and_what_became_of_them() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    let stranger = cluster.nodes[1].caller(Some(&Identity::new("stranger")?))?;
    for _ in 0..20 {
        admin.cluster().get_topology(rookery_proto::cluster::v1::GetTopologyRequest {}).await?;
        let topology = rookery_proto::cluster::v1::GetTopologyRequest {};
        let refused = stranger.cluster().get_topology(topology).await;
        anyhow::ensure!(refused.is_err(), "a stranger was let in");
    }
    let samples_limit = Duration::from_secs(30); // The first sample takes 15 seconds at most.
    let third = cluster.admin(2)?;
    eventually("samples of all nodes", samples_limit, async || {
        let told = third.monitoring().get_metrics(GetMetricsRequest::default()).await?.into_inner();
        let mut seen = Vec::new();
        for node in &told.nodes {
            let of = node.node.as_ref().context("a node without a name")?;
            anyhow::ensure!(of.answered, "{of:?}");
            let sum = |field: fn(&rookery_proto::monitoring::v1::Sample) -> u64| {
                node.samples.iter().map(field).sum::<u64>()
            };
            let slow = node.samples.iter().filter(|it| it.calls > 0 && it.p50_us > it.p99_us);
            anyhow::ensure!(slow.count() == 0, "a median above the 99th: {:?}", node.samples);
            let aligned = node.samples.iter().all(|it| it.from_unix_ms % 10_000 == 0);
            anyhow::ensure!(aligned, "{:?}", node.samples);
            seen.push((of.node.clone(), sum(|it| it.calls), sum(|it| it.denied)));
        }
        let [n1, n2, n3] = seen.as_slice() else { anyhow::bail!("{seen:?}") };
        anyhow::ensure!(n1.1 >= 20 && n1.2 == 0, "{seen:?}");
        anyhow::ensure!(n2.1 >= 20 && n2.2 == 20, "{seen:?}");
        anyhow::ensure!(n3.2 == 0, "{seen:?}");
        Ok(())
    })
    .await?;
    cluster.finish().await
}

async fn tail(caller: &Caller) -> Result<Streaming<TailRecordsResponse>, Status> {
    let asked = TailRecordsRequest::default();
    Ok(caller.audit().tail_records(asked).await?.into_inner())
}

/// A cut stream ends with the reason.
async fn ended(tail: &mut Streaming<TailRecordsResponse>) -> Result<()> {
    let end = tokio::time::timeout(SOON, async {
        loop {
            match tail.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("it ended without a status"),
                Err(status) => return Ok(status),
            }
        }
    });
    let status = end.await.context("it goes on")??;
    anyhow::ensure!(status.code() == Code::Unavailable, "{status:?}");
    anyhow::ensure!(reason(&status) == "CONNECTION_CUT", "{status:?}");
    Ok(())
}

/// A stream that was not cut gives the record of what is done now.
async fn lives(cluster: &Cluster, tail: &mut Streaming<TailRecordsResponse>) -> Result<()> {
    let id = request_id();
    let token = rookery_proto::cluster::v1::CreateJoinTokenRequest {
        lifetime_seconds: 60,
        request_id: id.clone(),
    };
    cluster.admin(0)?.cluster().create_join_token(token).await?;
    let id = uuid::Uuid::parse_str(&id)?;
    let seen = tokio::time::timeout(SOON, async {
        while let Some(message) = tail.message().await? {
            if message.records.iter().any(|record| record.request_id == id.as_bytes()) {
                return Ok::<_, Status>(true);
            }
        }
        Ok(false)
    });
    anyhow::ensure!(seen.await.context("it gives nothing")??, "it ended");
    Ok(())
}

async fn list(
    caller: &Caller,
    whose: &Identity,
    page_size: u32,
    token: &str,
) -> Result<ListConnectionsResponse, Status> {
    let asked = ListConnectionsRequest {
        thumbprint: whose.thumbprint(),
        page_size,
        page_token: token.to_owned(),
        local_only: false,
    };
    Ok(caller.monitoring().list_connections(asked).await?.into_inner())
}

async fn list_all(
    caller: &Caller,
    page_size: u32,
    token: &str,
) -> Result<ListConnectionsResponse, Status> {
    let asked =
        ListConnectionsRequest { page_size, page_token: token.to_owned(), ..Default::default() };
    Ok(caller.monitoring().list_connections(asked).await?.into_inner())
}

async fn close(
    caller: &Caller,
    whose: &Identity,
    node: &str,
    connection_id: u64,
) -> Result<CloseConnectionsResponse, Status> {
    let asked = CloseConnectionsRequest {
        thumbprint: whose.thumbprint(),
        node: node.to_owned(),
        connection_id,
        request_id: request_id(),
    };
    Ok(caller.monitoring().close_connections(asked).await?.into_inner())
}

fn answered(nodes: &[NodeAnswer]) -> Vec<&str> {
    nodes.iter().filter(|node| node.answered).map(|node| node.node.as_str()).collect()
}

fn counts(cut: &CloseConnectionsResponse) -> Vec<(String, u64)> {
    cut.nodes.iter().map(|node| (node.node.clone(), node.connections)).collect()
}

/// Peers' connections among them: each node has some of every other one.
async fn pages_hold_every_connection_once(caller: &Caller) -> Result<()> {
    let place = |it: &Connection| (it.node_id, it.id);
    let whole = list_all(caller, 0, "").await?;
    let peers = whole.connections.iter().filter(|it| it.surface == "peer").count();
    anyhow::ensure!(peers >= 3, "{whole:#?}");
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = list_all(caller, 2, &token).await?;
        anyhow::ensure!(page.connections.len() <= 2, "{page:?}");
        seen.extend(page.connections.iter().map(place));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    anyhow::ensure!(seen.is_sorted(), "{seen:?}");
    let once: BTreeSet<_> = seen.iter().copied().collect();
    anyhow::ensure!(once.len() == seen.len(), "one stands twice: {seen:?}");
    let missing: Vec<_> =
        whole.connections.iter().map(place).filter(|it| !once.contains(it)).collect();
    anyhow::ensure!(missing.is_empty(), "missing on the pages: {missing:?}");
    let status = list_all(caller, 1_001, "").await.err().context("a page beyond the bound")?;
    anyhow::ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    let other = list_all(caller, 0, "AAAA").await.err().context("a token of nowhere")?;
    anyhow::ensure!(other.code() == Code::InvalidArgument, "{other:?}");
    Ok(())
}

/// A connection's calls are counted, and the time of the last one moves.
async fn calls_are_counted(cluster: &Cluster, admin: &Caller) -> Result<()> {
    let identity = Identity::new("counted")?;
    admin.register(&identity, Clearance::User, &[]).await?;
    let caller = cluster.nodes[0].caller(Some(&identity))?;
    for calls in 1..=5 {
        caller.security().who_am_i(WhoAmIRequest {}).await?;
        let listed = list(admin, &identity, 0, "").await?;
        let [connection] = listed.connections.as_slice() else { anyhow::bail!("{listed:?}") };
        anyhow::ensure!(connection.calls == calls, "{calls}: {connection:?}");
    }
    Ok(())
}

/// After the two seconds in which its holder hears why.
async fn the_connection_itself_closes(caller: &Caller, cut: &Connection) -> Result<()> {
    eventually("a cut connection closes", SOON, async || {
        let listed = list_all(caller, 0, "").await?;
        let same = |it: &&Connection| (it.node_id, it.id) == (cut.node_id, cut.id);
        let there = listed.connections.iter().find(same);
        anyhow::ensure!(there.is_none(), "{there:?}");
        Ok(())
    })
    .await
}

async fn records(caller: &Caller, whose: &Identity) -> Result<Vec<AuditRecord>> {
    let filter = Filter {
        operation: "close-connections".to_owned(),
        target: whose.thumbprint(),
        ..Filter::default()
    };
    let asked =
        ListRecordsRequest { filter: Some(filter), oldest_first: true, ..Default::default() };
    Ok(caller.audit().list_records(asked).await?.into_inner().records)
}

/// Who, whose, how many.
async fn cuts_stand_in_the_audit_log(caller: &Caller, whose: &Identity) -> Result<()> {
    let records = records(caller, whose).await?;
    let [one, all] = records.as_slice() else { anyhow::bail!("{records:#?}") };
    for record in [one, all] {
        anyhow::ensure!(record.outcome() == AuditOutcome::Started, "{record:?}");
        anyhow::ensure!(!record.actor.is_empty() && record.request_id.len() == 16, "{record:?}");
    }
    anyhow::ensure!(one.details.starts_with("connection "), "{one:?}");
    anyhow::ensure!(one.details.ends_with(" of watcher on n1"), "{one:?}");
    anyhow::ensure!(all.details.ends_with(" open of watcher"), "{all:?}");
    Ok(())
}

/// Not on the node that they call, and not on one that is only told of them; the denial is recorded.
async fn operators_do_not_reach_administrators(
    cluster: &mut Cluster,
    operator: &Identity,
) -> Result<()> {
    let administrator = cluster.administrator.clone();
    let mut streams = Vec::new();
    for at in 0..3 {
        streams.push(tail(&cluster.admin(at)?).await?);
    }
    for at in 0..3 {
        let caller = cluster.nodes[at].caller(Some(operator))?;
        let seen = list(&caller, &administrator, 0, "").await?;
        anyhow::ensure!(!seen.connections.is_empty(), "an operator may look");
        for (node, id) in [("", 0), ("n1", 0), ("n1", 1)] {
            let refused = close(&caller, &administrator, node, id).await.err();
            let refused = refused.context("an operator cut an administrator")?;
            anyhow::ensure!(reason(&refused) == "MANAGE_FORBIDDEN", "{refused:?}");
        }
        let own = close(&caller, operator, "", 0).await.err().context("its own were cut")?;
        anyhow::ensure!(reason(&own) == "OWN_CERTIFICATE", "{own:?}");
    }
    let node = cluster.nodes[0].identity.clone();
    let refused =
        close(&cluster.admin(1)?, &node, "", 0).await.err().context("a member was cut")?;
    anyhow::ensure!(reason(&refused) == "MANAGE_FORBIDDEN", "{refused:?}");
    for stream in &mut streams {
        lives(cluster, stream).await?;
    }
    let admin = cluster.admin(0)?;
    eventually("the denials are recorded", SOON, async || {
        let filter = Filter {
            operation: "close-connections".to_owned(),
            outcome: AuditOutcome::Denied.into(),
            ..Filter::default()
        };
        let asked = ListRecordsRequest { filter: Some(filter), ..Default::default() };
        let records = admin.audit().list_records(asked).await?.into_inner().records;
        let reasons: BTreeSet<_> = records.iter().map(|it| it.reason.as_str()).collect();
        let expected = BTreeSet::from(["MANAGE_FORBIDDEN", "OWN_CERTIFICATE"]);
        anyhow::ensure!(reasons == expected, "{records:#?}");
        Ok(())
    })
    .await?;
    anyhow::ensure!(records(&admin, &administrator).await?.is_empty(), "a cut was recorded");
    Ok(())
}

/// A member that speaks for somebody proves nothing: the node that is told holds them to its own registry.
async fn a_node_that_is_told_decides_again(
    cluster: &mut Cluster,
    operator: &Identity,
) -> Result<()> {
    cluster.expect_in_logs("peer");
    let user = cluster.register("nosy", Clearance::User, &[]).await?;
    let administrator = cluster.administrator.clone();
    let mut stream = tail(&cluster.admin(0)?).await?;
    let whose = vec![hex::decode(administrator.thumbprint())?];
    let local = |call| forward_request::Call::Local(peer::LocalCall { call: Some(call) });
    let cut = local(local_call::Call::Cut(peer::LocalCut { thumbprints: whose, connection_id: 0 }));
    let look = local(local_call::Call::Connections(peer::LocalConnections {
        limit: 10,
        ..peer::LocalConnections::default()
    }));
    let figures = local(local_call::Call::Metrics(peer::LocalMetrics {}));
    // A vote, to whoever has one already.
    let promote = forward_request::Call::Lead(peer::LeaderCall {
        group: 0,
        action: Some(peer::leader_call::Action::Promote(1)),
        ..peer::LeaderCall::default()
    });
    let unknown = Identity::new("unknown")?;
    for (author, call, expected) in [
        (operator, &cut, "MANAGE_FORBIDDEN"),
        (&administrator, &cut, "OWN_CERTIFICATE"),
        (&user, &cut, "CLEARANCE_TOO_LOW"),
        (&user, &look, "CLEARANCE_TOO_LOW"),
        (&user, &figures, "CLEARANCE_TOO_LOW"),
        (&user, &promote, "CLEARANCE_TOO_LOW"),
        (operator, &promote, "CLEARANCE_TOO_LOW"),
        (&unknown, &promote, "CERTIFICATE_UNKNOWN"),
        (&unknown, &look, "CERTIFICATE_UNKNOWN"),
        (operator, &look, ""),
        (operator, &figures, ""),
    ] {
        let told = told_by_a_member(cluster, author, call).await?;
        let reason = match told {
            forward_response::Result::Refused(refusal) => refusal.reason,
            forward_response::Result::Local(_) => String::new(),
            forward_response::Result::Applied(_)
            | forward_response::Result::Read(_)
            | forward_response::Result::Led(_)
            | forward_response::Result::Error(_) => anyhow::bail!("{told:?}"),
        };
        anyhow::ensure!(reason == expected, "{}: {call:?}: {reason}", author.name);
    }
    recorded_whoever_asks(cluster, &administrator, &promote).await?;
    lives(cluster, &mut stream).await
}

/// What a member has the leader do in the name of an administrator is recorded by the leader, with the member's id.
async fn recorded_whoever_asks(
    cluster: &mut Cluster,
    administrator: &Identity,
    promote: &forward_request::Call,
) -> Result<()> {
    let admin = cluster.admin(0)?;
    let lead = TransferLeaderRequest { group: "cluster".to_owned(), node_id: 1 };
    admin.cluster().transfer_leader(lead).await?;
    let told = told_by_a_member(cluster, administrator, promote).await?;
    anyhow::ensure!(matches!(told, forward_response::Result::Led(_)), "{told:?}");
    let filter = Filter { operation: "promote-node".to_owned(), ..Filter::default() };
    let asked = ListRecordsRequest { filter: Some(filter), ..Default::default() };
    let records = admin.audit().list_records(asked).await?.into_inner().records;
    let by_member = |it: &AuditRecord| {
        it.outcome() == AuditOutcome::Started && it.node_id == 2 && it.target == "node 1"
    };
    anyhow::ensure!(records.iter().any(by_member), "{records:#?}");
    Ok(())
}

/// What the first node answers to the second one, which forwards a call in the name of `author`.
async fn told_by_a_member(
    cluster: &mut Cluster,
    author: &Identity,
    call: &forward_request::Call,
) -> Result<forward_response::Result> {
    let second = cluster.status(1).await?.node.context("a node without a record")?;
    let topology = rookery_proto::cluster::v1::GetTopologyRequest {};
    let topology = cluster.admin(0)?.cluster().get_topology(topology).await?.into_inner();
    let hello = peer::Hello {
        cluster_id: topology.cluster_id,
        node_id: second.id,
        incarnation: second.incarnation,
        version: 1,
        ..peer::Hello::default()
    };
    let forward = peer::ForwardRequest {
        author: hex::decode(author.thumbprint())?,
        deadline_ms: 5_000,
        call: Some(call.clone()),
    };
    let node = &cluster.nodes[0];
    let member = &cluster.nodes[1].identity;
    // The node's own stream takes this one's place again: then it is tried anew.
    eventually("the first node answers", SOON, async || {
        let channel = connection::channel(node.addresses.peer, node.certificate(), Some(member))?;
        let frames = [
            (0, channel_request::Body::Hello(hello.clone())),
            (1, channel_request::Body::Forward(forward.clone())),
        ];
        let frames = frames.map(|(call, body)| peer::ChannelRequest { call, body: Some(body) });
        let frames = stream::iter(frames).chain(stream::pending());
        let mut answers = PeerServiceClient::new(channel).channel(frames).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if let Some(channel_response::Body::Forward(response)) = answer.body {
                return response.result.context("an empty answer");
            }
        }
        anyhow::bail!("the stream ended")
    })
    .await
}
