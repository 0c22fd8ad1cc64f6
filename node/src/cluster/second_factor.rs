//! Commands on second factors and on the cluster secret that seals them.
//!
//! ```text
//!            Enrol              first code                 code, recovery code
//! nothing ─────────► pending ───────────────► confirmed ──────────────────────► session, until it ends
//!    ▲                  │                         │ ▲  wrong codes: locked for a while
//!    └── Remove ────────┴─────────────────────────┘ └── EndSession
//! ```
//!
//! A member checks codes, because only members hold the cluster secret; what a code is good for is decided here: a time
//! step counts once and never after a later one, a recovery code counts once, and wrong codes are counted for all nodes.
//!
//! All certificates of an entry share the second factor and the session of their primary.
//!
//! **Invariant:** no secret stands in a command or record but sealed, and no token but as its digest.

use rookery_proto::log::v1::{
    ClusterCommand, ClusterSecretRecord, EnrolSecondFactor, NodeRecord, NoteWrongCode,
    NotedWrongCode, OpenSession, OpenedSession, PutClusterSecret, Refusal, RemoveSecondFactor,
    ResealSecondFactor, SealClusterSecret, SealedFor, SecondFactorRecord, SessionRecord,
    cluster_command, cluster_outcome, open_session,
};

use crate::{
    authz::{
        self, Caller, Clearance, Registration, ServerOperation,
        certificates_rules::{self, Action},
    },
    cluster::{
        Applying, Certificate, Error, Outcome, Registry,
        check::{invalid, thumbprint, too_many},
        denial, done, records,
    },
    limits,
    names::{NodeId, Thumbprint, Timestamp},
    results::{Stop, refusal, refusal_at, with},
};

/// Length of a time step in milliseconds (RFC 6238, X).
const STEP_MS: i64 = 30_000;
/// How far a used step may be from the entry's own: what a member takes, and a step for the way into the log.
const STEP_WINDOW: u64 = 3;

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What these commands must be like whatever the registry says.
pub(super) fn check(command: &ClusterCommand) -> Result<(), Refusal> {
    use cluster_command::Command as C;
    // The other commands are checked elsewhere.
    #[allow(clippy::wildcard_enum_match_arm)]
    match &command.command {
        Some(C::PutClusterSecret(put)) => check_sealed(&put.sealed),
        Some(C::SealClusterSecret(seal)) => check_sealed(&seal.sealed),
        Some(C::EnrolSecondFactor(enrol)) => {
            thumbprint(&enrol.thumbprint)?;
            check_content(&enrol.sealed)
        }
        Some(C::OpenSession(open)) => check_open(open),
        Some(C::NoteWrongCode(note)) => thumbprint(&note.thumbprint).map(drop),
        Some(C::RemoveSecondFactor(remove)) => thumbprint(&remove.thumbprint).map(drop),
        Some(C::ResealSecondFactor(reseal)) => {
            thumbprint(&reseal.thumbprint)?;
            check_content(&reseal.sealed)
        }
        _ => Ok(()),
    }
}

fn check_sealed(sealed: &[SealedFor]) -> Result<(), Refusal> {
    if sealed.is_empty() {
        return Err(invalid("sealed", "is sealed to nobody"));
    }
    if sealed.len() > limits::NODES_MAX {
        return Err(too_many("sealed", limits::NODES_MAX));
    }
    let fits = |one: &SealedFor| {
        !one.sealed.is_empty() && one.sealed.len() <= limits::SEALED_SECRET_BYTES_MAX
    };
    if !sealed.iter().all(fits) {
        return Err(invalid("sealed", "has a part that cannot be a sealed secret"));
    }
    if !sealed.is_sorted_by(|a, b| a.node_id < b.node_id) {
        return Err(invalid("sealed", "must be in the order of the nodes, each once"));
    }
    Ok(())
}

