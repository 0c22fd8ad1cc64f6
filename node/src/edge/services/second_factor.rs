//! Second factors: make, confirm, log in, log out, remove, and what is asked of the caller.
//!
//! A code is checked here, at the leader's time, because only here the secret can be opened. What it is good for the log
//! decides: a check that succeeded proposes a session, one that failed proposes that it be counted.

use std::sync::Arc;

use prost::Message as _;
use rookery_proto::{
    log::v1::{
        self as log, ClusterCommand, FactorSecret, SecondFactorRecord, cluster_command::Command,
        cluster_outcome::Outcome, open_session,
    },
    security::v1::{
        ConfirmRequest, ConfirmResponse, EnrolRequest, EnrolResponse, GetSecondFactorStatusRequest,
        GetSecondFactorStatusResponse, LogInRequest, LogInResponse, LogOutRequest, LogOutResponse,
        RemoveRequest, RemoveResponse, log_in_request,
        second_factor_service_server::SecondFactorService,
    },
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use zeroize::{Zeroize as _, Zeroizing};

use super::outcome;
use crate::{
    authz::{self, ServerOperation},
    cluster,
    consensus::Fresh,
    crypto,
    edge::{
        Edge,
        cluster_secret::Secrets,
        convert,
        peer_identity::CallContext,
        services::{propose, request_id, unexpected_outcome},
    },
    limits,
    names::{Thumbprint, Timestamp},
    second_factor::{self, Enrolment},
};

/// The second-factor service.
pub struct SecondFactors(pub Arc<Edge>);

#[tonic::async_trait]
impl SecondFactorService for SecondFactors {
    /// The secret leaves in the answer and stands nowhere else in clear; an answer that is lost cannot be had again. The
    /// remedy is to enrol again, which replaces what was not confirmed.
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let operation = ServerOperation::EnrolTwoFactor;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let target = managed(&context, &asked.thumbprint)?;
        let (thumbprint, account) = (target.primary, target.registration.name.clone());
        let mut random = Zeroizing::new([0; Enrolment::RANDOM_BYTES]);
        crypto::random(&mut *random)
            .map_err(|why| convert::internal("No randomness could be had", why))?;
        let enrolment = Enrolment::new(&random);
        let secrets = Secrets::new(self.0.engine.as_ref(), &self.0.node.sealing);
        let secret = secrets.current(context.deadline).await?;
        let enrol = log::EnrolSecondFactor {
            thumbprint: thumbprint.as_bytes().to_vec(),
            key_id: secret.id(),
            sealed: Secrets::seal_factor(&secret, &thumbprint, &enrolment.kept())?,
        };
        propose(&self.0, permit, &context, id, Command::EnrolSecondFactor(enrol)).await?;
        let uri = enrolment.uri(&account);
        let codes = enrolment.recovery_codes();
        Ok(Response::new(EnrolResponse {
            qr_text: second_factor::qr_text(&uri).to_string(),
            uri: uri.to_string(),
            secret_base32: enrolment.secret_base32().to_string(),
            recovery_codes: codes.iter().map(|code| code.to_string()).collect(),
        }))
    }

    async fn confirm(
        &self,
        request: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        let operation = ServerOperation::ConfirmTwoFactor;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let wish = Wish {
            proof: code(asked.code)?,
            confirms: true,
            duration_ms: duration_ms(asked.session_seconds)?,
            no_limits: asked.no_limits,
        };
        let opened = self.open(&context, wish).await?;
        Ok(Response::new(ConfirmResponse {
            session_token: opened.token.to_string(),
            expires_unix_ms: opened.session.expires_unix_ms,
        }))
    }

    async fn log_in(
        &self,
        request: Request<LogInRequest>,
    ) -> Result<Response<LogInResponse>, Status> {
        let operation = ServerOperation::TwoFactorLogIn;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let proof = match asked.proof {
            Some(log_in_request::Proof::Code(text)) => code(text)?,
            Some(log_in_request::Proof::RecoveryCode(text)) => recovery_code(text)?,
            None => return Err(convert::invalid("code", "give a code or a recovery code")),
        };
        let wish = Wish {
            proof,
            confirms: false,
            duration_ms: duration_ms(asked.session_seconds)?,
            no_limits: asked.no_limits,
        };
        let opened = self.open(&context, wish).await?;
        Ok(Response::new(LogInResponse {
            session_token: opened.token.to_string(),
            expires_unix_ms: opened.session.expires_unix_ms,
            recovery_codes_left: opened.session.recovery_codes_left,
        }))
    }

    async fn log_out(
        &self,
        request: Request<LogOutRequest>,
    ) -> Result<Response<LogOutResponse>, Status> {
        let operation = ServerOperation::TwoFactorLogOut;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let id = request_id(&request.into_inner().request_id)?;
        let end = Command::EndSession(log::EndSession {});
        propose(&self.0, permit, &context, id, end).await?;
        Ok(Response::new(LogOutResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let operation = ServerOperation::RemoveTwoFactor;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let thumbprint = managed(&context, &asked.thumbprint)?.primary.as_bytes().to_vec();
        let remove = Command::RemoveSecondFactor(log::RemoveSecondFactor { thumbprint });
        propose(&self.0, permit, &context, id, remove).await?;
        Ok(Response::new(RemoveResponse {}))
    }

    async fn get_second_factor_status(
        &self,
        request: Request<GetSecondFactorStatusRequest>,
    ) -> Result<Response<GetSecondFactorStatusResponse>, Status> {
        let operation = ServerOperation::ViewTwoFactor;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        Ok(Response::new(status(&context)))
    }
}

/// What is asked of the caller, and what it has. Nothing of it for callers without a registered certificate.
fn status(context: &CallContext) -> GetSecondFactorStatusResponse {
    let Some(registration) = context.registration() else {
        return GetSecondFactorStatusResponse::default();
    };
    let session = registration.second_factor.as_ref().and_then(|it| it.live(context.at));
    let mut answer = GetSecondFactorStatusResponse {
        enrolled: registration.second_factor.is_some(),
        required: context.registry.second_factor_required(registration.clearance),
        logged_in: session.is_some() && context.brings_token(registration),
        session_expires_unix_ms: session.map_or(0, |session| session.expires.0),
        session_needs_token: session.is_some_and(|session| session.token_digest.is_some()),
        ..GetSecondFactorStatusResponse::default()
    };
    if let Some(record) = context.registry.second_factor(&registration.thumbprint) {
        answer.pending = !record.confirmed;
        answer.recovery_codes_left = cluster::recovery_codes_left(record);
        if cluster::lock_left_ms(record, context.at.0) > 0 {
            answer.locked_until_unix_ms = record.locked_until_unix_ms;
        }
    }
    answer
}

/// The certificate whose second factor is to change: the caller's own, or one that the caller may edit.
fn managed<'c>(
    context: &'c CallContext,
    thumbprint: &str,
) -> Result<&'c Arc<cluster::Certificate>, Status> {
    let own = context.thumbprint().ok_or_else(unexpected_outcome)?;
    let thumbprint = match thumbprint {
        "" => own,
        text => text.parse().map_err(|why| convert::invalid("thumbprint", why))?,
    };
    let (registry, caller, at) = (&context.registry, context.caller(), context.at);
    if registry.primary(&thumbprint) != registry.primary(&own) {
        // Who may edit nobody learns nothing about who there is.
        let operation = ServerOperation::EditCertificate;
        let decided = authz::decide_server(caller, operation, at, registry.revision);
        decided.map(drop).map_err(|denied| convert::denied(&denied))?;
    }
    let target = registry.certificate_details(&thumbprint);
    let target = target.ok_or_else(|| convert::not_found("certificate", thumbprint))?;
    cluster::may_manage(registry, caller, target, at).map_err(|it| convert::denied(&it))?;
    Ok(target)
}

