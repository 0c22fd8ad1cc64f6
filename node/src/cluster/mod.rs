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
//! **Invariant:** a refusal changes nothing but the kept results and the audit log. Each command checks first and writes
//! then.
//!
//! **Invariant:** no command is applied without its audit record, which is in the same batch ([`audit`]).
//!
//! **Invariant:** [`Cluster::load`] makes from the records exactly the registry that applying the log made.
//!
//! **Invariant:** what [`check`] refuses is a part of the log's format: it may change only with the version of `Command`.

mod audit;
mod certificate;
mod certificates;
mod check;
mod databases;
pub mod list;
mod nodes;
mod overwrite;
mod own_node;
mod purge;
mod records;
mod registry;
mod second_factor;
mod server_certificates;
mod trust;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rookery_proto::log::v1::{
    Applied, AuditHead, CertificateRecord, CertificateReplacement, ClusterCommand, ClusterOutcome,
    ClusterSecretRecord, ClusterSettings, Command, DatabaseRecord, Done, JoinTokenRecord,
    NodeRecord, Refusal, SecondFactorRecord, applied, cluster_command, cluster_outcome, command,
};

pub use self::{
    audit::{AuditChunk, audit_before, audit_checkpoint, audit_chunk, audit_hash, audit_head},
    certificate::{Certificate, CertificateEntry},
    certificates::{confirmed, is_primary},
    check::check,
    registry::{Registry, lost_rights},
    second_factor::{lock_left_ms, locked, may_manage, recovery_codes_left, used},
    server_certificates::{is_running, swap_reason},
    trust::{
        LastUse, Renewal, SecurityPolicy, THRESHOLDS, WellKnownAdmin, expiry_threshold,
        renewal::{Renewable, renewable},
    },
};
pub use crate::results::Error;

use crate::{
    authz::{self, Denied, Registration, ServerOperation},
    names::{DatabaseName, NodeId, Thumbprint},
    results::{self, Author, Entry, Stop, refusal, with},
    storage::{Overlay, Read, Space},
};

/// The cluster group's state machine on one node.
pub struct Cluster {
    published: ArcSwap<Registry>,
    /// As of the last applied entry, whose records may not be written yet.
    working: Mutex<Registry>,
    /// The last audit record, which may not be written yet.
    audit_sequence: AtomicU64,
    retention: audit::Retention,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    #[must_use]
    pub fn unformed() -> Self {
        Self::of(Registry::default(), 0)
    }

    fn of(registry: Registry, audit_sequence: u64) -> Self {
        Self {
            published: ArcSwap::from_pointee(registry.clone()),
            working: Mutex::new(registry),
            audit_sequence: AtomicU64::new(audit_sequence),
            retention: audit::Retention::default(),
        }
    }

    /// Reads the registry from the records of a space.
    ///
    /// # Errors
    /// [`Error::Storage`] and [`Error::Corrupt`].
    pub fn load(read: &dyn Read, space: Space) -> Result<Self, Error> {
        Ok(Self::of(load(read, space)?, audit_sequence(read, space)?))
    }

    /// Starts over from the records of a space, such as that of an installed snapshot, and publishes the result.
    ///
    /// # Errors
    /// As [`Cluster::load`]; the registry is unchanged then.
    pub fn reload(&self, read: &dyn Read, space: Space) -> Result<(), Error> {
        let registry = load(read, space)?;
        let sequence = audit_sequence(read, space)?;
        let mut working = self.working.lock();
        self.audit_sequence.store(sequence, Ordering::Release);
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
        if published.revision == working.revision && published.same_uses(&working) {
            return published; // Whatever else changes the registry changes its revision.
        }
        let next = Arc::new(working.clone());
        self.published.store(Arc::clone(&next));
        next
    }

    /// The last record of the audit log as of the last applied entry; 0: there is none.
    #[must_use]
    pub fn audit_sequence(&self) -> u64 {
        self.audit_sequence.load(Ordering::Acquire)
    }

