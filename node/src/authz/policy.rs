//! The decision: from a caller and an operation to a permit or a refusal.

use super::second_factor::{Demand, demand};
use crate::{
    authz::{
        Author, Caller, Clearance, DatabaseOperation, DatabasePermit, Denied, DeniedReason, Gap,
        Permit, Registration, ServerOperation, ServerRule, denied::moment,
    },
    names::{DatabaseId, Timestamp},
};

/// How long before its first moment a certificate is already taken: clocks differ. There is none at the end.
pub const SKEW_MS: i64 = 60_000;

/// Where a registered certificate stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// May be used.
    Valid,
    /// Switched off by an administrator.
    Disabled,
    /// Its first moment is more than [`SKEW_MS`] ahead.
    NotYetValid,
    /// Its last moment has passed.
    Expired,
}

/// Where a registered certificate stands at a moment.
#[must_use]
pub fn state(registration: &Registration, at: Timestamp) -> State {
    if registration.disabled {
        State::Disabled
    } else if at.0.saturating_add(SKEW_MS) < registration.not_before.0 {
        State::NotYetValid
    } else if at > registration.not_after {
        State::Expired
    } else {
        State::Valid
    }
}

/// Decides a call to the server or the cluster.
///
/// `at` is the time to hold the certificate's dates against, `revision` the registry revision that `caller` is from.
///
/// # Errors
/// The first step that fails: certificate presented, registered, enabled, begun, not expired, second factor, and then
/// the rule.
pub fn decide_server(
    caller: Caller<'_>,
    operation: ServerOperation,
    at: Timestamp,
    revision: u64,
) -> Result<Permit, Denied> {
    let asked = Asked::server(operation, revision);
    let caller = Asking { caller, demand: demand(operation), at };
    let author = match operation.rule() {
        ServerRule::Public => anyone(caller.caller),
        ServerRule::JoinToken => presented(&caller).map_err(|why| asked.certificate(why))?,
        ServerRule::Registered | ServerRule::RegisteredFiltered => {
            proven(&caller).map_err(|why| asked.certificate(why))?.author()
        }
        ServerRule::Operator | ServerRule::OperatorFiltered => {
            cleared(&caller, Clearance::Operator, &asked)?
        }
        ServerRule::ClusterAdmin => cleared(&caller, Clearance::ClusterAdmin, &asked)?,
        ServerRule::Member => member(&caller, &asked)?,
        ServerRule::SetupOnly => return Err(asked.setup_over()),
    };
    Ok(Permit::new(operation, author, revision))
}

/// Decides a call to one database that exists.
///
/// # Errors
/// As [`decide_server`]; a User without a grant is answered as if the database did not exist.
pub fn decide_database(
    caller: Caller<'_>,
    operation: DatabaseOperation,
    database: DatabaseId,
    at: Timestamp,
    revision: u64,
) -> Result<DatabasePermit, Denied> {
    let asked = Asked::database(operation, revision);
    let who = proven(&Asking::of_database(caller, at)).map_err(|why| asked.certificate(why))?;
    let have = who.0.access(database);
    if have.is_none_or(|have| have < operation.required()) {
        return Err(asked.access_denied(have.map(|have| have.title())));
    }
    Ok(DatabasePermit::new(operation, database, who.author(), revision))
}

/// Decides a call that names a database which does not exist.
///
/// `Ok` means that the caller may be told: those who see every database. Everybody else gets the very answer of a
/// database that exists and is not granted to them.
///
/// # Errors
/// As [`decide_database`].
pub fn decide_missing_database(
    caller: Caller<'_>,
    operation: DatabaseOperation,
    at: Timestamp,
    revision: u64,
) -> Result<(), Denied> {
    let asked = Asked::database(operation, revision);
    let who = proven(&Asking::of_database(caller, at)).map_err(|why| asked.certificate(why))?;
    if who.0.clearance.covers(Clearance::Operator) {
        Ok(())
    } else {
        Err(asked.access_denied(None))
    }
}

/// Whether a certificate by itself, whatever its second factor, is in force and has the clearance for an operation.
///
/// For what somebody did earlier in a session that may be over, such as making a join token. It gives no permit.
#[must_use]
pub fn reaches(registration: &Registration, operation: ServerOperation, at: Timestamp) -> bool {
    let cleared = operation.rule().clearance().is_some_and(|it| registration.clearance.covers(it));
    cleared && state(registration, at) == State::Valid
}

