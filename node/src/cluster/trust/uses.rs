//! Commands of nodes about what happens to certificates: last use, and notices of expiry. They change no revision.

use rookery_proto::log::v1::{NoteExpiry, RecordUse, UseRecord};

use super::{LastUse, policy::own_node};
use crate::{
    authz::Registration,
    cluster::{Applying, Error, Outcome, check, done, records},
    names::{Thumbprint, Timestamp},
};

/// Days left at which a certificate's expiry is told, and 0: it has expired.
pub const THRESHOLDS: [u32; 4] = [30, 14, 3, 0];

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The threshold that a certificate has passed at this moment; `None`: more than 30 days are left.
#[must_use]
pub fn expiry_threshold(not_after: Timestamp, at: Timestamp) -> Option<u32> {
    if not_after < at {
        return Some(0);
    }
    let left = not_after.0.saturating_sub(at.0);
    let passed = |days: &u32| left <= i64::from(*days) * DAY_MS;
    THRESHOLDS.into_iter().filter(|days| *days > 0).filter(passed).min()
}

impl Applying<'_, '_> {
    /// Later uses replace earlier ones. A node's clock decides nothing: what lies ahead of the entry is cut to it.
    pub(in crate::cluster) fn record_use(
        &mut self,
        author: &Registration,
        record: &RecordUse,
    ) -> Outcome {
        let node = own_node(author, record.node_id)?;
        for used in &record.uses {
            let thumbprint = check::thumbprint(&used.thumbprint)?;
            if self.registry.identity(&thumbprint).is_none() {
                continue; // Deleted meanwhile.
            }
            let at = Timestamp(used.at_unix_ms.min(self.entry.at.0));
            let known = self.registry.last_use(&thumbprint).unwrap_or_default();
            if at > known.at {
                self.store_use(&thumbprint, LastUse { at, node, ..known })?;
            }
        }
        Ok(done())
    }

    pub(in crate::cluster) fn note_expiry(&mut self, note: &NoteExpiry) -> Outcome {
        for notice in &note.notices {
            let thumbprint = check::thumbprint(&notice.thumbprint)?;
            if self.registry.certificate(&thumbprint).is_none() {
                continue;
            }
            let known = self.registry.last_use(&thumbprint).unwrap_or_default();
            if known.told.is_none_or(|told| notice.days < told) {
                self.store_use(&thumbprint, LastUse { told: Some(notice.days), ..known })?;
            }
        }
        Ok(done())
    }

    fn store_use(&mut self, thumbprint: &Thumbprint, last: LastUse) -> Result<(), Error> {
        let record = last.record(thumbprint);
        records::put(self.state, &record)?;
        self.registry.trust.set_use(&record)
    }

    /// A certificate that is registered again starts without a past.
    pub(in crate::cluster) fn forget_use(&mut self, thumbprint: &Thumbprint) -> Result<(), Error> {
        if self.registry.trust.uses.remove(thumbprint).is_some() {
            records::delete::<UseRecord>(self.state, thumbprint.as_bytes())?;
        }
        Ok(())
    }
}
