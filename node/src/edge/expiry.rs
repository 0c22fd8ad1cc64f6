//! How the registered certificates stand against the clock: states in words, days left, and the figures for metrics.

use std::collections::BTreeMap;

use crate::{
    authz::{self, Clearance, Registration},
    cluster::{Registry, list::State},
    names::Timestamp,
};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Every state in words.
pub const STATES: [&str; 5] = ["valid", "expiring", "expired", "not yet valid", "disabled"];

/// Where a registered certificate stands, in words.
#[must_use]
pub fn state(registration: &Registration, at: Timestamp) -> &'static str {
    State::of(registration, at).word()
}

fn place(registration: &Registration, at: Timestamp) -> usize {
    let word = state(registration, at);
    STATES.iter().position(|it| *it == word).unwrap_or_default()
}

/// Whole days from `at` to `not_after`; negative once it has passed.
#[must_use]
pub fn days_left(not_after: Timestamp, at: Timestamp) -> i64 {
    not_after.0.saturating_sub(at.0).div_euclid(DAY_MS)
}

/// What the metrics say of all registered certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// How many there are, in the order of [`STATES`].
    pub by_state: [u64; 5],
    /// The last moment of the one in force that expires first, by clearance.
    pub earliest: BTreeMap<ByTitle, Timestamp>,
}

/// A clearance in the order of its title; it has no order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByTitle(Clearance);

impl ByTitle {
    /// The title of the clearance.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.0.title()
    }
}

impl Ord for ByTitle {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.title().cmp(other.title())
    }
}

impl PartialOrd for ByTitle {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Looks at every registered certificate.
#[must_use]
pub fn survey(registry: &Registry, at: Timestamp) -> Survey {
    let mut survey = Survey::default();
    for certificate in registry.certificates(None) {
        let registration = &certificate.registration;
        survey.by_state[place(registration, at)] += 1;
        if authz::state(registration, at) == authz::State::Valid {
            let clearance = ByTitle(registration.clearance);
            let earliest = survey.earliest.entry(clearance).or_insert(registration.not_after);
            *earliest = (*earliest).min(registration.not_after);
        }
    }
    survey
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::cluster::list::EXPIRING_MS;
    use crate::names::Thumbprint;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn registration(from: i64, to: i64, disabled: bool) -> Registration {
        Registration {
            thumbprint: Thumbprint::of(b"someone"),
            name: "someone".to_owned(),
            clearance: Clearance::User,
            grants: BTreeMap::new(),
            not_before: Timestamp(NOW.0 + from),
            not_after: Timestamp(NOW.0 + to),
            disabled,
            revision: 1,
            node: None,
            second_factor: None,
            der: Arc::from(&[][..]),
        }
    }

    #[test]
    fn states_change_at_their_moments() {
        let check = |from, to, disabled, expected| {
            assert_eq!(state(&registration(from, to, disabled), NOW), expected, "{from} {to}");
        };
        check(-1, EXPIRING_MS, false, "valid");
        check(-1, EXPIRING_MS - 1, false, "expiring");
        check(-1, 0, false, "expiring");
        check(-2, -1, false, "expired");
        check(authz::SKEW_MS + 1, EXPIRING_MS * 2, false, "not yet valid");
        check(-1, EXPIRING_MS, true, "disabled");
    }

    #[test]
    fn days_are_whole_and_negative_afterwards() {
        let check = |left: i64, expected| {
            assert_eq!(days_left(Timestamp(NOW.0 + left), NOW), expected, "{left}");
        };
        check(2 * DAY_MS, 2);
        check(2 * DAY_MS - 1, 1);
        check(0, 0);
        check(-1, -1);
        assert_eq!(days_left(Timestamp(i64::MAX), Timestamp(-1)), i64::MAX / DAY_MS);
    }
}
