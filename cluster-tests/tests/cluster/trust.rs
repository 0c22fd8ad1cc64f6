//! Around the registry, on real nodes: explanations, the way back in, well-known admins, renewal, last use, expiry.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, Decision, reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    identity::{Identity, client_params},
    pages::Browser,
    wait::eventually,
};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rookery_proto::{
    cluster::v1::GetTopologyRequest,
    database::v1::CreateDatabaseRequest,
    security::v1::{
        Access, Certificate, Clearance, DeleteCertificateRequest, ExplainRequest, Explanation,
        GetCertificateRequest, GetSecurityPolicyRequest, ListCertificatesRequest,
        ListNotificationsRequest, ListUnusedRequest, ListWellKnownAdminsRequest, Renewal,
        SecurityPolicy, SetSecurityPolicyRequest, WhoAmIRequest, WhoAmIResponse, WhoMayRequest,
    },
};
use rustls_pki_types::PrivateKeyDer;
use time::OffsetDateTime;
use tonic::Status;

async fn who_am_i(caller: &Caller) -> Result<WhoAmIResponse> {
    Ok(caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner())
}

async fn topology(caller: &Caller) -> Result<(), Status> {
    caller.cluster().get_topology(GetTopologyRequest {}).await.map(drop)
}

async fn list(caller: &Caller) -> Result<(), Status> {
    let request = ListCertificatesRequest { page_size: 1, ..Default::default() };
    caller.security().list_certificates(request).await.map(drop)
}

/// One operation about one certificate; empty: the caller's own.
async fn explain(
    caller: &Caller,
    thumbprint: &str,
    operation: &str,
    database: &str,
) -> Result<Explanation, Status> {
    let request = ExplainRequest {
        thumbprint: thumbprint.to_owned(),
        operation: operation.to_owned(),
        database: database.to_owned(),
    };
    let answer = caller.trust().explain(request).await?.into_inner();
    answer.explanations.into_iter().next().ok_or_else(|| Status::internal("nothing is explained"))
}

async fn certificate(caller: &Caller, thumbprint: &str) -> Result<Certificate> {
    let request = GetCertificateRequest { thumbprint: thumbprint.to_owned() };
    let answer = caller.security().get_certificate(request).await?.into_inner();
    answer.certificate.context("a certificate")
}

/// What the call of an operation comes to: whether it was let in, and the reason if not.
async fn called(caller: &Caller, operation: &str) -> (bool, String) {
    let outcome = match operation {
        "read-document" => caller.get("sales", "planted").await.map(drop),
        "put-document" => caller.put("sales", "planted", "{}").await.map(drop),
        "view-topology" => topology(caller).await,
        "list-certificates" => list(caller).await,
        // Refused after the decision, so that nothing is made.
        "create-database" => {
            let request = CreateDatabaseRequest {
                name: "made".into(),
                nodes: vec!["no-such-node".into()],
                request_id: request_id(),
                ..Default::default()
            };
            caller.databases().create_database(request).await.map(drop)
        }
        "view-security-policy" => {
            let request = GetSecurityPolicyRequest {};
            caller.trust().get_security_policy(request).await.map(drop)
        }
        other => panic!("no call for {other}"),
    };
    let allowed = Decision::of(&outcome).allows();
    (allowed, outcome.err().filter(|_| !allowed).map_or_else(String::new, |e| reason(&e)))
}

const EXPLAINED: [&str; 6] = [
    "read-document",
    "put-document",
    "view-topology",
    "list-certificates",
    "create-database",
    "view-security-policy",
];

