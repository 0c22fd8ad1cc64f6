//! The audit log over three real nodes: nothing is done or denied without a record, and no record is changed unnoticed.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    binary,
    caller::{Caller, granted, reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    connection,
    identity::{Identity, package_entry},
    wait::eventually,
};
use futures::{StreamExt as _, stream};
use rookery_proto::{
    audit::v1::{
        ExportRequest, Filter, ListRecordsRequest, TailRecordsRequest, VerifyRequest,
        VerifyResponse,
    },
    cluster::v1 as cluster,
    database::v1 as database,
    log::v1::{AuditOutcome, AuditRecord},
    security::v1::{self as security, Access, Clearance},
};
use tonic::{Code, Status};

/// Until a denial is in the log of another node: a second to collect, the write, and room.
const DENIAL_LIMIT: Duration = Duration::from_secs(3);
const FLOOD: usize = 20_000;

async fn records(caller: &Caller, filter: Filter) -> Result<Vec<AuditRecord>> {
    let mut all = Vec::new();
    let mut request = ListRecordsRequest {
        filter: Some(filter),
        oldest_first: true,
        page_size: 1_000,
        page_token: String::new(),
    };
    loop {
        let page = caller.audit().list_records(request.clone()).await?.into_inner();
        all.extend(page.records);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn verified(caller: &Caller) -> Result<VerifyResponse> {
    Ok(caller.audit().verify(VerifyRequest {}).await?.into_inner())
}

async fn intact_everywhere(cluster: &Cluster) -> Result<()> {
    let mut heads = BTreeSet::new();
    for admin in cluster.everywhere(Some(&cluster.administrator))? {
        // A node that came back a moment ago is not connected to everybody yet.
        let found = eventually("the peers' heads are equal", HEAL_LIMIT, async || {
            let found = verified(&admin).await?;
            let all = found.peers.iter().all(|peer| peer.reachable && peer.equal);
            anyhow::ensure!(!found.intact || (found.peers.len() == 2 && all), "{found:?}");
            Ok(found)
        })
        .await?;
        anyhow::ensure!(found.intact, "{found:?}");
        heads.insert((found.last_sequence, found.head_hash));
    }
    anyhow::ensure!(heads.len() == 1, "heads differ: {heads:?}");
    Ok(())
}

#[tokio::test]
async fn every_administrative_call_leaves_one_record_on_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.administrator.thumbprint();
    for (operation, node, id, allowed) in administer(&mut cluster).await? {
        let filter = Filter { request_id: id.clone(), ..Filter::default() };
        for caller in cluster.everywhere(Some(&cluster.administrator))? {
            let found = records(&caller, filter.clone()).await?;
            anyhow::ensure!(found.len() == 1, "{operation}: {} records", found.len());
            let record = &found[0];
            anyhow::ensure!(record.operation == operation, "{operation}: {record:?}");
            anyhow::ensure!(hex::encode(&record.actor) == admin, "{operation}: {record:?}");
            anyhow::ensure!(!record.actor_name.is_empty(), "{operation}: {record:?}");
            anyhow::ensure!(record.node_id == node as u64 + 1, "{operation} on {node}: {record:?}");
            anyhow::ensure!(!record.target.is_empty() && record.index > 0, "{record:?}");
            let changed = !record.changes.is_empty();
            let outcome = record.outcome();
            let fits = match outcome {
                AuditOutcome::Applied => allowed && changed,
                AuditOutcome::Started => allowed && !changed,
                AuditOutcome::Refused => !allowed && !record.reason.is_empty(),
                AuditOutcome::Denied | AuditOutcome::Unspecified => false,
            };
            anyhow::ensure!(fits, "{operation}: {record:?}");
        }
    }
    // The nodes themselves: forming stands at the beginning of the chain.
    let all = records(&cluster.admin(2)?, Filter::default()).await?;
    anyhow::ensure!(all[0].operation == "form-cluster" && all[0].sequence == 1, "{:?}", all[0]);
    intact_everywhere(&cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// Administrative calls of many kinds: operation, node that took it, request id, whether it was done.
async fn administer(cluster: &mut Cluster) -> Result<Vec<(&'static str, usize, String, bool)>> {
    let mut done = Vec::new();
    let alice = Identity::new("alice")?;
    let leader = cluster.leader("cluster").await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let create = |name: &str, request_id: &str| database::CreateDatabaseRequest {
        name: name.into(),
        replicas: 3,
        nodes: Vec::new(),
        request_id: request_id.into(),
    };
    let mut note = |operation, node, allowed| {
        let id = request_id();
        done.push((operation, node, id.clone(), allowed));
        id
    };
    let id = note("create-database", 0, true);
    everywhere[0].databases().create_database(create("sales", &id)).await?;
    let id = note("create-database", 1, false);
    let again = everywhere[1].databases().create_database(create("SALES", &id)).await;
    anyhow::ensure!(again.is_err(), "a database twice");
    let id = note("disable-database", 1, true);
    let disable = database::DisableDatabaseRequest { name: "sales".into(), request_id: id };
    everywhere[1].databases().disable_database(disable).await?;
    let id = note("enable-database", 2, true);
    let enable = database::EnableDatabaseRequest { name: "sales".into(), request_id: id };
    everywhere[2].databases().enable_database(enable).await?;
    let upload = security::UploadCertificateRequest {
        name: "alice".into(),
        clearance: Clearance::User.into(),
        grants: granted(&[("sales", Access::Read)]),
        certificate: alice.leaf().to_vec(),
        request_id: note("upload-certificate", 2, true),
        ..Default::default()
    };
    everywhere[2].security().upload_certificate(upload).await?;
    let edit = security::EditCertificateRequest {
        thumbprint: alice.thumbprint(),
        name: "alice the second".into(),
        request_id: note("edit-certificate", 0, true),
        ..Default::default()
    };
    everywhere[0].security().edit_certificate(edit).await?;
    let generate = security::GenerateCertificateRequest {
        name: "bob".into(),
        clearance: Clearance::Operator.into(),
        request_id: note("generate-certificate", 1, true),
        ..Default::default()
    };
    everywhere[1].security().generate_certificate(generate).await?;
    let delete = security::DeleteCertificateRequest {
        thumbprint: alice.thumbprint(),
        request_id: note("delete-certificate", 1, true),
    };
    everywhere[1].security().delete_certificate(delete).await?;
    let id = note("create-join-token", 0, true);
    let token = cluster::CreateJoinTokenRequest { lifetime_seconds: 60, request_id: id };
    let token = everywhere[0].cluster().create_join_token(token).await?.into_inner();
    let request_id = note("revoke-join-token", 2, true);
    let revoke = cluster::RevokeJoinTokenRequest { id: token.id, request_id };
    everywhere[2].cluster().revoke_join_token(revoke).await?;
    // The leader writes it down, and by which node it was asked.
    let other = (leader + 1) % 3;
    let request_id = note("promote-node", other, true);
    let promote = cluster::PromoteNodeRequest { node_id: 1, request_id };
    everywhere[other].cluster().promote_node(promote).await?;
    let request_id = note("export-audit", 1, true);
    let mut export = everywhere[1].audit().export(ExportRequest { request_id }).await?.into_inner();
    while export.message().await?.is_some() {}
    let id = note("delete-database", 2, true);
    let delete = database::DeleteDatabaseRequest { name: "sales".into(), request_id: id };
    everywhere[2].databases().delete_database(delete).await?;
    Ok(done)
}

#[tokio::test]
async fn every_kind_of_denial_is_recorded_within_seconds() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    let user = cluster.register("user", Clearance::User, &[]).await?;
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let expiring = Identity::expiring("expiring", Duration::from_secs(2))?;
    cluster.admin(0)?.register(&expiring, Clearance::User, &[]).await?;
    let stranger = Identity::new("stranger")?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let on = |identity| cluster.nodes[0].caller(identity);
    let topology = async |caller: Caller| -> Result<Status> {
        let answer = caller.cluster().get_topology(cluster::GetTopologyRequest {}).await;
        answer.err().context("was allowed")
    };
    topology(on(None)?).await?;
    topology(on(Some(&stranger))?).await?;
    topology(on(Some(&expiring))?).await?;
    // The name of a database is what the caller wrote.
    let odd = "sa\u{1b}[31m<b>les\n";
    anyhow::ensure!(on(Some(&user))?.get(odd, "a").await.is_err());
    anyhow::ensure!(on(Some(&user))?.create_database("mine", 3).await.is_err());
    let admin = cluster.administrator.thumbprint();
    anyhow::ensure!(on(Some(&operator))?.revoke(&admin).await.is_err());
    let join = cluster::JoinRequest {
        token_id: "bogus".into(),
        token_secret: vec![7; 32],
        node_name: "intruder".into(),
        client_address: "127.0.0.1:9".into(),
        peer_address: "127.0.0.1:10".into(),
        incarnation: vec![1; 16],
        request_id: request_id(),
    };
    anyhow::ensure!(on(Some(&stranger))?.cluster().join(join).await.is_err());
    let peer = cluster.nodes[0].addresses.peer;
    let channel = connection::channel(peer, cluster.nodes[0].certificate(), Some(&user))?;
    let probe = Caller { channel }.cluster().get_topology(cluster::GetTopologyRequest {}).await;
    anyhow::ensure!(probe.is_err(), "a client on the peer port");
    let began = Instant::now();
    let expected = [
        ("CERTIFICATE_REQUIRED", "view-topology", None),
        ("CERTIFICATE_UNKNOWN", "view-topology", Some(&stranger)),
        ("CERTIFICATE_EXPIRED", "view-topology", Some(&expiring)),
        ("CLEARANCE_TOO_LOW", "create-database", Some(&user)),
        ("MANAGE_FORBIDDEN", "delete-certificate", Some(&operator)),
        ("JOIN_TOKEN_REFUSED", "join-cluster", Some(&stranger)),
        ("NOT_A_MEMBER", "peer-call", Some(&user)),
    ];
    let other = cluster.admin(2)?;
    let denied = Filter { outcome: AuditOutcome::Denied.into(), ..Filter::default() };
    let found = eventually("denials on another node", DENIAL_LIMIT, async || {
        let found = records(&other, denied.clone()).await?;
        for (reason, operation, actor) in &expected {
            let actor = actor.map(Identity::thumbprint).unwrap_or_default();
            let is = |it: &&AuditRecord| it.reason == *reason && hex::encode(&it.actor) == actor;
            let record =
                found.iter().find(is).with_context(|| format!("no {reason}: {found:#?}"))?;
            let told = (record.remote.as_str(), record.count > 0, record.rule.is_empty());
            let right = matches!(told, ("127.0.0.1" | "", true, false));
            anyhow::ensure!(right || record.operation.contains(operation), "{record:?}");
        }
        Ok(found)
    })
    .await?;
    anyhow::ensure!(began.elapsed() <= DENIAL_LIMIT, "after {:?}", began.elapsed());
    let escaped = "sa\\u{1b}[31m\\u{3c}b\\u{3e}les\\u{a}";
    let odd = found.iter().find(|it| it.database == escaped).context("the odd name")?;
    anyhow::ensure!(odd.actor_name == "user" && odd.node_id == 1, "{odd:?}");
    intact_everywhere(&cluster).await?;
    cluster.finish().await
}

#[tokio::test]
#[allow(clippy::print_stderr)] // Figures.
async fn a_flood_of_denials_is_counted_and_bounded() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let user = cluster.register("user", Clearance::User, &[]).await?;
    let (denied, allowed) = (cluster.nodes[1].caller(None)?, cluster.nodes[1].caller(Some(&user))?);
    let whole = async |caller: &Caller| {
        let began = Instant::now();
        let calls = stream::iter(0..FLOOD).map(|_| async {
            caller.cluster().get_topology(cluster::GetTopologyRequest {}).await.is_err()
        });
        let refused = calls.buffer_unordered(64).filter(|it| std::future::ready(*it)).count().await;
        (refused, FLOOD as f64 / began.elapsed().as_secs_f64())
    };
    cluster.nodes[1].forget_log()?;
    let (refused, denied_rate) = whole(&denied).await;
    let (_, allowed_rate) = whole(&allowed).await;
    anyhow::ensure!(refused == FLOOD, "{refused} of {FLOOD} were refused");
    let filter = Filter { outcome: AuditOutcome::Denied.into(), ..Filter::default() };
    let admin = cluster.admin(2)?;
    let found = eventually("every denial is counted", HEAL_LIMIT, async || {
        let found = records(&admin, filter.clone()).await?;
        let counted: u64 = found.iter().map(|it| it.count).sum();
        anyhow::ensure!(counted >= FLOOD as u64, "{counted} are counted");
        Ok(found)
    })
    .await?;
    let counted: u64 = found.iter().map(|it| it.count).sum();
    anyhow::ensure!(counted == FLOOD as u64, "{counted} are counted");
    let log = std::fs::read_to_string(cluster.nodes[1].log())?;
    let lines = log.lines().filter(|line| line.contains("denied")).count();
    eprintln!(
        "{FLOOD} denied calls: {} records, {lines} log lines, {denied_rate:.0} denied calls/s, \
         {allowed_rate:.0} allowed calls/s",
        found.len()
    );
    anyhow::ensure!(found.len() < 100 && lines < 100, "{} records, {lines} lines", found.len());
    cluster.finish().await
}

#[tokio::test]
async fn a_stream_of_records_is_live_and_ends_with_its_readers_rights() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let viewer = cluster.register("viewer", Clearance::Operator, &[]).await?;
    let caller = cluster.nodes[1].caller(Some(&viewer))?;
    let mut records =
        caller.audit().tail_records(TailRecordsRequest::default()).await?.into_inner();
    cluster.admin(0)?.create_database("sales", 3).await?;
    let next = tokio::time::timeout(HEAL_LIMIT, records.message());
    let batch = next.await??.context("the stream ended")?;
    let last = batch.records.last().context("an empty batch")?;
    anyhow::ensure!(last.operation == "create-database", "{last:?}");
    // From an older place on: nothing is left out and nothing comes twice.
    let after_sequence = 1;
    let again = TailRecordsRequest { after_sequence, ..TailRecordsRequest::default() };
    let mut from_two = caller.audit().tail_records(again).await?.into_inner();
    let batch = from_two.message().await?.context("the stream ended")?;
    anyhow::ensure!(batch.records[0].sequence == 2, "{:?}", batch.records[0]);
    cluster.admin(0)?.revoke(&viewer.thumbprint()).await?;
    let ended = tokio::time::timeout(HEAL_LIMIT, async {
        loop {
            match records.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended without a word"),
                Err(status) => return Ok(status),
            }
        }
    });
    let status = ended.await??;
    anyhow::ensure!(status.code() == Code::Unauthenticated, "{status:?}");
    let reasons = ["RIGHTS_CHANGED", "CERTIFICATE_UNKNOWN"];
    anyhow::ensure!(reasons.contains(&reason(&status).as_str()), "{status:?}");
    cluster.finish().await
}

