//! From the certificate of a connection to a decision about one request. The only door to the layers below.
//!
//! 1. The deadline of the call and the connection it came on.
//! 2. The registry, once it is fresh: no acknowledged revocation is missing from it.
//! 3. The caller: the registration under the certificate's SHA-256, whose DER must be the presented one, byte for byte;
//!    or what `recognition` finds of a certificate that is not registered; and whether the call brings the token of its second-factor session.
//! 4. The decision by `authz`, at the leader's time. It holds for this request and is remembered nowhere.
//! 5. Only then what depends on the state: whether the database exists for those who may know, whether it is disabled.
//!
//! **Invariant:** services get permits from [`Edge::authorize_server`] and [`Edge::authorize_database`] and from nowhere
//! else, and consensus acts on permits alone.

use std::sync::Arc;

use http::Extensions;
use rookery_proto::log::v1::DatabaseRecord;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    authz::{
        self, Caller, Clearance, DatabaseOperation, DatabasePermit, Denied, Gap, Permit,
        Registration, ServerOperation,
    },
    cluster::Registry,
    consensus::State,
    edge::{
        Edge,
        call::{Deadline, SessionDigest},
        connections::Connection,
        convert,
    },
    limits,
    names::{DatabaseId, DatabaseName, Thumbprint, Timestamp},
    second_factor,
};

/// Who asks, when, and on which registry it was decided.
pub struct CallContext {
    /// When the call must be answered.
    pub deadline: Instant,
    /// The time that dates were held against.
    pub at: Timestamp,
    /// The registry of the decision.
    pub registry: Arc<Registry>,
    /// The connection the call came on.
    pub connection: Arc<Connection>,
    /// What the presented certificate of a well-known admin makes of its holder; see `recognition`.
    pub well_known: Option<Arc<Registration>>,
    /// What the session token that came with the call is compared by.
    pub session: Option<SessionDigest>,
}

impl CallContext {
    /// The holder of the connection's certificate, as this registry knows them.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        let Some(certificate) = &self.connection.certificate else { return Caller::Anonymous };
        if let Some(well_known) = &self.well_known {
            return Caller::Registered(well_known);
        }
        let caller = self.registry.caller(Some(certificate.thumbprint));
        let Some(found) = caller.registration() else { return caller };
        // SHA-256 is not known to collide; whoever finds out how to is still nobody here.
        if *found.der != *certificate.der {
            return Caller::Unknown(certificate.thumbprint);
        }
        if self.brings_token(found) { caller } else { Caller::Unproven(found, Gap::Token) }
    }

    /// Whether the call brings the token of the registration's session, or that needs none.
    #[must_use]
    pub fn brings_token(&self, registration: &Registration) -> bool {
        let session = registration.second_factor.as_ref().and_then(|it| it.session.as_ref());
        let Some(expected) = session.and_then(|session| session.token_digest) else { return true };
        self.session.is_some_and(|brought| second_factor::same(&brought.0, &expected))
    }

    /// The registration of the caller; `None` for callers without one.
    #[must_use]
    pub fn registration(&self) -> Option<&Registration> {
        self.caller().registration()
    }

    /// The clearance of the caller; User for callers without one, who have even less.
    #[must_use]
    pub fn clearance(&self) -> Clearance {
        self.registration().map_or(Clearance::User, |registration| registration.clearance)
    }

    /// The thumbprint of the presented certificate.
    #[must_use]
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        self.connection.certificate.as_ref().map(|certificate| certificate.thumbprint)
    }
}

impl Edge {
    /// Decides a call to the server or the cluster.
    ///
    /// # Errors
    /// The status for the client: denied, stale, or a node without a cluster.
    pub async fn authorize_server<T>(
        &self,
        request: &tonic::Request<T>,
        operation: ServerOperation,
    ) -> Result<(Permit, CallContext), Status> {
        self.authorize_extensions(request.extensions(), operation).await
    }

    /// [`Self::authorize_server`] for a request that is no gRPC call of the contract.
    ///
    /// # Errors
    /// As there.
    pub async fn authorize_extensions(
        &self,
        extensions: &Extensions,
        operation: ServerOperation,
    ) -> Result<(Permit, CallContext), Status> {
        let context = self.context(extensions).await?;
        let decided = authz::decide_server(
            context.caller(),
            operation,
            context.at,
            context.registry.revision,
        );
        let permit = self.recorded(decided, operation.name(), &context, "")?;
        Ok((permit, context))
    }