#[tokio::test]
async fn an_explanation_is_what_calls_are_answered_on_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.create_database("other", 3).await?;
    admin.put("sales", "planted", "{}").await?;
    let reader = cluster.register("reader", Clearance::User, &[("sales", Access::Read)]).await?;
    let writer =
        cluster.register("writer", Clearance::User, &[("sales", Access::ReadWrite)]).await?;
    let nobody = cluster.register("nobody", Clearance::User, &[]).await?;
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let operators = cluster.everywhere(Some(&operator))?;
    let people = [&reader, &writer, &nobody, &operator, &cluster.administrator];
    let mut compared = 0;
    for identity in people {
        for (at, caller) in cluster.everywhere(Some(identity))?.iter().enumerate() {
            for operation in EXPLAINED {
                let own = explain(caller, "", operation, "sales").await?;
                let (allowed, reason) = called(caller, operation).await;
                let what = format!("{} {operation} on n{}", identity.name, at + 1);
                anyhow::ensure!(own.allowed == allowed, "{what}: {own:?}");
                anyhow::ensure!(own.reason == reason, "{what}: {reason} is not in {own:?}");
                anyhow::ensure!(own.allowed == own.remedies.is_empty(), "{what}: {own:?}");
                let thumbprint = identity.thumbprint();
                let others = explain(&operators[at], &thumbprint, operation, "sales").await?;
                anyhow::ensure!(others == own, "{what}: an Operator hears otherwise");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, people.len() * 3 * EXPLAINED.len());

    what_is_explained_to_whom(&cluster, &reader, &writer).await?;
    a_remedy_turns_the_answer(&cluster, &reader).await?;

    // Who may write: the writer, those above, the nodes; page by page.
    let mut request = WhoMayRequest {
        operation: "put-document".into(),
        database: "SALES".into(),
        page_size: 2,
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let page = operators[0].trust().who_may(request.clone()).await?.into_inner();
        assert!(page.certificates.len() <= 2);
        names.extend(page.certificates.into_iter().map(|entitled| entitled.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    assert_eq!(names, ["admin", "n1", "n2", "n3", "operator", "reader", "writer"]);
    cluster.finish().await
}

async fn what_is_explained_to_whom(
    cluster: &Cluster,
    reader: &Identity,
    writer: &Identity,
) -> Result<()> {
    let user = cluster.nodes[1].caller(Some(reader))?;
    let denied = explain(&user, &writer.thumbprint(), "put-document", "sales").await.unwrap_err();
    assert_eq!(reason(&denied), "CLEARANCE_TOO_LOW");
    // Whether a database exists stays untold to those without access.
    let existing = explain(&user, "", "read-document", "other").await?;
    let missing = explain(&user, "", "read-document", "absent").await?;
    assert_eq!(
        format!("{existing:?}").replace("other", "DATABASE"),
        format!("{missing:?}").replace("absent", "DATABASE")
    );
    let admin = cluster.admin(2)?;
    let told = explain(&admin, "", "read-document", "absent").await.unwrap_err();
    assert_eq!(reason(&told), "NOT_FOUND");
    // A certificate that nobody registered can be asked about.
    let stranger = Identity::new("stranger")?;
    let told = explain(&admin, &stranger.thumbprint(), "view-topology", "").await?;
    assert_eq!((told.allowed, told.reason.as_str()), (false, "CERTIFICATE_UNKNOWN"));
    assert_eq!(told.remedies, ["register the certificate"]);
    let unknown = cluster.nodes[0].caller(Some(&stranger))?;
    let refused = explain(&unknown, "", "view-topology", "").await.unwrap_err();
    assert_eq!(reason(&refused), "CERTIFICATE_UNKNOWN");
    // Without an operation: the whole table.
    let request = ExplainRequest { database: "sales".into(), ..Default::default() };
    let all = user.trust().explain(request).await?.into_inner();
    let databases = all.explanations.iter().filter(|told| told.scope == "database").count();
    assert!(databases >= 50 && all.explanations.len() - databases >= 100);
    assert_eq!((all.name.as_str(), all.state.as_str()), ("reader", "valid"));
    Ok(())
}

/// Does what the remedy says, and the call goes through.
async fn a_remedy_turns_the_answer(cluster: &Cluster, reader: &Identity) -> Result<()> {
    let user = cluster.nodes[2].caller(Some(reader))?;
    let told = explain(&user, "", "put-document", "sales").await?;
    assert_eq!(told.remedies, ["grant ReadWrite on sales to reader"]);
    assert_eq!((told.have.as_str(), told.rule.as_str()), ("Read access", "B2.4a"));
    let grants = [("sales", Access::ReadWrite)];
    cluster.admin(0)?.set_grants(&reader.thumbprint(), &grants).await?;
    assert!(explain(&user, "", "put-document", "sales").await?.allowed);
    user.put("sales", "planted", "{}").await?;
    Ok(())
}

#[tokio::test]
async fn who_am_i_answers_every_kind_of_caller() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.admin(0)?.create_database("sales", 1).await?;
    let grants = [("sales", Access::Read)];
    let user = cluster.register("user", Clearance::User, &grants).await?;
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let expired = Identity::expiring("expired", Duration::from_secs(3))?;
    let soon = Identity::expiring("soon", Duration::from_secs(10 * 24 * 3600 + 60))?;
    let ahead = Identity::with("ahead", |params| {
        params.not_before = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    })?;
    let admin = cluster.admin(0)?;
    for identity in [&expired, &soon, &ahead] {
        admin.register(identity, Clearance::User, &[]).await?;
    }
    let unknown = Identity::new("unknown")?;
    let node = cluster.nodes[0].identity.clone();
    let check = async |identity: Option<&Identity>, registered, clearance: i32, state: &str| {
        let caller = cluster.nodes[0].caller(identity)?;
        eventually(&format!("who am I: {state}"), Duration::from_secs(10), async || {
            let me = who_am_i(&caller).await?;
            anyhow::ensure!(
                (me.registered, me.clearance, me.state.as_str()) == (registered, clearance, state),
                "{me:?}"
            );
            let thumbprint = identity.map_or_else(String::new, Identity::thumbprint);
            anyhow::ensure!(me.thumbprint == thumbprint && me.node == "n1", "{me:?}");
            anyhow::ensure!(me.cluster_id.is_empty() != registered, "{me:?}");
            anyhow::ensure!((me.not_after_unix_ms != 0) == identity.is_some(), "{me:?}");
            Ok(me)
        })
        .await
    };
    let [of_user, of_operator, of_admin, of_node] =
        [Clearance::User, Clearance::Operator, Clearance::ClusterAdmin, Clearance::ClusterNode]
            .map(i32::from);
    check(None, false, 0, "no certificate").await?;
    check(Some(&unknown), false, 0, "unknown").await?;
    let me = check(Some(&user), true, of_user, "valid").await?;
    assert_eq!((me.grants.len(), me.grants[0].database.as_str()), (1, "sales"));
    assert_eq!(me.days_left, 364);
    check(Some(&operator), true, of_operator, "valid").await?;
    check(Some(&cluster.administrator), true, of_admin, "valid").await?;
    check(Some(&node), true, of_node, "valid").await?;
    check(Some(&ahead), true, of_user, "not yet valid").await?;
    let me = check(Some(&soon), true, of_user, "expiring").await?;
    assert_eq!(me.days_left, 10);
    let me = check(Some(&expired), true, of_user, "expired").await?;
    assert_eq!(me.days_left, -1);

    // The same certificates as notifications: all of them for an Operator, one's own for a User.
    let told = async |identity: &Identity| -> Result<Vec<(String, String)>> {
        let caller = cluster.nodes[0].caller(Some(identity))?;
        let request = ListNotificationsRequest::default();
        let answer = caller.trust().list_notifications(request).await?.into_inner();
        let mut told: Vec<_> =
            answer.notifications.into_iter().map(|it| (it.name, it.severity)).collect();
        told.sort();
        Ok(told)
    };
    let pair = |name: &str, severity: &str| (name.to_owned(), severity.to_owned());
    let all = [pair("expired", "error"), pair("soon", "warning")];
    assert_eq!(told(&operator).await?, all);
    assert_eq!(told(&soon).await?, [pair("soon", "warning")]);
    assert_eq!(told(&user).await?, []);
    cluster.finish().await
}

#[tokio::test]
async fn the_owner_of_a_node_gets_back_in_when_no_administrator_is_left() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.expect_in_logs("over the admin socket");
    let leader = cluster.leader("cluster").await?;
    let follower = (leader + 1) % 3;
    let config = cluster.nodes[follower].configuration().display().to_string();
    let run = async |cluster: &Cluster, arguments: &[&str]| {
        let mut all = vec!["admin"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--config", &config, "-o", "json", "--yes"]);
        cluster.nodes[follower].run(&all).await
    };
    let last = cluster.administrator.thumbprint();
    let refused = run(&cluster, &["delete", &last]).await?;
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("LAST_CLUSTER_ADMIN"), "{}", refused.stderr);
    let before = cluster.everywhere(Some(&cluster.administrator))?;
    let deleted = run(&cluster, &["delete", &last, "--force"]).await?;
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    for caller in &before {
        assert_eq!(reason(&list(caller).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    }

    // Back in, from a node that does not lead; and only with what the API could not be asked for.
    let back = Identity::new("back")?;
    let file = cluster.folder().join("back.pem");
    std::fs::write(&file, back.certificate_pem())?;
    let file = file.display().to_string();
    let node = ["trust", &file, "--name", "back", "--clearance", "cluster-node"];
    assert_eq!(run(&cluster, &node).await?.code, 2);
    let trust = ["trust", &file, "--name", "back", "--clearance", "cluster-admin"];
    let trusted = run(&cluster, &trust).await?;
    assert_eq!(trusted.code, 0, "{}", trusted.stderr);
    assert!(trusted.stdout.contains(&back.thumbprint()), "{}", trusted.stdout);
    let twice = run(&cluster, &trust).await?;
    assert_eq!(twice.code, 6, "{}", twice.stderr);
    cluster.administrator = back;
    for caller in cluster.everywhere(Some(&cluster.administrator))? {
        list(&caller).await?;
    }
    let created_by =
        certificate(&cluster.admin(0)?, &cluster.administrator.thumbprint()).await?.created_by;
    assert_eq!(created_by, cluster.nodes[follower].identity.thumbprint());

    // A package whose key was made on the machine.
    let zip = cluster.folder().join("made.zip").display().to_string();
    let made = ["generate", "made", "--clearance", "operator", "--out", &zip];
    let made = run(&cluster, &made).await?;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let made = Identity::from_package("made", &std::fs::read(&zip)?)?;
    for caller in cluster.everywhere(Some(&made))? {
        list(&caller).await?;
    }
    let status = run(&cluster, &["status"]).await?;
    assert!(status.stdout.contains("\"state\": \"member\""), "{}", status.stdout);
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_well_known_admin_works_everywhere_while_a_node_declares_it() -> Result<()> {
    let mut cluster = Cluster::prepare(3, &[]).await?;
    cluster.expect_in_logs("well-known admin");
    let breakglass = Identity::new("breakglass")?;
    let list_of = format!("[\"{}\"]", breakglass.thumbprint());
    cluster.nodes[1].set("authorization.well_known_admins", &list_of);
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    let callers = cluster.everywhere(Some(&breakglass))?;
    for caller in &callers {
        eventually("the well-known admin is known", HEAL_LIMIT, async || {
            called(caller, "view-security-policy").await.0.then_some(()).context("denied")
        })
        .await?;
        let me = who_am_i(caller).await?;
        assert!(me.well_known && !me.registered, "{me:?}");
        assert_eq!(me.clearance, i32::from(Clearance::ClusterAdmin));
    }
    // Writes too, forwarded or not; apply knows it as well.
    for (at, caller) in callers.iter().enumerate() {
        caller.create_database(&format!("made-{at}"), 3).await?;
    }
    let admin = cluster.admin(0)?;
    let listed = admin.trust().list_well_known_admins(ListWellKnownAdminsRequest {}).await?;
    let listed = listed.into_inner().admins;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].nodes.as_slice(), listed[0].in_force), (&["n2".to_owned()][..], true));
    let delete =
        DeleteCertificateRequest { thumbprint: breakglass.thumbprint(), request_id: request_id() };
    let refused = admin.security().delete_certificate(delete).await.unwrap_err();
    assert_eq!(reason(&refused), "WELL_KNOWN");
    let upload = admin.register(&breakglass, Clearance::User, &[]).await.unwrap_err();
    assert_eq!(reason(&upload), "WELL_KNOWN");
    for node in &cluster.nodes {
        assert!(node.logged("a well-known admin called"), "{} did not say so", node.name);
    }

    // The page names it, from every node, and only while it is declared.
    const HEADING: &str = "Well-known administrators";
    let mut pages: Vec<Browser> = cluster
        .nodes
        .iter()
        .map(|node| Browser::new(node, Some(&cluster.administrator)))
        .collect::<Result<_>>()?;
    for page in &mut pages {
        let shown = page.get("/studio/certificates").await?.has(200, HEADING)?;
        shown.has(200, &breakglass.thumbprint())?.has(200, "<td>n2</td>")?;
    }

    // Taken out of the configuration and restarted: refused on every node, on open connections too.
    cluster.nodes[1].stop().await?;
    cluster.nodes[1].set("authorization.well_known_admins", "[]");
    cluster.nodes[1].start()?;
    cluster.ready().await?;
    eventually("the declaration is withdrawn", HEAL_LIMIT, async || {
        let request = ListWellKnownAdminsRequest {};
        let left = admin.trust().list_well_known_admins(request).await?.into_inner().admins;
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let page = pages[0].get("/studio/certificates").await?.has(200, "Registered certificates")?;
    anyhow::ensure!(!page.text.contains(HEADING), "the page still names it");
    // The list of one node shows it a little before the declaring node has the acknowledgement.
    for caller in callers.iter().chain(&cluster.everywhere(Some(&breakglass))?) {
        eventually("the withdrawal is known", HEAL_LIMIT, async || {
            let outcome = topology(caller).await;
            let told = outcome.as_ref().err().map(reason).unwrap_or_default();
            // A connection to the node that restarted is gone.
            let gone = outcome.as_ref().is_err_and(|e| e.code() == tonic::Code::Unavailable);
            anyhow::ensure!(told == "CERTIFICATE_UNKNOWN" || gone, "{outcome:?}");
            Ok(())
        })
        .await?;
    }
    cluster.same_state().await?;
    cluster.finish().await
}

/// Certificates of one key by one CA.
struct Line {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
}

impl Line {
    fn new(ca: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, ca);
        Ok(Self { issuer: Issuer::new(params, KeyPair::generate()?), key: KeyPair::generate()? })
    }

    fn issue(&self, days: u64) -> Result<Identity> {
        let mut params = client_params("machine");
        params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(days * 24 * 3600);
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        Ok(Identity {
            name: "machine".to_owned(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(self.key.serialize_der())
                .map_err(|why| anyhow::anyhow!("a private key: {why}"))?,
        })
    }
}

async fn set_policy(cluster: &Cluster, renewal: Renewal) -> Result<()> {
    let policy = SecurityPolicy { renewal: renewal.into(), ..Default::default() };
    let request = SetSecurityPolicyRequest {
        policy: Some(policy),
        request_id: request_id(),
        ..Default::default()
    };
    let set = cluster.admin(0)?.trust().set_security_policy(request).await?.into_inner();
    assert_eq!(set.policy.context("a policy")?.renewal(), renewal);
    Ok(())
}

#[tokio::test]
async fn a_renewed_certificate_registers_itself_where_the_policy_says_so() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "planted", "{}").await?;
    let line = Line::new("CA one")?;
    let first = line.issue(100)?;
    admin.register(&first, Clearance::User, &[("sales", Access::ReadWrite)]).await?;
    cluster.known_everywhere(&first).await?;
    let second = line.issue(200)?;
    for caller in cluster.everywhere(Some(&second))? {
        assert_eq!(reason(&topology(&caller).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    }

    set_policy(&cluster, Renewal::SameKeySameIssuer).await?;
    let renewed = cluster.nodes[1].caller(Some(&second))?;
    renewed.put("sales", "planted", "{}").await?;
    for caller in cluster.everywhere(Some(&second))? {
        caller.get("sales", "planted").await?;
        assert_eq!(reason(&list(&caller).await.unwrap_err()), "CLEARANCE_TOO_LOW");
    }
    let shown = certificate(&cluster.admin(2)?, &second.thumbprint()).await?;
    assert_eq!((shown.name.as_str(), shown.grants.len()), ("machine", 1));
    // It belongs to the entry it follows.
    assert_eq!(shown.thumbprint, first.thumbprint());
    assert_eq!(shown.secondaries[0].thumbprint, second.thumbprint());
    // Another key, another issuer, and somebody who has only the certificate: unknown as before.
    let elsewhere =
        Line { key: KeyPair::try_from(line.key.serialize_der())?, ..Line::new("CA two")? };
    for stranger in [Line::new("CA one")?.issue(300)?, elsewhere.issue(300)?] {
        let caller = cluster.nodes[0].caller(Some(&stranger))?;
        assert_eq!(reason(&topology(&caller).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    }
    let thief = line.issue(400)?.stolen_by(&Identity::new("thief")?);
    assert!(topology(&cluster.nodes[0].caller(Some(&thief))?).await.is_err());

    // Deleted is deleted: what followed it goes along, and the key does not come back.
    admin.revoke(&first.thumbprint()).await?;
    for (at, days) in [(0, 500), (1, 600), (2, 700)] {
        let caller = cluster.nodes[at].caller(Some(&line.issue(days)?))?;
        assert_eq!(reason(&topology(&caller).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    }
    let gone = renewed.get("sales", "planted").await.unwrap_err();
    assert_eq!(reason(&gone), "CERTIFICATE_UNKNOWN");
    cluster.same_state().await?;
    cluster.finish().await
}

#[tokio::test]
async fn last_use_is_shown_on_every_node_and_leaves_etags_alone() -> Result<()> {
    let settings = [("authorization.last_used_interval_ms", "1000")];
    let mut cluster = Cluster::start_with(3, &settings).await?;
    let user = cluster.register("user", Clearance::User, &[]).await?;
    let idle = Identity::new("idle")?;
    cluster.admin(0)?.register(&idle, Clearance::User, &[]).await?;
    let before = certificate(&cluster.admin(0)?, &user.thumbprint()).await?;
    let revision = who_am_i(&cluster.admin(0)?).await?.registry_revision;
    topology(&cluster.nodes[1].caller(Some(&user))?).await?;
    for at in 0..3 {
        let admin = cluster.admin(at)?;
        let after = eventually("the use is recorded", HEAL_LIMIT, async || {
            let shown = certificate(&admin, &user.thumbprint()).await?;
            anyhow::ensure!(shown.last_used_unix_ms != 0, "not yet");
            Ok(shown)
        })
        .await?;
        let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
        assert!((0..180_000).contains(&(now - after.last_used_unix_ms)), "{after:?}");
        assert_eq!((after.last_used_node.as_str(), &after.etag), ("n2", &before.etag));
        assert_eq!(certificate(&admin, &idle.thumbprint()).await?.last_used_unix_ms, 0);
        // The node's word for the leader's clock lags a little behind it.
        eventually("the other one is unused since then", HEAL_LIMIT, async || {
            let request = ListUnusedRequest { since_unix_ms: now, ..Default::default() };
            let unused = admin.trust().list_unused(request).await?.into_inner().certificates;
            let names: Vec<_> = unused.into_iter().map(|it| it.name).collect();
            anyhow::ensure!(names == ["idle"], "{names:?}");
            Ok(())
        })
        .await?;
    }
    assert_eq!(who_am_i(&cluster.admin(0)?).await?.registry_revision, revision);
    // It survives the process that knew it.
    cluster.nodes[2].kill()?;
    cluster.nodes[2].start()?;
    cluster.ready().await?;
    let shown = certificate(&cluster.admin(2)?, &user.thumbprint()).await?;
    assert_eq!(shown.last_used_node, "n2");
    cluster.same_state().await?;
    cluster.finish().await
}