fn check_content(sealed: &[u8]) -> Result<(), Refusal> {
    if sealed.is_empty() || sealed.len() > limits::SECOND_FACTOR_BYTES_MAX {
        return Err(invalid("sealed", "cannot be the sealed content of a second factor"));
    }
    Ok(())
}

fn check_open(open: &OpenSession) -> Result<(), Refusal> {
    thumbprint(&open.thumbprint)?;
    if open.proof.is_none() {
        return Err(invalid("proof", "there is none"));
    }
    let longest = limits::SESSION_LIFE_MAX;
    if open.duration_ms == 0 || u128::from(open.duration_ms) > longest.as_millis() {
        let why = format!("must be up to {} hours", longest.as_secs() / 3600);
        return Err(invalid("session_seconds", why));
    }
    if !matches!(open.token_digest.len(), 0 | 32) {
        return Err(invalid("token_digest", "must be 32 bytes, or none"));
    }
    Ok(())
}

impl Applying<'_, '_> {
    /// Every command of this file, by an author who was authorized.
    pub(super) fn second_factor(
        &mut self,
        actor: &Registration,
        command: &ClusterCommand,
    ) -> Outcome {
        use cluster_command::Command as C;
        // The other commands are applied elsewhere, and an unknown one stops the node there.
        #[allow(clippy::wildcard_enum_match_arm)]
        match &command.command {
            Some(C::PutClusterSecret(put)) => self.put_cluster_secret(put),
            Some(C::SealClusterSecret(seal)) => self.seal_cluster_secret(seal),
            Some(C::ForgetClusterSecret(forget)) => self.drop_cluster_secret(forget.key_id),
            Some(C::EnrolSecondFactor(enrol)) => self.enrol_second_factor(actor, enrol),
            Some(C::OpenSession(open)) => self.open_session(actor, open),
            Some(C::NoteWrongCode(note)) => self.note_wrong_code(note),
            Some(C::EndSession(_)) => self.end_session(actor),
            Some(C::RemoveSecondFactor(remove)) => self.take_second_factor(actor, remove),
            Some(C::ResealSecondFactor(reseal)) => self.reseal_second_factor(reseal),
            _ => {
                let index = self.entry.index;
                Err(Error::UnknownCommand { index, what: "command on a second factor" }.into())
            }
        }
    }

    // ---- the cluster secret ----

    /// Key ids are log positions, so the newest has the greatest.
    fn put_cluster_secret(&mut self, put: &PutClusterSecret) -> Outcome {
        let current = self.registry.current_cluster_secret().map_or(0, |record| record.key_id);
        if put.replaces != current {
            return Err(overtaken("another cluster secret was made meanwhile").into());
        }
        if self.registry.cluster_secrets().count() >= limits::CLUSTER_SECRETS_MAX {
            let message = "there are too many cluster secrets in use; wait until what they seal is sealed anew";
            return Err(refusal("LIMIT_EXCEEDED", message).into());
        }
        let sealed = self.members_only(&put.sealed);
        self.store_cluster_secret(ClusterSecretRecord {
            key_id: self.entry.index,
            sealed,
            created_unix_ms: self.entry.at.0,
            leaver_knew: false,
        })?;
        Ok(done())
    }

    fn seal_cluster_secret(&mut self, seal: &SealClusterSecret) -> Outcome {
        let mut record = self.cluster_secret(seal.key_id)?;
        for one in self.members_only(&seal.sealed) {
            if !record.sealed.iter().any(|other| other.node_id == one.node_id) {
                record.sealed.push(one);
            }
        }
        record.sealed.sort_unstable_by_key(|one| one.node_id);
        self.store_cluster_secret(record)?;
        Ok(done())
    }

    fn drop_cluster_secret(&mut self, key_id: u64) -> Outcome {
        let record = self.cluster_secret(key_id)?;
        let current = self.registry.current_cluster_secret();
        let in_use = self.registry.second_factors().any(|factor| factor.key_id == key_id);
        if in_use || current.is_some_and(|current| current.key_id == record.key_id) {
            return Err(overtaken("this cluster secret is still in use").into());
        }
        self.forget_cluster_secret(key_id)?;
        Ok(done())
    }

