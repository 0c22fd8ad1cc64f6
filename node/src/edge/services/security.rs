//! The registry of certificates: generate, upload, list, show, edit, delete, who am I.
//!
//! Who may do what to which certificate is decided three times: the operation here, the rules about the target here
//! (so that the answer is quick and explained), and both again by `apply`, whose word is the last.

use std::sync::Arc;

use rookery_proto::{
    log::v1::{self as log, cluster_command::Command},
    security::v1::{
        Certificate, Clearance as ClearanceNumber, DeleteCertificateRequest,
        DeleteCertificateResponse, EditCertificateRequest, EditCertificateResponse,
        GenerateCertificateRequest, GenerateCertificateResponse, GetCertificateRequest,
        GetCertificateResponse, Grant, ListCertificatesRequest, ListCertificatesResponse,
        UploadCertificateRequest, UploadCertificateResponse, WhoAmIRequest, WhoAmIResponse,
        security_service_server::SecurityService,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    authz::{
        self, Access, Clearance, Registration, ServerOperation,
        certificates_rules::{self, Action, Target},
    },
    certificates::{self, Usage},
    cluster::{self, Registry},
    database::page_token::Binding,
    edge::{
        Edge, convert, package,
        peer_identity::CallContext,
        services::{page_size, page_start, propose, request_id, unexpected_outcome},
    },
    limits,
    names::{CertificateName, DatabaseId, DatabaseName, Thumbprint, Timestamp},
};

/// From here on a certificate is shown as expiring.
const EXPIRING_MS: i64 = 30 * 24 * 3600 * 1000;

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
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let name = certificate_name(&asked.name)?;
        let clearance = clearance(asked.clearance)?;
        let grants = grants(&asked.grants, clearance)?;
        let target = Target { requested: Some(clearance), ..Target::default() };
        allowed(&context, Action::Generate, &target)?;
        let wish = package::Wish {
            name: name.clone(),
            lifetime: package::lifetime(asked.lifetime_seconds)?,
            password: package::chosen_password(asked.password)?,
        };
        let made = package::make(&self.0, &context, wish).await?;
        let put = put(made.der.clone(), &name, clearance, grants, true);
        let outcome = propose(&self.0, permit, &context, id, Command::PutCertificate(put)).await?;
        let certificate = self.shown_outcome(outcome, &context)?;
        Ok(Response::new(GenerateCertificateResponse {
            certificate: Some(certificate),
            package: made.archive,
            password: made.password.map_or_else(String::new, |made| made.expose().to_owned()),
            file_name: made.file_name,
        }))
    }

    async fn upload_certificate(
        &self,
        request: Request<UploadCertificateRequest>,
    ) -> Result<Response<UploadCertificateResponse>, Status> {
        let operation = ServerOperation::UploadCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let name = certificate_name(&asked.name)?;
        let clearance = clearance(asked.clearance)?;
        let grants = grants(&asked.grants, clearance)?;
        let given = zeroize::Zeroizing::new(asked.certificate);
        let refused = |why: certificates::Refused| convert::invalid("certificate", why);
        let upload = certificates::from_upload(&given).map_err(refused)?;
        let parsed = certificates::parse(&upload.der).map_err(refused)?;
        let usage = match clearance {
            Clearance::ClusterNode => Usage::Node,
            Clearance::User | Clearance::Operator | Clearance::ClusterAdmin => Usage::Client,
        };
        certificates::check_registrable(&parsed, usage, context.at).map_err(refused)?;
        let target = Target {
            requested: Some(clearance),
            is_current_member: self.is_a_nodes(&parsed.thumbprint, &context),
            ..Target::default()
        };
        allowed(&context, Action::Upload, &target)?;
        let put = put(upload.der, &name, clearance, grants, false);
        let outcome = propose(&self.0, permit, &context, id, Command::PutCertificate(put)).await?;
        Ok(Response::new(UploadCertificateResponse {
            certificate: Some(self.shown_outcome(outcome, &context)?),
            private_key_dropped: upload.private_key_dropped,
        }))
    }

    async fn list_certificates(
        &self,
        request: Request<ListCertificatesRequest>,
    ) -> Result<Response<ListCertificatesResponse>, Status> {
        let operation = ServerOperation::ListCertificates;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let filter = Filter::parse(request.into_inner(), &context)?;
        let registry = &context.registry;
        let mut found =
            registry.certificates(filter.after).filter(|found| filter.takes(&found.registration));
        let certificates: Vec<Certificate> = found
            .by_ref()
            .take(filter.page_size)
            .map(|found| Certificate { der: Vec::new(), ..shown(found, registry, context.at) })
            .collect();
        let more = found.next().is_some();
        let last = certificates.last().filter(|_| more);
        let last = last.and_then(|last| last.thumbprint.parse::<Thumbprint>().ok());
        let next_page_token =
            last.map_or_else(String::new, |last| filter.binding.encode(last.as_bytes()));
        Ok(Response::new(ListCertificatesResponse { certificates, next_page_token }))
    }

    async fn get_certificate(
        &self,
        request: Request<GetCertificateRequest>,
    ) -> Result<Response<GetCertificateResponse>, Status> {
        let operation = ServerOperation::ViewCertificate;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let thumbprint = thumbprint(&request.get_ref().thumbprint)?;
        let found = context.registry.certificate_details(&thumbprint);
        let found = found.ok_or_else(|| convert::not_found("certificate", thumbprint))?;
        let certificate = Some(shown(found, &context.registry, context.at));
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
        let thumbprint = thumbprint(&asked.thumbprint)?;
        let requested = match asked.clearance {
            0 => None,
            number => Some(clearance(number)?),
        };
        let target = Target {
            requested,
            sets_grants: asked.set_grants,
            ..self.target(&thumbprint, &context)?
        };
        allowed(&context, Action::Edit, &target)?;
        let clearance = requested.or(target.clearance).unwrap_or(Clearance::User);
        let name = match asked.name.as_str() {
            "" => None,
            name => Some(certificate_name(name)?.as_str().to_owned()),
        };
        let edit = log::EditCertificate {
            thumbprint: thumbprint.as_bytes().to_vec(),
            name,
            clearance: requested.map(Clearance::number),
            set_grants: asked.set_grants,
            grants: grants(&asked.grants, clearance)?,
            expected_revision: revision(&asked.expected_etag)?,
        };
        let outcome =
            propose(&self.0, permit, &context, id, Command::EditCertificate(edit)).await?;
        let certificate = Some(self.shown_outcome(outcome, &context)?);
        Ok(Response::new(EditCertificateResponse { certificate }))
    }

    async fn delete_certificate(
        &self,
        request: Request<DeleteCertificateRequest>,
    ) -> Result<Response<DeleteCertificateResponse>, Status> {
        let operation = ServerOperation::DeleteCertificate;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let thumbprint = thumbprint(&asked.thumbprint)?;
        // A certificate that is gone may be the work of an earlier try of this request id: the log knows.
        if context.registry.certificate(&thumbprint).is_some() {
            allowed(&context, Action::Delete, &self.target(&thumbprint, &context)?)?;
        }
        let delete = log::DeleteCertificate { thumbprint: thumbprint.as_bytes().to_vec() };
        propose(&self.0, permit, &context, id, Command::DeleteCertificate(delete)).await?;
        Ok(Response::new(DeleteCertificateResponse {}))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let context = self.0.identify(&request).await?;
        let mut answer = WhoAmIResponse {
            thumbprint: context.thumbprint().map_or_else(String::new, |it| it.to_string()),
            node: self.0.node.name.clone(),
            ..WhoAmIResponse::default()
        };
        // Of the cluster only those hear who belong to it.
        if let Some(registration) = context.registration() {
            answer.registered = true;
            answer.name.clone_from(&registration.name);
            answer.clearance = registration.clearance.into();
            answer.grants = shown_grants(registration.grants.iter(), &context.registry);
            answer.not_after_unix_ms = registration.not_after.0;
            answer.state = state(registration, context.at).to_owned();
            answer.cluster_id.clone_from(&context.registry.cluster_id);
            answer.registry_revision = context.registry.revision;
        }
        Ok(Response::new(answer))
    }
}

