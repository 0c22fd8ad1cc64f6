//! Who may do what to which certificate (specification, part B.3).
//!
//! The operation table says who may manage certificates at all; these rules say which ones. They are decided at the
//! edge and again inside `apply`, from the registry as of that log position, so two administrators who act on each
//! other are put in order by the log. Pure.
//!
//! | action \ target | User, Operator | Cluster Admin | Cluster Node | oneself | node certificate of a member |
//! | --- | --- | --- | --- | --- | --- |
//! | Cluster Admin or Node: generate | yes | yes | never | | |
//! | ... upload | yes | yes | yes | | no |
//! | ... edit | yes | not the last one's clearance | yes | not the last one's clearance | no |
//! | ... delete | yes | not the last | yes | no | no |
//! | ... disable | yes | not the last | no | no | no |
//! | Operator: generate, upload, edit, delete, disable | yes | no | no | edit the name | no |
//! | User: any | no | no | no | no | no |

use crate::authz::{Clearance, Denied, DeniedReason, ServerOperation};

/// What is to be done to a certificate record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a key pair and register its certificate.
    Generate,
    /// Register an existing certificate.
    Upload,
    /// Change name, clearance or grants.
    Edit,
    /// Delete the record.
    Delete,
    /// Switch the record off.
    Disable,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 5] =
        [Self::Generate, Self::Upload, Self::Edit, Self::Delete, Self::Disable];

    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Upload => "upload",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Disable => "disable",
        }
    }
}

/// The certificate record that an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target {
    /// Its clearance in the registry; `None` where there is no record yet.
    pub clearance: Option<Clearance>,
    /// The clearance it is to have; `None` where an edit leaves it as it is, and for delete and disable.
    pub requested: Option<Clearance>,
    /// Whether an edit sets the grants.
    pub sets_grants: bool,
    /// Whether it is the certificate of the caller.
    pub is_self: bool,
    /// Whether no other enabled, unexpired Cluster Admin certificate is registered.
    pub is_last_cluster_admin: bool,
    /// Whether it is the node certificate of a current member.
    pub is_current_member: bool,
}

impl Target {
    /// Whether the current or the requested clearance is above Operator.
    #[must_use]
    pub fn is_above_operator(&self) -> bool {
        [self.clearance, self.requested]
            .into_iter()
            .flatten()
            .any(|clearance| !Clearance::Operator.covers(clearance))
    }

    /// Whether the clearance would become another one.
    fn changes_clearance(&self) -> bool {
        self.requested.is_some() && self.requested != self.clearance
    }
}

/// The row of the operation table that an action on a target belongs to.
#[must_use]
pub fn operation(action: Action, target: &Target) -> ServerOperation {
    match (action, target.is_above_operator()) {
        (Action::Generate, true) => ServerOperation::GenerateAdminCertificate,
        (Action::Generate, false) => ServerOperation::GenerateCertificate,
        (Action::Upload, true) => ServerOperation::UploadAdminCertificate,
        (Action::Upload, false) => ServerOperation::UploadCertificate,
        (Action::Edit, true) => ServerOperation::EditAdminCertificate,
        (Action::Edit, false) => ServerOperation::EditCertificate,
        (Action::Delete, true) => ServerOperation::DeleteAdminCertificate,
        (Action::Delete, false) => ServerOperation::DeleteCertificate,
        (Action::Disable, true) => ServerOperation::DisableAdminCertificate,
        (Action::Disable, false) => ServerOperation::DisableCertificate,
    }
}

/// Decides whether a certificate of this clearance may do `action` to `target`.
///
/// # Errors
/// The first rule that forbids it: the actor's reach, then what nobody may do, then the last Cluster Admin.
pub fn decide(actor: Clearance, action: Action, target: &Target) -> Result<(), Denied> {
    let asked = Asked { actor, action, target };
    match actor {
        Clearance::User => return Err(asked.too_low()),
        Clearance::Operator => asked.within_operators_reach()?,
        Clearance::ClusterAdmin | Clearance::ClusterNode => {}
    }
    match action {
        Action::Generate => asked.generate(),
        Action::Upload => asked.upload(),
        Action::Edit => asked.edit(),
        Action::Delete => asked.delete(),
        Action::Disable => asked.disable(),
    }
}

