//! Why a caller may or may not, and what would let them: the decision itself, with the steps that lead to a yes.
//!
//! An explanation asks [`decide_server`] and [`decide_database`] and adds to their answer; it never decides. What it adds
//! are remedies: **all** of them together make the same decision come out as allowed (a test applies them and decides
//! again, for every operation, clearance and state).

use crate::{
    authz::{
        Access, Caller, Clearance, DatabaseOperation, DatabaseRule, Denied, DeniedReason,
        Registration, ServerOperation, ServerRule, State, decide_database, decide_missing_database,
        decide_server,
        denied::moment,
        policy::{Lack, lacks_second_factor},
        state,
    },
    names::{DatabaseId, Timestamp},
};

/// One thing that has to be done for a denied call to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Call with a certificate.
    Present,
    /// Register the certificate.
    Register,
    /// Enable the certificate.
    Enable,
    /// Wait for its first moment.
    Wait(Timestamp),
    /// Register a new certificate; this one's last moment has passed.
    Renew(Timestamp),
    /// Give it this clearance.
    Clear(Clearance),
    /// Give it this access to the database.
    Grant(Access),
    /// Be the node certificate of a member.
    Join,
    /// Show a join token.
    ShowToken,
    /// Make a second factor, and confirm it, which opens a session.
    Enrol,
    /// Open a session of the second factor, and send its token.
    LogIn,
}

impl Remedy {
    /// The remedy in words; `who` is the certificate's name, `database` what the caller called it.
    #[must_use]
    pub fn words(&self, who: &str, database: &str) -> String {
        match self {
            Self::Present => "connect with a client certificate".to_owned(),
            Self::Register => "register the certificate".to_owned(),
            Self::Enable => format!("enable the certificate {who}"),
            Self::Wait(from) => format!("wait: it is valid from {} on", moment(*from)),
            Self::Renew(at) => {
                format!("renew: it expired at {}; register a new certificate", moment(*at))
            }
            Self::Clear(Clearance::Operator) => format!("give {who} an Operator clearance"),
            Self::Clear(clearance) => format!("give {who} a {clearance} clearance"),
            Self::Grant(access) => format!("grant {access} on {database} to {who}"),
            Self::Join => "join as a node: only node certificates of current members".to_owned(),
            Self::ShowToken => "show a valid join token besides".to_owned(),
            Self::Enrol => format!("make a second factor for {who} and confirm it with a code"),
            Self::LogIn => {
                format!(
                    "log in with a code of the second factor of {who}, and send the session's token"
                )
            }
        }
    }
}

/// A decision and what is to be known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The stable name of the operation.
    pub operation: &'static str,
    /// What the operation is.
    pub summary: &'static str,
    /// The decision.
    pub allowed: bool,
    /// The id of the rule.
    pub rule: &'static str,
    /// What the rule requires.
    pub required: &'static str,
    /// What the caller has.
    pub have: String,
    /// Why it is denied.
    pub reason: Option<DeniedReason>,
    /// All that would have to be done; empty where it is allowed, or where nothing helps.
    pub remedies: Vec<Remedy>,
    /// Whether the answer of an allowed call holds only what the caller may see or manage.
    pub filtered: bool,
}

/// Explains the decision about a call to the server.
#[must_use]
pub fn explain_server(
    caller: Caller<'_>,
    operation: ServerOperation,
    at: Timestamp,
) -> Explanation {
    let rule = operation.rule();
    let denied = decide_server(caller, operation, at, 0).err();
    let have = match (&denied, registered(caller)) {
        (Some(denied), _) => denied.have.clone(),
        (None, Some(who)) => format!("{} clearance", who.clearance),
        (None, None) => nothing(caller),
    };
    Explanation {
        operation: operation.name(),
        summary: operation.summary(),
        allowed: denied.is_none(),
        rule: operation.rule_id(),
        required: rule.words(),
        have,
        remedies: denied.as_ref().map_or_else(Vec::new, |_| server_remedies(caller, operation, at)),
        reason: denied.map(|denied| denied.reason),
        filtered: registered(caller).is_some_and(|who| rule.filters(who.clearance)),
    }
}

