//! Who may manage whose certificates, what a generated package is good for, and what never happens through the API.

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, granted, reason, request_id},
    cluster::Cluster,
    identity::{Identity, node_params, package_entry},
};
use rookery_proto::security::v1::{
    Access, Clearance, EditCertificateRequest, GenerateCertificateRequest, GetCertificateRequest,
    ListCertificatesRequest, UploadCertificateRequest, WhoAmIRequest,
};
use tonic::{Code, Status};

#[tokio::test]
async fn certificates_are_managed_by_the_rules() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    a_generated_package_opens_every_node_at_once(&mut cluster).await.context("packages")?;
    nobody_locks_the_last_administrator_out(&mut cluster).await.context("last administrator")?;
    an_operator_cannot_raise_or_touch_administrators(&mut cluster).await.context("operators")?;
    a_certificate_is_registered_once_and_never_by_upload_overwritten(&mut cluster)
        .await
        .context("uploads")?;
    edits_are_guarded_by_etags(&mut cluster).await.context("edits")?;
    lists_are_paged_and_filtered(&mut cluster).await.context("lists")?;
    who_am_i_answers_everybody(&mut cluster).await.context("whoami")?;
    cluster.same_state().await?;
    cluster.finish().await
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, reasons: &[&str]) -> Result<()> {
    let status = outcome.err().with_context(|| format!("was allowed, expected {reasons:?}"))?;
    anyhow::ensure!(
        reasons.contains(&reason(&status).as_str()),
        "{status:?}, expected {reasons:?}"
    );
    Ok(())
}

async fn generate(
    caller: &Caller,
    name: &str,
    clearance: Clearance,
    grants: &[(&str, Access)],
) -> Result<(Identity, Vec<u8>, String), Status> {
    let request = GenerateCertificateRequest {
        name: name.to_owned(),
        clearance: clearance.into(),
        grants: granted(grants),
        request_id: request_id(),
        ..Default::default()
    };
    let answer = caller.security().generate_certificate(request).await?.into_inner();
    let identity = Identity::from_package(name, &answer.package)
        .map_err(|error| Status::internal(format!("{error:#}")))?;
    Ok((identity, answer.package, answer.password))
}

async fn a_generated_package_opens_every_node_at_once(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(1)?;
    for round in 0..5 {
        let grants = [("sales", Access::ReadWrite)];
        let name = format!("generated {round}");
        let (identity, package, password) =
            generate(&admin, &name, Clearance::User, &grants).await?;
        // No waiting: it is registered on every node before the package leaves.
        for node in cluster.everywhere(Some(&identity))? {
            node.put("sales", &format!("by/{round}"), "{}").await?;
        }
        anyhow::ensure!(!password.is_empty(), "a password was neither given nor made");
        for entry in [".pfx", ".crt", ".key", "ca.crt", "context.toml", "README.md"] {
            let content = package_entry(&package, entry)?;
            anyhow::ensure!(!content.is_empty(), "{entry} is empty");
        }
        let context = String::from_utf8(package_entry(&package, "context.toml")?)?;
        let context: toml::Table = context.parse()?;
        let thumbprint = context.get("thumbprint").and_then(toml::Value::as_str);
        anyhow::ensure!(thumbprint == Some(identity.thumbprint().as_str()), "{context:?}");
        let addresses = context.get("addresses").and_then(toml::Value::as_array);
        anyhow::ensure!(addresses.is_some_and(|a| a.len() == 3), "{context:?}");
    }
    let (odd, package, _) = generate(&admin, "../../etc/x\\y:ü", Clearance::User, &[]).await?;
    let archive = zip::ZipArchive::new(std::io::Cursor::new(package))?;
    for entry in archive.file_names() {
        let plain = !entry.contains(['/', '\\', ':']) && !entry.contains("..");
        anyhow::ensure!(plain, "an entry is named {entry:?}");
    }
    admin.revoke(&odd.thumbprint()).await?;
    Ok(())
}

