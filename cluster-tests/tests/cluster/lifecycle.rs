//! The life of a registration over three real nodes: part A24 of the specification on uploads, edits, disabling,
//! deletions, purges, duplicates and entries of several certificates.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, granted, reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    identity::{Identity, node_params},
    probes::{self, Call, Target as Place},
    wait::eventually,
};
use rookery_proto::security::v1::{
    Access, Certificate, CertificateSort, CertificateState, Clearance, CloneCertificateRequest,
    CloneCertificateResponse, DisableCertificateRequest, EditCertificateRequest,
    EnableCertificateRequest, GetCertificateRequest, Grant, ListCertificatesRequest,
    PurgeCertificatesRequest, PurgeCertificatesResponse, UploadCertificateRequest, WhoAmIRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

#[tokio::test]
async fn registrations_live_and_end_by_the_rules() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for database in ["sales", "stock"] {
        cluster.admin(0)?.create_database(database, 3).await?;
    }
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    one_upload_of_several_is_one_entry(&mut cluster).await.context("entries")?;
    an_upload_is_all_or_nothing(&mut cluster).await.context("uploads")?;
    an_overwrite_is_an_edit_of_the_target(&mut cluster).await.context("overwrites")?;
    a_disabled_certificate_is_refused_at_once(&mut cluster).await.context("disabled")?;
    a_clone_has_the_rights_of_its_source(&mut cluster).await.context("clones")?;
    expired_certificates_are_purged_by_who_may(&mut cluster).await.context("purges")?;
    remarks_and_names_are_bounded_and_readable(&mut cluster).await.context("remarks")?;
    ones_own_certificate_is_not_weakened_by_mistake(&mut cluster).await.context("oneself")?;
    lists_are_searched_filtered_and_sorted(&mut cluster).await.context("lists")?;
    a_deleted_database_leaves_no_grant_behind(&mut cluster).await.context("grants")?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// The strict promise of revocation, for what came with entries and switches: no call that starts after the
/// acknowledgement is let through, on any node, on connections that are open and busy.
#[tokio::test]
async fn disabling_and_dropping_certificates_bites_at_the_acknowledgement() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    let calls = [Call::Read, Call::StaleRead, Call::Write, Call::Topology];
    let place = Place { database: "sales", id: "planted" };
    let mut judged = 0;
    for round in 0..3 {
        let admin = cluster.admin(round)?;
        let (first, second) = (Identity::new("first")?, Identity::new("second")?);
        let request = |identities: &[&Identity], overwrite| UploadCertificateRequest {
            grants: granted(&[("sales", Access::ReadWrite)]),
            overwrite,
            ..upload_request(identities, Clearance::User)
        };
        upload(&admin, request(&[&first, &second], false)).await?;
        for person in [&first, &second] {
            cluster.known_everywhere(person).await?;
        }
        let thumbprint = first.thumbprint();
        // The secondary is refused as soon as its primary is disabled, and let in when it is enabled.
        let reasons = ["CERTIFICATE_DISABLED"];
        let switched_off = disable(&admin, &thumbprint);
        judged +=
            probes::through(&cluster, &second, place, &calls, &reasons, switched_off).await?.after;
        enable(&admin, &thumbprint).await?;
        for caller in cluster.everywhere(Some(&second))? {
            caller.get("sales", "planted").await?;
        }
        // Left out of an overwrite, it is unknown; the primary goes on.
        let reasons = ["CERTIFICATE_UNKNOWN"];
        let dropped = async { upload(&admin, request(&[&first], true)).await.map(drop) };
        judged += probes::through(&cluster, &second, place, &calls, &reasons, dropped).await?.after;
        for caller in cluster.everywhere(Some(&first))? {
            caller.get("sales", "planted").await?;
        }
        // Taken in again, it goes with its primary.
        upload(&admin, request(&[&first, &second], true)).await?;
        cluster.known_everywhere(&second).await?;
        let deleted = admin.revoke(&thumbprint);
        judged += probes::through(&cluster, &second, place, &calls, &reasons, deleted).await?.after;
    }
    anyhow::ensure!(judged > 50, "only {judged} calls were judged");
    cluster.same_state().await?;
    cluster.finish().await
}