/// Explains the decision about a call to one database; `None`: one that does not exist, explained like one that is not
/// granted.
#[must_use]
pub fn explain_database(
    caller: Caller<'_>,
    operation: DatabaseOperation,
    database: Option<DatabaseId>,
    at: Timestamp,
) -> Explanation {
    let denied = match database {
        Some(id) => decide_database(caller, operation, id, at, 0).err(),
        None => decide_missing_database(caller, operation, at, 0).err(),
    };
    let access = database.and_then(|id| registered(caller)?.access(id));
    let have = match (&denied, access) {
        (Some(Denied { have, .. }), _) => have.clone(),
        (None, Some(access)) => format!("{access} access"),
        (None, None) => nothing(caller),
    };
    let rule: DatabaseRule = operation.rule();
    Explanation {
        operation: operation.name(),
        summary: operation.summary(),
        allowed: denied.is_none(),
        rule: operation.rule_id(),
        required: rule.words(),
        have,
        remedies: denied
            .as_ref()
            .map_or_else(Vec::new, |_| database_remedies(caller, operation, access, at)),
        reason: denied.map(|denied| denied.reason),
        filtered: access.is_some_and(|access| rule.filters(access)),
    }
}

fn registered(caller: Caller<'_>) -> Option<&Registration> {
    caller.registration()
}

fn nothing(caller: Caller<'_>) -> String {
    match caller {
        Caller::Anonymous => "no certificate".to_owned(),
        Caller::Unknown(_) => "a certificate that is not registered".to_owned(),
        Caller::Registered(who) | Caller::Unproven(who, _) => {
            format!("{} clearance", who.clearance)
        }
    }
}

/// What the certificate itself needs before any rule is looked at. `operation`: of the server, not of a database.
fn identity_remedies(
    caller: Caller<'_>,
    operation: Option<ServerOperation>,
    at: Timestamp,
) -> Vec<Remedy> {
    let who = match caller {
        Caller::Anonymous => return vec![Remedy::Present, Remedy::Register],
        Caller::Unknown(_) => return vec![Remedy::Register],
        Caller::Registered(who) | Caller::Unproven(who, _) => who,
    };
    let mut remedies = Vec::new();
    if who.disabled {
        remedies.push(Remedy::Enable);
    }
    // As it would stand once it is enabled.
    match state(&Registration { disabled: false, ..who.clone() }, at) {
        State::NotYetValid => remedies.push(Remedy::Wait(who.not_before)),
        State::Expired => remedies.push(Remedy::Renew(who.not_after)),
        State::Valid | State::Disabled => {}
    }
    match lacks_second_factor(caller, operation, at) {
        Some(Lack::Session) => remedies.push(Remedy::LogIn),
        Some(Lack::Enrolment) => remedies.push(Remedy::Enrol),
        None => {}
    }
    remedies
}

fn server_remedies(caller: Caller<'_>, operation: ServerOperation, at: Timestamp) -> Vec<Remedy> {
    let rule = operation.rule();
    let who = registered(caller);
    let have = who.map(|who| who.clearance);
    let mut remedies = identity_remedies(caller, Some(operation), at);
    match rule {
        ServerRule::SetupOnly => return Vec::new(), // Nothing helps.
        ServerRule::JoinToken => {
            remedies.retain(|remedy| *remedy != Remedy::Register);
            remedies.push(Remedy::ShowToken);
        }
        ServerRule::Member => {
            if !who.is_some_and(|who| who.clearance == Clearance::ClusterNode && who.node.is_some())
            {
                remedies.push(Remedy::Join);
            }
        }
        ServerRule::Public
        | ServerRule::Registered
        | ServerRule::RegisteredFiltered
        | ServerRule::Operator
        | ServerRule::OperatorFiltered
        | ServerRule::ClusterAdmin => {
            let required = rule.clearance().unwrap_or(Clearance::User);
            let reaches = have.is_some_and(|have| have.covers(required));
            if !reaches && (have.is_some() || required != Clearance::User) {
                remedies.push(Remedy::Clear(required));
            }
        }
    }
    remedies
}

