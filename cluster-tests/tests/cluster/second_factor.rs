//! A second factor: one login opens every node, one logout shuts them, and nothing of it can be found on a disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    authenticator, binary,
    caller::{reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    identity::{Identity, package_entry},
    markers,
    wait::eventually,
};
use rookery_client::{Client, Error, Options, Session, retry::Policy};
use rookery_proto::{
    document::v1 as document,
    security::v1::{
        self as security, Access, Clearance, log_in_request,
        second_factor_service_client::SecondFactorServiceClient,
    },
};
use tonic::Code;

/// Somebody with a certificate and an authenticator.
struct Holder {
    identity: Identity,
    secret: Vec<u8>,
    recovery: Vec<String>,
    /// What must stand nowhere: the secret as text and the recovery codes.
    shown: Vec<String>,
}

impl Holder {
    /// Registers a certificate that may write `sales`, and enrols it through its own call on node `at`.
    async fn enrolled(cluster: &mut Cluster, name: &str, at: usize) -> Result<Self> {
        let grants = [("sales", Access::ReadWrite)];
        let identity = cluster.register(name, Clearance::User, &grants).await?;
        let request = security::EnrolRequest { request_id: request_id(), ..Default::default() };
        let client = client(cluster, &identity, at, None)?;
        let made = eventually("a second factor is made", HEAL_LIMIT, async || {
            Ok(client.enrol(request.clone()).await?)
        })
        .await?;
        let secret = data_encoding::BASE32_NOPAD.decode(made.secret_base32.as_bytes())?;
        anyhow::ensure!(secret.len() == 20 && made.recovery_codes.len() == 10, "{made:?}");
        anyhow::ensure!(made.uri.contains(&made.secret_base32), "{}", made.uri);
        anyhow::ensure!(made.qr_text.lines().count() > 15, "{}", made.qr_text);
        let mut shown = made.recovery_codes.clone();
        shown.extend(made.recovery_codes.iter().map(|code| code.replace('-', "")));
        shown.push(made.secret_base32);
        shown.push(hex::encode(&secret));
        Ok(Self { identity, secret, recovery: made.recovery_codes, shown })
    }

    /// The code of the present step, or of one beside it.
    fn code(&self, offset: i64) -> Result<String> {
        authenticator::code_of(&self.secret, offset)
    }

    async fn confirm(&self, cluster: &Cluster, at: usize, code: &str) -> Result<Session, Error> {
        let request = security::ConfirmRequest {
            code: code.to_owned(),
            request_id: request_id(),
            ..Default::default()
        };
        let opened =
            client(cluster, &self.identity, at, None).expect("a client").confirm(request).await?;
        Ok(Session::new(&opened.session_token, opened.expires_unix_ms))
    }

    async fn log_in(
        &self,
        cluster: &Cluster,
        at: usize,
        proof: log_in_request::Proof,
    ) -> Result<security::LogInResponse, Error> {
        self.log_in_for(cluster, at, proof, 0, false).await
    }

    async fn log_in_for(
        &self,
        cluster: &Cluster,
        at: usize,
        proof: log_in_request::Proof,
        session_seconds: u64,
        no_limits: bool,
    ) -> Result<security::LogInResponse, Error> {
        let request = security::LogInRequest {
            proof: Some(proof),
            session_seconds,
            no_limits,
            request_id: request_id(),
        };
        client(cluster, &self.identity, at, None).expect("a client").log_in(request).await
    }

    fn recovery(&self, place: usize) -> log_in_request::Proof {
        log_in_request::Proof::RecoveryCode(self.recovery[place].clone())
    }
}

fn code(text: &str) -> log_in_request::Proof {
    log_in_request::Proof::Code(text.to_owned())
}

fn session(opened: &security::LogInResponse) -> Session {
    Session::new(&opened.session_token, opened.expires_unix_ms)
}