fn refused<T: std::fmt::Debug>(
    outcome: Result<T, Status>,
    code: Code,
    why: &str,
) -> Result<Status> {
    let status = outcome.err().with_context(|| format!("was allowed, expected {why}"))?;
    anyhow::ensure!(status.code() == code && reason(&status) == why, "{status:?}, expected {why}");
    Ok(status)
}

fn fact(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info();
    info.and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}

fn field(status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|it| it.field_violations);
    violations.and_then(|it| it.into_iter().next()).map(|it| it.field).unwrap_or_default()
}

fn pem(identities: &[&Identity]) -> Vec<u8> {
    identities.iter().map(|it| it.certificate_pem()).collect::<String>().into_bytes()
}

fn upload_request(identities: &[&Identity], clearance: Clearance) -> UploadCertificateRequest {
    UploadCertificateRequest {
        name: identities.first().map_or_else(String::new, |it| it.name.clone()),
        clearance: clearance.into(),
        certificate: pem(identities),
        request_id: request_id(),
        ..Default::default()
    }
}

async fn upload(caller: &Caller, request: UploadCertificateRequest) -> Result<Certificate, Status> {
    let answer = caller.security().upload_certificate(request).await?.into_inner();
    answer.certificate.ok_or_else(|| Status::internal("no certificate in the answer"))
}

async fn show(caller: &Caller, thumbprint: &str) -> Result<Certificate, Status> {
    let request = GetCertificateRequest { thumbprint: thumbprint.to_owned() };
    let answer = caller.security().get_certificate(request).await?.into_inner();
    answer.certificate.ok_or_else(|| Status::internal("no certificate in the answer"))
}

fn edit_request(thumbprint: &str) -> EditCertificateRequest {
    EditCertificateRequest {
        thumbprint: thumbprint.to_owned(),
        request_id: request_id(),
        ..Default::default()
    }
}

async fn edit(caller: &Caller, request: EditCertificateRequest) -> Result<(), Status> {
    caller.security().edit_certificate(request).await.map(drop)
}

