//! The state machine of the cluster group: who is known, which databases there are, which nodes hold them.
//!
//! ```text
//! entry ─► once? ─► authorize again ─► check ─► rules against the registry ─► write records ─► outcome
//!            │            │               │                  │
//!         kept result     └───────────────┴── refusal ───────┘   (kept like an outcome)
//! ```
//!
//! Every command is authorized here a second time, from its author's thumbprint and the registry as of its position in
//! the log: of two administrators who revoke each other the log lets one win, the same on every node. The node itself is
//! a legitimate author of two commands only: to form the cluster, and to let a node join whose token decides.
//!
//! State stands in records ([`records`], kept by [`Overlay`]) and, for those who read, in a [`Registry`] in memory.
//! Apply changes a working copy; [`Cluster::publish`] shows it once the records are written.
//!
//! **Invariant:** deterministic. All time is the entry's, all order is that of keys; nothing random is made here.
//!
//! **Invariant:** a refusal changes nothing but the kept results. Each command checks first and writes then.
//!
//! **Invariant:** [`Cluster::load`] makes from the records exactly the registry that applying the log made.
//!
//! **Invariant:** what [`check`] refuses is a part of the log's format: it may change only with the version of `Command`.

mod certificates;
mod check;
mod databases;
mod nodes;
mod own_node;
mod records;
mod registry;
mod second_factor;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rookery_proto::log::v1::{
    Applied, CertificateRecord, ClusterCommand, ClusterOutcome, ClusterSecretRecord,
    ClusterSettings, Command, DatabaseRecord, Done, JoinTokenRecord, NodeRecord, Refusal,
    SecondFactorRecord, applied, cluster_command, cluster_outcome, command,
};

pub use self::{
    check::check,
    registry::{Certificate, Registry, lost_rights},
    second_factor::{lock_left_ms, locked, may_manage, recovery_codes_left, used},
};
pub use crate::results::Error;

use crate::{
    authz::{self, Denied, Registration, ServerOperation},
    names::{DatabaseName, Thumbprint},
    results::{self, Author, Entry, Stop, refusal, with},
    storage::{Overlay, Read, Space},
};

/// The cluster group's state machine on one node.
pub struct Cluster {
    published: ArcSwap<Registry>,
    /// As of the last applied entry, whose records may not be written yet.
    working: Mutex<Registry>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    #[must_use]
    pub fn unformed() -> Self {
        let registry = Registry::default();
        Self { published: ArcSwap::from_pointee(registry.clone()), working: Mutex::new(registry) }
    }

    /// Reads the registry from the records of a space.
    ///
    /// # Errors
    /// [`Error::Storage`] and [`Error::Corrupt`].
    pub fn load(read: &dyn Read, space: Space) -> Result<Self, Error> {
        let registry = load(read, space)?;
        Ok(Self {
            published: ArcSwap::from_pointee(registry.clone()),
            working: Mutex::new(registry),
        })
    }

    /// Starts over from the records of a space, such as that of an installed snapshot, and publishes the result.
    ///
    /// # Errors
    /// As [`Cluster::load`]; the registry is unchanged then.
    pub fn reload(&self, read: &dyn Read, space: Space) -> Result<(), Error> {
        let registry = load(read, space)?;
        let mut working = self.working.lock();
        *working = registry.clone();
        self.published.store(Arc::new(registry));
        Ok(())
    }

    /// The published registry; takes no lock.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.published.load_full()
    }

    /// Shows readers what was applied. To be called when the records of the batch are written.
    pub fn publish(&self) -> Arc<Registry> {
        let working = self.working.lock();
        let published = self.published.load_full();
        if published.revision == working.revision {
            return published; // Whatever changes the registry changes its revision.
        }
        let next = Arc::new(working.clone());
        self.published.store(Arc::clone(&next));
        next
    }

    /// Applies the entry at `index`.
    ///
    /// # Errors
    /// Only what must stop the node: see [`Error::is_deterministic`]. What the author did wrong is in the reply.
    pub fn apply(
        &self,
        index: u64,
        command: &Command,
        state: &mut Overlay<'_>,
    ) -> Result<Applied, Error> {
        let unknown = Error::UnknownCommand { index, what: "cluster command" };
        let cluster = match &command.command {
            Some(command::Command::Cluster(cluster)) => cluster,
            Some(command::Command::Database(_)) | None => return Err(unknown),
        };
        if cluster.command.is_none() {
            return Err(unknown);
        }
        let mut working = self.working.lock();
        let mut registry = working.clone();
        let revision = registry.revision;
        let applied = results::once(index, command, state, revision, |entry, state| {
            let mut applying = Applying { entry, registry: &mut registry, state, changed: false };
            let outcome = applying.run(cluster)?;
            applying.finish()?;
            let outcome = applied::Outcome::Cluster(ClusterOutcome { outcome: Some(outcome) });
            Ok((outcome, registry.revision))
        })?;
        *working = registry;
        Ok(applied)
    }
}