/// What a caller shows for a session.
enum Proof {
    Code(second_factor::Code),
    Recovery([u8; 32]),
}

fn code(text: String) -> Result<Proof, Status> {
    let text = Zeroizing::new(text);
    let code = second_factor::Code::parse(&text);
    code.map(Proof::Code).ok_or_else(|| convert::invalid("code", "must be six digits"))
}

fn recovery_code(text: String) -> Result<Proof, Status> {
    let text = Zeroizing::new(text);
    let digest = second_factor::recovery_digest(&text);
    digest.map(Proof::Recovery).ok_or_else(|| {
        convert::invalid(
            "recovery_code",
            "must be 16 letters and digits, such as ABCD-EFGH-IJKL-MNOP",
        )
    })
}

fn duration_ms(seconds: u64) -> Result<u64, Status> {
    let longest = limits::SESSION_LIFE_MAX.as_secs();
    match seconds {
        0 => Ok(limits::SESSION_LIFE_DEFAULT.as_secs() * 1000),
        seconds if seconds <= longest => Ok(seconds * 1000),
        _ => Err(convert::invalid(
            "session_seconds",
            format!("must be at most {longest}, which is {} hours", longest / 3600),
        )),
    }
}

/// A session that is asked for.
struct Wish {
    proof: Proof,
    confirms: bool,
    duration_ms: u64,
    no_limits: bool,
}

