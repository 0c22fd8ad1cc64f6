//! The command of whoever owns a node's files, who needs no certificate: the way back in when none is left.
//!
//! Its author is the member itself, which is known to have read it from its own admin socket. It registers and deletes
//! certificates with the power of a Cluster Admin and cannot touch those of members.

use rookery_proto::log::v1::{OwnerCommand, OwnerDelete, owner_command};

use crate::{
    authz::{
        Registration,
        certificates_rules::{Action, Target},
    },
    cluster::{Applying, Outcome, certificates::decide, check, done, is_primary},
};

impl Applying<'_, '_> {
    pub(in crate::cluster) fn owner(
        &mut self,
        author: &Registration,
        owner: &OwnerCommand,
    ) -> Outcome {
        match &owner.command {
            Some(owner_command::Command::Put(put)) => self.put_certificate(author, put),
            Some(owner_command::Command::Delete(delete)) => self.owner_delete(author, delete),
            None => Err(check::invalid("command", "there is no command").into()),
        }
    }

    /// With `force` the guard of the last Cluster Admin is off, and no other.
    fn owner_delete(&mut self, author: &Registration, delete: &OwnerDelete) -> Outcome {
        let (named, target) = self.target(author, &delete.thumbprint)?;
        let guarded = target.is_last_cluster_admin && !delete.force;
        decide(author, Action::Delete, &Target { is_last_cluster_admin: guarded, ..target })?;
        is_primary(&named)?;
        self.nothing_declared(&named)?;
        self.forget_certificate(&named.primary)?;
        Ok(done())
    }
}
