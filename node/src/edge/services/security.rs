//! The registry of certificates: generate, upload, clone, list, show, edit, disable, delete, purge, who am I.
//!
//! Who may do what to which certificate is decided three times: the operation here, the rules about the target here
//! (so that the answer is quick and explained), and both again by `apply`, whose word is the last.

mod list;
pub(super) mod parse;
pub(super) mod shown;

use std::sync::Arc;

use rookery_proto::{
    log::v1::{self as log, cluster_command::Command},
    security::v1::{
        Certificate, CloneCertificateRequest, CloneCertificateResponse, DeleteCertificateRequest,
        DeleteCertificateResponse, DisableCertificateRequest, DisableCertificateResponse,
        EditCertificateRequest, EditCertificateResponse, EnableCertificateRequest,
        EnableCertificateResponse, ExportServerCertificatesRequest,
        ExportServerCertificatesResponse, GenerateCertificateRequest, GenerateCertificateResponse,
        GetCertificateRequest, GetCertificateResponse, InspectCertificateRequest,
        InspectCertificateResponse, ListCertificatesRequest, ListCertificatesResponse,
        PurgeCertificatesRequest, PurgeCertificatesResponse, UploadCertificateRequest,
        UploadCertificateResponse, WhoAmIRequest, WhoAmIResponse,
        security_service_server::SecurityService,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    authz::{
        self, Caller, Clearance, Permit, ServerOperation,
        certificates_rules::{self, Action, Target},
    },
    certificates::{self, Parsed, Usage},
    cluster,
    edge::{
        Edge, convert,
        expiry::days_left,
        export, package,
        peer_identity::CallContext,
        services::{propose, propose_renamed, request_id, unexpected_outcome},
        upload,
    },
    limits,
    names::{RequestId, Thumbprint, Timestamp},
};

/// The security service.
pub struct Security(pub Arc<Edge>);

#[tonic::async_trait]
impl SecurityService for Security {
    /// The key leaves in the answer and stands nowhere else; so an answer that is lost cannot be had again, and the same
    /// request id with its new key is refused. The remedy is to delete the certificate and generate another.
    async fn generate_certificate(
        &self,
        request: Request<GenerateCertificateRequest>,
    ) -> Result<Response<GenerateCertificateResponse>, Status> {
        let operation = ServerOperation::GenerateCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let mut asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let name = parse::certificate_name(&asked.name)?;
        let clearance = parse::clearance(asked.clearance)?;
        let grants = parse::grants(&asked.grants, clearance)?;
        parse::remarks(&asked.note, &asked.owner)?;
        let wish = package::Wish {
            name: name.clone(),
            not_after: package::not_after(&asked, context.at)?,
            key: package::key(&mut asked)?,
        };
        let put = log::PutCertificate {
            name: name.as_str().to_owned(),
            clearance: clearance.number(),
            grants,
            generated: true,
            note: asked.note,
            owner: asked.owner,
            ..log::PutCertificate::default()
        };
        let (certificate, made) = self.generate(permit, &context, id, put, wish).await?;
        Ok(Response::new(GenerateCertificateResponse {
            certificate: Some(certificate),
            package: made.archive,
            password: made.password.map_or_else(String::new, |made| made.expose().to_owned()),
            file_name: made.file_name,
        }))
    }

    /// A certificate with the rights of another one. The rules are those of a generation with these rights.
    async fn clone_certificate(
        &self,
        request: Request<CloneCertificateRequest>,
    ) -> Result<Response<CloneCertificateResponse>, Status> {
        let operation = ServerOperation::GenerateCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let source = find(&parse::thumbprint(&asked.thumbprint)?, &context)?;
        let name = parse::certificate_name(&asked.name)?;
        let mut terms = GenerateCertificateRequest {
            lifetime_seconds: asked.lifetime_seconds,
            password: asked.password,
            ..GenerateCertificateRequest::default()
        };
        let wish = package::Wish {
            name: name.clone(),
            not_after: package::not_after(&terms, context.at)?,
            key: package::key(&mut terms)?,
        };
        let rights = &source.registration;
        let grants = match rights.clearance {
            Clearance::User => shown::grants(rights.grants.iter(), &context.registry),
            Clearance::Operator | Clearance::ClusterAdmin | Clearance::ClusterNode => Vec::new(),
        };
        let put = log::PutCertificate {
            name: name.as_str().to_owned(),
            clearance: rights.clearance.number(),
            grants: parse::grants(&grants, rights.clearance)?,
            generated: true,
            note: source.entry.note.clone(),
            owner: source.entry.owner.clone(),
            ..log::PutCertificate::default()
        };
        let (certificate, made) = self.generate(permit, &context, id, put, wish).await?;
        Ok(Response::new(CloneCertificateResponse {
            certificate: Some(certificate),
            package: made.archive,
            password: made.password.map_or_else(String::new, |made| made.expose().to_owned()),
            file_name: made.file_name,
        }))
    }

    async fn inspect_certificate(
        &self,
        request: Request<InspectCertificateRequest>,
    ) -> Result<Response<InspectCertificateResponse>, Status> {
        let operation = ServerOperation::UploadCertificate;
        let (_permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let upload = upload::read(&self.0, asked.certificate, asked.password).await?;
        let certificates = upload.certificates.iter().map(|der| shown::inspected(der, context.at));
        Ok(Response::new(InspectCertificateResponse {
            certificates: certificates.collect::<Result<_, _>>().map_err(upload::refused)?,
            private_key_dropped: upload.private_key_dropped,
            authorities_skipped: u32::try_from(upload.authorities_skipped).unwrap_or(u32::MAX),
        }))
    }

    /// One upload is one entry and one command of the log: one bad certificate in it refuses all.
    async fn upload_certificate(
        &self,
        request: Request<UploadCertificateRequest>,
    ) -> Result<Response<UploadCertificateResponse>, Status> {
        let operation = ServerOperation::UploadCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let name = parse::certificate_name(&asked.name)?;
        let clearance = parse::clearance(asked.clearance)?;
        let grants = parse::grants(&asked.grants, clearance)?;
        parse::remarks(&asked.note, &asked.owner)?;
        let usage = match clearance {
            Clearance::ClusterNode => Usage::Node,
            Clearance::User | Clearance::Operator | Clearance::ClusterAdmin => Usage::Client,
        };
        let expected_revision = parse::revision(&asked.expected_etag)?;
        if expected_revision != 0 && !asked.overwrite {
            return Err(convert::invalid("expected_etag", "is for an overwrite only"));
        }
        let upload = upload::read(&self.0, asked.certificate, asked.password).await?;
        let parsed = upload::judge(&upload, usage, context.at)?;
        let target = self.upload_target(&parsed, asked.overwrite, &context);
        let target = Target { requested: Some(clearance), ..target };
        self.0.allowed(&context, Action::Upload, &target)?;
        cluster::confirmed(&target, asked.confirm_self_demotion).map_err(convert::refusal)?;
        let thumbprints = parsed.iter().map(|parsed| parsed.thumbprint.to_string()).collect();
        let mut ders = parsed.into_iter().map(|parsed| parsed.der);
        let put = log::PutCertificate {
            der: ders.next().unwrap_or_default(),
            secondaries: ders.collect(),
            name: name.as_str().to_owned(),
            clearance: clearance.number(),
            grants,
            generated: false,
            note: asked.note,
            owner: asked.owner,
            overwrite: asked.overwrite,
            confirm_self_demotion: asked.confirm_self_demotion,
            expected_revision,
        };
        let command = Command::PutCertificate(put);
        let outcome = propose_renamed(&self.0, permit, &context, id, command, upload_field).await?;
        Ok(Response::new(UploadCertificateResponse {
            certificate: Some(self.shown_outcome(outcome, &context)?),
            private_key_dropped: upload.private_key_dropped,
            authorities_skipped: u32::try_from(upload.authorities_skipped).unwrap_or(u32::MAX),
            thumbprints,
        }))
    }

    async fn export_server_certificates(
        &self,
        request: Request<ExportServerCertificatesRequest>,
    ) -> Result<Response<ExportServerCertificatesResponse>, Status> {
        let operation = ServerOperation::ExportServerCertificates;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        export::server_certificates(&self.0, &context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_certificates(
        &self,
        request: Request<ListCertificatesRequest>,
    ) -> Result<Response<ListCertificatesResponse>, Status> {
        let operation = ServerOperation::ListCertificates;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        list::page(request.get_ref(), &context).map(Response::new)
    }

    async fn get_certificate(
        &self,
        request: Request<GetCertificateRequest>,
    ) -> Result<Response<GetCertificateResponse>, Status> {
        let operation = ServerOperation::ViewCertificate;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let found = find(&parse::thumbprint(&request.get_ref().thumbprint)?, &context)?;
        let certificate = shown::entry(&found, &context.registry, context.at);
        Ok(Response::new(GetCertificateResponse { certificate }))
    }

    async fn edit_certificate(
        &self,
        request: Request<EditCertificateRequest>,
    ) -> Result<Response<EditCertificateResponse>, Status> {
        let operation = ServerOperation::EditCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let named = find(&parse::thumbprint(&asked.thumbprint)?, &context)?;
        let requested = match asked.clearance {
            0 => None,
            number => Some(parse::clearance(number)?),
        };
        let target = Target {
            requested,
            sets_grants: asked.set_grants,
            sets_remarks: asked.note.is_some() || asked.owner.is_some(),
            ..self.target(&named, &context)
        };
        self.0.allowed(&context, Action::Edit, &target)?;
        cluster::is_primary(&named).map_err(convert::refusal)?;
        cluster::confirmed(&target, asked.confirm_self_demotion).map_err(convert::refusal)?;
        let clearance = requested.or(target.clearance).unwrap_or(Clearance::User);
        let name = match asked.name.as_str() {
            "" => None,
            name => Some(parse::certificate_name(name)?.as_str().to_owned()),
        };
        let (note, owner) = (asked.note.as_deref(), asked.owner.as_deref());
        parse::remarks(note.unwrap_or_default(), owner.unwrap_or_default())?;
        let edit = log::EditCertificate {
            thumbprint: named.primary.as_bytes().to_vec(),
            name,
            clearance: requested.map(Clearance::number),
            set_grants: asked.set_grants,
            grants: parse::grants(&asked.grants, clearance)?,
            expected_revision: parse::revision(&asked.expected_etag)?,
            note: asked.note,
            owner: asked.owner,
            confirm_self_demotion: asked.confirm_self_demotion,
        };
        let outcome =
            propose(&self.0, permit, &context, id, Command::EditCertificate(edit)).await?;
        let certificate = Some(self.shown_outcome(outcome, &context)?);
        Ok(Response::new(EditCertificateResponse { certificate }))
    }

    async fn disable_certificate(
        &self,
        request: Request<DisableCertificateRequest>,
    ) -> Result<Response<DisableCertificateResponse>, Status> {
        let operation = ServerOperation::DisableCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let set = state_command(&asked.thumbprint, &asked.expected_etag, true)?;
        let certificate = Some(self.set_state(permit, &context, id, set).await?);
        Ok(Response::new(DisableCertificateResponse { certificate }))
    }

    async fn enable_certificate(
        &self,
        request: Request<EnableCertificateRequest>,
    ) -> Result<Response<EnableCertificateResponse>, Status> {
        let operation = ServerOperation::DisableCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let set = state_command(&asked.thumbprint, &asked.expected_etag, false)?;
        let certificate = Some(self.set_state(permit, &context, id, set).await?);
        Ok(Response::new(EnableCertificateResponse { certificate }))
    }

    async fn delete_certificate(
        &self,
        request: Request<DeleteCertificateRequest>,
    ) -> Result<Response<DeleteCertificateResponse>, Status> {
        let operation = ServerOperation::DeleteCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let thumbprint = parse::thumbprint(&asked.thumbprint)?;
        // A certificate that is gone may be the work of an earlier try of this request id: the log knows.
        if context.registry.is_well_known(&thumbprint) {
            return Err(well_known());
        }
        if let Some(named) = context.registry.certificate_details(&thumbprint) {
            self.0.allowed(&context, Action::Delete, &self.target(named, &context))?;
            cluster::is_primary(named).map_err(convert::refusal)?;
        }
        let delete = log::DeleteCertificate { thumbprint: thumbprint.as_bytes().to_vec() };
        propose(&self.0, permit, &context, id, Command::DeleteCertificate(delete)).await?;
        Ok(Response::new(DeleteCertificateResponse {}))
    }

    /// Which of the expired certificates the caller may delete is decided by `apply`, for each.
    async fn purge_certificates(
        &self,
        request: Request<PurgeCertificatesRequest>,
    ) -> Result<Response<PurgeCertificatesResponse>, Status> {
        let operation = ServerOperation::PurgeCertificates;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let limit = match asked.limit {
            0 => u32::try_from(limits::PURGED_MAX).unwrap_or(u32::MAX),
            limit => limit,
        };
        let purge = Command::PurgeCertificates(log::PurgeCertificates { limit });
        let outcome = propose(&self.0, permit, &context, id, purge).await?;
        let log::cluster_outcome::Outcome::PurgedCertificates(purged) = outcome else {
            return Err(unexpected_outcome());
        };
        Ok(Response::new(PurgeCertificatesResponse {
            thumbprints: purged.thumbprints.iter().map(hex::encode).collect(),
            more: purged.more,
            kept: purged.kept,
        }))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let context = self.0.identify(&request).await?;
        Ok(Response::new(who_am_i(&context, &self.0.node.name)))
    }
}

impl Security {
    /// Makes key, certificate and package, and registers the certificate under `put`, which lacks its bytes.
    async fn generate(
        &self,
        permit: Permit,
        context: &CallContext,
        id: RequestId,
        put: log::PutCertificate,
        wish: package::Wish,
    ) -> Result<(Certificate, package::Made), Status> {
        let target =
            Target { requested: Clearance::try_from(put.clearance).ok(), ..Target::default() };
        self.0.allowed(context, Action::Generate, &target)?;
        let made = package::make(&self.0, context, wish).await?;
        let put = Command::PutCertificate(log::PutCertificate { der: made.der.clone(), ..put });
        let outcome = propose(&self.0, permit, context, id, put).await?;
        Ok((self.shown_outcome(outcome, context)?, made))
    }

    async fn set_state(
        &self,
        permit: Permit,
        context: &CallContext,
        id: RequestId,
        set: log::SetCertificateState,
    ) -> Result<Certificate, Status> {
        let thumbprint = Thumbprint::from_bytes(&set.thumbprint);
        let thumbprint = thumbprint.map_err(|why| convert::invalid("thumbprint", why))?;
        let named = find(&thumbprint, context)?;
        let action = if set.disabled { Action::Disable } else { Action::Enable };
        self.0.allowed(context, action, &self.target(&named, context))?;
        cluster::is_primary(&named).map_err(convert::refusal)?;
        let outcome =
            propose(&self.0, permit, context, id, Command::SetCertificateState(set)).await?;
        self.shown_outcome(outcome, context)
    }

    /// What an upload is about: a new entry, or the one that it is to overwrite.
    fn upload_target(&self, parsed: &[Parsed], overwrite: bool, context: &CallContext) -> Target {
        let registered = parsed
            .first()
            .filter(|_| overwrite)
            .and_then(|primary| context.registry.certificate_details(&primary.thumbprint));
        let target = match registered {
            Some(named) => {
                Target { sets_grants: true, sets_remarks: true, ..self.target(named, context) }
            }
            None => Target::default(),
        };
        let is_a_nodes = parsed.iter().any(|it| self.is_a_nodes(&it.thumbprint, context));
        Target { is_current_member: target.is_current_member || is_a_nodes, ..target }
    }

    /// The own certificate of this node, or of any member.
    fn is_a_nodes(&self, thumbprint: &Thumbprint, context: &CallContext) -> bool {
        context.registry.member(thumbprint).is_some()
            || *thumbprint == self.0.node.identity.load().thumbprint()
    }

    /// The entry of a registered certificate as the rules want to know it.
    fn target(&self, named: &cluster::Certificate, context: &CallContext) -> Target {
        let registry = &context.registry;
        let target = registry.target(named, context.thumbprint(), context.at);
        let loaded =
            registry.entry(named).any(|it| self.is_a_nodes(&it.registration.thumbprint, context));
        Target { is_current_member: target.is_current_member || loaded, ..target }
    }

    fn shown_outcome(
        &self,
        outcome: log::cluster_outcome::Outcome,
        context: &CallContext,
    ) -> Result<Certificate, Status> {
        let log::cluster_outcome::Outcome::Certificate(record) = outcome else {
            return Err(unexpected_outcome());
        };
        // A grant may be on a database that is newer than the registry of the decision.
        let registry = self.0.engine.registry();
        shown::record(record, &registry, context.at)
    }
}

fn well_known() -> Status {
    convert::Answer::new(
        tonic::Code::FailedPrecondition,
        "WELL_KNOWN",
        "This thumbprint is a well-known admin: it stands in the configuration of nodes \
         (authorization.well_known_admins) and not in the registry. Take it out there and restart them.",
    )
    .status()
}

/// What a caller of any kind is told about itself. Of the cluster only those hear who belong to it.
fn who_am_i(context: &CallContext, node: &str) -> WhoAmIResponse {
    let mut answer = WhoAmIResponse {
        thumbprint: context.thumbprint().map_or_else(String::new, |it| it.to_string()),
        node: node.to_owned(),
        ..WhoAmIResponse::default()
    };
    let registration = match context.caller() {
        Caller::Anonymous => {
            answer.state = "no certificate".to_owned();
            return answer;
        }
        Caller::Unknown(_) => {
            answer.state = "unknown".to_owned();
            if let Some(certificate) = &context.connection.certificate
                && let Ok(parsed) = certificates::parse(&certificate.der)
            {
                dates(&mut answer, parsed.not_before, parsed.not_after, context.at);
            }
            return answer;
        }
        Caller::Registered(registration) | Caller::Unproven(registration, _) => registration,
    };
    answer.well_known = context.well_known.is_some();
    answer.registered = !answer.well_known;
    answer.name.clone_from(&registration.name);
    answer.clearance = registration.clearance.into();
    answer.grants = shown::grants(registration.grants.iter(), &context.registry);
    dates(&mut answer, registration.not_before, registration.not_after, context.at);
    answer.state = shown::state(registration, context.at);
    answer.cluster_id.clone_from(&context.registry.cluster_id);
    answer.registry_revision = context.registry.revision;
    answer
}

fn dates(answer: &mut WhoAmIResponse, from: Timestamp, to: Timestamp, at: Timestamp) {
    answer.not_before_unix_ms = from.0;
    answer.not_after_unix_ms = to.0;
    answer.days_left = days_left(to, at);
}

/// A registered certificate, primary or secondary.
fn find(
    thumbprint: &Thumbprint,
    context: &CallContext,
) -> Result<Arc<cluster::Certificate>, Status> {
    match context.registry.certificate_details(thumbprint) {
        Some(found) => Ok(Arc::clone(found)),
        None if context.registry.is_well_known(thumbprint) => Err(well_known()),
        None => Err(convert::not_found("certificate", thumbprint)),
    }
}

fn state_command(
    thumbprint: &str,
    etag: &str,
    disabled: bool,
) -> Result<log::SetCertificateState, Status> {
    Ok(log::SetCertificateState {
        thumbprint: parse::thumbprint(thumbprint)?.as_bytes().to_vec(),
        disabled,
        expected_revision: parse::revision(etag)?,
    })
}

/// The field of an upload that a field of the command came from.
fn upload_field(field: String) -> String {
    let is_certificate = field == "der" || field.starts_with("secondaries");
    if is_certificate { "certificate".to_owned() } else { field }
}

impl Edge {
    /// The rules about certificates, decided at the edge.
    pub(super) fn allowed(
        &self,
        context: &CallContext,
        action: Action,
        target: &Target,
    ) -> Result<(), Status> {
        let decided = certificates_rules::decide(context.clearance(), action, target);
        decided.map_err(|denied| {
            let denied = authz::Denied { revision: context.registry.revision, ..denied };
            self.denied(&denied, context, "")
        })
    }
}
