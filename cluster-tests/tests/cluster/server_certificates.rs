//! The certificates of the nodes: new files are taken, and all are replaced while the cluster serves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use cluster_tests::{
    caller::{Caller, reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    connection,
    identity::{Identity, node_params},
    markers,
    wait::eventually,
};
use rookery_proto::security::v1::{
    self as security, NewServerCertificate, ReplaceServerCertificatesRequest,
    ServerCertificateReplacement, WhoAmIRequest,
    server_certificate_service_client::ServerCertificateServiceClient,
};
use tonic::{Status, transport::Channel};

/// Longest time from the last condition to a finished replacement.
const SWAP_LIMIT: Duration = Duration::from_secs(20);

fn new_identity(name: &str) -> Result<Identity> {
    Identity::signed(name, &node_params(name)?, &rcgen::KeyPair::generate()?)
}

fn pem(identity: &Identity) -> Vec<u8> {
    format!("{}{}", identity.certificate_pem(), identity.key_pem()).into_bytes()
}

fn service(caller: &Caller) -> ServerCertificateServiceClient<Channel> {
    ServerCertificateServiceClient::new(caller.channel.clone())
}

fn for_all(identity: &Identity) -> ReplaceServerCertificatesRequest {
    ReplaceServerCertificatesRequest {
        certificates: vec![for_node("", identity)],
        request_id: request_id(),
        ..Default::default()
    }
}

fn for_node(node: &str, identity: &Identity) -> NewServerCertificate {
    NewServerCertificate { node: node.to_owned(), content: pem(identity), password: String::new() }
}

/// Starts a replacement, as soon as every node has told the cluster to which key secrets for it are sealed.
async fn replace(
    admin: &Caller,
    request: ReplaceServerCertificatesRequest,
) -> Result<security::ReplaceServerCertificatesResponse, Status> {
    let until = Instant::now() + HEAL_LIMIT;
    loop {
        match service(admin).replace_server_certificates(request.clone()).await {
            Err(status) if reason(&status) == "SEALING_KEY_MISSING" && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other.map(tonic::Response::into_inner),
        }
    }
}

async fn status(admin: &Caller) -> Result<ServerCertificateReplacement> {
    let request = security::GetServerCertificateReplacementRequest {};
    let answer = service(admin).get_server_certificate_replacement(request).await?;
    answer.into_inner().replacement.context("there never was a replacement")
}

async fn reaches(admin: &Caller, phase: &str) -> Result<ServerCertificateReplacement> {
    eventually(&format!("a replacement that is {phase}"), SWAP_LIMIT, async || {
        let status = status(admin).await?;
        anyhow::ensure!(status.phase == phase, "{status:?}");
        Ok(status)
    })
    .await
}

/// New handshakes of a node show this certificate.
async fn presents(cluster: &Cluster, node: usize, identity: &Identity) -> Result<()> {
    let node = &cluster.nodes[node];
    eventually(&format!("{} presents {}", node.name, identity.name), HEAL_LIMIT, async || {
        let admin = Some(&cluster.administrator);
        let channel = connection::channel(node.addresses.client, identity.leaf(), admin)?;
        Caller { channel }.security().who_am_i(WhoAmIRequest {}).await?;
        Ok(())
    })
    .await
}

/// From here on tests expect this certificate of a node.
async fn now(cluster: &mut Cluster, identities: &[&Identity]) -> Result<()> {
    for (node, identity) in identities.iter().enumerate() {
        presents(cluster, node, identity).await?;
        cluster.nodes[node].identity = Identity::clone(identity);
    }
    Ok(())
}

/// Calls that go on at a steady rate and are counted.
struct Calls {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Status>>>,
}