async fn nobody_locks_the_last_administrator_out(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(0)?;
    let thumbprint = cluster.administrator.thumbprint();
    refused(admin.revoke(&thumbprint).await, &["OWN_CERTIFICATE", "LAST_CLUSTER_ADMIN"])?;
    // The same thumbprint in another spelling is the same certificate.
    let spelled = thumbprint.to_uppercase();
    refused(admin.revoke(&spelled).await, &["OWN_CERTIFICATE", "LAST_CLUSTER_ADMIN"])?;
    let demote = |thumbprint: &str| EditCertificateRequest {
        thumbprint: thumbprint.to_owned(),
        clearance: Clearance::User.into(),
        request_id: request_id(),
        ..Default::default()
    };
    refused(admin.security().edit_certificate(demote(&thumbprint)).await, &["LAST_CLUSTER_ADMIN"])?;
    let second = cluster.register("second-admin", Clearance::ClusterAdmin, &[]).await?;
    let second_admin = cluster.nodes[1].caller(Some(&second))?;
    refused(second_admin.revoke(&second.thumbprint()).await, &["OWN_CERTIFICATE"])?;
    // Two administrators who demote each other at once: the log decides, and one is left.
    let mine = admin.security();
    let theirs = second_admin.security();
    let (one, other) = tokio::join!(
        async { mine.clone().edit_certificate(demote(&second.thumbprint())).await },
        async { theirs.clone().edit_certificate(demote(&thumbprint)).await },
    );
    anyhow::ensure!(
        one.is_ok() != other.is_ok(),
        "both demotions had the same outcome: {one:?} {other:?}"
    );
    let winner = if one.is_ok() { admin } else { second_admin };
    let restore = EditCertificateRequest {
        clearance: Clearance::ClusterAdmin.into(),
        ..demote(if one.is_ok() { "" } else { &thumbprint })
    };
    if one.is_ok() {
        winner.revoke(&second.thumbprint()).await?;
    } else {
        winner.security().edit_certificate(restore).await?;
        cluster.admin(0)?.revoke(&second.thumbprint()).await?;
    }
    Ok(())
}

async fn an_operator_cannot_raise_or_touch_administrators(cluster: &mut Cluster) -> Result<()> {
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let operator = cluster.nodes[2].caller(Some(&operator))?;
    let reasons = &["MANAGE_FORBIDDEN", "CLEARANCE_TOO_LOW"];
    for clearance in [Clearance::ClusterAdmin, Clearance::ClusterNode] {
        refused(generate(&operator, "mole", clearance, &[]).await.map(drop), reasons)?;
        let mole = Identity::signed("mole", &node_params("mole")?, &rcgen::KeyPair::generate()?)?;
        refused(operator.register(&mole, clearance, &[]).await, reasons)?;
    }
    let user = cluster.register("user", Clearance::User, &[]).await?;
    let raise = EditCertificateRequest {
        thumbprint: user.thumbprint(),
        clearance: Clearance::ClusterNode.into(),
        request_id: request_id(),
        ..Default::default()
    };
    refused(operator.security().edit_certificate(raise).await, reasons)?;
    // An upload of an administrator's public certificate must not turn it into a User.
    let administrator = cluster.administrator.clone();
    let demoted = operator.register(&administrator, Clearance::User, &[]).await;
    refused(demoted, &["ALREADY_EXISTS", "MANAGE_FORBIDDEN", "CLEARANCE_TOO_LOW"])?;
    for thumbprint in [administrator.thumbprint(), cluster.nodes[0].identity.thumbprint()] {
        refused(operator.revoke(&thumbprint).await, reasons)?;
        let rename = EditCertificateRequest {
            thumbprint,
            name: "renamed".into(),
            request_id: request_id(),
            ..Default::default()
        };
        refused(operator.security().edit_certificate(rename).await, reasons)?;
    }
    // What an Operator may do: other Operators and Users.
    let (other, _, _) = generate(&operator, "colleague", Clearance::Operator, &[]).await?;
    operator.revoke(&other.thumbprint()).await?;
    operator.revoke(&user.thumbprint()).await?;
    Ok(())
}

async fn a_certificate_is_registered_once_and_never_by_upload_overwritten(
    cluster: &mut Cluster,
) -> Result<()> {
    let admin = cluster.admin(0)?;
    let grants = [("sales", Access::Read)];
    let user = cluster.register("registered", Clearance::User, &grants).await?;
    refused(admin.register(&user, Clearance::Operator, &[]).await, &["ALREADY_EXISTS"])?;
    for node in cluster.everywhere(Some(&user))? {
        let who = node.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
        anyhow::ensure!(who.clearance() == Clearance::User && who.grants.len() == 1, "{who:?}");
    }
    // A private key in the upload is dropped, and the answer says so.
    let careless = Identity::new("careless")?;
    let request = UploadCertificateRequest {
        name: "careless".into(),
        clearance: Clearance::User.into(),
        certificate: [careless.key_pem(), careless.certificate_pem()].concat().into_bytes(),
        request_id: request_id(),
        ..Default::default()
    };
    let answer = admin.security().upload_certificate(request).await?.into_inner();
    anyhow::ensure!(answer.private_key_dropped);
    let stored = answer.certificate.context("a certificate")?;
    anyhow::ensure!(stored.thumbprint == careless.thumbprint());
    // Same key, same subject, same dates: still another certificate, and unknown.
    let key = rcgen::KeyPair::generate()?;
    let params = cluster_tests::identity::client_params("twin");
    let twin = Identity::signed("twin", &params, &key)?;
    admin.register(&twin, Clearance::Operator, &[]).await?;
    cluster.known_everywhere(&twin).await?;
    let other = Identity::signed("twin", &params, &key)?;
    anyhow::ensure!(twin.leaf() != other.leaf(), "ECDSA signatures are random");
    for node in cluster.everywhere(Some(&other))? {
        let status = node.get("sales", "a").await.map(drop);
        refused(status, &["CERTIFICATE_UNKNOWN"])?;
    }
    Ok(())
}