/// The client library as this identity on one node; each error reaches the test.
fn client(
    cluster: &Cluster,
    identity: &Identity,
    at: usize,
    session: Option<&Session>,
) -> Result<Client> {
    // A node that joined has a certificate that nobody else vouches for.
    let mut ca = package_entry(&std::fs::read(&cluster.package)?, "ca.crt")?;
    ca.extend_from_slice(cluster.nodes[at].identity.certificate_pem().as_bytes());
    let (certificate, key) = (identity.certificate_pem(), identity.key_pem());
    let address = cluster.nodes[at].addresses.client.to_string();
    let context = rookery_client::Context::from_pem(
        &identity.name,
        vec![address],
        certificate.as_bytes(),
        key.as_bytes(),
        &ca,
    )?;
    let options =
        Options { timeout: Duration::from_secs(20), policy: Policy::once(), ..Options::default() };
    let client = Client::with_options(&context, options)?;
    Ok(match session {
        Some(session) => client.with_session(session),
        None => client,
    })
}

/// Every kind of call that a User may make: what each was told.
async fn calls(client: &Client) -> Vec<(&'static str, Result<(), Error>)> {
    let get = |stale_ok| document::GetDocumentRequest {
        database: "sales".into(),
        id: "planted".into(),
        stale_ok,
    };
    let list = document::ListDocumentsRequest { database: "sales".into(), ..Default::default() };
    let unique = request_id();
    vec![
        ("read", client.get_document(get(false)).await.map(drop)),
        ("stale read", client.get_document(get(true)).await.map(drop)),
        ("list", client.list_documents(list).await.map(drop)),
        ("write", client.put("sales", &unique, "", b"{}".to_vec()).await.map(drop)),
        ("topology", client.refresh_topology().await.map(drop)),
    ]
}

/// All calls on all running nodes pass, or all are told `reason`.
async fn all_told(
    cluster: &mut Cluster,
    identity: &Identity,
    session: Option<&Session>,
    reason: &str,
) -> Result<()> {
    for at in cluster.running() {
        for (what, outcome) in calls(&client(cluster, identity, at, session)?).await {
            let told = outcome.as_ref().err().map_or("", Error::reason);
            anyhow::ensure!(told == reason, "{what} on n{}: {outcome:?}", at + 1);
            if reason == "SECOND_FACTOR_REQUIRED" {
                let failure = outcome.err().and_then(|error| error.failure().cloned());
                let failure = failure.context("a refusal")?;
                anyhow::ensure!(failure.code == Code::FailedPrecondition, "{failure:?}");
                let call = failure.metadata.get("call").map(String::as_str);
                let log_in = Some("rookery.security.v1.SecondFactorService/LogIn");
                anyhow::ensure!(call == log_in, "{failure:?}");
            }
        }
    }
    Ok(())
}

async fn with_sales(count: usize) -> Result<Cluster> {
    let cluster = Cluster::start(count).await?;
    let replicas = u32::try_from(count)?;
    cluster.admin(0)?.create_database("sales", replicas).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    Ok(cluster)
}

