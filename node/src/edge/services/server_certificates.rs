//! The certificates of the nodes, and their replacement in the whole cluster.
//!
//! The private keys of a replacement are here for a moment: they are sealed to each node before anything is proposed, and
//! wiped with the message that brought them.

use std::{collections::BTreeMap, sync::Arc};

use rookery_proto::{
    log::v1::{
        self as log, certificate_replacement::Phase, cluster_command::Command, cluster_outcome,
    },
    security::v1::{
        AbortServerCertificateReplacementRequest, AbortServerCertificateReplacementResponse,
        GetServerCertificateReplacementRequest, GetServerCertificateReplacementResponse,
        ListServerCertificatesRequest, ListServerCertificatesResponse, NewServerCertificate,
        NodeReplacement, ReloadServerCertificateRequest, ReloadServerCertificateResponse,
        ReplaceServerCertificatesRequest, ReplaceServerCertificatesResponse, ServerCertificate,
        ServerCertificateReplacement, server_certificate_service_server::ServerCertificateService,
    },
};
use rustls_pki_types::CertificateDer;
use tonic::{Code, Request, Response, Status};
use zeroize::Zeroizing;

use crate::{
    authz::ServerOperation,
    certificates::{self, Usage},
    cluster::{self, Registry},
    crypto::SealingPublicKey,
    edge::{
        Edge, convert,
        services::{propose, request_id, unexpected_outcome},
    },
    limits,
    names::{NodeId, RequestId, Thumbprint, Timestamp},
    own_certificate,
    tls::TlsIdentity,
};

/// The service of server certificates.
pub struct ServerCertificates(pub Arc<Edge>);

#[tonic::async_trait]
impl ServerCertificateService for ServerCertificates {
    async fn list_server_certificates(
        &self,
        request: Request<ListServerCertificatesRequest>,
    ) -> Result<Response<ListServerCertificatesResponse>, Status> {
        let operation = ServerOperation::ViewServerCertificateReplacement;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let registry = &context.registry;
        let certificates = registry
            .nodes()
            .flat_map(|node| {
                let all = std::iter::once(&node.thumbprint).chain(&node.other_thumbprints);
                all.filter_map(|bytes| shown(registry, node, bytes, context.at)).collect::<Vec<_>>()
            })
            .collect();
        Ok(Response::new(ListServerCertificatesResponse { certificates }))
    }

    async fn replace_server_certificates(
        &self,
        request: Request<ReplaceServerCertificatesRequest>,
    ) -> Result<Response<ReplaceServerCertificatesResponse>, Status> {
        let operation = ServerOperation::ReplaceServerCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let mut asked = request.into_inner();
        let id = request_id(&asked.request_id);
        let given = std::mem::take(&mut asked.certificates);
        let at = context.at;
        // Opening a PKCS#12 file takes its time.
        let taken = self.0.work.run(move || take_all(given, at)).await??;
        let id = id?;
        let registry = &context.registry;
        let new = for_each_node(registry, &taken)?;
        if !asked.force {
            covered(registry, &new)?;
        }
        let running = registry.replacement().filter(|it| cluster::is_running(it));
        let unchanged = new.iter().all(|(node, new)| is_in_force(registry, *node, new));
        if unchanged && running.is_none() {
            return Ok(Response::new(ReplaceServerCertificatesResponse {
                unchanged: true,
                replacement: None,
            }));
        }
        let start = log::StartCertificateReplacement {
            id: id.as_bytes().to_vec(),
            nodes: sealed(registry, &id, &new)?,
            immediately: asked.immediately,
            forced: asked.force,
            supersede: asked.supersede,
        };
        // What is sealed differs each time, so a repeated call is known by the replacement's id, not by the entry's.
        let command = Command::StartCertificateReplacement(start);
        let outcome = propose(&self.0, permit, &context, RequestId::random(), command).await?;
        let replacement = replacement_of(outcome, &self.0.engine.registry())?;
        Ok(Response::new(ReplaceServerCertificatesResponse {
            unchanged: false,
            replacement: Some(replacement),
        }))
    }

    async fn get_server_certificate_replacement(
        &self,
        request: Request<GetServerCertificateReplacementRequest>,
    ) -> Result<Response<GetServerCertificateReplacementResponse>, Status> {
        let operation = ServerOperation::ViewServerCertificateReplacement;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let registry = &context.registry;
        let replacement = registry.replacement().map(|it| replacement(it, registry));
        Ok(Response::new(GetServerCertificateReplacementResponse { replacement }))
    }

    async fn abort_server_certificate_replacement(
        &self,
        request: Request<AbortServerCertificateReplacementRequest>,
    ) -> Result<Response<AbortServerCertificateReplacementResponse>, Status> {
        let operation = ServerOperation::ResetServerCertificateReplacement;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let id = request_id(&request.get_ref().request_id)?;
        let running = context.registry.replacement().filter(|it| cluster::is_running(it));
        let running = running.ok_or_else(|| {
            let message = "No replacement of the server certificates is under way.";
            convert::Answer::new(Code::NotFound, "NOT_FOUND", message).status()
        })?;
        let abort = log::AbortCertificateReplacement { id: running.id.clone() };
        let command = Command::AbortCertificateReplacement(abort);
        let outcome = propose(&self.0, permit, &context, id, command).await?;
        let replacement = replacement_of(outcome, &self.0.engine.registry())?;
        let replacement = Some(replacement);
        Ok(Response::new(AbortServerCertificateReplacementResponse { replacement }))
    }

