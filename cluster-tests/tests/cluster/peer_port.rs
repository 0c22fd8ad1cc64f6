//! The peer port hears current members and nobody else: votes, appends, snapshots and forwarded calls of anyone else
//! are refused before Raft sees them, and change nothing.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{put_request, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    connection, contract,
    identity::{Identity, node_params},
    wait::eventually,
};
use prost::Message as _;
use rookery_proto::{
    cluster::v1 as cluster,
    log::v1 as log,
    peer::v1::{self as peer, channel_request::Body},
    security::v1::{Access, Clearance},
};
use tonic::transport::Channel;

const PEER: &str = "/rookery.peer.v1.PeerService/";
/// A term that no honest election of a test reaches: a vote that is heard shows.
const FORGED_TERM: u64 = 1_000_000;

/// Forged calls, each as the frames that a peer would send.
fn forgeries(
    cluster_id: &str,
    victim: u64,
    author: &Identity,
) -> Vec<(&'static str, String, Vec<Vec<u8>>)> {
    let hello = peer::Hello {
        age: None,
        cluster_id: cluster_id.to_owned(),
        node_id: victim,
        incarnation: vec![7; 16],
        version: 1,
        renews: false,
    };
    let vote = Some(log::Vote { term: FORGED_TERM, node_id: victim, committed: false });
    let committed = Some(log::Vote { term: FORGED_TERM, node_id: victim, committed: true });
    let last = Some(log::LogId { term: FORGED_TERM, node_id: victim, index: FORGED_TERM });
    let request_vote =
        peer::VoteRequest { group: 0, vote, last_log_id: last, leadership_transfer: true };
    let append = peer::AppendRequest { group: 0, vote: committed, ..Default::default() };
    let put = log::DocumentWrite {
        id: "forged".into(),
        operation: Some(log::document_write::Operation::Put(log::PutDocument {
            collection: String::new(),
            json: b"{}".to_vec(),
        })),
        ..Default::default()
    };
    let proposal = log::Proposal {
        group: 1,
        request_id: uuid::Uuid::new_v4().as_bytes().to_vec(),
        registry_revision: u64::MAX,
        origin_node_id: 0,
        command: Some(log::proposal::Command::Database(log::DatabaseCommand { writes: vec![put] })),
    };
    let forward = peer::ForwardRequest {
        author: hex::decode(author.thumbprint()).unwrap_or_default(),
        deadline_ms: 5000,
        call: Some(peer::forward_request::Call::Propose(proposal)),
    };
    let read = peer::ForwardRequest {
        author: hex::decode(author.thumbprint()).unwrap_or_default(),
        deadline_ms: 5000,
        call: Some(peer::forward_request::Call::Read(peer::DocumentRead {
            group: 1,
            read: Some(peer::document_read::Read::Get(
                rookery_proto::document::v1::GetDocumentRequest {
                    database: "sales".into(),
                    id: "planted".into(),
                    stale_ok: true,
                }
                .encode_to_vec(),
            )),
        })),
    };
    let frames = |body: Body| {
        let frame = |call, body| peer::ChannelRequest { call, body: Some(body) }.encode_to_vec();
        vec![frame(0, Body::Hello(hello.clone())), frame(1, body)]
    };
    let header = peer::SnapshotHeader {
        hello: Some(hello.clone()),
        group: 0,
        vote: committed,
        meta: Some(log::SnapshotMeta { last_log_id: last, ..Default::default() }),
    };
    let part = |part| peer::InstallSnapshotRequest { part: Some(part) }.encode_to_vec();
    use peer::install_snapshot_request::Part;
    let snapshot = vec![
        part(Part::Header(header)),
        part(Part::Trailer(peer::SnapshotTrailer { chunks: 0, digest: Vec::new() })),
    ];
    let probe = peer::ProbeRequest {
        cluster_id: cluster_id.to_owned(),
        node_name: "n1".into(),
        incarnation: vec![7; 16],
    };
    let channel = || format!("{PEER}Channel");
    vec![
        ("vote", channel(), frames(Body::Vote(request_vote))),
        ("pre-vote", channel(), frames(Body::PreVote(request_vote))),
        ("append", channel(), frames(Body::Append(append))),
        ("forwarded write", channel(), frames(Body::Forward(forward))),
        ("forwarded read", channel(), frames(Body::Forward(read))),
        ("freshness", channel(), frames(Body::Freshness(peer::FreshnessRequest::default()))),
        ("read index", channel(), frames(Body::ReadIndex(peer::ReadIndexRequest { group: 0 }))),
        ("status", channel(), frames(Body::Status(peer::StatusRequest {}))),
        ("snapshot", format!("{PEER}InstallSnapshot"), snapshot),
        ("probe", format!("{PEER}Probe"), vec![probe.encode_to_vec()]),
    ]
}