/// The open join tokens, expired ones included, in the order of their ids.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Corrupt`].
pub fn join_tokens(read: &dyn Read, space: Space) -> Result<Vec<JoinTokenRecord>, Error> {
    let mut tokens = Vec::new();
    records::all(read, space, |token| {
        tokens.push(token);
        Ok(())
    })?;
    Ok(tokens)
}

fn load(read: &dyn Read, space: Space) -> Result<Registry, Error> {
    let mut registry = Registry::default();
    if let Some(settings) = records::settings(read, space)? {
        registry.cluster_id = settings.cluster_id;
        registry.revision = settings.registry_revision;
        registry.next_database_id = settings.next_database_id;
    }
    records::all::<CertificateRecord>(read, space, |record| registry.set_certificate(record))?;
    records::all::<DatabaseRecord>(read, space, |record| registry.set_database(record))?;
    records::all::<NodeRecord>(read, space, |record| registry.set_node(record))?;
    records::all::<SecondFactorRecord>(read, space, |record| registry.set_second_factor(record))?;
    records::all::<ClusterSecretRecord>(read, space, |record| {
        registry.set_cluster_secret(record);
        Ok(())
    })?;
    Ok(registry)
}

/// Which operation a command is, for the permit.
///
/// For certificates it is the weaker of two, as in [`authz::RPCS`]: which one it is also depends on the target, and
/// [`authz::certificates_rules`] decides that. A command that this build does not know has the operation of raw ones.
#[must_use]
pub fn operation(command: &ClusterCommand) -> ServerOperation {
    use cluster_command::Command as C;
    match &command.command {
        Some(C::FormCluster(_)) => ServerOperation::FormCluster,
        Some(C::PutCertificate(put)) if put.generated => ServerOperation::GenerateCertificate,
        Some(C::PutCertificate(_)) => ServerOperation::UploadCertificate,
        Some(C::EditCertificate(_)) => ServerOperation::EditCertificate,
        Some(C::DeleteCertificate(_)) => ServerOperation::DeleteCertificate,
        Some(C::CreateDatabase(_)) => ServerOperation::CreateDatabase,
        Some(C::SetDatabaseState(set)) if set.enabled => ServerOperation::EnableDatabase,
        Some(C::SetDatabaseState(_)) => ServerOperation::DisableDatabase,
        Some(C::DeleteDatabase(_)) => ServerOperation::DeleteDatabase,
        Some(C::CreateJoinToken(_)) => ServerOperation::CreateJoinToken,
        Some(C::RevokeJoinToken(_)) => ServerOperation::RevokeJoinToken,
        Some(C::JoinNode(_)) => ServerOperation::JoinCluster,
        Some(C::RemoveNode(_)) => ServerOperation::RemoveNode,
        Some(C::RegisterSealingKey(_)) => ServerOperation::PeerCall,
        Some(C::EnrolSecondFactor(_)) => ServerOperation::EnrolTwoFactor,
        Some(C::EndSession(_)) => ServerOperation::TwoFactorLogOut,
        Some(C::RemoveSecondFactor(_)) => ServerOperation::RemoveTwoFactor,
        Some(
            C::PutClusterSecret(_)
            | C::SealClusterSecret(_)
            | C::ForgetClusterSecret(_)
            | C::OpenSession(_)
            | C::NoteWrongCode(_)
            | C::ResealSecondFactor(_),
        ) => ServerOperation::PeerCall,
        None => ServerOperation::SubmitRaftCommand,
    }
}