/// A session that was opened.
struct Opened {
    token: Zeroizing<String>,
    session: log::OpenedSession,
}

impl SecondFactors {
    /// Checks and opens, and goes on where the caller hangs up: a code that was looked at counts.
    async fn open(&self, context: &CallContext, wish: Wish) -> Result<Opened, Status> {
        let holder = context.thumbprint().ok_or_else(unexpected_outcome)?;
        let holder = context.registry.primary(&holder); // Whose second factor all of the entry share.
        let (edge, deadline) = (Arc::clone(&self.0), context.deadline);
        let work = tokio::spawn(async move { open_session(&edge, holder, wish, deadline).await });
        work.await.map_err(|why| convert::internal("The code could not be checked", why))?
    }
}

async fn open_session(
    edge: &Edge,
    holder: Thumbprint,
    wish: Wish,
    deadline: Instant,
) -> Result<Opened, Status> {
    let _one_at_a_time = edge.code_checks.begin(holder).ok_or_else(busy)?;
    // Only now: a code that was looked at a moment ago counts already.
    let fresh = edge.engine.fresh(deadline).await.map_err(convert::status)?;
    let record = in_force(&fresh, &holder, &wish)?;
    let secrets = Secrets::new(edge.engine.as_ref(), &edge.node.sealing);
    let content = secrets.open_factor(&fresh.registry, record)?;
    let Some(proof) = matching(&content, &wish.proof, record, fresh.at)? else {
        return Err(wrong_code(edge, &holder, deadline).await);
    };
    let mut random = Zeroizing::new([0; second_factor::TOKEN_BYTES]);
    let (mut token, mut digest) = (Zeroizing::new(String::new()), Vec::new());
    if !wish.no_limits {
        crypto::random(&mut *random)
            .map_err(|why| convert::internal("No randomness could be had", why))?;
        token = second_factor::token(&random);
        digest.extend(second_factor::token_digest(&token).into_iter().flatten());
    }
    let open = log::OpenSession {
        thumbprint: holder.as_bytes().to_vec(),
        enrolled_revision: record.enrolled_revision,
        confirms: wish.confirms,
        proof: Some(proof),
        duration_ms: wish.duration_ms,
        token_digest: digest,
    };
    let outcome = as_member(edge, Command::OpenSession(open), deadline).await?;
    let Outcome::OpenedSession(session) = outcome else { return Err(unexpected_outcome()) };
    Ok(Opened { token, session })
}

fn busy() -> Status {
    convert::Answer::new(
        Code::ResourceExhausted,
        "CODE_CHECK_UNDER_WAY",
        "A code of this certificate is being checked at this moment, or too many of others are. Try again.",
    )
    .retry()
    .status()
}