    fn cluster_secret(&self, key_id: u64) -> Result<ClusterSecretRecord, Refusal> {
        let found = self.registry.cluster_secret(key_id);
        found.map(|record| ClusterSecretRecord::clone(record)).ok_or_else(|| {
            refusal_at("NOT_FOUND", "key_id", "there is no cluster secret of this id")
        })
    }

    fn members_only(&self, sealed: &[SealedFor]) -> Vec<SealedFor> {
        let is_member = |one: &&SealedFor| self.registry.node(NodeId(one.node_id)).is_some();
        sealed.iter().filter(is_member).cloned().collect()
    }

    pub(super) fn has_another_sealing_key(&self, record: &NodeRecord) -> bool {
        let known = self.registry.node(NodeId(record.id));
        known.is_some_and(|known| {
            !known.sealing_key.is_empty() && known.sealing_key != record.sealing_key
        })
    }

    /// Deletes what is sealed to a node. Where the node leaves, what it could open is to be replaced.
    pub(super) fn take_secrets_from(&mut self, node_id: u64, leaves: bool) -> Result<(), Error> {
        let held = |record: &&std::sync::Arc<ClusterSecretRecord>| {
            record.sealed.iter().any(|one| one.node_id == node_id)
        };
        let known: Vec<ClusterSecretRecord> = self
            .registry
            .cluster_secrets()
            .filter(held)
            .map(|record| ClusterSecretRecord::clone(record))
            .collect();
        for mut record in known {
            record.sealed.retain(|one| one.node_id != node_id);
            record.leaver_knew |= leaves;
            self.store_cluster_secret(record)?;
        }
        Ok(())
    }

    fn reseal_second_factor(&mut self, reseal: &ResealSecondFactor) -> Outcome {
        let mut record = self.factor(&reseal.thumbprint)?;
        if record.key_id != reseal.from_key_id {
            return Err(overtaken("the second factor was changed meanwhile").into());
        }
        self.cluster_secret(reseal.key_id)?;
        record.key_id = reseal.key_id;
        record.sealed.clone_from(&reseal.sealed);
        self.store_second_factor(record)?;
        Ok(done())
    }

    // ---- second factors ----

    fn factor(&self, bytes: &[u8]) -> Result<SecondFactorRecord, Stop> {
        let primary = self.registry.primary(&thumbprint(bytes)?);
        let found = records::get::<SecondFactorRecord>(self.state, primary.as_bytes())?;
        found.ok_or_else(|| {
            let message =
                "this certificate has no second factor; make one (`rookery second-factor enrol`)";
            refusal("SECOND_FACTOR_NOT_ENROLLED", message).into()
        })
    }

    fn enrol_second_factor(&mut self, actor: &Registration, enrol: &EnrolSecondFactor) -> Outcome {
        let thumbprint = self.managed(actor, &enrol.thumbprint)?;
        if self.registry.second_factor(&thumbprint).is_some_and(|record| record.confirmed) {
            let message = "this certificate has a second factor already; remove it first";
            return Err(refusal("ALREADY_EXISTS", message).into());
        }
        let current = self.registry.current_cluster_secret().map_or(0, |record| record.key_id);
        if enrol.key_id != current {
            return Err(overtaken("another cluster secret was made meanwhile; try again").into());
        }
        self.store_second_factor(SecondFactorRecord {
            thumbprint: thumbprint.as_bytes().to_vec(),
            key_id: enrol.key_id,
            sealed: enrol.sealed.clone(),
            sealed_for: enrol.thumbprint.clone(),
            enrolled_unix_ms: self.entry.at.0,
            enrolled_by: self.author(),
            enrolled_revision: self.entry.index,
            ..SecondFactorRecord::default()
        })?;
        Ok(done())
    }

