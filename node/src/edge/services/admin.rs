//! The service of the admin socket: for whoever owns the node's files, and so without a certificate.

use std::sync::Arc;

use rookery_proto::{
    admin::v1::{
        BootstrapRequest, BootstrapResponse, ExportRecoveryRequest, ExportRecoveryResponse,
        GetNodeStateRequest, GetNodeStateResponse, JoinClusterRequest, JoinClusterResponse,
        RevokeCertificateRequest, RevokeCertificateResponse, TrustCertificateRequest,
        TrustCertificateResponse, admin_service_server::AdminService,
    },
    log::v1::{self as log, cluster_command::Command, owner_command},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    certificates::{self, Usage},
    cluster,
    consensus::State,
    edge::{
        Edge, convert, health, node_keys,
        services::{keys, security::parse},
    },
    limits,
    names::{CertificateName, Thumbprint},
};

/// Why this node writes what its owner asks for; stands in the log.
const REASON: &str = "admin socket";
/// The recovery export in the audit log; nobody may ask for it but the owner of the files, so it is no operation.
const EXPORT_RECOVERY: &str = "export-recovery";

/// The admin service.
pub struct Admin(pub Arc<Edge>);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_node_state(
        &self,
        _request: Request<GetNodeStateRequest>,
    ) -> Result<Response<GetNodeStateResponse>, Status> {
        let engine = &self.0.engine;
        let status = engine.status_local().await;
        let state = engine.state();
        let identity = self.0.node.identity.load();
        Ok(Response::new(GetNodeStateResponse {
            state: state_name(&state).to_owned(),
            node_name: self.0.node.name.clone(),
            node_id: status.node.as_ref().map_or(0, |node| node.id),
            cluster_id: engine.registry().cluster_id.clone(),
            thumbprint: identity.thumbprint().to_string(),
            certificate: identity.certificate_der().to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reason: self.reason(&state).await,
            status: Some(status),
        }))
    }

    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<BootstrapResponse>, Status> {
        let asked = request.into_inner();
        let name = CertificateName::parse(&asked.admin_name)
            .map_err(|why| convert::invalid("admin_name", why))?;
        let refused = |why: certificates::Refused| convert::invalid("admin_certificate", why);
        let given = zeroize::Zeroizing::new(asked.admin_certificate);
        if certificates::is_pkcs12(&given) {
            // Whoever owns the files can take it apart, and its password stays with them.
            let why = "is PKCS#12; give the certificate alone, in PEM or DER";
            return Err(convert::invalid("admin_certificate", why));
        }
        let upload = certificates::from_upload(&given, None).map_err(refused)?;
        let der = upload.single().map_err(refused)?;
        let parsed = certificates::parse(&der).map_err(refused)?;
        certificates::check_registrable(&parsed, Usage::Client, self.0.clock.wall())
            .map_err(refused)?;
        let thumbprint = Thumbprint::of(&der);
        if thumbprint == self.0.node.identity.load().thumbprint() {
            return Err(convert::invalid("admin_certificate", "is the certificate of this node"));
        }
        let formed = self.0.engine.bootstrap(der, name).await.map_err(convert::status)?;
        tracing::info!(cluster_id = formed.cluster_id, admin = %thumbprint, "bootstrapped");
        Ok(Response::new(BootstrapResponse {
            cluster_id: formed.cluster_id,
            node_id: formed.node_id.0,
            admin_thumbprint: thumbprint.to_string(),
        }))
    }

    async fn join_cluster(
        &self,
        request: Request<JoinClusterRequest>,
    ) -> Result<Response<JoinClusterResponse>, Status> {
        let asked = request.into_inner();
        crate::config::host_and_port(&asked.address)
            .map_err(|why| convert::invalid("address", why))?;
        let text = zeroize::Zeroizing::new(asked.token);
        let token = text.parse().map_err(|why| convert::invalid("token", why))?;
        let joined = self.0.engine.join(asked.address, token).await.map_err(convert::status)?;
        Ok(Response::new(JoinClusterResponse {
            cluster_id: joined.cluster_id,
            node_id: joined.node_id.0,
        }))
    }

    async fn trust_certificate(
        &self,
        request: Request<TrustCertificateRequest>,
    ) -> Result<Response<TrustCertificateResponse>, Status> {
        let asked = request.into_inner();
        let name =
            CertificateName::parse(&asked.name).map_err(|why| convert::invalid("name", why))?;
        let clearance = parse::clearance(asked.clearance)?;
        let grants = parse::grants(&asked.grants, clearance)?;
        let given = zeroize::Zeroizing::new(asked.certificate);
        let refused = |why: certificates::Refused| convert::invalid("certificate", why);
        let upload = certificates::from_upload(&given, None).map_err(refused)?;
        let private_key_dropped = upload.private_key_dropped;
        let parsed = certificates::parse(&upload.single().map_err(refused)?).map_err(refused)?;
        certificates::check_registrable(&parsed, Usage::Client, self.0.clock.wall())
            .map_err(refused)?;
        if parsed.thumbprint == self.0.node.identity.load().thumbprint() {
            return Err(convert::invalid("certificate", "is the certificate of this node"));
        }
        let put = log::PutCertificate {
            der: parsed.der.clone(),
            name: name.as_str().to_owned(),
            clearance: clearance.number(),
            grants,
            ..log::PutCertificate::default()
        };
        self.by_owner(owner_command::Command::Put(put)).await?;
        tracing::warn!(thumbprint = %parsed.thumbprint, %clearance, "a certificate was registered over the admin socket");
        Ok(Response::new(TrustCertificateResponse {
            thumbprint: parsed.thumbprint.to_string(),
            name: name.as_str().to_owned(),
            clearance: clearance.into(),
            not_after_unix_ms: parsed.not_after.0,
            private_key_dropped,
        }))
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        let asked = request.into_inner();
        let thumbprint = parse::thumbprint(&asked.thumbprint)?;
        let delete =
            log::OwnerDelete { thumbprint: thumbprint.as_bytes().to_vec(), force: asked.force };
        self.by_owner(owner_command::Command::Delete(delete)).await?;
        tracing::warn!(%thumbprint, force = asked.force, "a certificate was deleted over the admin socket");
        Ok(Response::new(RevokeCertificateResponse {}))
    }

    async fn export_recovery(
        &self,
        request: Request<ExportRecoveryRequest>,
    ) -> Result<Response<ExportRecoveryResponse>, Status> {
        let force = request.get_ref().force;
        let keys = self.0.engine.keys_for_owner().ok_or_else(keys::no_keys)?;
        let before = keys.exported().map_err(|error| keys::status(&error))?;
        if before.is_some() && !force {
            return Err(keys::status(&node_keys::Error::Exported));
        }
        let details = if before.is_some() { "not the first, forced" } else { "the first" };
        self.record(EXPORT_RECOVERY, details).await?;
        let exported = tokio::task::spawn_blocking(move || keys.export(force)).await;
        let exported = exported.map_err(|e| convert::internal("The export was not made", e))?;
        let (content, key, master) = exported.map_err(|error| keys::status(&error))?;
        tracing::warn!(master_key = %master, details, "a recovery export was made over the admin socket");
        Ok(Response::new(ExportRecoveryResponse {
            content,
            recovery_key: key.as_str().to_owned(),
            master_key_id: master.to_string(),
        }))
    }
}