impl Security {
    /// The own certificate of this node, or of any member.
    fn is_a_nodes(&self, thumbprint: &Thumbprint, context: &CallContext) -> bool {
        context.registry.member(thumbprint).is_some()
            || *thumbprint == self.0.node.identity.load().thumbprint()
    }

    /// A registered certificate as the rules want to know it.
    fn target(&self, thumbprint: &Thumbprint, context: &CallContext) -> Result<Target, Status> {
        let found = context.registry.certificate(thumbprint);
        let found = found.ok_or_else(|| convert::not_found("certificate", thumbprint))?;
        Ok(Target {
            clearance: Some(found.clearance),
            requested: None,
            sets_grants: false,
            is_self: context.thumbprint() == Some(*thumbprint),
            is_last_cluster_admin: context.registry.is_last_cluster_admin(thumbprint, context.at),
            is_current_member: self.is_a_nodes(thumbprint, context),
        })
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
        shown_record(record, &registry, context.at)
    }
}

/// The rules about certificates, decided at the edge.
fn allowed(context: &CallContext, action: Action, target: &Target) -> Result<(), Status> {
    certificates_rules::decide(context.clearance(), action, target).map_err(|denied| {
        tracing::info!(
            operation = denied.operation,
            reason = denied.reason.code(),
            rule = denied.rule,
            thumbprint = ?context.thumbprint(),
            "denied"
        );
        convert::denied(&authz::Denied { revision: context.registry.revision, ..denied })
    })
}