    async fn reload_server_certificate(
        &self,
        request: Request<ReloadServerCertificateRequest>,
    ) -> Result<Response<ReloadServerCertificateResponse>, Status> {
        let operation = ServerOperation::RefreshServerCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        self.0.audited(&context, operation, &self.0.node.name, "").await?;
        let looked = self.0.engine.reload_certificate(permit).await;
        let (thumbprint, looked) = looked.map_err(|error| {
            let message = format!("The source of this node's certificate cannot be used: {error}.");
            convert::Answer::new(Code::FailedPrecondition, "CERTIFICATE_SOURCE", message).status()
        })?;
        Ok(Response::new(ReloadServerCertificateResponse {
            thumbprint: thumbprint.to_string(),
            result: looked.word().to_owned(),
        }))
    }
}

/// A new certificate with its key, found fit for a node.
struct Taken {
    /// Empty: for all nodes that are not named.
    node: String,
    identity: TlsIdentity,
}

fn take_all(given: Vec<NewServerCertificate>, at: Timestamp) -> Result<Vec<Taken>, Status> {
    let none = given.is_empty();
    let many = given.len() > limits::NODES_MAX;
    let mut taken = Vec::with_capacity(given.len().min(limits::NODES_MAX));
    for (place, mut new) in given.into_iter().enumerate() {
        let content = Zeroizing::new(std::mem::take(&mut new.content));
        let password = Zeroizing::new(std::mem::take(&mut new.password));
        if !many {
            taken.push(take(new.node, &content, &password, at, place));
        }
    }
    if none || many {
        let why = format!("give 1 to {} certificates", limits::NODES_MAX);
        return Err(convert::invalid("certificates", why));
    }
    taken.into_iter().collect()
}

fn take(
    node: String,
    content: &[u8],
    password: &str,
    at: Timestamp,
    place: usize,
) -> Result<Taken, Status> {
    let field = format!("certificates[{place}].content");
    if password.chars().count() > limits::PASSWORD_CHARS_MAX {
        return Err(convert::invalid(&field, "its password is too long"));
    }
    let unfit = |why: certificates::Refused| convert::invalid(&field, why);
    let found = certificates::server_identity(content, password).map_err(unfit)?;
    let chain = found.chain.into_iter().map(CertificateDer::from).collect();
    let identity = TlsIdentity::new(chain, found.key).map_err(|e| convert::invalid(&field, e))?;
    let parsed = certificates::parse(identity.certificate_der()).map_err(unfit)?;
    certificates::check_registrable(&parsed, Usage::Node, at).map_err(unfit)?;
    Ok(Taken { node, identity })
}

type New<'a> = BTreeMap<NodeId, &'a Taken>;

/// Which new certificate is for which member.
fn for_each_node<'a>(registry: &Registry, taken: &'a [Taken]) -> Result<New<'a>, Status> {
    for (place, new) in taken.iter().enumerate() {
        let field = format!("certificates[{place}].node");
        if !new.node.is_empty() && registry.node_by_name(&new.node).is_none() {
            return Err(convert::invalid(&field, "there is no node of this name"));
        }
        if taken[..place].iter().any(|earlier| earlier.node == new.node) {
            return Err(convert::invalid(&field, "is given twice"));
        }
    }
    let of = |name: &str| taken.iter().find(|new| new.node == name);
    let mut new = BTreeMap::new();
    for node in registry.nodes() {
        let found = of(&node.name).or_else(|| of("")).ok_or_else(|| {
            let why = format!("there is none for the node {}, and none for all", node.name);
            convert::invalid("certificates", why)
        })?;
        new.insert(NodeId(node.id), found);
    }
    Ok(new)
}