    /// Applies the entry at `index`.
    ///
    /// # Errors
    /// Only what must stop the node, see [`Error`]. What the author did wrong is in the reply.
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
        let retention = self.retention;
        let mut witness = Some(audit::Witness::of(index, command, cluster, &registry));
        let applied = results::once(index, command, state, revision, |entry, state| {
            state.watch();
            let mut applying = Applying {
                entry,
                registry: &mut registry,
                state,
                changed: false,
                retention,
                renews: false,
            };
            let ended = applying.run(cluster).and_then(|outcome| Ok((outcome, applying.finish()?)));
            let witness = witness.take();
            match (ended, witness) {
                (Ok((outcome, ())), Some(witness)) => {
                    witness.applied(&registry, state, retention)?;
                    let outcome = ClusterOutcome { outcome: Some(outcome) };
                    Ok((applied::Outcome::Cluster(outcome), registry.revision))
                }
                (Err(Stop::Refused(refusal)), Some(witness)) => {
                    witness.refused(&refusal, &registry, state, retention)?;
                    Err(Stop::Refused(refusal))
                }
                (Err(failed), _) => Err(failed),
                (Ok(_), None) => Err(Error::corrupt("audit log", "a command ran twice").into()),
            }
        })?;
        // Refused before it ran: its request id is another command's, or its envelope is malformed.
        if let (Some(witness), Some(applied::Outcome::Refusal(refusal))) =
            (witness, &applied.outcome)
            && applied.index == index
        {
            witness.refused(refusal, &registry, state, retention)?;
        }
        if let Some(head) = records::get::<AuditHead>(state, &[])? {
            self.audit_sequence.store(head.sequence, Ordering::Release);
        }
        *working = registry;
        Ok(applied)
    }
}

fn audit_sequence(read: &dyn Read, space: Space) -> Result<u64, Error> {
    Ok(audit_head(read, space)?.map_or(0, |head| head.sequence))
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
    records::all::<CertificateReplacement>(read, space, |record| {
        registry.set_replacement(record);
        Ok(())
    })?;
    trust::load(&mut registry, read, space)?;
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
        Some(C::SetCertificateState(_)) => ServerOperation::DisableCertificate,
        Some(C::PurgeCertificates(_)) => ServerOperation::PurgeCertificates,
        Some(C::RecordDenials(_) | C::CheckpointAudit(_)) => ServerOperation::PeerCall,
        Some(C::RecordAction(action)) => audit::operation_of(action),
        Some(
            C::RegisterSealingKey(_)
            | C::RenewNodeCertificate(_)
            | C::RetireNodeCertificates(_)
            | C::ReportCertificateReplacement(_)
            | C::ActivateCertificateReplacement(_),
        ) => ServerOperation::PeerCall,
        Some(C::StartCertificateReplacement(_)) => ServerOperation::ReplaceServerCertificate,
        Some(C::AbortCertificateReplacement(_)) => {
            ServerOperation::ResetServerCertificateReplacement
        }
        Some(C::SetSecurityPolicy(_)) => ServerOperation::SetSecurityPolicy,
        // Only members write these, in their own name.
        Some(
            C::DeclareWellKnownAdmins(_)
            | C::RenewCertificate(_)
            | C::RecordUse(_)
            | C::Owner(_)
            | C::NoteExpiry(_),
        ) => ServerOperation::PeerCall,
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
        Some(C::PutCertificate(put)) => put.overwrite,
        Some(C::SetCertificateState(set)) => set.disabled,
        Some(
            C::DeleteCertificate(_)
            | C::DeleteDatabase(_)
            | C::RemoveNode(_)
            | C::PurgeCertificates(_),
        ) => true,
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
            | C::CreateDatabase(_)
            | C::CreateJoinToken(_)
            | C::RevokeJoinToken(_)
            | C::JoinNode(_)
            | C::RecordDenials(_)
            | C::CheckpointAudit(_)
            | C::RecordAction(_)
            | C::RegisterSealingKey(_)
            | C::RenewNodeCertificate(_)
            | C::StartCertificateReplacement(_),
        ) => false,
        // The report of the last node ends the replacement and with it the old certificates.
        Some(
            C::RetireNodeCertificates(_)
            | C::ReportCertificateReplacement(_)
            | C::ActivateCertificateReplacement(_)
            | C::AbortCertificateReplacement(_),
        ) => true,
        // A declaration may be shorter than the last one; a renewal may make room.
        Some(C::SetSecurityPolicy(_) | C::DeclareWellKnownAdmins(_) | C::RenewCertificate(_)) => {
            true
        }
        Some(C::Owner(owner)) => {
            use rookery_proto::log::v1::owner_command::Command;
            !matches!(&owner.command, Some(Command::Put(put)) if !put.overwrite)
        }
        Some(C::RecordUse(_) | C::NoteExpiry(_)) => false,
        None => true,
    }
}