/// The second factor that a code is held against; what makes the check pointless is told before it.
fn in_force<'f>(
    fresh: &'f Fresh,
    holder: &Thumbprint,
    wish: &Wish,
) -> Result<&'f SecondFactorRecord, Status> {
    let record = fresh.registry.second_factor(holder);
    if wish.confirms && record.is_some_and(|record| record.confirmed) {
        let message =
            "The second factor of this certificate is confirmed already. Log in with a code.";
        let (code, reason) = (Code::AlreadyExists, "ALREADY_EXISTS");
        return Err(convert::Answer::new(code, reason, message).status());
    }
    let Some(record) = record.filter(|record| record.confirmed != wish.confirms) else {
        let message = "This certificate has no confirmed second factor. Make one (`rookery second-factor enrol`) and \
                       confirm it with a code (`rookery second-factor confirm`).";
        let reason = "SECOND_FACTOR_NOT_ENROLLED";
        return Err(convert::Answer::new(Code::FailedPrecondition, reason, message).status());
    };
    match cluster::lock_left_ms(record, fresh.at.0) {
        0 => Ok(record),
        left => Err(convert::refusal(cluster::locked(left))),
    }
}

/// What the log is to remember of a right proof; `None` for a wrong one.
fn matching(
    content: &[u8],
    proof: &Proof,
    record: &SecondFactorRecord,
    at: Timestamp,
) -> Result<Option<open_session::Proof>, Status> {
    let mut kept = FactorSecret::decode(content)
        .map_err(|why| convert::internal("A second factor could not be read", why))?;
    let found = match proof {
        Proof::Code(code) => second_factor::matching_step(&kept.secret, code, at)
            .map(|step| (open_session::Proof::Step(step), step <= record.last_step)),
        Proof::Recovery(digest) => second_factor::recovery_place(digest, &kept.recovery_digests)
            .map(|place| {
                (open_session::Proof::Recovery(place), record.recovery_used.contains(&place))
            }),
    };
    kept.secret.zeroize();
    match found {
        // The log would refuse it too; this way a flood of them stays out of it.
        Some((_, true)) => Err(convert::refusal(cluster::used())),
        Some((proof, false)) => Ok(Some(proof)),
        None => Ok(None),
    }
}

/// Has a wrong code counted, for all nodes, before the caller hears that it was wrong.
async fn wrong_code(edge: &Edge, holder: &Thumbprint, deadline: Instant) -> Status {
    let note = log::NoteWrongCode { thumbprint: holder.as_bytes().to_vec() };
    let noted = match as_member(edge, Command::NoteWrongCode(note), deadline).await {
        Ok(outcome) => outcome,
        Err(status) => return status,
    };
    let Outcome::NotedWrongCode(noted) = noted else { return unexpected_outcome() };
    let reason = "SECOND_FACTOR_WRONG_CODE";
    edge.metrics.decided(ServerOperation::TwoFactorLogIn.name(), reason);
    tracing::info!(thumbprint = ?holder, left = noted.attempts_left, "wrong code");
    let then = match noted.attempts_left {
        0 => format!("The second factor is locked on every node for {LOCK_MINUTES} minutes."),
        left => {
            format!("{left} more wrong ones lock the second factor for {LOCK_MINUTES} minutes.")
        }
    };
    let message = format!("This code is wrong. Check the clock of the authenticator. {then}");
    convert::Answer::new(Code::PermissionDenied, reason, message)
        .with("attempts_left", noted.attempts_left)
        .status()
}

const LOCK_MINUTES: u64 = limits::SECOND_FACTOR_LOCK.as_secs() / 60;

/// Puts a command of this node itself in the log.
async fn as_member(edge: &Edge, command: Command, deadline: Instant) -> Result<Outcome, Status> {
    let command = ClusterCommand { command: Some(command) };
    let applied = edge.engine.propose_as_member(command, deadline).await;
    outcome(applied.map_err(convert::status)?)
}