/// Whether a command may take rights away from somebody, so that its acknowledgement must wait for every node.
///
/// Says yes too often rather than once too little. `before` may be older than the position the command will get, so an
/// edit is only compared with it where the edit insists on the revision that `before` has.
#[must_use]
pub fn takes_rights_away(before: &Registry, command: &ClusterCommand) -> bool {
    use cluster_command::Command as C;
    match &command.command {
        Some(C::EditCertificate(edit)) => certificates::may_narrow(before, edit),
        Some(C::SetDatabaseState(set)) => !set.enabled,
        Some(C::DeleteCertificate(_) | C::DeleteDatabase(_) | C::RemoveNode(_)) => true,
        // A session ends the one before, and the first one makes the second factor count.
        Some(C::OpenSession(_) | C::EndSession(_) | C::RemoveSecondFactor(_)) => true,
        // Nobody's rights hang on these.
        Some(
            C::PutClusterSecret(_)
            | C::SealClusterSecret(_)
            | C::ForgetClusterSecret(_)
            | C::EnrolSecondFactor(_)
            | C::NoteWrongCode(_)
            | C::ResealSecondFactor(_),
        ) => false,
        // These only add. A token is judged by the log alone, so no node can act on a revoked one.
        Some(
            C::FormCluster(_)
            | C::PutCertificate(_)
            | C::CreateDatabase(_)
            | C::CreateJoinToken(_)
            | C::RevokeJoinToken(_)
            | C::JoinNode(_)
            | C::RegisterSealingKey(_),
        ) => false,
        None => true,
    }
}

/// One command under way: what it may read and what it changes.
struct Applying<'a, 'o> {
    entry: &'a Entry<'a>,
    registry: &'a mut Registry,
    state: &'a mut Overlay<'o>,
    changed: bool,
}

type Outcome = Result<cluster_outcome::Outcome, Stop>;

impl Applying<'_, '_> {
    /// Every arm first establishes who may: the administrator behind the entry, the files of the node that forms the
    /// cluster, or the token of the node that joins.
    fn run(&mut self, command: &ClusterCommand) -> Outcome {
        use cluster_command::Command as C;
        match &command.command {
            Some(C::FormCluster(form)) => {
                check(command)?;
                self.form_cluster(form)
            }
            Some(C::JoinNode(join)) => {
                self.formed()?;
                check(command)?;
                self.join_node(join)
            }
            Some(C::PutCertificate(put)) => {
                let actor = self.administrator(command)?;
                self.put_certificate(&actor, put)
            }
            Some(C::EditCertificate(edit)) => {
                let actor = self.administrator(command)?;
                self.edit_certificate(&actor, edit)
            }
            Some(C::DeleteCertificate(delete)) => {
                let actor = self.administrator(command)?;
                self.delete_certificate(&actor, delete)
            }
            Some(C::CreateDatabase(create)) => {
                self.administrator(command)?;
                self.create_database(create)
            }
            Some(C::SetDatabaseState(set)) => {
                self.administrator(command)?;
                self.set_database_state(set)
            }
            Some(C::DeleteDatabase(delete)) => {
                self.administrator(command)?;
                self.delete_database(delete)
            }
            Some(C::CreateJoinToken(create)) => {
                self.administrator(command)?;
                self.create_join_token(create)
            }
            Some(C::RevokeJoinToken(revoke)) => {
                self.administrator(command)?;
                self.revoke_join_token(revoke)
            }
            Some(C::RemoveNode(remove)) => {
                self.administrator(command)?;
                self.remove_node(remove)
            }
            Some(C::RegisterSealingKey(register)) => {
                self.administrator(command)?;
                self.register_sealing_key(register)
            }
            Some(
                C::PutClusterSecret(_)
                | C::SealClusterSecret(_)
                | C::ForgetClusterSecret(_)
                | C::EnrolSecondFactor(_)
                | C::OpenSession(_)
                | C::NoteWrongCode(_)
                | C::EndSession(_)
                | C::RemoveSecondFactor(_)
                | C::ResealSecondFactor(_),
            ) => {
                let actor = self.administrator(command)?;
                self.second_factor(&actor, command)
            }
            None => {
                let index = self.entry.index;
                Err(Error::UnknownCommand { index, what: "cluster command" }.into())
            }
        }
    }

    /// The administrator behind a well-formed command, who holds the rights for it at this position of the log.
    fn administrator(&self, command: &ClusterCommand) -> Result<Arc<Registration>, Refusal> {
        self.formed()?;
        let actor = self.authorize(operation(command))?;
        check(command)?;
        Ok(actor)
    }

    fn formed(&self) -> Result<(), Refusal> {
        if self.registry.is_formed() {
            return Ok(());
        }
        Err(refusal("NOT_FORMED", "this node belongs to no cluster yet"))
    }