#[tokio::test]
async fn an_export_verifies_without_the_cluster_and_holds_no_secret() -> Result<()> {
    const DOCUMENT: &str = "canary-document-9b1c";
    const PASSWORD: &str = "canary-password-77aa";
    let cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "one", &format!("{{\"a\":\"{DOCUMENT}\"}}")).await?;
    let generate = security::GenerateCertificateRequest {
        name: "carol".into(),
        clearance: Clearance::User.into(),
        password: PASSWORD.into(),
        request_id: request_id(),
        ..Default::default()
    };
    let generated = admin.security().generate_certificate(generate).await?.into_inner();
    let token = cluster::CreateJoinTokenRequest { lifetime_seconds: 60, request_id: request_id() };
    let token = admin.cluster().create_join_token(token).await?.into_inner().token;
    let key = String::from_utf8(package_entry(&generated.package, ".key")?)?;
    let key = key.lines().nth(1).context("a key in PEM")?.to_owned();
    anyhow::ensure!(admin.put("sales", "two", "no json").await.is_err());

    let context = cluster.package.display().to_string();
    let folder = cluster.folder().to_owned();
    let run = async |arguments: &[&str]| binary::run(&folder, &[], arguments).await;
    let exported = ["audit", "export", "--out", "audit.jsonl", "--context-file", &context];
    let output = run(&exported).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    let export = std::fs::read_to_string(folder.join("audit.jsonl"))?;
    let secret = token.split(['.', '-', '_', ':']).max_by_key(|part| part.len()).unwrap_or(&token);
    for canary in [DOCUMENT, PASSWORD, &token, secret, &key, "PRIVATE KEY"] {
        anyhow::ensure!(!export.contains(canary), "the export holds {canary}");
        for node in &cluster.nodes {
            anyhow::ensure!(!node.logged(canary), "the log of {} holds {canary}", node.name);
        }
    }
    let mut certificates = String::new();
    for node in &cluster.nodes {
        certificates.push_str(&node.identity.certificate_pem());
    }
    std::fs::write(folder.join("nodes.pem"), certificates)?;
    let verify = ["audit", "verify", "--file", "audit.jsonl", "--certs", "nodes.pem", "-o", "json"];
    let output = run(&verify).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    let found: serde_json::Value = serde_json::from_str(&output.stdout)?;
    anyhow::ensure!(found["ending_checked"] == true, "{found}");
    anyhow::ensure!(found["signatures_not_checked"] == 0, "{found}");

    let lines: Vec<&str> = export.lines().collect();
    let without = |at: usize| {
        let kept = lines.iter().enumerate().filter(|(place, _)| *place != at);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    for (what, text) in [
        ("edited", export.replacen("\"sales\"", "\"tales\"", 1)),
        ("removed", without(2)),
        ("truncated", lines[..lines.len() - 1].join("\n") + "\n"),
    ] {
        std::fs::write(folder.join("audit.jsonl"), text)?;
        let output = run(&verify).await?;
        anyhow::ensure!(output.code == 9, "{what}: {output:?}");
        anyhow::ensure!(output.stderr.contains("record "), "{what}: {output:?}");
    }
    let output = run(&["audit", "verify", "--context-file", &context, "-o", "json"]).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    cluster.finish().await
}

