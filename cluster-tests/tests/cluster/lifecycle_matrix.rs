//! Part B.3 of the specification over the wire: each kind of administrator does each thing to each kind of certificate.
//!
//! What is expected is written here by hand from the specification and knows nothing of the rules in the node. The
//! golden file holds the reasons too, for readers.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, Decision, request_id},
    cluster::Cluster,
    golden,
    identity::{Identity, node_params},
};
use rookery_proto::security::v1::{
    Clearance, CloneCertificateRequest, DisableCertificateRequest, EditCertificateRequest,
    EnableCertificateRequest, GenerateCertificateRequest, UploadCertificateRequest,
};
use tonic::Status;

const ACTORS: [(&str, Clearance); 4] = [
    ("ClusterNode", Clearance::ClusterNode),
    ("ClusterAdmin", Clearance::ClusterAdmin),
    ("Operator", Clearance::Operator),
    ("User", Clearance::User),
];

const ACTIONS: [&str; 12] = [
    "generate",
    "upload",
    "overwrite",
    "clone",
    "rename",
    "grants",
    "note",
    "raise to admin",
    "raise to node",
    "delete",
    "disable",
    "enable",
];

/// The columns of B.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Of(Clearance),
    Oneself,
    /// The certificate that a member serves with.
    Member,
}

const TARGETS: [(&str, Target); 6] = [
    ("User", Target::Of(Clearance::User)),
    ("Operator", Target::Of(Clearance::Operator)),
    ("ClusterAdmin", Target::Of(Clearance::ClusterAdmin)),
    ("ClusterNode", Target::Of(Clearance::ClusterNode)),
    ("self", Target::Oneself),
    ("member", Target::Member),
];

/// Whether B.3 allows it; `None` where there is no such cell, such as generating oneself.
fn allowed(actor: Clearance, action: &str, target: Target) -> Option<bool> {
    let is_new = matches!(action, "generate" | "upload");
    if is_new && target == Target::Oneself || action == "generate" && target == Target::Member {
        return None;
    }
    let is_admin = matches!(actor, Clearance::ClusterAdmin | Clearance::ClusterNode);
    let clearance = match target {
        Target::Of(clearance) => clearance,
        Target::Oneself => actor,
        Target::Member => Clearance::ClusterNode,
    };
    let above_operator = matches!(clearance, Clearance::ClusterAdmin | Clearance::ClusterNode);
    let raises = action.starts_with("raise");
    // "User (any) any of it -"; Operators touch nothing above and raise nobody to it.
    if actor == Clearance::User || actor == Clearance::Operator && (above_operator || raises) {
        return Some(false);
    }
    // A clone is a generation with the clearance of its source, and Cluster Nodes are never generated.
    if matches!(action, "generate" | "clone") {
        return Some(clearance != Clearance::ClusterNode);
    }
    Some(match target {
        Target::Member => false,
        // "Y, not last admin" for admins, "edit own name only" for Operators; never delete or disable.
        Target::Oneself => match action {
            "delete" | "disable" | "enable" => false,
            "rename" => true,
            _ => is_admin,
        },
        Target::Of(Clearance::ClusterNode) => action != "disable",
        Target::Of(_) => true,
    })
}

#[tokio::test]
async fn every_cell_of_actor_action_and_target() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    // With one more, nobody of the table is the last Cluster Admin.
    cluster.register("one more", Clearance::ClusterAdmin, &[]).await?;
    let mut printed = String::from(
        "Who may do what to which certificate (specification, part B.3), as three real nodes answered.\n",
    );
    let mut problems = Vec::new();
    let mut cells = 0;
    for (number, action) in ACTIONS.into_iter().enumerate() {
        write!(printed, "\n{action:16}")?;
        for (title, _) in ACTORS {
            write!(printed, "{title:20}")?;
        }
        printed = printed.trim_end().to_owned() + "\n";
        for (words, target) in TARGETS {
            let mut row = format!("  {words:14}");
            for (place, (title, actor)) in ACTORS.into_iter().enumerate() {
                let Some(expected) = allowed(actor, action, target) else {
                    write!(row, "{:20}", "")?;
                    continue;
                };
                let node = (number + place) % 3;
                let decision = cell(&cluster, node, actor, action, target)
                    .await
                    .with_context(|| format!("{title} {action} {words}"))?;
                if decision.allows() != expected {
                    problems.push(format!("{title} {action} {words}: {decision}"));
                }
                write!(row, "{:20}", shown(&decision))?;
                cells += 1;
            }
            printed += row.trim_end();
            printed.push('\n');
        }
    }
    anyhow::ensure!(problems.is_empty(), "against B.3:\n{}", problems.join("\n"));
    anyhow::ensure!(cells == 4 * (ACTIONS.len() * TARGETS.len() - 3), "{cells} cells");
    golden::check("golden/certificates_matrix.txt", &printed)?;
    cluster.same_state().await?;
    cluster.finish().await
}

fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Allowed(tonic::Code::Ok) => "Y".to_owned(),
        Decision::Denied(reason) | Decision::Unauthenticated(reason) => reason.clone(),
        Decision::Allowed(_) | Decision::None(_) => format!("! {decision}"),
    }
}

/// A certificate that fits the clearance, registered.
async fn registered(admin: &Caller, name: &str, clearance: Clearance) -> Result<Identity> {
    let identity = fitting(name, clearance)?;
    admin.register(&identity, clearance, &[]).await.with_context(|| name.to_owned())?;
    Ok(identity)
}

fn fitting(name: &str, clearance: Clearance) -> Result<Identity> {
    match clearance {
        Clearance::ClusterNode => {
            Identity::signed(name, &node_params(name)?, &rcgen::KeyPair::generate()?)
        }
        Clearance::Unspecified
        | Clearance::User
        | Clearance::Operator
        | Clearance::ClusterAdmin => Identity::new(name),
    }
}

async fn cell(
    cluster: &Cluster,
    node: usize,
    actor: Clearance,
    action: &str,
    target: Target,
) -> Result<Decision> {
    let admin = cluster.admin(node)?;
    let who = registered(&admin, "actor", actor).await?;
    let caller = cluster.nodes[node].caller(Some(&who))?;
    let (identity, clearance) = match target {
        Target::Of(clearance) if action == "upload" => (fitting("new", clearance)?, clearance),
        Target::Of(clearance) if action == "generate" => (Identity::new("unused")?, clearance),
        Target::Of(clearance) => (registered(&admin, "target", clearance).await?, clearance),
        Target::Oneself => (who.clone(), actor),
        Target::Member => (cluster.nodes[(node + 1) % 3].identity.clone(), Clearance::ClusterNode),
    };
    let outcome = act(&caller, action, &identity, clearance).await;
    // Of what was registered nothing stays behind, so that lists stay short and Cluster Admins few.
    for left in [who, identity] {
        if target != Target::Member || left.name == "actor" {
            let _ = admin.revoke(&left.thumbprint()).await;
        }
    }
    Ok(Decision::of(&outcome))
}

async fn act(
    caller: &Caller,
    action: &str,
    target: &Identity,
    clearance: Clearance,
) -> Result<(), Status> {
    let mut security = caller.security();
    let (thumbprint, request_id) = (target.thumbprint(), request_id());
    let edit = EditCertificateRequest {
        thumbprint: thumbprint.clone(),
        request_id: request_id.clone(),
        ..Default::default()
    };
    let raise = |to: Clearance| EditCertificateRequest { clearance: to.into(), ..edit.clone() };
    match action {
        "generate" => {
            let request = GenerateCertificateRequest {
                name: "generated".into(),
                clearance: clearance.into(),
                request_id,
                ..Default::default()
            };
            security.generate_certificate(request).await.map(drop)
        }
        "upload" | "overwrite" => {
            let request = UploadCertificateRequest {
                name: "uploaded".into(),
                clearance: clearance.into(),
                certificate: target.leaf().to_vec(),
                overwrite: action == "overwrite",
                request_id,
                ..Default::default()
            };
            security.upload_certificate(request).await.map(drop)
        }
        "clone" => {
            let name = "cloned".to_owned();
            let request =
                CloneCertificateRequest { thumbprint, name, request_id, ..Default::default() };
            security.clone_certificate(request).await.map(drop)
        }
        "rename" => {
            let request = EditCertificateRequest { name: "renamed".into(), ..edit };
            security.edit_certificate(request).await.map(drop)
        }
        "grants" => {
            let request = EditCertificateRequest { set_grants: true, ..edit };
            security.edit_certificate(request).await.map(drop)
        }
        "note" => {
            let request = EditCertificateRequest { note: Some("noted".into()), ..edit };
            security.edit_certificate(request).await.map(drop)
        }
        "raise to admin" => {
            security.edit_certificate(raise(Clearance::ClusterAdmin)).await.map(drop)
        }
        "raise to node" => security.edit_certificate(raise(Clearance::ClusterNode)).await.map(drop),
        "delete" => caller.revoke(&thumbprint).await,
        "disable" => {
            let request =
                DisableCertificateRequest { thumbprint, request_id, ..Default::default() };
            security.disable_certificate(request).await.map(drop)
        }
        "enable" => {
            let request = EnableCertificateRequest { thumbprint, request_id, ..Default::default() };
            security.enable_certificate(request).await.map(drop)
        }
        other => Err(Status::internal(format!("the table has no action {other}"))),
    }
}