/// Why a certificate is no identity at this moment.
enum Refused<'a> {
    Missing,
    Unknown(crate::names::Thumbprint),
    Disabled,
    NotYetValid(&'a Registration),
    Expired(&'a Registration),
    NoSession,
    NotEnrolled,
}

/// A caller, and what is to be held against it.
struct Asking<'a> {
    caller: Caller<'a>,
    demand: Demand,
    at: Timestamp,
}

impl<'a> Asking<'a> {
    fn of_database(caller: Caller<'a>, at: Timestamp) -> Self {
        Self { caller, demand: Demand::Session, at }
    }
}

/// A certificate that is registered, in force, and in a session where the operation demands one. Only [`proven`] makes
/// one, and the permit of a registered caller is made of nothing else.
struct Proven<'a>(&'a Registration);

impl Proven<'_> {
    fn author(&self) -> Author {
        Author::Certificate(self.0.thumbprint)
    }
}

/// The steps before the rule, in their order.
fn proven<'a>(asking: &Asking<'a>) -> Result<Proven<'a>, Refused<'a>> {
    let (registration, gap) = match asking.caller {
        Caller::Anonymous => return Err(Refused::Missing),
        Caller::Unknown(thumbprint) => return Err(Refused::Unknown(thumbprint)),
        Caller::Registered(registration) => (registration, None),
        Caller::Unproven(registration, gap) => (registration, Some(gap)),
    };
    match state(registration, asking.at) {
        State::Valid => {}
        State::Disabled => return Err(Refused::Disabled),
        State::NotYetValid => return Err(Refused::NotYetValid(registration)),
        State::Expired => return Err(Refused::Expired(registration)),
    }
    match lack(registration, gap, asking) {
        Some(Lack::Session) => Err(Refused::NoSession),
        Some(Lack::Enrolment) => Err(Refused::NotEnrolled),
        None => Ok(Proven(registration)),
    }
}

/// What is missing of a second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// A live session, or its token.
    Session,
    /// The second factor itself.
    Enrolment,
}

/// What a caller lacks of its second factor for an operation; `None` stands for any operation on a database.
pub(super) fn lacks_second_factor(
    caller: Caller<'_>,
    operation: Option<ServerOperation>,
    at: Timestamp,
) -> Option<Lack> {
    let (registration, gap) = match caller {
        Caller::Anonymous | Caller::Unknown(_) => return None,
        Caller::Registered(registration) => (registration, None),
        Caller::Unproven(registration, gap) => (registration, Some(gap)),
    };
    let demand = operation.map_or(Demand::Session, demand);
    lack(registration, gap, &Asking { caller, demand, at })
}

fn lack(registration: &Registration, gap: Option<Gap>, asking: &Asking<'_>) -> Option<Lack> {
    if asking.demand == Demand::Nothing || registration.is_member() {
        return None;
    }
    let closed = registration.second_factor.is_some_and(|it| it.live(asking.at).is_none());
    match gap {
        Some(Gap::Token) => Some(Lack::Session),
        Some(Gap::NotEnrolled) if asking.demand == Demand::Session => Some(Lack::Enrolment),
        Some(Gap::NotEnrolled) | None => closed.then_some(Lack::Session),
    }
}

fn anyone(caller: Caller<'_>) -> Author {
    caller.thumbprint().map_or(Author::Anonymous, Author::Certificate)
}

/// A certificate is enough, but a registered one must be in force.
fn presented<'a>(asking: &Asking<'a>) -> Result<Author, Refused<'a>> {
    match asking.caller {
        Caller::Unknown(thumbprint) => Ok(Author::Certificate(thumbprint)),
        Caller::Anonymous | Caller::Registered(_) | Caller::Unproven(..) => {
            proven(asking).map(|who| who.author())
        }
    }
}

fn cleared(asking: &Asking<'_>, required: Clearance, asked: &Asked) -> Result<Author, Denied> {
    let who = proven(asking).map_err(|why| asked.certificate(why))?;
    if who.0.clearance.covers(required) {
        Ok(who.author())
    } else {
        Err(asked.clearance_too_low(who.0.clearance))
    }
}

/// The dates of a member's own certificate do not count here: a cluster whose certificates ran out together could
/// otherwise never agree on new ones. Removal and replacement take the certificate out of the registry instead.
fn member(asking: &Asking<'_>, asked: &Asked) -> Result<Author, Denied> {
    if let Caller::Registered(who) = asking.caller
        && who.is_member()
        && !who.disabled
    {
        return Ok(Proven(who).author());
    }
    let who = proven(asking).map_err(|why| asked.certificate(why))?;
    if who.0.is_member() { Ok(who.author()) } else { Err(asked.not_a_member(who.0.clearance)) }
}