#[tokio::test]
async fn forged_peer_calls_are_refused_and_change_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.expect_in_logs("peer"); // Refused peers are told to the log, by thumbprint.
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "planted", "{}").await?;
    let impostors = impostors(&mut cluster).await?;
    let cluster_id =
        admin.cluster().get_topology(cluster::GetTopologyRequest {}).await?.into_inner().cluster_id;
    let before = terms(&mut cluster).await?;
    let states = cluster.same_state().await?;
    let registries = revisions(&mut cluster).await?;
    let mut problems = Vec::new();
    for (name, identity) in &impostors {
        for at in cluster.running() {
            let node = &cluster.nodes[at];
            let channel =
                connection::channel(node.addresses.peer, node.certificate(), identity.as_ref())?;
            let victim = at as u64 + 1;
            for (what, path, frames) in forgeries(&cluster_id, victim, &cluster.administrator) {
                if let Ok(answers) = contract::call(&channel, &path, frames).await {
                    problems
                        .push(format!("{what} by {name} was answered by n{victim}: {answers:?}"));
                }
            }
            // Nor does the peer port serve what the client port does.
            let get = put_request("sales", "by-the-back-door", "{}").encode_to_vec();
            let path = "/rookery.document.v1.DocumentService/PutDocument";
            if contract::call(&channel, path, vec![get]).await.is_ok() {
                problems.push(format!("n{victim} serves documents to {name} on its peer port"));
            }
        }
    }
    problems.extend(members_with_a_false_hello(&mut cluster, &cluster_id).await?);
    anyhow::ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    anyhow::ensure!(terms(&mut cluster).await? == before, "a term changed");
    // The audit log in the cluster group tells of the refusals; nothing else may have changed.
    let unaudited = |mut states: BTreeMap<String, (u64, String)>| {
        states.remove("cluster");
        states
    };
    let after = cluster.same_state().await?;
    anyhow::ensure!(unaudited(after) == unaudited(states), "a forged call left a trace");
    anyhow::ensure!(revisions(&mut cluster).await? == registries, "a forged call left a trace");
    cluster.finish().await
}

/// Everybody who is no current member; the last one was a member once.
async fn impostors(cluster: &mut Cluster) -> Result<Vec<(&'static str, Option<Identity>)>> {
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let user = cluster.register("user", Clearance::User, &[("sales", Access::Admin)]).await?;
    // Registered with the clearance of a node, and yet no node.
    let params = node_params("pretender")?;
    let pretender = Identity::signed("pretender", &params, &rcgen::KeyPair::generate()?)?;
    cluster.admin(0)?.register(&pretender, Clearance::ClusterNode, &[]).await?;
    cluster.known_everywhere(&pretender).await?;
    let stolen = cluster.nodes[1].identity.stolen_by(&user);
    Ok(vec![
        ("nobody", None),
        ("an unknown certificate", Some(Identity::new("unknown")?)),
        ("a User", Some(user)),
        ("an Operator", Some(operator)),
        ("a Cluster Admin", Some(cluster.administrator.clone())),
        ("a Cluster Node certificate of no member", Some(pretender)),
        ("a member's certificate without its key", Some(stolen)),
        ("a removed node", Some(removed_node(cluster).await?)),
    ])
}

/// A node that joined, served, and was removed.
async fn removed_node(cluster: &mut Cluster) -> Result<Identity> {
    let fourth = cluster.add_passive("n4")?;
    cluster.nodes[fourth].start()?;
    let token = cluster.join_token(60).await?;
    let this = &*cluster;
    eventually("n4 joins", HEAL_LIMIT, async || {
        let output = this.join(fourth, 0, &token).await?;
        anyhow::ensure!(output.code == 0, "{output:?}");
        Ok(())
    })
    .await?;
    cluster.ready().await?;
    let remove = cluster::RemoveNodeRequest { node_id: 4, request_id: request_id() };
    cluster.admin(0)?.cluster().remove_node(remove).await?;
    cluster.nodes[fourth].kill()?;
    Ok(cluster.nodes[fourth].identity.clone())
}

/// A member that claims to be another one, another incarnation, or of another cluster is not heard either; a member
/// that asks an honest question is, which shows that the refusals above are no accident.
async fn members_with_a_false_hello(
    cluster: &mut Cluster,
    cluster_id: &str,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let node = &cluster.nodes[0];
    let member = &cluster.nodes[1].identity;
    let channel: Channel =
        connection::channel(node.addresses.peer, node.certificate(), Some(member))?;
    let other_cluster = uuid::Uuid::new_v4().to_string();
    for (claim, id, victim) in [
        ("its own id with another incarnation", cluster_id, 2),
        ("another member's id", cluster_id, 3),
        ("another cluster", other_cluster.as_str(), 2),
    ] {
        for (what, path, frames) in forgeries(id, victim, &cluster.administrator) {
            if what == "probe" {
                continue;
            }
            let answers = contract::call(&channel, &path, frames).await.unwrap_or_default();
            let served = answers.iter().any(|answer| {
                let answer = peer::ChannelResponse::decode(answer.clone()).unwrap_or_default();
                use peer::channel_response::Body;
                !matches!(answer.body, None | Some(Body::Error(_) | Body::Hello(_)))
            });
            if served {
                problems.push(format!("{what} by a member that claims {claim} was served"));
            }
        }
    }
    let probe = peer::ProbeRequest {
        cluster_id: cluster_id.to_owned(),
        node_name: "n2".into(),
        incarnation: vec![7; 16],
    };
    let answers = contract::call(&channel, &format!("{PEER}Probe"), vec![probe.encode_to_vec()])
        .await
        .context("a member's own question must be answered")?;
    let answer = peer::ProbeResponse::decode(answers.first().context("an answer")?.clone())?;
    anyhow::ensure!(answer.formed, "{answer:?}");
    Ok(problems)
}

/// The terms of all groups on all running nodes.
async fn terms(cluster: &mut Cluster) -> Result<BTreeMap<(usize, String), u64>> {
    let mut terms = BTreeMap::new();
    for at in cluster.running() {
        for group in cluster.status(at).await?.groups {
            terms.insert((at, group.group), group.term);
        }
    }
    Ok(terms)
}

/// The revisions of the registry on all running nodes.
async fn revisions(cluster: &mut Cluster) -> Result<BTreeMap<usize, u64>> {
    let mut revisions = BTreeMap::new();
    for at in cluster.running() {
        revisions.insert(at, cluster.status(at).await?.registry_revision);
    }
    Ok(revisions)
}