#[tokio::test]
async fn one_login_opens_every_node_and_one_logout_shuts_them() -> Result<()> {
    let mut cluster = with_sales(3).await?;
    let alice = Holder::enrolled(&mut cluster, "alice", 1).await?;
    // Until its first code it counts for nothing.
    all_told(&mut cluster, &alice.identity, None, "").await?;
    let first = alice.code(0)?;
    let confirmed = alice.confirm(&cluster, 0, &first).await?;
    all_told(&mut cluster, &alice.identity, None, "SECOND_FACTOR_REQUIRED").await?;
    all_told(&mut cluster, &alice.identity, Some(&confirmed), "").await?;
    let forged = Session::new(&"ab".repeat(32), i64::MAX);
    all_told(&mut cluster, &alice.identity, Some(&forged), "SECOND_FACTOR_REQUIRED").await?;

    // A code that was used on one node is used on all of them.
    for at in 0..3 {
        let replayed = alice.log_in(&cluster, at, code(&first)).await;
        let told = replayed.as_ref().err().map_or("", Error::reason);
        anyhow::ensure!(told == "SECOND_FACTOR_CODE_USED", "n{}: {replayed:?}", at + 1);
    }
    // Another login replaces the session, its token included.
    let opened = alice.log_in(&cluster, 1, code(&alice.code(1)?)).await?;
    let second = session(&opened);
    all_told(&mut cluster, &alice.identity, Some(&second), "").await?;
    all_told(&mut cluster, &alice.identity, Some(&confirmed), "SECOND_FACTOR_REQUIRED").await?;

    // A new leader knows the session.
    let leader = cluster.leader("cluster").await?;
    cluster.nodes[leader].kill()?;
    cluster.leader("cluster").await?;
    cluster.ready().await?;
    all_told(&mut cluster, &alice.identity, Some(&second), "").await?;
    cluster.nodes[leader].start()?;
    cluster.ready().await?;
    all_told(&mut cluster, &alice.identity, Some(&second), "").await?;

    logout_is_strict(&cluster, &alice, &second).await?;
    all_told(&mut cluster, &alice.identity, Some(&second), "SECOND_FACTOR_REQUIRED").await?;
    let mut shown = alice.shown.clone();
    shown.push(opened.session_token);
    nothing_is_found(&cluster, &alice, &shown)?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// Calls on open connections to all nodes, over and over: what began after the logout was acknowledged was refused.
async fn logout_is_strict(cluster: &Cluster, holder: &Holder, session: &Session) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let passed = Arc::new(AtomicUsize::new(0));
    let mut probers = Vec::new();
    for at in 0..cluster.nodes.len() {
        let client = client(cluster, &holder.identity, at, Some(session))?;
        let (stop, passed) = (Arc::clone(&stop), Arc::clone(&passed));
        probers.push(tokio::spawn(async move {
            let mut last_passed = None;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let request = document::GetDocumentRequest {
                    database: "sales".into(),
                    id: "planted".into(),
                    stale_ok: true,
                };
                if client.get_document(request).await.is_ok() {
                    passed.fetch_add(1, Ordering::Relaxed);
                    last_passed = Some(began);
                }
            }
            last_passed
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let request = security::LogOutRequest { request_id: request_id() };
    client(cluster, &holder.identity, 2, Some(session))?.log_out(request).await?;
    let acknowledged = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for prober in probers {
        let last = prober.await?.context("a prober whose calls never passed")?;
        anyhow::ensure!(last <= acknowledged, "a call passed after the logout");
    }
    let passed = passed.load(Ordering::Relaxed);
    anyhow::ensure!(passed > 30, "only {passed} calls passed before it");
    Ok(())
}

/// Neither the secret, in any form, nor a code or token stands in a file of a node.
fn nothing_is_found(cluster: &Cluster, holder: &Holder, shown: &[String]) -> Result<()> {
    for node in &cluster.nodes {
        let found = markers::search(&node.folder, shown)?;
        anyhow::ensure!(found.files > 3 && found.bytes > 10_000, "{found:?}");
        anyhow::ensure!(found.hits.is_empty(), "on {}: {:?}", node.name, found.hits);
        let found = raw(&node.folder, &holder.secret)?;
        anyhow::ensure!(found.is_empty(), "the secret itself stands in {found:?}");
    }
    // The search works: it finds what is planted.
    let folder = cluster.folder().join("control");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("raw"), [b"..", holder.secret.as_slice()].concat())?;
    std::fs::write(folder.join("text"), &shown[0])?;
    anyhow::ensure!(markers::search(&folder, shown)?.hits.len() == 1);
    anyhow::ensure!(raw(&folder, &holder.secret)?.len() == 1);
    Ok(())
}

fn raw(folder: &std::path::Path, bytes: &[u8]) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(raw(&path, bytes)?);
        } else if let Ok(content) = std::fs::read(&path)
            && memchr::memmem::find(&content, bytes).is_some()
        {
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test]
async fn wrong_codes_lock_a_second_factor_on_every_node() -> Result<()> {
    let mut cluster = with_sales(3).await?;
    let alice = Holder::enrolled(&mut cluster, "alice", 0).await?;
    let confirmed = alice.confirm(&cluster, 0, &alice.code(0)?).await?;
    let right = alice.code(1)?;
    let wrong = if right == "000000" { "000001" } else { "000000" };
    // Stolen: the certificate opens nothing, and five guesses on different nodes are all there are.
    all_told(&mut cluster, &alice.identity, None, "SECOND_FACTOR_REQUIRED").await?;
    for (place, at) in [0, 1, 2, 0, 1].into_iter().enumerate() {
        let proof = if place == 3 {
            log_in_request::Proof::RecoveryCode("AAAA-AAAA-AAAA-AAAA".into())
        } else {
            code(wrong)
        };
        let refused = alice.log_in(&cluster, at, proof).await.err().context("a wrong code")?;
        anyhow::ensure!(refused.reason() == "SECOND_FACTOR_WRONG_CODE", "{refused:?}");
        let left = refused.failure().and_then(|it| it.metadata.get("attempts_left").cloned());
        anyhow::ensure!(left == Some((4 - place).to_string()), "{place}: {left:?}");
    }
    for at in 0..3 {
        for proof in [code(&right), code(wrong), alice.recovery(0)] {
            let refused = alice.log_in(&cluster, at, proof).await.err().context("a locked one")?;
            anyhow::ensure!(refused.reason() == "SECOND_FACTOR_LOCKED", "{refused:?}");
            let after = refused.failure().and_then(|failure| failure.retry_after);
            let after = after.context("RetryInfo")?;
            anyhow::ensure!(after > Duration::from_secs(240) && after <= Duration::from_secs(300));
        }
    }
    // The session that lives goes on, so a thief cannot shut its holder out.
    all_told(&mut cluster, &alice.identity, Some(&confirmed), "").await?;
    // Malformed ones do not count and are told so.
    let malformed = alice.log_in(&cluster, 0, code("12345")).await.err().context("no code")?;
    anyhow::ensure!(malformed.reason() == "INVALID_ARGUMENT", "{malformed:?}");

    // An administrator takes it off; then the certificate alone is enough.
    let request = security::RemoveRequest {
        thumbprint: alice.identity.thumbprint(),
        request_id: request_id(),
    };
    let admin = cluster.admin(1)?;
    SecondFactorServiceClient::new(admin.channel.clone()).remove(request).await?;
    all_told(&mut cluster, &alice.identity, None, "").await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_session_ends_by_itself_and_streams_end_with_it() -> Result<()> {
    let mut cluster = with_sales(3).await?;
    let alice = Holder::enrolled(&mut cluster, "alice", 2).await?;
    alice.confirm(&cluster, 0, &alice.code(0)?).await?;
    // Without limits the certificate is open from anywhere, without a token.
    let opened = alice.log_in_for(&cluster, 1, alice.recovery(4), 4, true).await?;
    anyhow::ensure!(opened.session_token.is_empty() && opened.recovery_codes_left == 9);
    let caller = cluster.nodes[2].caller(Some(&alice.identity))?;
    let stream = tokio::spawn(open_stream(caller.channel.clone()));
    all_told(&mut cluster, &alice.identity, None, "").await?;
    let used = alice.log_in(&cluster, 2, alice.recovery(4)).await.err().context("used")?;
    anyhow::ensure!(used.reason() == "SECOND_FACTOR_CODE_USED", "{used:?}");
    let ended = tokio::time::timeout(Duration::from_secs(12), stream).await??;
    anyhow::ensure!(ended.code() == Code::Unauthenticated, "{ended:?}");
    anyhow::ensure!(reason(&ended) == "RIGHTS_CHANGED", "{ended:?}");
    all_told(&mut cluster, &alice.identity, None, "SECOND_FACTOR_REQUIRED").await?;
    let status = status(&cluster, &alice.identity, 0, None).await?;
    anyhow::ensure!(status.enrolled && !status.logged_in && status.recovery_codes_left == 9);
    let too_long = alice.log_in_for(&cluster, 0, alice.recovery(5), 86_401, false).await;
    let too_long = too_long.err().context("longer than a day")?;
    anyhow::ensure!(too_long.reason() == "INVALID_ARGUMENT", "{too_long:?}");
    cluster.finish().await
}

/// Watches health, which ends only when somebody ends it; gives the status that did.
async fn open_stream(channel: tonic::transport::Channel) -> tonic::Status {
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest::default();
    let mut answers = match health.watch(request).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return tonic::Status::ok("the stream ended"),
            Err(status) => return status,
        }
    }
}

