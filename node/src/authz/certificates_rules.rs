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
//! | ... enable | yes | yes | yes | no | no |
//! | ... cut the connections | yes | yes | no | no | no |
//! | Operator: generate, upload, edit, delete, disable, enable, cut | yes | no | no | edit the name | no |
//! | User: any | no | no | no | no | no |
//!
//! The whole table is printed in `certificates_rules/matrix.golden.txt`. An upload over a registered certificate is held
//! to the rules of an edit, a purge to those of a deletion, a clone to those of a generation. Cutting connections is held to
//! the rules of disabling, except that the last Cluster Admin's may be cut: nothing is taken from them.

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
    /// Switch the record on again.
    Enable,
    /// Cut its open connections; the record stays as it is.
    Cut,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 7] = [
        Self::Generate,
        Self::Upload,
        Self::Edit,
        Self::Delete,
        Self::Disable,
        Self::Enable,
        Self::Cut,
    ];

    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Upload => "upload",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Cut => "cut",
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
    /// Whether an edit sets note or owner.
    pub sets_remarks: bool,
    /// Whether it is the entry of the certificate of the caller.
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

    /// Whether callers would take clearance from themselves, which they could not give back.
    #[must_use]
    pub fn weakens_the_caller(&self) -> bool {
        let (Some(current), Some(requested)) = (self.clearance, self.requested) else {
            return false;
        };
        self.is_self && !requested.covers(current)
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
        (Action::Cut, _) => ServerOperation::CloseConnections,
        (Action::Generate, true) => ServerOperation::GenerateAdminCertificate,
        (Action::Generate, false) => ServerOperation::GenerateCertificate,
        (Action::Upload, true) => ServerOperation::UploadAdminCertificate,
        (Action::Upload, false) => ServerOperation::UploadCertificate,
        (Action::Edit, true) => ServerOperation::EditAdminCertificate,
        (Action::Edit, false) => ServerOperation::EditCertificate,
        (Action::Delete, true) => ServerOperation::DeleteAdminCertificate,
        (Action::Delete, false) => ServerOperation::DeleteCertificate,
        (Action::Disable | Action::Enable, true) => ServerOperation::DisableAdminCertificate,
        (Action::Disable | Action::Enable, false) => ServerOperation::DisableCertificate,
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
        Action::Enable => asked.enable(),
        Action::Cut => asked.cut(),
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
        let more_than_name =
            target.changes_clearance() || target.sets_grants || target.sets_remarks;
        if target.is_self && self.actor == Clearance::Operator && more_than_name {
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

    fn enable(&self) -> Result<(), Denied> {
        self.not_ones_own("enable")?;
        self.not_a_members("enable")
    }

    fn cut(&self) -> Result<(), Denied> {
        if self.target.is_self {
            return Err(self.denied(
                DeniedReason::OwnCertificate,
                "B3.own",
                "another administrator",
                "Nobody can cut the connections of the certificate they call with. Close your own programs instead, or \
                 ask another administrator.",
            ));
        }
        if self.target.is_current_member {
            return Err(self.forbidden(
                "B3.member",
                "a certificate of no member",
                "These are connections of a current member, which would be cut off. Remove the node from the cluster instead.",
            ));
        }
        if self.target.clearance == Some(Clearance::ClusterNode) {
            return Err(self.forbidden(
                "B3.cut-node",
                "another clearance",
                "Connections of Cluster Node certificates cannot be cut. Remove the node, or delete the certificate.",
            ));
        }
        Ok(())
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
mod tests;