/// What was asked for; from here on only refusals are made, so it may allocate.
struct Asked {
    operation: &'static str,
    rule: &'static str,
    required: &'static str,
    revision: u64,
}

impl Asked {
    fn server(operation: ServerOperation, revision: u64) -> Self {
        Self {
            operation: operation.name(),
            rule: operation.rule_id(),
            required: operation.rule().words(),
            revision,
        }
    }

    fn database(operation: DatabaseOperation, revision: u64) -> Self {
        Self {
            operation: operation.name(),
            rule: operation.rule_id(),
            required: operation.rule().words(),
            revision,
        }
    }

    fn denied(&self, reason: DeniedReason, have: String, message: String) -> Denied {
        Denied {
            reason,
            operation: self.operation,
            required: self.required.to_owned(),
            have,
            rule: self.rule,
            message,
            revision: self.revision,
        }
    }

    fn certificate(&self, why: Refused<'_>) -> Denied {
        let required = self.required;
        let (reason, have, message) = match why {
            Refused::Missing => (
                DeniedReason::CertificateRequired,
                "no certificate".to_owned(),
                format!(
                    "No client certificate was presented, and this call requires {required}. \
                     Connect with a certificate that an administrator of this cluster registered."
                ),
            ),
            Refused::Unknown(thumbprint) => (
                DeniedReason::CertificateUnknown,
                "a certificate that is not registered".to_owned(),
                format!(
                    "The certificate {thumbprint} is not registered in this cluster; who issued it does not \
                     matter. Ask an administrator to register it, or connect with one that is registered."
                ),
            ),
            Refused::Disabled => (
                DeniedReason::CertificateDisabled,
                "a disabled certificate".to_owned(),
                "This certificate was disabled by an administrator. Ask an administrator to enable it, or \
                 connect with another one."
                    .to_owned(),
            ),
            Refused::NotYetValid(who) => (
                DeniedReason::CertificateNotYetValid,
                "a certificate that is not yet valid".to_owned(),
                format!(
                    "This certificate is valid from {} on, which has not come yet. Wait, check the clocks, or \
                     ask an administrator for another one.",
                    moment(who.not_before)
                ),
            ),
            Refused::Expired(who) => (
                DeniedReason::CertificateExpired,
                "an expired certificate".to_owned(),
                format!(
                    "This certificate expired at {}. Ask an administrator for a new one.",
                    moment(who.not_after)
                ),
            ),
            Refused::NoSession => (
                DeniedReason::SecondFactorRequired,
                "a certificate without a live session".to_owned(),
                "This certificate has a second factor, and this call belongs to no live session of it. Log in with a \
                 code (`rookery second-factor login`) and send the session's token with each call."
                    .to_owned(),
            ),
            Refused::NotEnrolled => (
                DeniedReason::SecondFactorNotEnrolled,
                "a certificate without a second factor".to_owned(),
                "This cluster demands a second factor of this clearance, and this certificate has none. Make one \
                 (`rookery second-factor enrol`) and confirm it with a code."
                    .to_owned(),
            ),
        };
        self.denied(reason, have, message)
    }

    fn clearance_too_low(&self, have: Clearance) -> Denied {
        let message = format!(
            "The operation {} requires {}, and this certificate has {have} clearance. Use a certificate with the \
             clearance, or ask an administrator to do it.",
            self.operation, self.required
        );
        self.denied(DeniedReason::ClearanceTooLow, format!("{have} clearance"), message)
    }

    /// The same words whether the database exists or not: they name neither the database nor its id.
    fn access_denied(&self, have: Option<&str>) -> Denied {
        let have = have.map_or_else(|| "no access".to_owned(), |have| format!("{have} access"));
        let message = format!(
            "The operation {} requires {}, and this certificate has {have} to a database of that name. Ask an \
             administrator for the access, or check the name.",
            self.operation, self.required
        );
        self.denied(DeniedReason::DatabaseAccessDenied, have, message)
    }

    fn not_a_member(&self, have: Clearance) -> Denied {
        let message = "Only current members of the cluster are heard here, each with its own node certificate. Join \
                       the node first; clients use the client listener."
            .to_owned();
        let have = format!("a {have} certificate that belongs to no member");
        self.denied(DeniedReason::NotAMember, have, message)
    }

    fn setup_over(&self) -> Denied {
        let message = "A server is set up by whoever owns its files, before it belongs to a cluster; no certificate \
                       can do it. Use the admin socket on the machine itself."
            .to_owned();
        self.denied(DeniedReason::SetupOver, "a certificate".to_owned(), message)
    }
}
