//! What a node does about certificates by itself: it declares its well-known admins, and as leader tells of expiry.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rookery_proto::log::v1::{
    ClusterCommand, DeclareWellKnownAdmins, ExpiryNotice, NoteExpiry, cluster_command::Command,
};

use super::{Consensus, Error, Fresh, State};
use crate::{
    authz::{Clearance, Registration},
    cluster::{Certificate, Registry, expiry_threshold},
    limits,
    names::{GroupId, Timestamp},
};

/// Pause before a command of this node is tried again.
const AGAIN: Duration = Duration::from_millis(500);
const DAY_MS: i64 = 24 * 3600 * 1000;

impl Consensus {
    /// Makes the log say what this node's configuration says of well-known admins.
    ///
    /// Until then the old declaration holds. A node that stays down keeps what it declared: take it out of the
    /// cluster, or start it with the new configuration.
    pub(super) async fn declare_well_known(&self) {
        let wanted = self.config.authorization.well_known_thumbprints();
        let mut state = self.state();
        loop {
            if state.wait_for(|state| *state == State::Member).await.is_err() {
                return;
            }
            match self.try_declare(&wanted).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "the well-known admins are not declared yet");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn try_declare(&self, wanted: &[crate::names::Thumbprint]) -> Result<(), Error> {
        let deadline = Instant::now() + limits::DEADLINE_DEFAULT;
        let fresh = self.fresh(deadline).await?;
        let me = self.node_id();
        if fresh.registry.declared_by(me) == wanted {
            return Ok(());
        }
        let thumbprints = wanted.iter().map(|it| it.as_bytes().to_vec()).collect();
        let declare = DeclareWellKnownAdmins { node_id: me.0, thumbprints };
        let command = Some(Command::DeclareWellKnownAdmins(declare));
        self.propose_as_member(ClusterCommand { command }, deadline).await?;
        tracing::warn!(
            admins = ?wanted,
            "this node's configuration declares well-known admins: Cluster Admins without a registration"
        );
        Ok(())
    }

    /// Tells of certificates that expire, once for each threshold, while this node leads the cluster group.
    pub(super) async fn tell_expiry(&self) {
        loop {
            if let Err(error) = self.look_for_expiry().await {
                tracing::debug!(%error, "expiry was not looked at");
            }
            tokio::time::sleep(limits::EXPIRY_NOTICE_INTERVAL).await;
        }
    }

    async fn look_for_expiry(&self) -> Result<(), Error> {
        let leads =
            |this: &Self| this.groups.find(GroupId::CLUSTER).is_some_and(|group| group.is_leader());
        if *self.state.borrow() != State::Member || !leads(self) {
            return Ok(());
        }
        let deadline = Instant::now() + limits::DEADLINE_DEFAULT;
        let Fresh { registry, at } = self.fresh(deadline).await?;
        let due: Vec<(Arc<Certificate>, u32)> =
            untold(&registry, at).take(limits::EXPIRY_NOTICES_PER_COMMAND_MAX).collect();
        if due.is_empty() {
            return Ok(());
        }
        let notice = |(certificate, days): &(Arc<Certificate>, u32)| ExpiryNotice {
            thumbprint: certificate.registration.thumbprint.as_bytes().to_vec(),
            days: *days,
        };
        let note = NoteExpiry { notices: due.iter().map(notice).collect() };
        let command = ClusterCommand { command: Some(Command::NoteExpiry(note)) };
        // Noted first: who loses leadership in between leaves it to be told by nobody rather than by two.
        self.propose_as_member(command, deadline).await?;
        due.iter().for_each(|(certificate, days)| tell(&certificate.registration, *days, at));
        Ok(())
    }
}

/// Enabled certificates that passed a threshold which was not told yet.
fn untold(
    registry: &Registry,
    at: Timestamp,
) -> impl Iterator<Item = (Arc<Certificate>, u32)> + '_ {
    registry.certificates(None).filter_map(move |certificate| {
        let registration = &certificate.registration;
        let days =
            expiry_threshold(registration.not_after, at).filter(|_| !registration.disabled)?;
        let told = registry.last_use(&registration.thumbprint).and_then(|last| last.told);
        told.is_none_or(|told| days < told).then(|| (Arc::clone(certificate), days))
    })
}

fn tell(registration: &Registration, threshold: u32, at: Timestamp) {
    let Registration { thumbprint, name, clearance, not_after, .. } = registration;
    let days_left = not_after.0.saturating_sub(at.0).div_euclid(DAY_MS);
    if *clearance == Clearance::ClusterNode {
        tracing::warn!(%thumbprint, name, threshold, days_left, "the certificate of a node expires");
    } else {
        tracing::info!(%thumbprint, name, %clearance, threshold, days_left, "a certificate expires");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_passed_one_after_the_other() {
        let at = Timestamp(1_000 * DAY_MS);
        let check = |left_ms: i64, expected| {
            let not_after = Timestamp(at.0 + left_ms);
            assert_eq!(expiry_threshold(not_after, at), expected, "{left_ms} ms left");
        };
        check(31 * DAY_MS, None);
        check(30 * DAY_MS + 1, None);
        check(30 * DAY_MS, Some(30));
        check(14 * DAY_MS + 1, Some(30));
        check(14 * DAY_MS, Some(14));
        check(3 * DAY_MS, Some(3));
        check(0, Some(3));
        check(-1, Some(0));
    }
}