struct Asked<'a> {
    actor: Clearance,
    action: Action,
    target: &'a Target,
}

impl Asked<'_> {
    fn within_operators_reach(&self) -> Result<(), Denied> {
        if self.target.is_above_operator() {
            return Err(self.forbidden(
                "B3.operator",
                "Cluster Admin clearance",
                "Operators manage Operator and User certificates. They reach neither a Cluster Admin or Cluster \
                 Node certificate nor that clearance; ask a Cluster Admin.",
            ));
        }
        Ok(())
    }

    fn generate(&self) -> Result<(), Denied> {
        self.requested()?;
        if self.target.requested == Some(Clearance::ClusterNode) {
            return Err(self.forbidden(
                "B3.generate-node",
                "another clearance",
                "Cluster Node certificates are never generated: make the key on the node itself and upload its \
                 certificate, or let the node join with a token.",
            ));
        }
        if self.target.clearance.is_some() {
            return Err(self.forbidden(
                "B3.generate-existing",
                "a new certificate",
                "A generated certificate is always a new one. Edit the registered one instead.",
            ));
        }
        Ok(())
    }

    fn upload(&self) -> Result<(), Denied> {
        self.requested()?;
        self.not_a_members("upload")?;
        self.overwrites()
    }

    /// An upload over a record is an edit, and held to the rules of one.
    fn overwrites(&self) -> Result<(), Denied> {
        if self.target.clearance.is_some() { self.edit() } else { Ok(()) }
    }

    fn edit(&self) -> Result<(), Denied> {
        self.not_a_members("edit")?;
        let target = self.target;
        let rights = target.changes_clearance() || target.sets_grants;
        if target.is_self && self.actor == Clearance::Operator && rights {
            return Err(self.denied(
                DeniedReason::OwnCertificate,
                "B3.own",
                "another Operator or a Cluster Admin",
                "Operators may change the name of their own certificate, nothing else. Ask another administrator.",
            ));
        }
        let demotes =
            target.requested.is_some_and(|requested| !requested.covers(Clearance::ClusterAdmin));
        if demotes || target.requested == Some(Clearance::ClusterNode) {
            self.not_the_last("demote")?;
        }
        Ok(())
    }

    fn delete(&self) -> Result<(), Denied> {
        self.not_ones_own("delete")?;
        self.not_a_members("delete")?;
        self.not_the_last("delete")
    }

    fn disable(&self) -> Result<(), Denied> {
        self.not_ones_own("disable")?;
        self.not_a_members("disable")?;
        if self.target.clearance == Some(Clearance::ClusterNode) {
            return Err(self.forbidden(
                "B3.disable-node",
                "another clearance",
                "Cluster Node certificates cannot be disabled. Remove the node, or delete the certificate.",
            ));
        }
        self.not_the_last("disable")
    }

    fn requested(&self) -> Result<(), Denied> {
        if self.target.requested.is_none() {
            return Err(self.forbidden(
                "B3.clearance",
                "a clearance",
                "The clearance of a new certificate is always written out; none was given.",
            ));
        }
        Ok(())
    }

    fn not_ones_own(&self, word: &str) -> Result<(), Denied> {
        if self.target.is_self {
            return Err(self.denied(
                DeniedReason::OwnCertificate,
                "B3.own",
                "another administrator",
                &format!(
                    "Nobody can {word} the certificate they call with, so that nobody locks themselves out by \
                     mistake. Ask another administrator, or call with another certificate."
                ),
            ));
        }
        Ok(())
    }

    fn not_a_members(&self, word: &str) -> Result<(), Denied> {
        if self.target.is_current_member {
            return Err(self.forbidden(
                "B3.member",
                "a certificate of no member",
                &format!(
                    "This is the node certificate of a current member: to {word} it would cut the node off. Remove \
                     the node from the cluster first; that revokes its certificate."
                ),
            ));
        }
        Ok(())
    }

    fn not_the_last(&self, word: &str) -> Result<(), Denied> {
        if self.target.is_last_cluster_admin {
            return Err(self.denied(
                DeniedReason::LastClusterAdmin,
                "B3.last",
                "another Cluster Admin certificate",
                &format!(
                    "This is the last Cluster Admin certificate, and to {word} it would leave the cluster without \
                     an administrator. Register another Cluster Admin first."
                ),
            ));
        }
        Ok(())
    }

    fn too_low(&self) -> Denied {
        self.denied(
            DeniedReason::ClearanceTooLow,
            "B3.user",
            "Operator clearance",
            "Certificates are managed by Operators and Cluster Admins. Ask one of them.",
        )
    }

    fn forbidden(&self, rule: &'static str, required: &str, message: &str) -> Denied {
        self.denied(DeniedReason::ManageForbidden, rule, required, message)
    }

    fn denied(
        &self,
        reason: DeniedReason,
        rule: &'static str,
        required: &str,
        message: &str,
    ) -> Denied {
        Denied {
            reason,
            operation: operation(self.action, self.target).name(),
            required: required.to_owned(),
            have: format!("{} clearance", self.actor),
            rule,
            message: message.to_owned(),
            revision: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;
    use Clearance::{ClusterAdmin, ClusterNode, Operator, User};

    const NONE: Target = Target {
        clearance: None,
        requested: None,
        sets_grants: false,
        is_self: false,
        is_last_cluster_admin: false,
        is_current_member: false,
    };

    fn answer(actor: Clearance, action: Action, target: Target) -> &'static str {
        match decide(actor, action, &target) {
            Ok(()) => "Y",
            Err(denied) => {
                assert!(denied.message.ends_with('.'), "{}", denied.message);
                assert_eq!(denied.have, format!("{actor} clearance"));
                denied.reason.code()
            }
        }
    }

    /// The targets of the columns User, Operator, ClusterAdmin, ClusterNode: new ones for generate and upload.
    fn column(action: Action, clearance: Clearance) -> Target {
        match action {
            Action::Generate | Action::Upload => Target { requested: Some(clearance), ..NONE },
            Action::Edit | Action::Delete | Action::Disable => {
                Target { clearance: Some(clearance), ..NONE }
            }
        }
    }

    /// Part B.3 of the specification, cell by cell: actors, action, then the targets User, Operator, ClusterAdmin,
    /// ClusterNode.
    #[test]
    fn every_cell_of_actor_action_and_target() {
        const NO: &str = "MANAGE_FORBIDDEN";
        const LOW: &str = "CLEARANCE_TOO_LOW";
        const ADMINS: &[Clearance] = &[ClusterAdmin, ClusterNode];
        type Cells = (&'static [Clearance], Action, [&'static str; 4]);
        let table: &[Cells] = &[
            (ADMINS, Action::Generate, ["Y", "Y", "Y", NO]),
            (ADMINS, Action::Upload, ["Y", "Y", "Y", "Y"]),
            (ADMINS, Action::Edit, ["Y", "Y", "Y", "Y"]),
            (ADMINS, Action::Delete, ["Y", "Y", "Y", "Y"]),
            (ADMINS, Action::Disable, ["Y", "Y", "Y", NO]),
            (&[Operator], Action::Generate, ["Y", "Y", NO, NO]),
            (&[Operator], Action::Upload, ["Y", "Y", NO, NO]),
            (&[Operator], Action::Edit, ["Y", "Y", NO, NO]),
            (&[Operator], Action::Delete, ["Y", "Y", NO, NO]),
            (&[Operator], Action::Disable, ["Y", "Y", NO, NO]),
            (&[User], Action::Generate, [LOW; 4]),
            (&[User], Action::Upload, [LOW; 4]),
            (&[User], Action::Edit, [LOW; 4]),
            (&[User], Action::Delete, [LOW; 4]),
            (&[User], Action::Disable, [LOW; 4]),
        ];
        let mut seen = BTreeSet::new();
        for (actors, action, cells) in table {
            for actor in *actors {
                seen.insert((actor.title(), action.word()));
                for (clearance, cell) in Clearance::ALL.into_iter().zip(cells) {
                    let got = answer(*actor, *action, column(*action, clearance));
                    assert_eq!(got, *cell, "{actor} {action:?} {clearance}");
                }
            }
        }
        assert_eq!(seen.len(), Clearance::ALL.len() * Action::ALL.len(), "a row is missing");
    }

    /// The columns "self" and "loaded server cert", the last Cluster Admin, and the lines of part A24 on certificates.
    #[test]
    fn every_special_case() {
        const NO: &str = "MANAGE_FORBIDDEN";
        const OWN: &str = "OWN_CERTIFICATE";
        const LAST: &str = "LAST_CLUSTER_ADMIN";
        const LOW: &str = "CLEARANCE_TOO_LOW";
        let is = |clearance| Target { clearance: Some(clearance), ..NONE };
        let own = |clearance| Target { is_self: true, ..is(clearance) };
        let to = |target: Target, requested| Target { requested: Some(requested), ..target };
        let last = |target: Target| Target { is_last_cluster_admin: true, ..target };
        let member = Target { is_current_member: true, ..is(ClusterNode) };
        let grants = |target: Target| Target { sets_grants: true, ..target };
        use Action::{Delete, Disable, Edit, Generate, Upload};
        let table: &[(&str, Clearance, Action, Target, &str)] = &[
            // Oneself.
            ("an admin renames itself", ClusterAdmin, Edit, own(ClusterAdmin), "Y"),
            ("an admin demotes itself", ClusterAdmin, Edit, to(own(ClusterAdmin), User), "Y"),
            (
                "the last admin demotes itself",
                ClusterAdmin,
                Edit,
                to(last(own(ClusterAdmin)), User),
                LAST,
            ),
            ("the last admin renames itself", ClusterAdmin, Edit, last(own(ClusterAdmin)), "Y"),
            (
                "the last admin stays what it is",
                ClusterAdmin,
                Edit,
                to(last(own(ClusterAdmin)), ClusterAdmin),
                "Y",
            ),
            ("an admin deletes itself", ClusterAdmin, Delete, own(ClusterAdmin), OWN),
            ("the last admin deletes itself", ClusterAdmin, Delete, last(own(ClusterAdmin)), OWN),
            ("an admin disables itself", ClusterAdmin, Disable, own(ClusterAdmin), OWN),
            ("a node deletes itself", ClusterNode, Delete, own(ClusterNode), OWN),
            ("an operator renames itself", Operator, Edit, own(Operator), "Y"),
            (
                "an operator renames itself, saying its clearance",
                Operator,
                Edit,
                to(own(Operator), Operator),
                "Y",
            ),
            ("an operator grants itself", Operator, Edit, grants(own(Operator)), OWN),
            ("an operator demotes itself", Operator, Edit, to(own(Operator), User), OWN),
            ("an operator raises itself", Operator, Edit, to(own(Operator), ClusterAdmin), NO),
            ("an operator makes itself a node", Operator, Edit, to(own(Operator), ClusterNode), NO),
            ("an operator deletes itself", Operator, Delete, own(Operator), OWN),
            ("an operator disables itself", Operator, Disable, own(Operator), OWN),
            ("a user renames itself", User, Edit, own(User), LOW),
            ("a user raises itself", User, Edit, to(own(User), Operator), LOW),
            ("a user deletes itself", User, Delete, own(User), LOW),
            // Operators and what is above them, by the requested or the current clearance.
            ("an operator makes an operator", Operator, Generate, to(NONE, Operator), "Y"),
            ("an operator generates a node", Operator, Generate, to(NONE, ClusterNode), NO),
            ("an operator uploads an admin", Operator, Upload, to(NONE, ClusterAdmin), NO),
            ("an operator uploads a node", Operator, Upload, to(NONE, ClusterNode), NO),
            (
                "an operator uploads an admin's as user",
                Operator,
                Upload,
                to(is(ClusterAdmin), User),
                NO,
            ),
            (
                "an operator uploads a node's as user",
                Operator,
                Upload,
                to(is(ClusterNode), User),
                NO,
            ),
            ("an operator demotes an admin", Operator, Edit, to(is(ClusterAdmin), User), NO),
            ("an operator demotes a node", Operator, Edit, to(is(ClusterNode), Operator), NO),
            ("an operator raises a user to operator", Operator, Edit, to(is(User), Operator), "Y"),
            ("an operator raises a user to admin", Operator, Edit, to(is(User), ClusterAdmin), NO),
            (
                "an operator raises an operator to node",
                Operator,
                Edit,
                to(is(Operator), ClusterNode),
                NO,
            ),
            ("an operator demotes an operator", Operator, Edit, to(is(Operator), User), "Y"),
            ("an operator grants a user", Operator, Edit, grants(is(User)), "Y"),
            ("an operator deletes an operator", Operator, Delete, is(Operator), "Y"),
            ("an operator purges an admin", Operator, Delete, is(ClusterAdmin), NO),
            ("an operator deletes the last admin", Operator, Delete, last(is(ClusterAdmin)), NO),
            ("an operator deletes a member's", Operator, Delete, member, NO),
            // The last Cluster Admin.
            ("a node deletes the last admin", ClusterNode, Delete, last(is(ClusterAdmin)), LAST),
            ("a node disables the last admin", ClusterNode, Disable, last(is(ClusterAdmin)), LAST),
            (
                "a node demotes the last admin",
                ClusterNode,
                Edit,
                to(last(is(ClusterAdmin)), Operator),
                LAST,
            ),
            (
                "a node makes the last admin a node",
                ClusterNode,
                Edit,
                to(last(is(ClusterAdmin)), ClusterNode),
                LAST,
            ),
            (
                "a node uploads the last admin's as user",
                ClusterNode,
                Upload,
                to(last(is(ClusterAdmin)), User),
                LAST,
            ),
            ("an admin deletes another admin", ClusterAdmin, Delete, is(ClusterAdmin), "Y"),
            // Node certificates of members.
            ("an admin deletes a member's", ClusterAdmin, Delete, member, NO),
            ("an admin disables a member's", ClusterAdmin, Disable, member, NO),
            ("an admin edits a member's", ClusterAdmin, Edit, member, NO),
            ("an admin uploads a member's again", ClusterAdmin, Upload, to(member, User), NO),
            ("an admin deletes a former member's", ClusterAdmin, Delete, is(ClusterNode), "Y"),
            // Nothing is assumed, and a generated certificate is new.
            ("no clearance is asked for", ClusterAdmin, Generate, NONE, NO),
            ("no clearance is given", ClusterAdmin, Upload, NONE, NO),
            ("one that is there is generated", ClusterAdmin, Generate, to(is(User), User), NO),
        ];
        for (words, actor, action, target, expected) in table {
            assert_eq!(answer(*actor, *action, *target), *expected, "{words}");
        }
    }

    /// No combination of an Operator's call touches or yields power above Operator.
    #[test]
    fn operators_reach_nothing_above_operator_by_any_route() {
        let maybe = [None, Some(User), Some(Operator), Some(ClusterAdmin), Some(ClusterNode)];
        let flags = [false, true];
        let mut refused = 0;
        for action in Action::ALL {
            for clearance in maybe {
                for requested in maybe {
                    for (is_self, sets_grants) in
                        flags.into_iter().flat_map(|a| flags.map(|b| (a, b)))
                    {
                        let target = Target { clearance, requested, is_self, sets_grants, ..NONE };
                        let above = [clearance, requested]
                            .contains(&Some(ClusterAdmin))
                            .max([clearance, requested].contains(&Some(ClusterNode)));
                        if above {
                            refused += 1;
                            assert!(
                                decide(Operator, action, &target).is_err(),
                                "{action:?} {target:?}"
                            );
                        }
                        assert!(decide(User, action, &target).is_err(), "{action:?} {target:?}");
                    }
                }
            }
        }
        assert_eq!(refused, 5 * 16 * 4);
    }

    #[test]
    fn the_operation_follows_the_stronger_clearance() {
        let above = Target { clearance: Some(User), requested: Some(ClusterNode), ..NONE };
        let below = Target { clearance: Some(User), requested: Some(Operator), ..NONE };
        for action in Action::ALL {
            assert_eq!(operation(action, &above).rule().clearance(), Some(ClusterAdmin));
            assert_eq!(operation(action, &below).rule().clearance(), Some(Operator));
        }
    }
}