    /// Decides a call to one database. A name that nobody has is answered like one that is not granted, except to
    /// callers who may see all databases.
    ///
    /// # Errors
    /// The status for the client; `DATABASE_DISABLED` only to callers with access.
    pub async fn authorize_database<T>(
        &self,
        request: &tonic::Request<T>,
        name: &str,
        operation: DatabaseOperation,
    ) -> Result<(DatabasePermit, Arc<DatabaseRecord>, CallContext), Status> {
        let context = self.context(request.extensions()).await?;
        let revision = context.registry.revision;
        let found = match DatabaseName::parse(name) {
            Ok(name) => context
                .registry
                .database(&name)
                .cloned()
                .ok_or_else(|| convert::not_found("database", name)),
            Err(why) => Err(convert::invalid("database", why)),
        };
        let record = match found {
            Ok(record) => record,
            Err(told) => {
                let decided = authz::decide_missing_database(
                    context.caller(),
                    operation,
                    context.at,
                    revision,
                );
                self.recorded(decided, operation.name(), &context, name)?;
                return Err(told);
            }
        };
        let id = DatabaseId(record.id);
        let decided = authz::decide_database(context.caller(), operation, id, context.at, revision);
        let permit = self.recorded(decided, operation.name(), &context, name)?;
        if !record.enabled && !serves_while_disabled(operation) {
            return Err(disabled(&record));
        }
        Ok((permit, record, context))
    }

    /// Who the caller is, without a decision; also on a node that belongs to no cluster, where it is nobody.
    ///
    /// # Errors
    /// The registry is not fresh.
    pub async fn identify<T>(&self, request: &tonic::Request<T>) -> Result<CallContext, Status> {
        let arrived = arrived(request.extensions())?;
        match self.engine.state() {
            State::Member => self.fresh(arrived).await,
            State::Passive(_) | State::Joining | State::Removed => Ok(CallContext {
                deadline: arrived.deadline,
                at: self.clock.wall(),
                registry: Arc::new(Registry::default()),
                connection: arrived.connection,
                well_known: None,
                session: arrived.session,
            }),
        }
    }

    async fn context(&self, extensions: &Extensions) -> Result<CallContext, Status> {
        let arrived = arrived(extensions)?;
        match self.engine.state() {
            State::Member => self.fresh(arrived).await,
            state @ (State::Passive(_) | State::Joining | State::Removed) => {
                Err(convert::not_serving(&state))
            }
        }
    }

    async fn fresh(&self, arrived: Arrived) -> Result<CallContext, Status> {
        let Arrived { connection, deadline, session } = arrived;
        let fresh = self.engine.fresh(deadline).await.map_err(convert::status)?;
        let (at, registry) = (fresh.at, fresh.registry);
        let context = CallContext { deadline, at, registry, connection, well_known: None, session };
        self.recognise(context).await
    }

    /// Counts a decision, and notes it for the audit log where it went against the caller.
    fn recorded<P>(
        &self,
        decided: Result<P, Denied>,
        operation: &'static str,
        context: &CallContext,
        database: &str,
    ) -> Result<P, Status> {
        self.note_use(context, decided.as_ref().err(), operation);
        match decided {
            Ok(permit) => {
                self.metrics.decided(operation, "allowed");
                Ok(permit)
            }
            Err(denied) => Err(self.denied(&denied, context, database)),
        }
    }
}

/// What listener and call layer put into the extensions of a request.
struct Arrived {
    connection: Arc<Connection>,
    deadline: Instant,
    session: Option<SessionDigest>,
}

fn arrived(extensions: &Extensions) -> Result<Arrived, Status> {
    let connection = extensions.get::<Arc<Connection>>().cloned().ok_or_else(|| {
        convert::internal("The call lost its connection", "no connection among the extensions")
    })?;
    let deadline = extensions
        .get::<Deadline>()
        .map_or_else(|| Instant::now() + limits::DEADLINE_DEFAULT, |deadline| deadline.0);
    let session = extensions.get::<SessionDigest>().copied();
    Ok(Arrived { connection, deadline, session })
}

/// A disabled database can be looked at; it answers no document call.
fn serves_while_disabled(operation: DatabaseOperation) -> bool {
    operation == DatabaseOperation::ViewDatabase
}

fn disabled(record: &DatabaseRecord) -> Status {
    convert::Answer::new(
        Code::FailedPrecondition,
        "DATABASE_DISABLED",
        format!(
            "The database {} is disabled and answers no document call. An Operator can enable it.",
            record.name
        ),
    )
    .status()
}
