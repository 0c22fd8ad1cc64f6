//! The second factor of a certificate, as far as a decision needs to know of it.

use crate::{authz::ServerOperation, names::Timestamp};

/// A confirmed second factor: every call needs a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondFactor {
    /// The last session that was opened; it may be over.
    pub session: Option<Session>,
}

impl SecondFactor {
    /// The session, where it is not over at that moment.
    #[must_use]
    pub fn live(&self, at: Timestamp) -> Option<&Session> {
        self.session.as_ref().filter(|session| at < session.expires)
    }
}

/// A session of a certificate; it holds on every node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The first moment at which it is over.
    pub expires: Timestamp,
    /// SHA-256 of the token that goes with each call; `None`: it holds for the certificate from anywhere.
    pub token_digest: Option<[u8; 32]>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("expires", &self.expires)
            .field("needs_token", &self.token_digest.is_some())
            .finish()
    }
}

/// What a registered caller lacks of its second factor, beyond what the registration itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The session needs a token, and the call did not bring it.
    Token,
    /// The clearance demands a second factor, and none is confirmed.
    NotEnrolled,
}

/// How much of a second factor an operation demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing: it leads to a session, ends one, or tells what is missing.
    Nothing,
    /// A live session of those who have a second factor; who must get one first may call it to do so.
    SessionIfEnrolled,
    /// A live session of those who have a second factor, or must have one.
    Session,
}

pub(super) fn demand(operation: ServerOperation) -> Demand {
    use ServerOperation as S;
    // Not every operation by name: what is not said here demands all.
    #[allow(clippy::wildcard_enum_match_arm)]
    match operation {
        S::WhoAmI
        | S::TwoFactorLogIn
        | S::TwoFactorLogOut
        | S::ViewTwoFactor
        | S::ViewPublicPage => Demand::Nothing,
        S::EnrolTwoFactor | S::ConfirmTwoFactor => Demand::SessionIfEnrolled,
        _ => Demand::Session,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        authz::{
            Access, Caller, Clearance, DatabaseOperation, DeniedReason, Registration, ServerRule,
            decide_database, decide_missing_database, decide_server,
        },
        names::{DatabaseId, NodeId, Thumbprint},
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const DATABASE: DatabaseId = DatabaseId(7);

    fn who(clearance: Clearance, second_factor: Option<SecondFactor>) -> Registration {
        Registration {
            thumbprint: Thumbprint::of(b"alice"),
            name: "alice".to_owned(),
            clearance,
            grants: [(DATABASE, Access::Admin)].into(),
            not_before: Timestamp(0),
            not_after: Timestamp(i64::MAX),
            disabled: false,
            revision: 1,
            node: None,
            second_factor,
            der: Vec::new().into(),
        }
    }

    fn until(expires: i64) -> Option<SecondFactor> {
        let session = Session { expires: Timestamp(expires), token_digest: None };
        Some(SecondFactor { session: Some(session) })
    }

    const WITHOUT_SESSION: Option<SecondFactor> = Some(SecondFactor { session: None });

    /// The operations that this caller may not do for want of a second factor.
    fn refused(caller: Caller<'_>, reason: DeniedReason) -> BTreeSet<&'static str> {
        let server = ServerOperation::ALL.iter().filter_map(|operation| {
            let denied = decide_server(caller, *operation, NOW, 1).err()?;
            (denied.reason == reason).then_some(operation.name())
        });
        let database = DatabaseOperation::ALL.iter().filter_map(|operation| {
            let denied = decide_database(caller, *operation, DATABASE, NOW, 1).err()?;
            (denied.reason == reason).then_some(operation.name())
        });
        server.chain(database).collect()
    }

    /// All that asks who the caller is, but `open`.
    fn all_but(open: &[&str]) -> BTreeSet<&'static str> {
        let asks = |operation: &&ServerOperation| {
            !matches!(operation.rule(), ServerRule::Public | ServerRule::SetupOnly)
        };
        let server = ServerOperation::ALL.iter().filter(asks).map(|operation| operation.name());
        let database = DatabaseOperation::ALL.iter().map(|operation| operation.name());
        server.chain(database).filter(|name| !open.contains(name)).collect()
    }

    #[test]
    fn without_a_session_a_certificate_opens_what_leads_to_one_and_nothing_else() {
        let open = ["two-factor-log-in", "two-factor-log-out"];
        for clearance in [Clearance::User, Clearance::Operator, Clearance::ClusterAdmin] {
            let none = who(clearance, WITHOUT_SESSION);
            let over = who(clearance, until(NOW.0));
            let live = who(clearance, until(NOW.0 + 1));
            for closed in [
                Caller::Registered(&none),
                Caller::Registered(&over),
                Caller::Unproven(&live, Gap::Token),
                Caller::Unproven(&none, Gap::Token),
            ] {
                assert_eq!(refused(closed, DeniedReason::SecondFactorRequired), all_but(&open));
            }
            let nothing = BTreeSet::new();
            let open = Caller::Registered(&live);
            assert_eq!(refused(open, DeniedReason::SecondFactorRequired), nothing);
        }
    }

    #[test]
    fn who_must_get_a_second_factor_first_may_get_it_and_nothing_else() {
        let open =
            ["two-factor-log-in", "two-factor-log-out", "enrol-two-factor", "confirm-two-factor"];
        let bare = who(Clearance::ClusterAdmin, None);
        let caller = Caller::Unproven(&bare, Gap::NotEnrolled);
        assert_eq!(refused(caller, DeniedReason::SecondFactorNotEnrolled), all_but(&open));
    }

    #[test]
    fn a_member_is_known_by_its_certificate_alone() {
        let mut node = who(Clearance::ClusterNode, WITHOUT_SESSION);
        let count = all_but(&["two-factor-log-in", "two-factor-log-out"]).len();
        let reason = DeniedReason::SecondFactorRequired;
        assert_eq!(refused(Caller::Registered(&node), reason).len(), count);
        node.node = Some(NodeId(1));
        assert!(refused(Caller::Registered(&node), reason).is_empty());
    }

    #[test]
    fn without_a_session_nobody_learns_which_databases_there_are() {
        let none = who(Clearance::Operator, WITHOUT_SESSION);
        let (caller, operation) = (Caller::Registered(&none), DatabaseOperation::ReadDocument);
        let missing = decide_missing_database(caller, operation, NOW, 1).unwrap_err();
        assert_eq!(missing, decide_database(caller, operation, DATABASE, NOW, 1).unwrap_err());
        assert_eq!(missing.reason, DeniedReason::SecondFactorRequired);
    }

    #[test]
    fn a_session_prints_no_digest() {
        let session = Session { expires: NOW, token_digest: Some([0xab; 32]) };
        assert!(!format!("{session:?}").contains("171"));
    }
}