    fn take_second_factor(&mut self, actor: &Registration, remove: &RemoveSecondFactor) -> Outcome {
        let thumbprint = self.managed(actor, &remove.thumbprint)?;
        self.factor(&remove.thumbprint)?;
        self.forget_second_factor(&thumbprint)?;
        Ok(done())
    }

    /// The primary of the entry whose second factor the actor may change: its own, or one that it may edit.
    fn managed(&self, actor: &Registration, bytes: &[u8]) -> Result<Thumbprint, Refusal> {
        let thumbprint = thumbprint(bytes)?;
        let target = self.registry.certificate_details(&thumbprint).ok_or_else(|| {
            refusal_at("NOT_FOUND", "thumbprint", "no certificate of this thumbprint is registered")
        })?;
        let caller = self.registry.caller(Some(actor.thumbprint));
        may_manage(self.registry, caller, target, self.entry.at).map_err(|it| denial(&it))?;
        if target.registration.is_member() {
            let why = "is the certificate of a node, and nobody types codes there";
            return Err(invalid("thumbprint", why));
        }
        Ok(target.primary)
    }

    // ---- sessions ----

    fn open_session(&mut self, actor: &Registration, open: &OpenSession) -> Outcome {
        let mut record = self.factor_in_force(&open.thumbprint)?;
        if record.enrolled_revision != open.enrolled_revision {
            return Err(overtaken("the second factor was made anew meanwhile").into());
        }
        if record.confirmed == open.confirms {
            let (reason, message) = match record.confirmed {
                true => ("ALREADY_EXISTS", "this second factor is confirmed already; log in"),
                false => (
                    "SECOND_FACTOR_NOT_ENROLLED",
                    "this second factor waits for its first code (`rookery second-factor confirm`)",
                ),
            };
            return Err(refusal(reason, message).into());
        }
        self.use_up(&mut record, open.proof.as_ref())?;
        let now = self.entry.at.0;
        let expires = now.saturating_add(i64::try_from(open.duration_ms).unwrap_or(i64::MAX));
        record.confirmed = true;
        record.wrong_unix_ms.clear();
        record.locked_until_unix_ms = 0;
        record.session = Some(SessionRecord {
            opened_unix_ms: now,
            expires_unix_ms: expires,
            token_digest: open.token_digest.clone(),
            node_id: actor.node.map_or(0, |node| node.0),
        });
        let recovery_codes_left = recovery_codes_left(&record);
        self.store_second_factor(record)?;
        Ok(cluster_outcome::Outcome::OpenedSession(OpenedSession {
            expires_unix_ms: expires,
            recovery_codes_left,
        }))
    }

    /// The second factor of an entry with a certificate in force, while it is not locked.
    fn factor_in_force(&self, thumbprint: &[u8]) -> Result<SecondFactorRecord, Stop> {
        let holder = Thumbprint::from_bytes(thumbprint).ok();
        let primary = holder.map(|thumbprint| self.registry.primary(&thumbprint));
        if !primary.is_some_and(|it| self.registry.is_in_force(&it, self.entry.at)) {
            return Err(refusal("NOT_FOUND", "the certificate is not in force").into());
        }
        let record = self.factor(thumbprint)?;
        match lock_left_ms(&record, self.entry.at.0) {
            0 => Ok(record),
            left => Err(locked(left).into()),
        }
    }

    /// Replay memory: what opened a session opens no second one.
    fn use_up(
        &self,
        record: &mut SecondFactorRecord,
        proof: Option<&open_session::Proof>,
    ) -> Result<(), Refusal> {
        match proof {
            Some(open_session::Proof::Step(step)) => {
                let now = u64::try_from(self.entry.at.0 / STEP_MS).unwrap_or(0);
                if step.abs_diff(now) > STEP_WINDOW {
                    return Err(overtaken("the code is not of this time"));
                }
                if *step <= record.last_step {
                    return Err(used());
                }
                record.last_step = *step;
            }
            Some(open_session::Proof::Recovery(place)) => {
                if *place >= RECOVERY_CODES {
                    return Err(invalid("proof", "there is no such recovery code"));
                }
                match record.recovery_used.binary_search(place) {
                    Ok(_) => return Err(used()),
                    Err(at) => record.recovery_used.insert(at, *place),
                }
            }
            None => return Err(invalid("proof", "there is none")),
        }
        Ok(())
    }