/// Clients and peers dial the advertised names; each must stand in the certificate of its node.
fn covered(registry: &Registry, new: &New<'_>) -> Result<(), Status> {
    let mut missing = Vec::new();
    for (id, taken) in new {
        let Some(node) = registry.node(*id) else { continue };
        let mut hosts: Vec<&str> =
            [&node.client_address, &node.peer_address].map(|address| host(address)).to_vec();
        hosts.dedup();
        let der = taken.identity.certificate_der();
        let open = hosts.into_iter().filter(|host| !certificates::covers_host(der, host));
        missing.extend(open.map(|host| format!("{host} ({})", node.name)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.truncate(limits::REFUSAL_NAMES_MAX);
    let message = format!(
        "The new certificates do not name the hosts of all nodes: {}. Clients that check names would refuse them; use \
         another certificate, or --force.",
        missing.join(", ")
    );
    let answer = convert::Answer::new(Code::FailedPrecondition, "HOSTS_NOT_COVERED", message);
    Err(answer.with("hosts", missing.join(", ")).status())
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_in_force(registry: &Registry, node: NodeId, new: &Taken) -> bool {
    let thumbprint = new.identity.thumbprint();
    registry.node(node).is_some_and(|record| {
        record.thumbprint == thumbprint.as_bytes() && record.other_thumbprints.is_empty()
    })
}

/// The certificates in the clear and each key sealed to its node.
fn sealed(
    registry: &Registry,
    id: &RequestId,
    new: &New<'_>,
) -> Result<Vec<log::ReplacementNode>, Status> {
    let mut nodes = Vec::with_capacity(new.len());
    for (node, taken) in new {
        let record = registry.node(*node).ok_or_else(unexpected_outcome)?;
        let recipient = SealingPublicKey::from_bytes(&record.sealing_key).map_err(|_| {
            let message = format!(
                "The node {} has not registered its sealing key yet; it does so when it runs.",
                record.name
            );
            convert::Answer::new(Code::FailedPrecondition, "SEALING_KEY_MISSING", message).status()
        })?;
        let key = taken.identity.expose_key_der();
        let sealed_key = own_certificate::seal_key(&recipient, id.as_bytes(), *node, key)
            .map_err(|error| convert::internal("The key could not be sealed", error))?;
        nodes.push(log::ReplacementNode {
            node_id: node.0,
            chain: taken.identity.chain().iter().map(|der| der.to_vec()).collect(),
            sealed_key,
            ..log::ReplacementNode::default()
        });
    }
    Ok(nodes)
}

fn replacement_of(
    outcome: cluster_outcome::Outcome,
    registry: &Registry,
) -> Result<ServerCertificateReplacement, Status> {
    match outcome {
        cluster_outcome::Outcome::CertificateReplacement(it) => Ok(replacement(&it, registry)),
        cluster_outcome::Outcome::FormedCluster(_)
        | cluster_outcome::Outcome::Certificate(_)
        | cluster_outcome::Outcome::Database(_)
        | cluster_outcome::Outcome::Node(_)
        | cluster_outcome::Outcome::PurgedCertificates(_)
        | cluster_outcome::Outcome::SecurityPolicy(_)
        | cluster_outcome::Outcome::Done(_)
        | cluster_outcome::Outcome::OpenedSession(_)
        | cluster_outcome::Outcome::NotedWrongCode(_) => Err(unexpected_outcome()),
    }
}

fn replacement(
    of: &log::CertificateReplacement,
    registry: &Registry,
) -> ServerCertificateReplacement {
    let name = |id: u64| registry.node(NodeId(id)).map(|node| node.name.clone());
    let phase = match of.phase() {
        Phase::Unspecified => "",
        Phase::Installing => "installing",
        Phase::Swapping => "swapping",
        Phase::Finished => "finished",
        Phase::Aborted => "aborted",
    };
    let node = |node: &log::ReplacementNode| NodeReplacement {
        node_id: node.node_id,
        node_name: name(node.node_id).unwrap_or_else(|| "removed".to_owned()),
        thumbprint: hex::encode(&node.thumbprint),
        installed_unix_ms: node.installed_unix_ms,
        swapped_unix_ms: node.swapped_unix_ms,
        error: certificates::escape(&node.error),
        error_unix_ms: node.error_unix_ms,
    };
    ServerCertificateReplacement {
        id: uuid::Uuid::from_slice(&of.id).map(|id| id.to_string()).unwrap_or_default(),
        phase: phase.to_owned(),
        nodes: of.nodes.iter().map(node).collect(),
        started_unix_ms: of.started_unix_ms,
        started_by: hex::encode(&of.started_by),
        not_before_unix_ms: of.not_before_unix_ms,
        swap_reason: of.swap_reason.clone(),
        swap_unix_ms: of.swap_unix_ms,
        ended_unix_ms: of.ended_unix_ms,
        immediately: of.immediately,
        forced: of.forced,
    }
}

fn shown(
    registry: &Registry,
    node: &log::NodeRecord,
    thumbprint: &[u8],
    at: Timestamp,
) -> Option<ServerCertificate> {
    let in_force = node.thumbprint == thumbprint;
    let thumbprint = Thumbprint::from_bytes(thumbprint).ok()?;
    let registered = registry.certificate(&thumbprint)?;
    let parsed = certificates::parse(&registered.der).ok();
    let state = if at > registered.not_after {
        "expired"
    } else if at < registered.not_before {
        "not yet valid"
    } else if registered.not_after.0.saturating_sub(at.0) <= cluster::list::EXPIRING_MS {
        "expiring"
    } else {
        "valid"
    };
    Some(ServerCertificate {
        node_id: node.id,
        node_name: node.name.clone(),
        thumbprint: thumbprint.to_string(),
        subject: parsed.as_ref().map(|it| it.subject.clone()).unwrap_or_default(),
        names: parsed.map(|it| it.alternative_names).unwrap_or_default(),
        not_before_unix_ms: registered.not_before.0,
        not_after_unix_ms: registered.not_after.0,
        in_force,
        state: state.to_owned(),
    })
}