fn put(
    der: Vec<u8>,
    name: &CertificateName,
    clearance: Clearance,
    grants: Vec<log::GrantByName>,
    generated: bool,
) -> log::PutCertificate {
    log::PutCertificate {
        der,
        name: name.as_str().to_owned(),
        clearance: clearance.number(),
        grants,
        generated,
    }
}

fn certificate_name(text: &str) -> Result<CertificateName, Status> {
    CertificateName::parse(text).map_err(|why| convert::invalid("name", why))
}

fn thumbprint(text: &str) -> Result<Thumbprint, Status> {
    text.parse().map_err(|why| convert::invalid("thumbprint", why))
}

fn clearance(number: i32) -> Result<Clearance, Status> {
    Clearance::try_from(number).map_err(|why| convert::invalid("clearance", why))
}

/// Grants by name. Above User they would mean nothing, so that they are given is a mistake.
fn grants(grants: &[Grant], clearance: Clearance) -> Result<Vec<log::GrantByName>, Status> {
    if clearance != Clearance::User && !grants.is_empty() {
        let why = format!("are for User certificates; {clearance} reaches every database without");
        return Err(convert::invalid("grants", why));
    }
    if grants.len() > limits::GRANTS_MAX {
        return Err(convert::invalid("grants", format!("must be at most {}", limits::GRANTS_MAX)));
    }
    let parsed = grants.iter().enumerate().map(|(place, grant)| {
        let database = DatabaseName::parse(&grant.database)
            .map_err(|why| convert::invalid(&format!("grants[{place}].database"), why))?;
        let access = Access::try_from(grant.access)
            .map_err(|why| convert::invalid(&format!("grants[{place}].access"), why))?;
        let database = database.as_str().to_owned();
        Ok(log::GrantByName { database, access: access.number() })
    });
    parsed.collect()
}

/// The revision in an etag; 0 for any.
fn revision(etag: &str) -> Result<u64, Status> {
    match etag {
        "" => Ok(0),
        etag => match etag.parse() {
            Ok(revision) if revision > 0 => Ok(revision),
            Ok(_) | Err(_) => {
                Err(convert::invalid("expected_etag", "is not one that this server gave"))
            }
        },
    }
}

/// A list query, parsed.
struct Filter {
    clearance: Option<Clearance>,
    database: Option<DatabaseId>,
    name_contains: String,
    page_size: usize,
    after: Option<Thumbprint>,
    binding: Binding,
}