    fn note_wrong_code(&mut self, note: &NoteWrongCode) -> Outcome {
        let mut record = self.factor_in_force(&note.thumbprint)?;
        let now = self.entry.at.0;
        let counts_from = now.saturating_sub(millis(limits::WRONG_CODE_WINDOW));
        record.wrong_unix_ms.retain(|wrong| *wrong > counts_from);
        record.wrong_unix_ms.push(now);
        let left = limits::WRONG_CODES_MAX.saturating_sub(record.wrong_unix_ms.len());
        if left == 0 {
            record.wrong_unix_ms.clear();
            record.locked_until_unix_ms = now.saturating_add(millis(limits::SECOND_FACTOR_LOCK));
        }
        let locked_until_unix_ms = record.locked_until_unix_ms;
        self.store_second_factor(record)?;
        Ok(cluster_outcome::Outcome::NotedWrongCode(NotedWrongCode {
            attempts_left: u32::try_from(left).unwrap_or(u32::MAX),
            locked_until_unix_ms: if left == 0 { locked_until_unix_ms } else { 0 },
        }))
    }

    fn end_session(&mut self, actor: &Registration) -> Outcome {
        let mut record = self.factor(actor.thumbprint.as_bytes())?;
        if record.session.take().is_some() {
            self.store_second_factor(record)?;
        }
        Ok(done())
    }
}

/// How many recovery codes a second factor has.
const RECOVERY_CODES: u32 = 10;

/// How many recovery codes were not used.
#[must_use]
pub fn recovery_codes_left(record: &SecondFactorRecord) -> u32 {
    RECOVERY_CODES.saturating_sub(u32::try_from(record.recovery_used.len()).unwrap_or(u32::MAX))
}

/// For how many milliseconds no code is looked at; 0: codes are.
#[must_use]
pub fn lock_left_ms(record: &SecondFactorRecord, now: i64) -> i64 {
    record.locked_until_unix_ms.saturating_sub(now).max(0)
}

/// The refusal while a second factor is locked.
#[must_use]
pub fn locked(left_ms: i64) -> Refusal {
    let message = format!(
        "Too many wrong codes were shown for this certificate, so its second factor is locked on every node for another \
         {} s. Wait; or ask an administrator, if it was not you.",
        left_ms.saturating_add(999) / 1000
    );
    with(refusal("SECOND_FACTOR_LOCKED", message), "retry_after_ms", left_ms)
}

/// The refusal of a code that opened a session before.
#[must_use]
pub fn used() -> Refusal {
    let message = "This code was used already; a code opens one session, on whichever node. Wait for the next one.";
    refusal("SECOND_FACTOR_CODE_USED", message)
}

/// Whether the caller may change the second factor of the target: it is that of its own entry, or it may edit the target.
///
/// # Errors
/// The rule that forbids it. Who must have a second factor first may make one's own without, and nobody else's.
pub fn may_manage(
    registry: &Registry,
    caller: Caller<'_>,
    target: &Certificate,
    at: Timestamp,
) -> Result<(), authz::Denied> {
    let own = caller.thumbprint();
    if own.is_some_and(|own| registry.primary(&own) == target.primary) {
        return Ok(());
    }
    let operation = ServerOperation::EditCertificate;
    authz::decide_server(caller, operation, at, registry.revision).map(drop)?;
    let target = registry.target(target, own, at);
    let clearance = caller.registration().map_or(Clearance::User, |actor| actor.clearance);
    certificates_rules::decide(clearance, Action::Edit, &target)
}

fn overtaken(message: &str) -> Refusal {
    refusal("CONCURRENCY", message)
}