#[tokio::test]
async fn a_killed_leader_takes_no_record_of_an_acknowledged_action_with_it() -> Result<()> {
    const CALLS: usize = 40;
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader("cluster").await?;
    let via = cluster.admin((leader + 1) % 3)?;
    let mut acknowledged = Vec::new();
    for number in 0..CALLS {
        if number == CALLS / 3 {
            cluster.nodes[leader].kill()?;
        }
        let id = request_id();
        let create =
            cluster::CreateJoinTokenRequest { lifetime_seconds: 60, request_id: id.clone() };
        if via.cluster().create_join_token(create).await.is_ok() {
            acknowledged.push(id);
        }
    }
    anyhow::ensure!(acknowledged.len() > CALLS / 2, "{} acknowledged", acknowledged.len());
    cluster.nodes[leader].start()?;
    cluster.ready_within(2 * HEAL_LIMIT).await?;
    for caller in cluster.everywhere(Some(&cluster.administrator))? {
        let operation = "create-join-token".to_owned();
        let filter =
            Filter { operation, outcome: AuditOutcome::Applied.into(), ..Filter::default() };
        let found = records(&caller, filter).await?;
        for id in &acknowledged {
            let bytes = uuid::Uuid::parse_str(id)?;
            let count = found.iter().filter(|it| it.request_id == bytes.as_bytes()).count();
            anyhow::ensure!(count == 1, "{id} has {count} records");
        }
    }
    intact_everywhere(&cluster).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// Alone, a leader may decide for a while and can write nothing: what must be recorded first is not done.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_done() -> Result<()> {
    // Its registry counts as fresh for longer than the test lasts alone: the record is what stops the calls.
    const ALONE: Duration = Duration::from_secs(3);
    let mut cluster = Cluster::start_with(3, &[("authorization.freshness_ms", "30000")]).await?;
    let leader = cluster.leader("cluster").await?;
    let (other, learner) = ((leader + 1) % 3, (leader + 2) % 3);
    let id_of = |node: usize| node as u64 + 1;
    let admin = cluster.admin(leader)?;
    admin.create_database("sales", 3).await?;
    let demote = cluster::DemoteNodeRequest { node_id: id_of(learner), request_id: request_id() };
    admin.cluster().demote_node(demote).await?;
    let before = cluster.group(leader, "cluster").await?;
    anyhow::ensure!(before.learners == [id_of(learner)], "{before:?}");
    for node in [other, learner] {
        cluster.nodes[node].kill()?;
    }

    let promote = cluster::PromoteNodeRequest { node_id: id_of(learner), request_id: request_id() };
    let transfer =
        cluster::TransferLeaderRequest { group: "cluster".into(), node_id: id_of(other) };
    let snapshot = cluster::TriggerSnapshotRequest { group: "cluster".into() };
    let (mut first, mut second, mut third) = (admin.cluster(), admin.cluster(), admin.cluster());
    let (mut fourth, mut fifth) = (admin.audit(), admin.security());
    let (promoted, moved, built, audit, certificates) = tokio::join!(
        first.promote_node(in_time(ALONE, promote)),
        second.transfer_leader(in_time(ALONE, transfer)),
        third.trigger_snapshot(in_time(ALONE, snapshot)),
        async {
            let export = ExportRequest { request_id: request_id() };
            let mut lines = fourth.export(in_time(ALONE, export)).await?.into_inner();
            lines.message().await
        },
        fifth.export_server_certificates(in_time(
            ALONE,
            security::ExportServerCertificatesRequest::default()
        )),
    );
    let answers = [
        ("promote", promoted.err()),
        ("transfer", moved.err()),
        ("snapshot", built.err()),
        ("export of the audit log", audit.err()),
        ("export of certificates", certificates.err()),
    ];
    for (what, refused) in answers {
        let status = refused.with_context(|| format!("{what} was done"))?;
        // The record waits for a majority until the deadline, which may pass at the client first.
        let late = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
        anyhow::ensure!(late, "{what}: {status:?}");
    }
    // It was allowed to decide all the while.
    anyhow::ensure!(cluster.status(leader).await?.authorization_fresh, "it is not fresh");
    let after = cluster.group(leader, "cluster").await?;
    anyhow::ensure!(after.snapshot_index == before.snapshot_index, "{after:?}");
    for node in [other, learner] {
        cluster.nodes[node].start()?;
    }
    cluster.ready().await?;
    let after = cluster.group(leader, "cluster").await?;
    anyhow::ensure!(after.learners == before.learners, "{after:?}");
    anyhow::ensure!(after.snapshot_index == before.snapshot_index, "{after:?}");
    eventually("the chains are equal", HEAL_LIMIT, async || intact_everywhere(&cluster).await)
        .await?;
    cluster.finish().await
}

fn in_time<T>(limit: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}