/// One command under way: what it may read and what it changes.
struct Applying<'a, 'o> {
    entry: &'a Entry<'a>,
    registry: &'a mut Registry,
    state: &'a mut Overlay<'o>,
    changed: bool,
    retention: audit::Retention,
    /// Set while certificates make room for a renewed one, whose key stays.
    renews: bool,
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
            Some(C::SetCertificateState(set)) => {
                let actor = self.administrator(command)?;
                self.set_certificate_state(&actor, set)
            }
            Some(C::PurgeCertificates(purge)) => {
                let actor = self.administrator(command)?;
                self.purge_certificates(&actor, purge)
            }
            Some(C::RecordDenials(denials)) => {
                self.administrator(command)?;
                self.record_denials(denials)
            }
            Some(C::CheckpointAudit(asked)) => {
                self.administrator(command)?;
                self.checkpoint_audit(asked)
            }
            Some(C::RecordAction(action)) => {
                self.administrator(command)?;
                self.record_action(action)
            }
            Some(C::RegisterSealingKey(register)) => {
                self.administrator(command)?;
                self.register_sealing_key(register)
            }
            Some(C::RenewNodeCertificate(renew)) => {
                self.administrator(command)?;
                self.renew_node_certificate(renew)
            }
            Some(C::RetireNodeCertificates(retire)) => {
                self.administrator(command)?;
                self.retire_node_certificates(retire)
            }
            Some(C::StartCertificateReplacement(start)) => {
                self.administrator(command)?;
                self.start_replacement(start)
            }
            Some(C::ReportCertificateReplacement(report)) => {
                self.administrator(command)?;
                self.report_replacement(report)
            }
            Some(C::ActivateCertificateReplacement(activate)) => {
                self.administrator(command)?;
                self.activate_replacement(activate)
            }
            Some(C::AbortCertificateReplacement(abort)) => {
                self.administrator(command)?;
                self.abort_replacement(abort)
            }
            Some(C::SetSecurityPolicy(set)) => {
                self.administrator(command)?;
                self.set_policy(set)
            }
            Some(C::DeclareWellKnownAdmins(declare)) => {
                let member = self.administrator(command)?;
                self.declare(&member, declare)
            }
            Some(C::RenewCertificate(renew)) => {
                self.administrator(command)?;
                self.renew(renew)
            }
            Some(C::RecordUse(record)) => {
                let member = self.administrator(command)?;
                self.record_use(&member, record)
            }
            Some(C::Owner(owner)) => {
                let member = self.administrator(command)?;
                self.owner(&member, owner)
            }
            Some(C::NoteExpiry(note)) => {
                self.administrator(command)?;
                self.note_expiry(note)
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
        let registered = self.registry.identity(&thumbprint).map(Arc::clone);
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
        let thumbprint = Thumbprint::from_bytes(&record.thumbprint)
            .map_err(|e| Error::corrupt("certificate", e))?;
        self.bury_left_out(&thumbprint, &record)?;
        records::put(self.state, &record)?;
        self.registry.set_certificate(record)?;
        self.bury_disabled(&thumbprint)
    }

    fn forget_certificate(&mut self, thumbprint: &Thumbprint) -> Result<(), Error> {
        self.changed = true;
        self.bury_deleted(thumbprint)?;
        let entry = self.registry.certificate_details(thumbprint);
        let secondaries = entry.map_or_else(Vec::new, |it| it.entry.secondaries.clone());
        for gone in secondaries.iter().chain([thumbprint]) {
            self.forget_use(gone)?;
        }
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
            self.forget_declaration(NodeId(record.id))?;
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
    fn finish(&mut self) -> Result<(), Error> {
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