impl Filter {
    fn parse(asked: ListCertificatesRequest, context: &CallContext) -> Result<Self, Status> {
        let clearance = match ClearanceNumber::try_from(asked.clearance) {
            Ok(ClearanceNumber::Unspecified) => None,
            Ok(_) | Err(_) => Some(clearance(asked.clearance)?),
        };
        let database = match asked.database.as_str() {
            "" => None,
            text => {
                let name =
                    DatabaseName::parse(text).map_err(|why| convert::invalid("database", why))?;
                let record = context.registry.database(&name);
                let record = record.ok_or_else(|| convert::not_found("database", &name))?;
                Some(DatabaseId(record.id))
            }
        };
        if asked.name_contains.chars().count() > limits::CERTIFICATE_NAME_CHARS_MAX {
            return Err(convert::invalid("name_contains", "is longer than a name can be"));
        }
        let name_contains = asked.name_contains.to_lowercase();
        let binding = Binding::new(context.thumbprint(), "certificates")
            .field(&clearance.map_or(0, Clearance::number).to_be_bytes())
            .field(&database.map_or(0, |id| id.0).to_be_bytes())
            .field(name_contains.as_bytes());
        let after = page_start(&binding, &asked.page_token)?
            .map(|position| Thumbprint::from_bytes(&position))
            .transpose()
            .map_err(|_| convert::invalid("page_token", "is no token of this list"))?;
        let page_size = page_size(asked.page_size)?;
        Ok(Self { clearance, database, name_contains, page_size, after, binding })
    }

    fn takes(&self, registration: &Registration) -> bool {
        self.clearance.is_none_or(|clearance| registration.clearance == clearance)
            && self.database.is_none_or(|id| registration.grants.contains_key(&id))
            && registration.name.to_lowercase().contains(&self.name_contains)
    }
}

fn state(registration: &Registration, at: Timestamp) -> &'static str {
    match authz::state(registration, at) {
        authz::State::Disabled => "disabled",
        authz::State::NotYetValid => "not yet valid",
        authz::State::Expired => "expired",
        authz::State::Valid if registration.not_after.0 - at.0 < EXPIRING_MS => "expiring",
        authz::State::Valid => "valid",
    }
}

fn shown_grants<'a>(
    grants: impl Iterator<Item = (&'a DatabaseId, &'a Access)>,
    registry: &Registry,
) -> Vec<Grant> {
    let named = grants.filter_map(|(id, access)| {
        let record = registry.database_by_id(*id)?; // A grant on a deleted database opens nothing.
        Some(Grant { database: record.name.clone(), access: (*access).into() })
    });
    named.collect()
}

/// A registered certificate with what can be read in it; fields of the DER stay empty where it cannot be parsed any more.
fn shown(found: &cluster::Certificate, registry: &Registry, at: Timestamp) -> Certificate {
    let registration = &found.registration;
    let mut certificate = Certificate {
        thumbprint: registration.thumbprint.to_string(),
        name: registration.name.clone(),
        clearance: registration.clearance.into(),
        grants: shown_grants(registration.grants.iter(), registry),
        not_before_unix_ms: registration.not_before.0,
        not_after_unix_ms: registration.not_after.0,
        state: state(registration, at).to_owned(),
        created_unix_ms: found.created.0,
        created_by: found.created_by.map_or_else(String::new, |author| author.to_string()),
        etag: registration.revision.to_string(),
        der: registration.der.to_vec(),
        ..Certificate::default()
    };
    let second_factor = registry.second_factor(&registration.thumbprint);
    certificate.has_second_factor = second_factor.is_some_and(|record| record.confirmed);
    certificate.second_factor_pending = second_factor.is_some_and(|record| !record.confirmed);
    let session = second_factor.and_then(|record| record.session.as_ref());
    let session = session.filter(|session| session.expires_unix_ms > at.0);
    certificate.session_expires_unix_ms = session.map_or(0, |session| session.expires_unix_ms);
    if let Ok(parsed) = certificates::parse(&registration.der) {
        certificate.thumbprint_sha1 = parsed.thumbprint_sha1;
        certificate.subject = parsed.subject;
        certificate.issuer = parsed.issuer;
        certificate.serial_hex = parsed.serial_hex;
        certificate.key_algorithm = parsed.key_algorithm;
    }
    certificate
}

fn shown_record(
    record: log::CertificateRecord,
    registry: &Registry,
    at: Timestamp,
) -> Result<Certificate, Status> {
    let found = cluster::Certificate::try_from(record)
        .map_err(|why| convert::internal("The certificate's record could not be read", why))?;
    Ok(shown(&found, registry, at))
}