async fn edits_are_guarded_by_etags(cluster: &mut Cluster) -> Result<()> {
    let admin = cluster.admin(2)?;
    let user = cluster.register("edited", Clearance::User, &[("sales", Access::Read)]).await?;
    let thumbprint = user.thumbprint();
    let show = async || -> Result<rookery_proto::security::v1::Certificate> {
        let request = GetCertificateRequest { thumbprint: thumbprint.clone() };
        let answer = admin.security().get_certificate(request).await?.into_inner();
        answer.certificate.context("a certificate")
    };
    let before = show().await?;
    anyhow::ensure!(before.der == user.leaf().to_vec() && before.state == "valid", "{before:?}");
    let rename = |etag: &str, name: &str| EditCertificateRequest {
        thumbprint: thumbprint.clone(),
        name: name.into(),
        expected_etag: etag.into(),
        request_id: request_id(),
        ..Default::default()
    };
    admin.security().edit_certificate(rename(&before.etag, "renamed")).await?;
    let after = show().await?;
    anyhow::ensure!(after.name == "renamed" && after.grants == before.grants, "{after:?}");
    anyhow::ensure!(after.etag != before.etag);
    let old = admin.security().edit_certificate(rename(&before.etag, "again")).await;
    let status = old.err().context("an edit on an old etag")?;
    anyhow::ensure!(
        status.code() == Code::Aborted && reason(&status) == "CONCURRENCY",
        "{status:?}"
    );
    let unknown = GetCertificateRequest { thumbprint: "0".repeat(64) };
    let status = admin.security().get_certificate(unknown).await.err().context("no such one")?;
    anyhow::ensure!(status.code() == Code::NotFound, "{status:?}");
    Ok(())
}

async fn lists_are_paged_and_filtered(cluster: &mut Cluster) -> Result<()> {
    for number in 0..12 {
        cluster.register(&format!("listed-{number:02}"), Clearance::User, &[]).await?;
    }
    let admin = cluster.admin(1)?;
    let mut names = Vec::new();
    let mut request = ListCertificatesRequest {
        page_size: 5,
        name_contains: "LISTED-".into(),
        ..Default::default()
    };
    loop {
        let page = admin.security().list_certificates(request.clone()).await?.into_inner();
        anyhow::ensure!(page.certificates.len() <= 5);
        anyhow::ensure!(page.certificates.iter().all(|c| c.der.is_empty()));
        names.extend(page.certificates.into_iter().map(|c| c.name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    names.sort();
    let expected: Vec<_> = (0..12).map(|number| format!("listed-{number:02}")).collect();
    anyhow::ensure!(names == expected, "{names:?}");
    let nodes = ListCertificatesRequest {
        clearance: Clearance::ClusterNode.into(),
        page_size: 100,
        ..Default::default()
    };
    let nodes = admin.security().list_certificates(nodes).await?.into_inner().certificates;
    anyhow::ensure!(nodes.len() == 3, "{} node certificates", nodes.len());
    Ok(())
}

async fn who_am_i_answers_everybody(cluster: &mut Cluster) -> Result<()> {
    let unknown = Identity::new("unknown")?;
    let reader = cluster.register("reader", Clearance::User, &[("sales", Access::Read)]).await?;
    for (at, node) in cluster.nodes.iter().enumerate() {
        let ask = async |identity| -> Result<_> {
            let caller = node.caller(identity)?;
            Ok(caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner())
        };
        let nobody = ask(None).await?;
        anyhow::ensure!(!nobody.registered && nobody.thumbprint.is_empty(), "{nobody:?}");
        let stranger = ask(Some(&unknown)).await?;
        anyhow::ensure!(!stranger.registered && stranger.thumbprint == unknown.thumbprint());
        // Whoever is not registered learns nothing about the cluster.
        anyhow::ensure!(
            stranger.cluster_id.is_empty() && stranger.grants.is_empty(),
            "{stranger:?}"
        );
        let known = ask(Some(&reader)).await?;
        anyhow::ensure!(known.registered && known.name == "reader", "{known:?}");
        anyhow::ensure!(known.clearance() == Clearance::User, "{known:?}");
        anyhow::ensure!(known.grants == granted(&[("sales", Access::Read)]), "{known:?}");
        anyhow::ensure!(known.node == format!("n{}", at + 1), "{known:?}");
    }
    Ok(())
}