impl Admin {
    /// Puts a command into the log in the name of this node, with the reason that it came from its owner.
    async fn by_owner(&self, command: owner_command::Command) -> Result<(), Status> {
        let owner = log::OwnerCommand { reason: REASON.to_owned(), command: Some(command) };
        self.as_member(Command::Owner(owner)).await
    }

    /// Puts what the owner is about to do into the audit log.
    async fn record(&self, operation: &str, details: &str) -> Result<(), Status> {
        let action = log::RecordAction {
            operation: operation.to_owned(),
            target: self.0.node.name.clone(),
            details: details.to_owned(),
            on_behalf_of: REASON.to_owned(),
            ..log::RecordAction::default()
        };
        self.as_member(Command::RecordAction(action)).await
    }

    async fn as_member(&self, command: Command) -> Result<(), Status> {
        match self.0.engine.state() {
            State::Member => {}
            state @ (State::Passive(_) | State::Joining | State::Removed) => {
                return Err(convert::not_serving(&state));
            }
        }
        let command = log::ClusterCommand { command: Some(command) };
        cluster::check(&command).map_err(convert::refusal)?;
        let deadline = Instant::now() + limits::DEADLINE_DEFAULT;
        let applied = self.0.engine.propose_as_member(command, deadline).await;
        applied.map(drop).map_err(convert::status)
    }

    /// Why the node does not serve; empty where it does.
    async fn reason(&self, state: &State) -> String {
        let reason = match state {
            State::Passive(why) => why,
            State::Joining => "it is joining a cluster and waits for the cluster's state",
            State::Removed => "it was removed from its cluster; its folder is of no use any more",
            State::Member if health::serves(self.0.engine.as_ref()).await => "",
            State::Member => "it hears no leader, so its registry of certificates may be old",
        };
        reason.to_owned()
    }
}

fn state_name(state: &State) -> &'static str {
    match state {
        State::Passive(_) => "passive",
        State::Joining => "joining",
        State::Member => "member",
        State::Removed => "removed",
    }
}
