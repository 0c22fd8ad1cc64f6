//! The code checks under way on this node: one at a time of a certificate, and not many at once.
//!
//! The log counts wrong codes for all nodes, but only after each was looked at. Without this bound a holder could have
//! thousands looked at before the first of them counts, and fill the log with what comes of it.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

use crate::{limits, names::Thumbprint};

/// The certificates whose codes are being checked.
#[derive(Debug, Default)]
pub struct CodeChecks(Mutex<BTreeSet<Thumbprint>>);

/// The right to check one code of a certificate; given back when dropped.
#[derive(Debug)]
pub struct CodeCheck {
    checks: Arc<CodeChecks>,
    thumbprint: Thumbprint,
}

impl CodeChecks {
    /// Begins a check; `None` while one of this certificate, or too many of others, are under way.
    #[must_use]
    pub fn begin(self: &Arc<Self>, thumbprint: Thumbprint) -> Option<CodeCheck> {
        let mut under_way = self.0.lock();
        let begun = under_way.len() < limits::CODE_CHECKS_MAX && under_way.insert(thumbprint);
        begun.then(|| CodeCheck { checks: Arc::clone(self), thumbprint })
    }
}

impl Drop for CodeCheck {
    fn drop(&mut self) {
        self.checks.0.lock().remove(&self.thumbprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_of_a_certificate_is_checked_at_a_time_and_few_of_all() {
        let checks = Arc::new(CodeChecks::default());
        let alice = Thumbprint::of(b"alice");
        let first = checks.begin(alice);
        assert!(first.is_some() && checks.begin(alice).is_none());
        let others: Vec<_> = (1..limits::CODE_CHECKS_MAX)
            .map(|n| checks.begin(Thumbprint::of(&n.to_be_bytes())))
            .collect();
        assert!(others.iter().all(Option::is_some));
        assert!(checks.begin(Thumbprint::of(b"one too many")).is_none());
        drop(first);
        assert!(checks.begin(alice).is_some());
    }
}