impl Calls {
    /// `rate` calls a second over all callers: writes and reads in turn, each on a connection that stays open.
    fn start(callers: Vec<Caller>, database: &str, rate: u32) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pause = Duration::from_secs(1) * u32::try_from(callers.len()).unwrap() / rate;
        let tasks = callers.into_iter().enumerate().map(|(number, caller)| {
            let (stop, made, database) = (stop.clone(), made.clone(), database.to_owned());
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(pause);
                let mut calls = tokio::task::JoinSet::new();
                while !stop.load(Ordering::Relaxed) {
                    tick.tick().await;
                    let count = made.fetch_add(1, Ordering::Relaxed);
                    let (caller, database) = (caller.clone(), database.clone());
                    calls.spawn(async move {
                        match count % 2 {
                            0 => caller
                                .put(&database, &format!("{number}-{count}"), "{}")
                                .await
                                .map(drop),
                            _ => caller.get(&database, "first").await.map(drop),
                        }
                    });
                }
                calls.join_all().await.into_iter().filter_map(Result::err).collect()
            })
        });
        let tasks = tasks.collect();
        Self { stop, made, tasks }
    }

    async fn finish(self) -> Result<(u64, Vec<Status>)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await?);
        }
        Ok((self.made.load(Ordering::Relaxed), failed))
    }
}

/// The private key stands nowhere in clear: not raw, not in hex, not in base64, in no file of any node.
fn key_is_nowhere(cluster: &Cluster, identity: &Identity) -> Result<()> {
    let raw = identity.key.secret_der();
    // The private scalar of a P-256 key in PKCS#8, without the public half that the certificate shows.
    let scalar = &raw[36..68];
    let base64 = base64::engine::general_purpose::STANDARD.encode(raw);
    let words = [hex::encode(scalar), base64[48..88].to_owned()];
    for node in &cluster.nodes {
        for folder in [node.data(), node.folder.clone()] {
            let found = markers::search(&folder, &words)?;
            anyhow::ensure!(found.hits.is_empty(), "{}: {:?}", node.name, found.hits);
        }
        contains_bytes(&node.folder, scalar)?;
    }
    Ok(())
}