fn database_remedies(
    caller: Caller<'_>,
    operation: DatabaseOperation,
    access: Option<Access>,
    at: Timestamp,
) -> Vec<Remedy> {
    let mut remedies = identity_remedies(caller, None, at);
    let above = registered(caller).is_some_and(|who| who.clearance.covers(Clearance::Operator));
    if !above && access.is_none_or(|access| access < operation.required()) {
        remedies.push(Remedy::Grant(operation.required()));
    }
    remedies
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        authz::{Gap, SKEW_MS, SecondFactor, Session},
        names::{NodeId, Thumbprint},
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const DATABASE: DatabaseId = DatabaseId(7);

    fn registration(clearance: Clearance, grant: Option<Access>, node: bool) -> Registration {
        Registration {
            thumbprint: Thumbprint::of(b"someone"),
            name: "alice".to_owned(),
            clearance,
            grants: grant.into_iter().map(|access| (DATABASE, access)).collect(),
            not_before: Timestamp(NOW.0 - 1),
            not_after: Timestamp(NOW.0 + 1),
            disabled: false,
            revision: 1,
            node: node.then_some(NodeId(1)),
            second_factor: None,
            der: Arc::from(&[][..]),
        }
    }

    /// Every clearance and grant, each in every state, disabled and not.
    fn everybody() -> Vec<Registration> {
        let mut all = Vec::new();
        let grants = [None, Some(Access::Read), Some(Access::ReadWrite), Some(Access::Admin)];
        for clearance in Clearance::ALL {
            for grant in grants {
                for node in [false, true] {
                    for disabled in [false, true] {
                        let base =
                            || Registration { disabled, ..registration(clearance, grant, node) };
                        let ahead = Timestamp(NOW.0 + SKEW_MS + 1);
                        all.push(base());
                        for session in [None, Some(NOW), Some(Timestamp(NOW.0 + 1))] {
                            let session =
                                session.map(|expires| Session { expires, token_digest: None });
                            let second_factor = Some(SecondFactor { session });
                            all.push(Registration { second_factor, ..base() });
                        }
                        all.push(Registration { not_after: Timestamp(NOW.0 - 1), ..base() });
                        all.push(Registration { not_before: ahead, not_after: ahead, ..base() });
                    }
                }
            }
        }
        all
    }

    /// The certificate after somebody did what the remedies say. `None`: nobody can.
    fn cured(who: Option<&Registration>, remedies: &[Remedy]) -> Registration {
        let mut who = match who {
            Some(who) => who.clone(),
            None => {
                assert!(remedies.contains(&Remedy::Register), "{remedies:?}");
                registration(Clearance::User, None, false)
            }
        };
        for remedy in remedies {
            match remedy {
                Remedy::Enable => who.disabled = false,
                Remedy::Wait(_) => who.not_before = NOW,
                Remedy::Renew(_) => who.not_after = NOW,
                Remedy::Clear(clearance) => who.clearance = *clearance,
                Remedy::Grant(access) => drop(who.grants.insert(DATABASE, *access)),
                Remedy::Join => {
                    who.clearance = Clearance::ClusterNode;
                    who.node = Some(NodeId(1));
                }
                Remedy::Enrol | Remedy::LogIn => {
                    let session = Session { expires: Timestamp(NOW.0 + 1), token_digest: None };
                    who.second_factor = Some(SecondFactor { session: Some(session) });
                }
                Remedy::Present | Remedy::Register | Remedy::ShowToken => {}
            }
        }
        who
    }

    fn check_server(caller: Caller<'_>, who: Option<&Registration>) -> usize {
        for operation in ServerOperation::ALL.iter().copied() {
            let told = explain_server(caller, operation, NOW);
            let decided = decide_server(caller, operation, NOW, 0);
            assert_eq!(told.allowed, decided.is_ok(), "{}: {who:?}", operation.name());
            assert_eq!(told.rule, operation.rule_id());
            let Err(denied) = decided else {
                assert!(told.remedies.is_empty() && told.reason.is_none());
                continue;
            };
            assert_eq!((told.reason, &told.have), (Some(denied.reason), &denied.have));
            match operation.rule() {
                ServerRule::SetupOnly => assert_eq!(told.remedies, []),
                // With a certificate alone the call is let in; the token is looked at by `apply`.
                ServerRule::JoinToken => {
                    assert_eq!(told.remedies.last(), Some(&Remedy::ShowToken));
                }
                ServerRule::Public
                | ServerRule::Registered
                | ServerRule::RegisteredFiltered
                | ServerRule::Operator
                | ServerRule::OperatorFiltered
                | ServerRule::ClusterAdmin
                | ServerRule::Member => {
                    assert!(!told.remedies.is_empty(), "{}: {who:?}", operation.name());
                    let cured = cured(who, &told.remedies);
                    let again = decide_server(Caller::Registered(&cured), operation, NOW, 0);
                    assert!(again.is_ok(), "{}: {who:?} {:?}", operation.name(), told.remedies);
                }
            }
        }
        ServerOperation::ALL.len()
    }

    fn check_database(caller: Caller<'_>, who: Option<&Registration>) -> usize {
        for operation in DatabaseOperation::ALL.iter().copied() {
            let told = explain_database(caller, operation, Some(DATABASE), NOW);
            let decided = decide_database(caller, operation, DATABASE, NOW, 0);
            assert_eq!(told.allowed, decided.is_ok(), "{}: {who:?}", operation.name());
            let Err(denied) = decided else {
                assert!(told.remedies.is_empty() && told.reason.is_none());
                continue;
            };
            assert_eq!((told.reason, &told.have), (Some(denied.reason), &denied.have));
            let cured = cured(who, &told.remedies);
            let again = decide_database(Caller::Registered(&cured), operation, DATABASE, NOW, 0);
            assert!(again.is_ok(), "{}: {who:?} {:?}", operation.name(), told.remedies);
        }
        DatabaseOperation::ALL.len()
    }

    #[test]
    fn an_explanation_is_the_decision_and_its_remedies_turn_it() {
        let mut checked = 0;
        for caller in [Caller::Anonymous, Caller::Unknown(Thumbprint::of(b"nobody"))] {
            checked += check_server(caller, None) + check_database(caller, None);
        }
        for who in everybody() {
            let caller = Caller::Registered(&who);
            checked += check_server(caller, Some(&who)) + check_database(caller, Some(&who));
            let gap = if who.second_factor.is_some() { Gap::Token } else { Gap::NotEnrolled };
            let caller = Caller::Unproven(&who, gap);
            checked += check_server(caller, Some(&who)) + check_database(caller, Some(&who));
        }
        assert!(checked > 30_000, "{checked}");
    }

    #[test]
    fn a_missing_database_is_explained_like_one_that_is_not_granted() {
        let who =
            Registration { grants: BTreeMap::new(), ..registration(Clearance::User, None, false) };
        for operation in DatabaseOperation::ALL.iter().copied() {
            let caller = Caller::Registered(&who);
            let missing = explain_database(caller, operation, None, NOW);
            assert_eq!(missing, explain_database(caller, operation, Some(DATABASE), NOW));
        }
    }

    #[test]
    fn remedies_read_as_instructions() {
        let expired = Registration {
            disabled: true,
            not_after: Timestamp(0),
            ..registration(Clearance::User, Some(Access::Read), false)
        };
        let told = explain_database(
            Caller::Registered(&expired),
            DatabaseOperation::PutDocument,
            Some(DATABASE),
            NOW,
        );
        let words: Vec<String> =
            told.remedies.iter().map(|remedy| remedy.words("alice", "sales")).collect();
        assert_eq!(
            words,
            [
                "enable the certificate alice",
                "renew: it expired at 1970-01-01 00:00 UTC; register a new certificate",
                "grant ReadWrite on sales to alice",
            ]
        );
        let user = registration(Clearance::User, None, false);
        let told = explain_server(Caller::Registered(&user), ServerOperation::CreateDatabase, NOW);
        let words = told.remedies[0].words("alice", "");
        assert_eq!(words, "give alice an Operator clearance");

        let admin = registration(Clearance::ClusterAdmin, None, false);
        let closed =
            Registration { second_factor: Some(SecondFactor { session: None }), ..admin.clone() };
        for (caller, reason, words) in [
            (
                Caller::Registered(&closed),
                DeniedReason::SecondFactorRequired,
                "log in with a code of the second factor of alice, and send the session's token",
            ),
            (
                Caller::Unproven(&admin, Gap::NotEnrolled),
                DeniedReason::SecondFactorNotEnrolled,
                "make a second factor for alice and confirm it with a code",
            ),
        ] {
            let told = explain_server(caller, ServerOperation::CreateDatabase, NOW);
            assert_eq!(told.reason, Some(reason));
            let told: Vec<String> =
                told.remedies.iter().map(|remedy| remedy.words("alice", "")).collect();
            assert_eq!(told, [words]);
        }
    }
}