async fn status(
    cluster: &Cluster,
    identity: &Identity,
    at: usize,
    session: Option<&Session>,
) -> Result<security::GetSecondFactorStatusResponse> {
    let request = security::GetSecondFactorStatusRequest {};
    Ok(client(cluster, identity, at, session)?.get_second_factor_status(request).await?)
}

#[tokio::test]
async fn nodes_that_join_check_codes_and_nodes_that_leave_take_no_current_secret() -> Result<()> {
    let mut cluster = with_sales(3).await?;
    let alice = Holder::enrolled(&mut cluster, "alice", 0).await?;
    alice.confirm(&cluster, 0, &alice.code(0)?).await?;
    let fourth = super::membership::start_passive(&mut cluster, "n4").await?;
    let token = cluster.join_token(600).await?;
    let output = cluster.join(fourth, 0, &token).await?;
    anyhow::ensure!(output.code == 0, "{output:?}");
    cluster.ready().await?;
    let this = &cluster;
    let opened = eventually("the node that joined checks codes", HEAL_LIMIT, async || {
        Ok(alice.log_in(this, fourth, alice.recovery(0)).await?)
    })
    .await?;
    all_told(&mut cluster, &alice.identity, Some(&session(&opened)), "").await?;

    let id = cluster.status(fourth).await?.node.context("a node")?.id;
    let request =
        rookery_proto::cluster::v1::RemoveNodeRequest { node_id: id, request_id: request_id() };
    cluster.admin(0)?.cluster().remove_node(request).await?;
    cluster.nodes[fourth].kill()?;
    eventually("the cluster secret is replaced", HEAL_LIMIT, async || {
        let logged =
            cluster.nodes.iter().any(|node| node.logged("the cluster secret was replaced"));
        anyhow::ensure!(logged, "nobody says so");
        Ok(())
    })
    .await?;
    for (place, at) in [(1, 0), (2, 1), (3, 2)] {
        let opened = alice.log_in(&cluster, at, alice.recovery(place)).await?;
        all_told(&mut cluster, &alice.identity, Some(&session(&opened)), "").await?;
    }
    cluster.finish().await
}