    /// The author, who holds a certificate that may do `operation` at this position of the log.
    fn authorize(&self, operation: ServerOperation) -> Result<Arc<Registration>, Refusal> {
        let thumbprint = match self.entry.author {
            Author::Certificate(thumbprint) => thumbprint,
            Author::Node(reason) => {
                let message = format!(
                    "a node does this only in the name of an administrator, not by itself ({reason})"
                );
                return Err(refusal("CLEARANCE_TOO_LOW", message));
            }
        };
        let caller = self.registry.caller(Some(thumbprint));
        authz::decide_server(caller, operation, self.entry.at, self.registry.revision)
            .map(drop) // The permit is for proposing; this is the proof that it still holds.
            .map_err(|denied| denial(&denied))?;
        let registered = self.registry.certificate(&thumbprint).map(Arc::clone);
        registered.ok_or_else(|| refusal("CERTIFICATE_UNKNOWN", "the author is not registered"))
    }

    /// The author's thumbprint for `created_by`; empty where the node itself is the author.
    fn author(&self) -> Vec<u8> {
        match self.entry.author {
            Author::Certificate(thumbprint) => thumbprint.as_bytes().to_vec(),
            Author::Node(_) => Vec::new(),
        }
    }

    fn settings(&self) -> Result<ClusterSettings, Error> {
        records::require(self.state, &[])
    }

    fn store_certificate(&mut self, record: CertificateRecord) -> Result<(), Error> {
        self.changed = true;
        records::put(self.state, &record)?;
        self.registry.set_certificate(record)
    }

    fn forget_certificate(&mut self, thumbprint: &Thumbprint) -> Result<(), Error> {
        self.changed = true;
        records::delete::<CertificateRecord>(self.state, thumbprint.as_bytes())?;
        self.registry.remove_certificate(thumbprint);
        self.forget_second_factor(thumbprint)
    }

    fn store_database(&mut self, record: DatabaseRecord) -> Result<(), Error> {
        self.changed = true;
        records::put(self.state, &record)?;
        self.registry.set_database(record)
    }

    fn forget_database(&mut self, name: &DatabaseName, id: u64) -> Result<(), Error> {
        self.changed = true;
        records::delete::<DatabaseRecord>(self.state, &id.to_be_bytes())?;
        self.registry.remove_database(name);
        Ok(())
    }

    fn store_node(&mut self, record: NodeRecord) -> Result<(), Error> {
        self.changed = true;
        if record.removed {
            self.take_secrets_from(record.id, true)?;
        } else if self.has_another_sealing_key(&record) {
            self.take_secrets_from(record.id, false)?; // It cannot open them any more.
        }
        records::put(self.state, &record)?;
        self.registry.set_node(record)
    }

    fn store_second_factor(&mut self, record: SecondFactorRecord) -> Result<(), Error> {
        self.changed = true;
        records::put(self.state, &record)?;
        self.registry.set_second_factor(record)
    }

    fn forget_second_factor(&mut self, thumbprint: &Thumbprint) -> Result<(), Error> {
        if self.registry.second_factor(thumbprint).is_none() {
            return Ok(());
        }
        self.changed = true;
        records::delete::<SecondFactorRecord>(self.state, thumbprint.as_bytes())?;
        self.registry.remove_second_factor(thumbprint);
        Ok(())
    }

    fn store_cluster_secret(&mut self, record: ClusterSecretRecord) -> Result<(), Error> {
        self.changed = true;
        records::put(self.state, &record)?;
        self.registry.set_cluster_secret(record);
        Ok(())
    }

    fn forget_cluster_secret(&mut self, key_id: u64) -> Result<(), Error> {
        self.changed = true;
        records::delete::<ClusterSecretRecord>(self.state, &key_id.to_be_bytes())?;
        self.registry.remove_cluster_secret(key_id);
        Ok(())
    }

    /// Gives a changed registry its revision.
    fn finish(self) -> Result<(), Error> {
        if !self.changed {
            return Ok(());
        }
        let mut settings = self.settings()?;
        settings.registry_revision = self.entry.index;
        records::put(self.state, &settings)?;
        self.registry.revision = self.entry.index;
        Ok(())
    }
}

fn done() -> cluster_outcome::Outcome {
    cluster_outcome::Outcome::Done(Done {})
}

/// A denial as a refusal of the log: the same reason code, without a registry revision in it.
fn denial(denied: &Denied) -> Refusal {
    let refused = refusal(denied.reason.code(), denied.message.clone());
    let refused = with(refused, "operation", denied.operation);
    let refused = with(refused, "required", &denied.required);
    let refused = with(refused, "have", &denied.have);
    let refused = with(refused, "rule", denied.rule);
    match denied.reason.remedy() {
        Some(call) => with(refused, "call", call),
        None => refused,
    }
}

#[cfg(test)]
mod tests;
