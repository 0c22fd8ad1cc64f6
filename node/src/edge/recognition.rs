//! Who is known by more than a registration: well-known admins, and holders of renewed certificates.
//!
//! Both are off unless somebody switched them on, and then this costs a request two looks at the registry. Neither is a
//! way around the registry: a well-known admin stands in what members declared in the log, and a renewed certificate
//! is registered, by the log's own judgement, before the call goes on.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rookery_proto::log::v1::{ClusterCommand, RenewCertificate, cluster_command::Command};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::{
    authz::{Denied, Registration},
    certificates::{self, KeyDigest, Usage},
    cluster::{Registry, Renewal, renewable},
    edge::{
        Edge, convert,
        peer_identity::CallContext,
        uses::{Uses, minute},
    },
    limits,
    tls::PeerCertificate,
};

/// What the edge keeps for recognition.
#[derive(Debug)]
pub struct Recognition {
    pub(super) uses: Uses,
    renewals: Semaphore,
    /// The minute in which a renewal of a key was last asked for: whoever holds a key can make certificates of it
    /// without end, and each would be an entry of the log.
    asked: Mutex<BTreeMap<KeyDigest, i64>>,
}

impl Default for Recognition {
    fn default() -> Self {
        Self {
            uses: Uses::default(),
            renewals: Semaphore::new(limits::RENEWALS_AT_ONCE_MAX),
            asked: Mutex::default(),
        }
    }
}

impl Recognition {
    /// Whether a renewal of this key may be asked for in this minute; it is, from now on.
    fn may_ask(&self, key: KeyDigest, minute: i64) -> bool {
        let mut asked = self.asked.lock();
        if asked.len() >= limits::RENEWAL_KEYS_REMEMBERED_MAX {
            asked.retain(|_, last| *last == minute);
        }
        let full = asked.len() >= limits::RENEWAL_KEYS_REMEMBERED_MAX;
        !full && asked.insert(key, minute) != Some(minute)
    }
}

impl Edge {
    /// Looks further where a presented certificate is not registered.
    pub(super) async fn recognise(&self, context: CallContext) -> Result<CallContext, Status> {
        let Some(certificate) = &context.connection.certificate else { return Ok(context) };
        let registry = &context.registry;
        if registry.is_well_known(&certificate.thumbprint) {
            let well_known = well_known(registry, certificate);
            return Ok(CallContext { well_known, ..context });
        }
        let renews = registry.policy().renewal != Renewal::Explicit;
        if renews && registry.certificate(&certificate.thumbprint).is_none() {
            return self.renew(context).await;
        }
        Ok(context)
    }

    /// Registers a renewed certificate and answers with the registry that holds it. Where the policy refuses it, or it
    /// cannot be registered now, its holder stays unknown.
    async fn renew(&self, context: CallContext) -> Result<CallContext, Status> {
        let Some(certificate) = context.connection.certificate.clone() else { return Ok(context) };
        let Ok(found) = renewable(&context.registry, &certificate.der, context.at) else {
            return Ok(context);
        };
        if certificates::check_registrable(&found.parsed, Usage::Client, context.at).is_err() {
            return Ok(context);
        }
        if !self.recognition.may_ask(found.key, minute(context.at)) {
            return Ok(context);
        }
        let Ok(_place) = self.recognition.renewals.try_acquire() else { return Ok(context) };
        let renew = RenewCertificate { der: certificate.der.to_vec() };
        let command = ClusterCommand { command: Some(Command::RenewCertificate(renew)) };
        let sibling = &found.sibling.registration;
        match self.engine.propose_as_member(command, context.deadline).await {
            Ok(_) => tracing::info!(
                thumbprint = %certificate.thumbprint,
                follows = %sibling.thumbprint,
                name = sibling.name,
                "a renewed certificate was registered, as the security policy says"
            ),
            // Another node may have been first; the registry says.
            Err(error) => tracing::info!(
                thumbprint = %certificate.thumbprint, %error, "a renewed certificate was not registered"
            ),
        }
        let fresh = self.engine.fresh(context.deadline).await.map_err(convert::status)?;
        Ok(CallContext { at: fresh.at, registry: fresh.registry, ..context })
    }

    /// Notes that a certificate was accepted as an identity, whatever its holder was allowed.
    pub(super) fn note_use(
        &self,
        context: &CallContext,
        denied: Option<&Denied>,
        operation: &'static str,
    ) {
        if denied.is_some_and(|denied| denied.reason.is_unauthenticated()) {
            return;
        }
        if let Some(well_known) = &context.well_known {
            tracing::warn!(
                thumbprint = %well_known.thumbprint,
                operation,
                remote = %context.connection.remote,
                allowed = denied.is_none(),
                "a well-known admin called"
            );
        }
        let minute = minute(context.at);
        if context.connection.is_first_in(minute)
            && let Some(who) = context.registration()
        {
            self.recognition.uses.note(who.thumbprint, minute);
        }
    }
}

/// A well-known admin with what the registry cannot know: the dates of the certificate. `None` where it cannot be read.
fn well_known(registry: &Registry, certificate: &PeerCertificate) -> Option<Arc<Registration>> {
    let known = registry.identity(&certificate.thumbprint)?;
    let parsed = certificates::parse(&certificate.der).ok()?;
    Some(Arc::new(Registration {
        not_before: parsed.not_before,
        not_after: parsed.not_after,
        der: certificate.der.clone(),
        ..Registration::clone(known)
    }))
}