#[tokio::test]
async fn people_log_in_at_a_terminal() -> Result<()> {
    let cluster = with_sales(1).await?;
    let folder = cluster.folder().join("terminal");
    std::fs::create_dir(&folder)?;
    let environment = [("ROOKERY_CONFIG".to_owned(), folder.display().to_string())];
    let run = async |arguments: &[&str]| binary::succeed(&folder, &environment, arguments).await;
    run(&["context", "import", &cluster.package.display().to_string()]).await?;
    run(&[
        "cert",
        "generate",
        "alice",
        "--clearance",
        "user",
        "--db",
        "sales:rw",
        "--out",
        "a.zip",
    ])
    .await?;
    run(&["context", "import", "a.zip"]).await?;
    let made = run(&["-o", "json", "second-factor", "enrol"]).await?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let text = |name: &str| made[name].as_str().context("a field").map(str::to_owned);
    let holder = Holder {
        identity: cluster.administrator.clone(),
        secret: data_encoding::BASE32_NOPAD.decode(text("secret")?.as_bytes())?,
        recovery: Vec::new(),
        shown: Vec::new(),
    };
    run(&["doc", "get", "sales", "planted"]).await?;
    run(&["second-factor", "confirm", &holder.code(0)?]).await?;
    let kept = folder.join("contexts/alice/session.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept)?.permissions());
    anyhow::ensure!(mode & 0o777 == 0o600, "{mode:o}");
    run(&["doc", "get", "sales", "planted"]).await?;
    let status = run(&["-o", "json", "second-factor", "status"]).await?;
    anyhow::ensure!(status.contains("\"logged_in\": true"), "{status}");
    run(&["second-factor", "logout"]).await?;
    anyhow::ensure!(!kept.exists());
    let refused = binary::run(&folder, &environment, &["doc", "get", "sales", "planted"]).await?;
    anyhow::ensure!(refused.code == 4, "{refused:?}");
    anyhow::ensure!(refused.stderr.contains("rookery second-factor login"), "{refused:?}");
    login_with(&folder, &environment, &holder.code(1)?).await?;
    run(&["doc", "put", "sales", "mine", "{}"]).await?;
    run(&["-y", "second-factor", "remove"]).await?;
    anyhow::ensure!(!kept.exists());
    run(&["doc", "get", "sales", "mine"]).await?;
    cluster.finish().await
}

async fn login_with(
    folder: &std::path::Path,
    environment: &[(String, String)],
    code: &str,
) -> Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let mut command = binary::command()?;
    command.current_dir(folder).envs(environment.iter().cloned());
    command.args(["second-factor", "login", "--code-stdin"]);
    command.stdin(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("its input")?;
    stdin.write_all(format!("{code}\n").as_bytes()).await?;
    drop(stdin);
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await??;
    anyhow::ensure!(ended.success(), "{ended}");
    Ok(())
}