async fn disable(caller: &Caller, thumbprint: &str) -> Result<(), Status> {
    let request = DisableCertificateRequest {
        thumbprint: thumbprint.to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    caller.security().disable_certificate(request).await.map(drop)
}

async fn enable(caller: &Caller, thumbprint: &str) -> Result<(), Status> {
    let request = EnableCertificateRequest {
        thumbprint: thumbprint.to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    caller.security().enable_certificate(request).await.map(drop)
}

async fn purge(caller: &Caller) -> Result<PurgeCertificatesResponse, Status> {
    let request = PurgeCertificatesRequest { request_id: request_id(), limit: 0 };
    Ok(caller.security().purge_certificates(request).await?.into_inner())
}

async fn list(caller: &Caller, request: ListCertificatesRequest) -> Result<Vec<String>, Status> {
    let answer = caller.security().list_certificates(request).await?.into_inner();
    Ok(answer.certificates.into_iter().map(|it| it.name).collect())
}

/// Open connections of one identity on every node, each used once.
async fn connected(cluster: &Cluster, identity: &Identity) -> Result<Vec<Caller>> {
    let callers = cluster.everywhere(Some(identity))?;
    for caller in &callers {
        let who = caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
        anyhow::ensure!(who.registered, "{} is not known on {}", identity.name, who.node);
    }
    Ok(callers)
}

async fn one_upload_of_several_is_one_entry(cluster: &mut Cluster) -> Result<()> {
    let people = [Identity::new("crew")?, Identity::new("mate")?, Identity::new("cook")?];
    let [crew, mate, cook] = &people;
    let admin = cluster.admin(1)?;
    let request = UploadCertificateRequest {
        grants: granted(&[("Sales", Access::Read)]),
        ..upload_request(&[crew, mate, cook], Clearance::User)
    };
    let entry = upload(&admin, request).await?;
    anyhow::ensure!(entry.thumbprint == crew.thumbprint(), "{entry:?}");
    let secondaries: Vec<_> = entry.secondaries.iter().map(|it| it.thumbprint.as_str()).collect();
    anyhow::ensure!(secondaries == [mate.thumbprint(), cook.thumbprint()], "{secondaries:?}");
    // Each authenticates by itself, on every node, with what the primary has; the name of the database in any case.
    let mut open = Vec::new();
    for person in &people {
        for caller in connected(cluster, person).await? {
            let who = caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
            anyhow::ensure!(who.name == "crew" && who.thumbprint == person.thumbprint(), "{who:?}");
            caller.get("SALES", "planted").await?;
            open.push(caller);
        }
    }
    for node in cluster.everywhere(Some(&cluster.administrator))? {
        let shown = show(&node, &cook.thumbprint()).await?;
        anyhow::ensure!(
            shown.thumbprint == crew.thumbprint(),
            "a secondary resolves to its primary"
        );
        anyhow::ensure!(shown.secondaries.iter().all(|it| !it.der.is_empty()), "without bytes");
        let request =
            ListCertificatesRequest { name_contains: "crew".into(), ..Default::default() };
        anyhow::ensure!(list(&node, request).await? == ["crew"], "an entry is listed once");
    }
    // A secondary is managed through its primary.
    for thumbprint in [mate.thumbprint(), cook.thumbprint().to_uppercase()] {
        let refusals = [
            admin.revoke(&thumbprint).await,
            disable(&admin, &thumbprint).await,
            enable(&admin, &thumbprint).await,
            edit(&admin, EditCertificateRequest { name: "x".into(), ..edit_request(&thumbprint) })
                .await,
        ];
        for refusal in refusals {
            let status = refused(refusal, Code::FailedPrecondition, "SECONDARY_CERTIFICATE")?;
            anyhow::ensure!(fact(&status, "primary") == crew.thumbprint(), "{status:?}");
        }
    }
    // What is done to the primary is done to all, on connections that are open.
    admin.set_grants(&crew.thumbprint(), &[("stock", Access::Read)]).await?;
    for caller in &open {
        refused(
            caller.get("sales", "planted").await,
            Code::PermissionDenied,
            "DATABASE_ACCESS_DENIED",
        )?;
    }
    disable(&admin, &crew.thumbprint()).await?;
    for caller in &open {
        refused(caller.get("stock", "a").await, Code::Unauthenticated, "CERTIFICATE_DISABLED")?;
    }
    enable(&admin, &crew.thumbprint()).await?;
    admin.revoke(&crew.thumbprint()).await?;
    for person in &people {
        for caller in cluster.everywhere(Some(person))? {
            refused(caller.get("stock", "a").await, Code::Unauthenticated, "CERTIFICATE_UNKNOWN")?;
        }
        let gone = admin.revoke(&person.thumbprint()).await;
        refused(gone, Code::NotFound, "NOT_FOUND")?;
    }
    Ok(())
}

async fn an_upload_is_all_or_nothing(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(2)?;
    let fresh = Identity::new("fresh")?;
    let known = cluster.register("known", Clearance::User, &[]).await?;
    let expired = Identity::with("expired", |params| {
        params.not_after = params.not_before + Duration::from_secs(60);
    })?;
    let authority = Identity::with("authority", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    })?;
    let server = cluster.nodes[0].identity.clone();
    let invalid = (Code::InvalidArgument, "INVALID_ARGUMENT");
    let forbidden = (Code::PermissionDenied, "MANAGE_FORBIDDEN");
    let exists = (Code::AlreadyExists, "ALREADY_EXISTS");
    for (what, identities, (code, why)) in [
        ("an expired one", vec![&expired], invalid),
        ("an expired secondary", vec![&fresh, &expired], invalid),
        ("a CA", vec![&authority], invalid),
        ("a node's", vec![&server], invalid),
        ("one that is registered", vec![&known], exists),
        ("a secondary that is registered", vec![&fresh, &known], exists),
    ] {
        let outcome = upload(&admin, upload_request(&identities, Clearance::User)).await;
        let status = match outcome {
            // Whether a node's certificate fails as a client's or as a member's depends on its usages.
            Err(status) if what == "a node's" && reason(&status) == forbidden.1 => status,
            outcome => refused(outcome, code, why).with_context(|| what.to_owned())?,
        };
        if why == "ALREADY_EXISTS" {
            anyhow::ensure!(fact(&status, "thumbprint") == known.thumbprint(), "{status:?}");
            anyhow::ensure!(status.message().contains("known"), "{status:?}");
            anyhow::ensure!(field(&status) == "certificate", "{status:?}");
        }
        let registered = show(&admin, &fresh.thumbprint()).await;
        refused(registered, Code::NotFound, "NOT_FOUND").with_context(|| what.to_owned())?;
    }
    for node in 0..3 {
        let server = cluster.nodes[node].identity.clone();
        let as_node = upload(&admin, upload_request(&[&server], Clearance::ClusterNode)).await;
        refused(as_node, forbidden.0, forbidden.1).context("a server's own certificate")?;
        let key = rcgen::KeyPair::generate()?;
        let other = Identity::signed("other", &node_params("other")?, &key)?;
        let several = upload(&admin, upload_request(&[&other, &server], Clearance::ClusterNode));
        refused(several.await, forbidden.0, forbidden.1).context("among others")?;
    }
    // The same request twice is one registration.
    let request = upload_request(&[&fresh], Clearance::User);
    let first = upload(&admin, request.clone()).await?;
    let again = upload(&cluster.admin(0)?, request).await?;
    anyhow::ensure!(first.etag == again.etag, "{first:?} {again:?}");
    Ok(())
}

async fn an_overwrite_is_an_edit_of_the_target(cluster: &mut Cluster) -> Result<()> {
    let operator = cluster.register("overwriter", Clearance::Operator, &[]).await?;
    let caller = cluster.nodes[1].caller(Some(&operator))?;
    let over = |identities: &[&Identity], clearance| UploadCertificateRequest {
        overwrite: true,
        ..upload_request(identities, clearance)
    };
    // The hole of the model system: the certificate of an administrator, uploaded again as a User.
    let administrator = cluster.administrator.clone();
    for clearance in [Clearance::User, Clearance::Operator, Clearance::ClusterAdmin] {
        let outcome = upload(&caller, over(&[&administrator], clearance)).await;
        refused(outcome, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
    }
    let own = upload(&caller, over(&[&operator], Clearance::Operator)).await;
    refused(own, Code::PermissionDenied, "OWN_CERTIFICATE")?;
    let target = cluster.register("target", Clearance::User, &[("sales", Access::Read)]).await?;
    let raised = upload(&caller, over(&[&target], Clearance::ClusterAdmin)).await;
    refused(raised, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
    let open = connected(cluster, &target).await?;
    let extra = Identity::new("extra")?;
    let entry = upload(&caller, over(&[&target, &extra], Clearance::User)).await?;
    anyhow::ensure!(entry.grants.is_empty() && entry.secondaries.len() == 1, "{entry:?}");
    for caller in &open {
        let read = caller.get("sales", "planted").await;
        refused(read, Code::PermissionDenied, "DATABASE_ACCESS_DENIED")?;
    }
    // What the next upload leaves out is gone.
    let open = connected(cluster, &extra).await?;
    upload(&caller, over(&[&target], Clearance::User)).await?;
    for caller in &open {
        refused(caller.get("sales", "a").await, Code::Unauthenticated, "CERTIFICATE_UNKNOWN")?;
    }
    // The last Cluster Admin stays one.
    let admin = cluster.admin(0)?;
    let outcome = upload(&admin, over(&[&administrator], Clearance::User)).await;
    refused(outcome, Code::PermissionDenied, "LAST_CLUSTER_ADMIN")?;
    Ok(())
}

async fn a_disabled_certificate_is_refused_at_once(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(0)?;
    let user = cluster.register("switched", Clearance::User, &[("sales", Access::Read)]).await?;
    let thumbprint = user.thumbprint();
    for _ in 0..3 {
        let open = connected(cluster, &user).await?;
        disable(&admin, &thumbprint).await?;
        for caller in open.iter().chain(&cluster.everywhere(Some(&user))?) {
            let read = caller.get("sales", "planted").await;
            refused(read, Code::Unauthenticated, "CERTIFICATE_DISABLED")?;
        }
        anyhow::ensure!(show(&admin, &thumbprint).await?.state == "disabled");
        enable(&admin, &thumbprint).await?;
        for caller in cluster.everywhere(Some(&user))? {
            caller.get("sales", "planted").await?;
        }
    }
    // Only where the record is still the one that was read.
    let etag = show(&admin, &thumbprint).await?.etag;
    edit(&admin, EditCertificateRequest { name: "moved on".into(), ..edit_request(&thumbprint) })
        .await?;
    let request = DisableCertificateRequest {
        thumbprint: thumbprint.clone(),
        expected_etag: etag,
        request_id: request_id(),
    };
    refused(admin.security().disable_certificate(request).await, Code::Aborted, "CONCURRENCY")?;
    let operator = cluster.register("switcher", Clearance::Operator, &[]).await?;
    let operator = cluster.nodes[2].caller(Some(&operator))?;
    for target in [cluster.administrator.thumbprint(), cluster.nodes[0].identity.thumbprint()] {
        refused(disable(&operator, &target).await, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
        refused(enable(&operator, &target).await, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
    }
    let unknown = disable(&admin, &"0".repeat(64)).await;
    refused(unknown, Code::NotFound, "NOT_FOUND")?;
    Ok(())
}

async fn clone(
    caller: &Caller,
    thumbprint: &str,
    name: &str,
) -> Result<CloneCertificateResponse, Status> {
    let request = CloneCertificateRequest {
        thumbprint: thumbprint.to_owned(),
        name: name.to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    Ok(caller.security().clone_certificate(request).await?.into_inner())
}

async fn a_clone_has_the_rights_of_its_source(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(1)?;
    let grants = [("sales", Access::ReadWrite), ("stock", Access::Admin)];
    let source = Identity::new("source")?;
    let request = UploadCertificateRequest {
        grants: granted(&grants),
        note: "line 7".into(),
        owner: "crows@example".into(),
        ..upload_request(&[&source], Clearance::User)
    };
    upload(&admin, request).await?;
    let operator = cluster.register("cloner", Clearance::Operator, &[]).await?;
    let operator = cluster.nodes[0].caller(Some(&operator))?;
    let answer = clone(&operator, &source.thumbprint(), "copy").await?;
    let copy = answer.certificate.context("a certificate")?;
    let rights = (copy.name.as_str(), copy.clearance(), copy.note.as_str(), copy.owner.as_str());
    anyhow::ensure!(rights == ("copy", Clearance::User, "line 7", "crows@example"), "{copy:?}");
    anyhow::ensure!(copy.grants == granted(&grants) && copy.generated, "{copy:?}");
    let identity = Identity::from_package("copy", &answer.package)?;
    anyhow::ensure!(identity.thumbprint() == copy.thumbprint, "another certificate");
    for caller in cluster.everywhere(Some(&identity))? {
        caller.put("sales", "by-a-clone", "{}").await?;
    }
    // The rules are those of a generation with the rights of the source.
    let administrator = cluster.administrator.thumbprint();
    let raised = clone(&operator, &administrator, "mole").await;
    refused(raised, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
    let node = cluster.nodes[0].identity.thumbprint();
    refused(clone(&admin, &node, "n9").await, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
    let user = cluster.nodes[2].caller(Some(&source))?;
    let low = clone(&user, &source.thumbprint(), "me").await;
    refused(low, Code::PermissionDenied, "CLEARANCE_TOO_LOW")?;
    refused(clone(&admin, &"1".repeat(64), "none").await, Code::NotFound, "NOT_FOUND")?;
    Ok(())
}

async fn expired_certificates_are_purged_by_who_may(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(0)?;
    let life = Duration::from_secs(6);
    let mut all = Vec::new();
    for (name, clearance) in [
        ("ends user", Clearance::User),
        ("ends operator", Clearance::Operator),
        ("ends admin", Clearance::ClusterAdmin),
    ] {
        let identity = Identity::expiring(name, life)?;
        admin.register(&identity, clearance, &[]).await?;
        all.push(identity);
    }
    let lasting = Identity::new("lasting")?;
    let ends = Identity::expiring("ends secondary", life)?;
    upload(&admin, upload_request(&[&lasting, &ends], Clearance::User)).await?;
    let operator = cluster.register("purger", Clearance::Operator, &[]).await?;
    let operator = cluster.nodes[2].caller(Some(&operator))?;
    eventually("certificates expire", life + HEAL_LIMIT, async || {
        let request = ListCertificatesRequest {
            state: CertificateState::Expired.into(),
            ..Default::default()
        };
        let expired = list(&admin, request).await?;
        let expected = ["ends admin", "ends operator", "ends user", "lasting"];
        anyhow::ensure!(expired == expected, "{expired:?}");
        Ok(())
    })
    .await?;
    let user = cluster.nodes[1].caller(Some(&lasting))?;
    refused(purge(&user).await, Code::PermissionDenied, "CLEARANCE_TOO_LOW")?;
    let purged = purge(&operator).await?;
    let mut expected = vec![all[0].thumbprint(), all[1].thumbprint(), ends.thumbprint()];
    expected.sort();
    anyhow::ensure!(purged.thumbprints == expected && purged.kept == 1, "{purged:?}");
    anyhow::ensure!(!purged.more, "{purged:?}");
    let purged = purge(&admin).await?;
    anyhow::ensure!(purged.thumbprints == [all[2].thumbprint()] && purged.kept == 0, "{purged:?}");
    for caller in cluster.everywhere(Some(&lasting))? {
        caller.security().who_am_i(WhoAmIRequest {}).await?;
        let refusal = caller.get("sales", "a").await;
        refused(refusal, Code::PermissionDenied, "DATABASE_ACCESS_DENIED")?;
    }
    let too_many = PurgeCertificatesRequest { limit: 1_001, ..Default::default() };
    let outcome = admin.security().purge_certificates(too_many).await;
    refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
    Ok(())
}

async fn remarks_and_names_are_bounded_and_readable(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(1)?;
    let base = || -> Result<_> { Ok(upload_request(&[&Identity::new("odd")?], Clearance::User)) };
    type Spoil = fn(&mut UploadCertificateRequest);
    let grant = |database: &str, access| Grant { database: database.into(), access };
    let cases: Vec<(&str, Spoil)> = vec![
        ("name", |r| r.name = " \u{3000} ".into()),
        ("name", |r| r.name = "a\u{1b}[2J".into()),
        ("name", |r| r.name = "a\nb".into()),
        ("name", |r| r.name = "nimda\u{202e}".into()),
        ("name", |r| r.name = "ad\u{200b}min".into()),
        ("name", |r| r.name = "n".repeat(129)),
        ("note", |r| r.note = "a\u{7}".into()),
        ("note", |r| r.note = "n".repeat(1_025)),
        ("owner", |r| r.owner = "a\u{9b}31m".into()),
        ("owner", |r| r.owner = "o".repeat(129)),
        ("clearance", |r| r.clearance = 0),
        ("clearance", |r| r.clearance = 7),
        ("certificate", |r| r.certificate.clear()),
    ];
    for (path, spoil) in cases {
        let mut request = base()?;
        spoil(&mut request);
        let shown = format!("{path}: {:.40?} {:.40?}", request.name, request.note);
        let outcome = upload(&admin, request).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT").context(shown)?;
        anyhow::ensure!(field(&status) == path, "{status:?}, expected {path}");
    }
    for (grants, path, code, why) in [
        (vec![grant("sales", 1), grant("SALES", 2)], "grants[1].database", 3, "INVALID_ARGUMENT"),
        (vec![grant("sales", 1), grant("", 1)], "grants[1].database", 3, "INVALID_ARGUMENT"),
        (vec![grant("../etc", 1)], "grants[0].database", 3, "INVALID_ARGUMENT"),
        (vec![grant("sales", 0)], "grants[0].access", 3, "INVALID_ARGUMENT"),
        (vec![grant("sales", 1), grant("stock", 9)], "grants[1].access", 3, "INVALID_ARGUMENT"),
        (vec![grant("sales", 1), grant("none", 1)], "grants[1].database", 5, "NOT_FOUND"),
    ] {
        let outcome = upload(&admin, UploadCertificateRequest { grants, ..base()? }).await;
        let status = refused(outcome, Code::from_i32(code), why).context(path)?;
        anyhow::ensure!(field(&status) == path, "{status:?}, expected {path}");
    }
    // A name is taken as it is, and is nowhere a path or a part of another name.
    let name = "../../x, CN=root + O=\"y\" \\ /tmp";
    let request = UploadCertificateRequest { name: name.into(), ..base()? };
    let entry = upload(&admin, request).await?;
    anyhow::ensure!(entry.name == name, "{entry:?}");
    let copy = clone(&admin, &entry.thumbprint, name).await?;
    let package = zip::ZipArchive::new(std::io::Cursor::new(copy.package))?;
    for file in package.file_names().chain([copy.file_name.as_str()]) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        anyhow::ensure!(file.chars().all(plain) && !file.contains(".."), "{file:?}");
    }
    let subject = copy.certificate.context("a certificate")?.subject;
    anyhow::ensure!(subject.starts_with("CN=") && !subject.contains(", CN=root"), "{subject}");
    let remark = EditCertificateRequest {
        note: Some("seen".into()),
        owner: Some("us".into()),
        ..edit_request(&entry.thumbprint)
    };
    edit(&admin, remark).await?;
    edit(
        &admin,
        EditCertificateRequest { owner: Some(String::new()), ..edit_request(&entry.thumbprint) },
    )
    .await?;
    let entry = show(&admin, &entry.thumbprint).await?;
    anyhow::ensure!((entry.note.as_str(), entry.owner.as_str()) == ("seen", ""), "{entry:?}");
    Ok(())
}

async fn ones_own_certificate_is_not_weakened_by_mistake(cluster: &mut Cluster) -> Result<()> {
    let second = cluster.register("second", Clearance::ClusterAdmin, &[]).await?;
    let caller = cluster.nodes[1].caller(Some(&second))?;
    let demote = |confirm_self_demotion| EditCertificateRequest {
        clearance: Clearance::Operator.into(),
        confirm_self_demotion,
        ..edit_request(&second.thumbprint())
    };
    let outcome = edit(&caller, demote(false)).await;
    let status = refused(outcome, Code::FailedPrecondition, "CONFIRMATION_REQUIRED")?;
    anyhow::ensure!(field(&status) == "confirm_self_demotion", "{status:?}");
    edit(&caller, demote(true)).await?;
    for node in cluster.everywhere(Some(&second))? {
        let who = node.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
        anyhow::ensure!(who.clearance() == Clearance::Operator, "{who:?}");
    }
    // As an Operator: the name, and nothing else.
    edit(
        &caller,
        EditCertificateRequest { name: "second mate".into(), ..edit_request(&second.thumbprint()) },
    )
    .await?;
    let note =
        EditCertificateRequest { note: Some("n".into()), ..edit_request(&second.thumbprint()) };
    refused(edit(&caller, note).await, Code::PermissionDenied, "OWN_CERTIFICATE")?;
    let raise = EditCertificateRequest {
        clearance: Clearance::ClusterAdmin.into(),
        ..edit_request(&second.thumbprint())
    };
    refused(edit(&caller, raise).await, Code::PermissionDenied, "MANAGE_FORBIDDEN")?;
    Ok(())
}

async fn lists_are_searched_filtered_and_sorted(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(2)?;
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let mut wanted = Vec::new();
    for (name, life) in [("page b", 20), ("Page a", 300), ("page c", 5), ("page d", 100)] {
        let identity = Identity::expiring(name, days(life))?;
        admin.register(&identity, Clearance::User, &[("stock", Access::Read)]).await?;
        wanted.push(identity);
    }
    let future = Identity::with("page e", |params| params.not_before = params.not_after - days(1))?;
    admin.register(&future, Clearance::User, &[]).await?;
    disable(&admin, &wanted[3].thumbprint()).await?;
    let base = || ListCertificatesRequest { name_contains: "PAGE ".into(), ..Default::default() };
    let colons: Vec<_> = wanted[0]
        .thumbprint()
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect();
    let queries: Vec<(ListCertificatesRequest, &[&str])> = vec![
        (base(), &["Page a", "page b", "page c", "page d", "page e"]),
        (
            ListCertificatesRequest { descending: true, ..base() },
            &["page e", "page d", "page c", "page b", "Page a"],
        ),
        (
            ListCertificatesRequest { sort: CertificateSort::Expiry.into(), ..base() },
            &["page c", "page b", "page d", "Page a", "page e"],
        ),
        (
            ListCertificatesRequest { sort: CertificateSort::Created.into(), ..base() },
            &["page b", "Page a", "page c", "page d", "page e"],
        ),
        (
            ListCertificatesRequest { state: CertificateState::Valid.into(), ..base() },
            &["Page a", "page b", "page c"],
        ),
        (
            ListCertificatesRequest { state: CertificateState::Expiring.into(), ..base() },
            &["page b", "page c"],
        ),
        (
            ListCertificatesRequest { state: CertificateState::NotYetValid.into(), ..base() },
            &["page e"],
        ),
        (
            ListCertificatesRequest { state: CertificateState::Disabled.into(), ..base() },
            &["page d"],
        ),
        (ListCertificatesRequest { expiring_within_seconds: 7 * 86_400, ..base() }, &["page c"]),
        (
            ListCertificatesRequest { database: "STOCK".into(), ..base() },
            &["Page a", "page b", "page c", "page d"],
        ),
        (ListCertificatesRequest { clearance: Clearance::Operator.into(), ..base() }, &[]),
        (
            ListCertificatesRequest { thumbprint_prefix: colons[..6].join(":"), ..base() },
            &["page b"],
        ),
        (ListCertificatesRequest { thumbprint_prefix: colons.join(" "), ..base() }, &["page b"]),
    ];
    for node in cluster.everywhere(Some(&cluster.administrator))? {
        for (query, expected) in &queries {
            let found = list(&node, query.clone()).await?;
            anyhow::ensure!(found == *expected, "{query:?}: {found:?}");
        }
    }
    let sha1 = ListCertificatesRequest { thumbprint_prefix: "a".repeat(40), ..base() };
    let outcome = admin.security().list_certificates(sha1).await;
    let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
    anyhow::ensure!(status.message().contains("SHA-1"), "{status:?}");
    // A token continues the list of one caller and one query, on whichever node.
    let first = ListCertificatesRequest { page_size: 2, ..base() };
    let page = admin.security().list_certificates(first.clone()).await?.into_inner();
    anyhow::ensure!(page.certificates.len() == 2 && !page.next_page_token.is_empty());
    let page_token = page.next_page_token;
    let second = ListCertificatesRequest { page_token: page_token.clone(), ..first.clone() };
    for node in cluster.everywhere(Some(&cluster.administrator))? {
        let found = list(&node, second.clone()).await?;
        anyhow::ensure!(found == ["page c", "page d"], "{found:?}");
    }
    let others = [
        ListCertificatesRequest { descending: true, ..second.clone() },
        ListCertificatesRequest { sort: CertificateSort::Expiry.into(), ..second.clone() },
        ListCertificatesRequest { name_contains: "page".into(), ..second.clone() },
        ListCertificatesRequest { state: CertificateState::Valid.into(), ..second.clone() },
        ListCertificatesRequest { page_token: "no token".into(), ..first },
    ];
    for other in others {
        let outcome = admin.security().list_certificates(other.clone()).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT");
        anyhow::ensure!(field(&status.with_context(|| format!("{other:?}"))?) == "page_token");
    }
    let operator = cluster.register("reads lists", Clearance::Operator, &[]).await?;
    let operator = cluster.nodes[0].caller(Some(&operator))?;
    let outcome = operator.security().list_certificates(second).await;
    refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
    Ok(())
}

async fn a_deleted_database_leaves_no_grant_behind(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(0)?;
    admin.create_database("Gone", 3).await?;
    admin.put("gone", "secret", "{}").await?;
    let (one, two) = (Identity::new("granted one")?, Identity::new("granted two")?);
    let request = UploadCertificateRequest {
        grants: granted(&[("gONE", Access::Admin), ("sales", Access::Read)]),
        ..upload_request(&[&one, &two], Clearance::User)
    };
    upload(&admin, request).await?;
    let mut open = connected(cluster, &one).await?;
    open.extend(connected(cluster, &two).await?);
    for caller in &open {
        caller.get("GONE", "secret").await?;
    }
    let request = rookery_proto::database::v1::DeleteDatabaseRequest {
        name: "gone".into(),
        request_id: request_id(),
    };
    admin.databases().delete_database(request).await?;
    admin.create_database("gone", 3).await?;
    for caller in &open {
        let denied = (Code::PermissionDenied, "DATABASE_ACCESS_DENIED");
        refused(caller.get("gone", "secret").await, denied.0, denied.1)?;
        caller.get("sales", "planted").await?;
    }
    let entry = show(&admin, &two.thumbprint()).await?;
    anyhow::ensure!(entry.grants == granted(&[("sales", Access::Read)]), "{entry:?}");
    Ok(())
}