fn contains_bytes(folder: &std::path::Path, bytes: &[u8]) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            contains_bytes(&path, bytes)?;
        } else if path.is_file() {
            let content = std::fs::read(&path).unwrap_or_default(); // It may be gone.
            let found = content.windows(bytes.len()).any(|window| window == bytes);
            anyhow::ensure!(!found, "{} holds the key", path.display());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_fails_no_request_and_every_node_presents_the_new_certificate()
-> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "first", "{}").await?;
    let old: Vec<Identity> = cluster.nodes.iter().map(|node| node.identity.clone()).collect();
    let calls = Calls::start(cluster.everywhere(Some(&cluster.administrator))?, "sales", 200);
    tokio::time::sleep(Duration::from_millis(500)).await;

    // One certificate of its own for each node, then one for all.
    let own = ["n1", "n2", "n3"].map(|name| new_identity(name).unwrap());
    let shared = new_identity("all nodes")?;
    let request = ReplaceServerCertificatesRequest {
        certificates: own.iter().map(|identity| for_node(&identity.name, identity)).collect(),
        request_id: request_id(),
        ..Default::default()
    };
    let answer = replace(&admin, request.clone()).await?;
    anyhow::ensure!(!answer.unchanged);
    let finished = reaches(&admin, "finished").await?;
    anyhow::ensure!(finished.swap_reason == "all nodes confirmed", "{finished:?}");
    now(&mut cluster, &[&own[0], &own[1], &own[2]]).await?;
    // Asked again by somebody who missed the answer: they are in force, and nothing is done.
    anyhow::ensure!(replace(&admin, request).await?.unchanged, "it was done twice");
    replace(&admin, for_all(&shared)).await?;
    reaches(&admin, "finished").await?;
    now(&mut cluster, &[&shared, &shared, &shared]).await?;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (made, failed) = calls.finish().await?;
    anyhow::ensure!(failed.is_empty(), "{} of {made} calls failed: {:?}", failed.len(), failed[0]);
    anyhow::ensure!(made >= 300, "only {made} calls were made");

    // The old ones are revoked: none is a node's any more.
    let known = service(&admin)
        .list_server_certificates(security::ListServerCertificatesRequest {})
        .await?
        .into_inner()
        .certificates;
    anyhow::ensure!(known.len() == 3, "{known:?}");
    anyhow::ensure!(known.iter().all(|it| it.thumbprint == shared.thumbprint() && it.in_force));
    for identity in &old {
        let stranger = cluster.nodes[0].caller(Some(identity))?;
        let who = stranger.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
        anyhow::ensure!(!who.registered, "an old node certificate is still registered");
    }
    for identity in own.iter().chain([&shared]) {
        key_is_nowhere(&cluster, identity)?;
    }
    // What a node presents counts for its health, and not what its configuration still names.
    for node in &cluster.nodes {
        let health = node.run(&["health"]).await?;
        anyhow::ensure!(health.code == 0, "{}: {health:?}", node.name);
    }
    // All restart with what the data folder holds, and find each other.
    for node in &mut cluster.nodes {
        node.kill()?;
    }
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_down_paused_or_killed_completes_the_rotation_when_it_returns() -> Result<()>
{
    let mut cluster = Cluster::start(3).await?;
    let down = new_identity("with a node down")?;
    // All sealing keys are known before the first node goes.
    eventually("sealing keys", HEAL_LIMIT, async || {
        for node in &cluster.nodes {
            anyhow::ensure!(node.logged("registered this node's sealing key"), "{}", node.name);
        }
        Ok(())
    })
    .await?;

    cluster.nodes[2].kill()?;
    let admin = cluster.admin(0)?;
    replace(&admin, for_all(&down)).await?;
    eventually("two nodes confirm", SWAP_LIMIT, async || {
        let status = status(&admin).await?;
        let installed = status.nodes.iter().filter(|node| node.installed_unix_ms != 0).count();
        anyhow::ensure!(installed == 2 && status.phase == "installing", "{status:?}");
        Ok(())
    })
    .await?;
    cluster.nodes[2].start()?;
    reaches(&admin, "finished").await?;
    now(&mut cluster, &[&down, &down, &down]).await?;

    let paused = new_identity("with a node paused")?;
    let admin = cluster.admin(0)?;
    cluster.nodes[1].pause()?;
    let request = ReplaceServerCertificatesRequest { immediately: true, ..for_all(&paused) };
    replace(&admin, request).await?;
    // The others swap without it, and it is not locked out.
    presents(&cluster, 0, &paused).await?;
    presents(&cluster, 2, &paused).await?;
    cluster.nodes[1].resume()?;
    reaches(&admin, "finished").await?;
    now(&mut cluster, &[&paused, &paused, &paused]).await?;

    for (number, wait_ms) in [0, 60, 150, 300].into_iter().enumerate() {
        let new = new_identity(&format!("with a node killed after {wait_ms} ms"))?;
        let victim = number % 3;
        let admin = cluster.admin((victim + 1) % 3)?;
        replace(&admin, for_all(&new)).await?;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        cluster.nodes[victim].kill()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.nodes[victim].start()?;
        reaches(&admin, "finished").await.with_context(|| format!("killed after {wait_ms} ms"))?;
        now(&mut cluster, &[&new, &new, &new]).await?;
    }
    cluster.ready().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_outlives_the_leader_that_took_it() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for wait_ms in [0, 120] {
        let new = new_identity(&format!("with the leader killed after {wait_ms} ms"))?;
        let leader = cluster.leader("cluster").await?;
        let admin = cluster.admin((leader + 1) % 3)?;
        replace(&admin, for_all(&new)).await?;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        cluster.nodes[leader].kill()?;
        // Without it the others have another leader, and wait for it.
        eventually("another leader takes it up", HEAL_LIMIT, async || {
            let status = status(&admin).await?;
            let others = status.nodes.iter().filter(|node| node.node_id != leader as u64 + 1);
            let all = others.clone().all(|node| node.installed_unix_ms != 0);
            anyhow::ensure!(others.count() == 2 && all, "{status:?}");
            Ok(())
        })
        .await?;
        cluster.nodes[leader].start()?;
        let finished = reaches(&admin, "finished").await?;
        let all = finished.nodes.iter().all(|node| node.swapped_unix_ms != 0);
        anyhow::ensure!(all && finished.nodes.len() == 3, "{finished:?}");
        now(&mut cluster, &[&new, &new, &new]).await?;
        key_is_nowhere(&cluster, &new)?;
    }
    cluster.ready().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_begin_later_are_swapped_when_they_begin() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    let mut params = node_params("later")?;
    params.not_before = time::OffsetDateTime::now_utc() + Duration::from_secs(6);
    let later = Identity::signed("later", &params, &rcgen::KeyPair::generate()?)?;
    // Not even at once is before that.
    let request = ReplaceServerCertificatesRequest { immediately: true, ..for_all(&later) };
    replace(&admin, request).await?;
    let wall_ms = || time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let begins = i128::from(status(&admin).await?.not_before_unix_ms);
    anyhow::ensure!(begins > wall_ms() + 2_000, "it was to begin at {begins}");
    let (mut waits, mut installed) = (0, false);
    loop {
        let status = status(&admin).await?;
        let asked = wall_ms(); // After the answer: what it tells is older than this.
        if status.phase != "installing" {
            anyhow::ensure!(asked >= begins, "at {asked}, before {begins}: {status:?}");
            break;
        }
        anyhow::ensure!(asked < begins + 5_000, "it does not begin: {status:?}");
        installed = status.nodes.iter().all(|node| node.installed_unix_ms != 0);
        let swapped = status.nodes.iter().any(|node| node.swapped_unix_ms != 0);
        anyhow::ensure!(!swapped, "{status:?}");
        waits += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::ensure!(installed && waits > 10, "it was installed only when it began");
    let finished = reaches(&admin, "finished").await?;
    for node in &finished.nodes {
        anyhow::ensure!(i128::from(node.swapped_unix_ms) >= begins, "{finished:?}");
    }
    now(&mut cluster, &[&later, &later, &later]).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_is_checked_aborted_superseded_and_never_doubled() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    let elsewhere = Identity::signed(
        "another host",
        &cluster_tests::identity::client_params("elsewhere"),
        &rcgen::KeyPair::generate()?,
    )?;
    let expect = async |request: ReplaceServerCertificatesRequest, expected: &str| -> Result<()> {
        let refused = replace(&admin, request).await.err().context("it was started")?;
        anyhow::ensure!(reason(&refused) == expected, "{refused:?}, expected {expected}");
        Ok(())
    };
    let good = new_identity("good")?;
    let thief = new_identity("thief")?;
    expect(for_all(&good.stolen_by(&thief)), "INVALID_ARGUMENT").await?;
    expect(for_all(&elsewhere), "INVALID_ARGUMENT").await?; // No serverAuth.
    let mut params = node_params("no host")?;
    params.subject_alt_names.clear();
    let uncovered = Identity::signed("no host", &params, &rcgen::KeyPair::generate()?)?;
    expect(for_all(&uncovered), "HOSTS_NOT_COVERED").await?;
    let mut params = node_params("expired")?;
    params.not_after = params.not_before + Duration::from_secs(60);
    let expired = Identity::signed("expired", &params, &rcgen::KeyPair::generate()?)?;
    expect(for_all(&expired), "INVALID_ARGUMENT").await?;
    let one = ReplaceServerCertificatesRequest {
        certificates: vec![for_node("n1", &good)],
        ..for_all(&good)
    };
    expect(one, "INVALID_ARGUMENT").await?;
    anyhow::ensure!(status(&admin).await.is_err(), "something was started");

    // With a node down nothing is finished behind the test's back.
    let waited = replace(&admin, for_all(&good)).await?;
    anyhow::ensure!(!waited.unchanged);
    reaches(&admin, "finished").await?;
    now(&mut cluster, &[&good, &good, &good]).await?;
    let admin = cluster.admin(0)?;
    let same = replace(&admin, for_all(&good)).await?;
    anyhow::ensure!(same.unchanged && same.replacement.is_none(), "{same:?}");

    cluster.nodes[2].kill()?;
    let second = new_identity("second")?;
    replace(&admin, for_all(&second)).await?;
    let third = new_identity("third")?;
    let refused = replace(&admin, for_all(&third)).await.err().context("two at once")?;
    anyhow::ensure!(reason(&refused) == "REPLACEMENT_RUNNING", "{refused:?}");
    let abort = security::AbortServerCertificateReplacementRequest { request_id: request_id() };
    service(&admin).abort_server_certificate_replacement(abort).await?;
    anyhow::ensure!(status(&admin).await?.phase == "aborted");
    let abort = security::AbortServerCertificateReplacementRequest { request_id: request_id() };
    let again = service(&admin).abort_server_certificate_replacement(abort).await;
    anyhow::ensure!(reason(&again.err().context("aborted twice")?) == "NOT_FOUND");
    let stranger = cluster.nodes[0].caller(Some(&second))?;
    let who = stranger.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
    anyhow::ensure!(!who.registered, "the certificate of an aborted replacement is trusted");

    replace(&admin, for_all(&second)).await?;
    let request = ReplaceServerCertificatesRequest {
        supersede: true,
        force: true,
        certificates: vec![for_node("", &uncovered)],
        ..for_all(&third)
    };
    replace(&admin, request).await?;
    cluster.nodes[2].start()?;
    let finished = reaches(&admin, "finished").await?;
    anyhow::ensure!(finished.forced && finished.nodes[0].thumbprint == uncovered.thumbprint());
    now(&mut cluster, &[&uncovered, &uncovered, &uncovered]).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_taken_under_open_connections_and_broken_ones_are_not() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.expect_in_logs("the source of this node's certificate cannot be used");
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "first", "{}").await?;
    let calls = Calls::start(cluster.everywhere(Some(&cluster.administrator))?, "sales", 100);
    let folder = cluster.nodes[0].folder.clone();
    let write = |identity: &Identity| -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        for (name, text) in
            [("node.crt", identity.certificate_pem()), ("node.key", identity.key_pem())]
        {
            let new = folder.join(format!("{name}.tmp"));
            std::fs::write(&new, text)?;
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&new, folder.join(name))?;
        }
        Ok(())
    };
    let new = new_identity("n1 anew")?;
    let began = Instant::now();
    write(&new)?;
    presents(&cluster, 0, &new).await?;
    anyhow::ensure!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    let old = std::mem::replace(&mut cluster.nodes[0].identity, new.clone());
    eventually("the old certificate is retired", HEAL_LIMIT, async || {
        let caller = cluster.nodes[0].caller(Some(&old))?;
        let who = caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
        anyhow::ensure!(!who.registered, "it is still registered");
        Ok(())
    })
    .await?;

    std::fs::write(folder.join("node.crt"), "no certificate")?;
    eventually("the broken file is complained of", HEAL_LIMIT, async || {
        let told = cluster.nodes[0].logged("the source of this node's certificate cannot be used");
        anyhow::ensure!(told, "nothing in the log");
        Ok(())
    })
    .await?;
    presents(&cluster, 0, &new).await?;
    let admin = cluster.admin(0)?;
    let reload = security::ReloadServerCertificateRequest {};
    let refused = service(&admin).reload_server_certificate(reload).await;
    anyhow::ensure!(
        reason(&refused.err().context("a broken file was taken")?) == "CERTIFICATE_SOURCE"
    );
    let (made, failed) = calls.finish().await?;
    anyhow::ensure!(failed.is_empty(), "{} of {made} calls failed: {:?}", failed.len(), failed[0]);

    // It starts with what it had, and takes a whole file again.
    cluster.nodes[0].kill()?;
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    presents(&cluster, 0, &new).await?;
    let newer = new_identity("n1 once more")?;
    write(&newer)?;
    presents(&cluster, 0, &newer).await?;
    cluster.nodes[0].identity = newer;
    cluster.ready().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_node_turns_clients_away_and_is_given_another_certificate() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.expect_in_logs("this node's certificate has EXPIRED");
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "first", "{}").await?;
    let mut params = node_params("short")?;
    params.not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(8);
    let short = Identity::signed("short", &params, &rcgen::KeyPair::generate()?)?;
    replace(&admin, for_all(&short)).await?;
    reaches(&admin, "finished").await?;
    now(&mut cluster, &[&short, &short, &short]).await?;
    let admin = cluster.admin(0)?;
    admin.get("sales", "first").await?;
    let told = eventually("it expires", Duration::from_secs(15), async || {
        admin.get("sales", "first").await.err().context("it is served")
    })
    .await?;
    anyhow::ensure!(reason(&told) == "SERVER_CERTIFICATE_EXPIRED", "{told:?}");
    let health = cluster.nodes[0].run(&["health"]).await?;
    anyhow::ensure!(
        health.code == 8 && health.stdout.contains("SERVER_CERTIFICATE_EXPIRED"),
        "{health:?}"
    );
    // All three are expired: they start, find each other, and agree on new certificates.
    cluster.nodes[1].kill()?;
    cluster.nodes[1].start()?;
    cluster.ready().await?;
    let good = new_identity("good")?;
    let admin = cluster.admin(0)?;
    replace(&admin, for_all(&good)).await?;
    reaches(&admin, "finished").await?;
    now(&mut cluster, &[&good, &good, &good]).await?;
    cluster.admin(1)?.get("sales", "first").await?;
    cluster.finish().await
}
