//! Lists of certificates: filtered, sorted, in pages, out of a hundred thousand entries without looking at each.
//!
//! A list walks the entries in the order that was asked for and begins each page where the last one ended, so a page
//! costs what it shows and what it passes over. A filter that few entries pass (a clearance, a database, a thumbprint,
//! those that have expired) would pass over nearly all; then these few are taken from an index and sorted.
//!
//! **Invariant:** the order is total (the thumbprint decides between equals), so no entry that stays is shown twice or
//! left out.

use std::{collections::BTreeMap, sync::Arc};

use imbl::{OrdMap, OrdSet};

use crate::{
    authz::{self, Clearance},
    cluster::{Certificate, Registry},
    limits,
    names::{DatabaseId, Thumbprint, ThumbprintPrefix, Timestamp},
};

/// From here on a certificate is shown as expiring.
pub const EXPIRING_MS: i64 = 30 * 24 * 3600 * 1000;

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Name, letter case aside.
    #[default]
    Name,
    /// The earliest last moment of the entry's certificates.
    Expiry,
    /// When the entry was registered.
    Created,
}

/// Where a certificate stands, as lists tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In force.
    Valid,
    /// In force for less than [`EXPIRING_MS`].
    Expiring,
    /// Its last moment has passed.
    Expired,
    /// Its first moment has not come.
    NotYetValid,
    /// Switched off.
    Disabled,
}

impl State {
    /// The state at a moment.
    #[must_use]
    pub fn of(registration: &authz::Registration, at: Timestamp) -> Self {
        match authz::state(registration, at) {
            authz::State::Disabled => Self::Disabled,
            authz::State::NotYetValid => Self::NotYetValid,
            authz::State::Expired => Self::Expired,
            authz::State::Valid => {
                let left = registration.not_after.0.saturating_sub(at.0);
                if left < EXPIRING_MS { Self::Expiring } else { Self::Valid }
            }
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Disabled => "disabled",
        }
    }

    /// Whether a certificate of this state is wanted where `wanted` was asked for.
    fn is(self, wanted: Self) -> bool {
        self == wanted || (wanted == Self::Valid && self == Self::Expiring)
    }
}

/// What is looked for. States and dates hold for an entry where they hold for any of its certificates.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The moment that dates are held against.
    pub at: Timestamp,
    /// This clearance.
    pub clearance: Option<Clearance>,
    /// A grant on this database.
    pub database: Option<DatabaseId>,
    /// A part of the name, in lower case.
    pub name_contains: String,
    /// The beginning of a thumbprint.
    pub prefix: Option<ThumbprintPrefix>,
    /// This state.
    pub state: Option<State>,
    /// In force now and no more after this many milliseconds.
    pub expires_within_ms: Option<i64>,
    /// The order.
    pub sort: Sort,
    /// The order turned round.
    pub descending: bool,
}

/// What an entry is sorted by, under one [`Sort`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Name(Arc<str>),
    Time(Timestamp),
}

/// Where an entry stands in a sorted list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(Key, Thumbprint);

impl Position {
    fn of(certificate: &Certificate, sort: Sort) -> Self {
        let entry = &certificate.entry;
        let key = match sort {
            Sort::Name => Key::Name(Arc::clone(&entry.name_key)),
            Sort::Expiry => Key::Time(entry.expires),
            Sort::Created => Key::Time(entry.created),
        };
        Self(key, certificate.primary)
    }

    /// Whether the name contains a text, as far as the position alone says: it spares a look at the certificate.
    fn may_be_called(&self, text: &str) -> bool {
        match &self.0 {
            Key::Name(name) => name.contains(text),
            Key::Time(_) => true,
        }
    }

    /// The position as bytes, for a page token.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.1.as_bytes().to_vec();
        match &self.0 {
            Key::Name(name) => bytes.extend_from_slice(name.as_bytes()),
            Key::Time(time) => bytes.extend_from_slice(&time.0.to_be_bytes()),
        }
        bytes
    }

    /// The position out of a page token of a list with this order; `None` where it is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], sort: Sort) -> Option<Self> {
        let (thumbprint, key) = bytes.split_at_checked(32)?;
        let key = match sort {
            Sort::Name => Key::Name(std::str::from_utf8(key).ok()?.into()),
            Sort::Expiry | Sort::Created => {
                Key::Time(Timestamp(i64::from_be_bytes(key.try_into().ok()?)))
            }
        };
        Some(Self(key, Thumbprint::from_bytes(thumbprint).ok()?))
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Page<'a> {
    /// Primaries.
    pub certificates: Vec<&'a Arc<Certificate>>,
    /// After which entry the next page begins; `None`: this is the last.
    pub next: Option<Position>,
}

type Sorted = OrdMap<Position, Arc<Certificate>>;

/// The primaries of all entries, by what lists and rules look for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    by_name: Sorted,
    by_expiry: Sorted,
    by_created: Sorted,
    by_clearance: [OrdSet<Thumbprint>; Clearance::ALL.len()],
    by_database: OrdMap<DatabaseId, OrdSet<Thumbprint>>,
    disabled: OrdSet<Thumbprint>,
    /// Those that had not begun when they were registered: nothing else is not yet valid later.
    begin_later: OrdSet<Thumbprint>,
}

impl Entries {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// The primaries of a clearance.
    #[must_use]
    pub fn of_clearance(&self, clearance: Clearance) -> &OrdSet<Thumbprint> {
        let place = Clearance::ALL.iter().position(|it| *it == clearance).unwrap_or_default();
        &self.by_clearance[place]
    }

    /// The primaries with a grant on a database.
    #[must_use]
    pub fn granted(&self, database: DatabaseId) -> Option<&OrdSet<Thumbprint>> {
        self.by_database.get(&database)
    }

    /// The entries of which a certificate has expired at a moment, the longest expired first.
    pub fn expired(&self, at: Timestamp) -> impl Iterator<Item = &Arc<Certificate>> {
        let end = Position(Key::Time(at), Thumbprint::FIRST);
        self.by_expiry.range(..end).map(|(_, certificate)| certificate)
    }

    fn sorted(&self, sort: Sort) -> &Sorted {
        match sort {
            Sort::Name => &self.by_name,
            Sort::Expiry => &self.by_expiry,
            Sort::Created => &self.by_created,
        }
    }

    pub(super) fn insert(&mut self, certificate: &Arc<Certificate>) {
        let (primary, registration) = (certificate.primary, &certificate.registration);
        for (sort, sorted) in [
            (Sort::Name, &mut self.by_name),
            (Sort::Expiry, &mut self.by_expiry),
            (Sort::Created, &mut self.by_created),
        ] {
            sorted.insert(Position::of(certificate, sort), Arc::clone(certificate));
        }
        for (clearance, members) in Clearance::ALL.iter().zip(&mut self.by_clearance) {
            if *clearance == registration.clearance {
                members.insert(primary);
            }
        }
        for database in registration.grants.keys() {
            self.by_database.entry(*database).or_default().insert(primary);
        }
        if registration.disabled {
            self.disabled.insert(primary);
        }
        if certificate.entry.begins > certificate.entry.created {
            self.begin_later.insert(primary);
        }
    }

    pub(super) fn remove(&mut self, certificate: &Certificate) {
        let primary = certificate.primary;
        self.by_name.remove(&Position::of(certificate, Sort::Name));
        self.by_expiry.remove(&Position::of(certificate, Sort::Expiry));
        self.by_created.remove(&Position::of(certificate, Sort::Created));
        for members in &mut self.by_clearance {
            members.remove(&primary);
        }
        for database in certificate.registration.grants.keys() {
            let emptied = self.by_database.get_mut(database).is_some_and(|granted| {
                granted.remove(&primary);
                granted.is_empty()
            });
            if emptied {
                self.by_database.remove(database);
            }
        }
        self.disabled.remove(&primary);
        self.begin_later.remove(&primary);
    }
}

impl Registry {
    /// A page of at most `most` entries of a list, those after `after`.
    #[must_use]
    pub fn list(&self, query: &Query, after: Option<&Position>, most: usize) -> Page<'_> {
        let mut found = match self.few(query) {
            Some(few) => self.page_of_few(few, query, after, most + 1),
            None => self
                .walk(query, after)
                .filter(|(position, _)| position.may_be_called(&query.name_contains))
                .filter(|(_, certificate)| self.takes(query, certificate))
                .take(most + 1)
                .map(|(_, certificate)| certificate)
                .collect(),
        };
        let more = found.len() > most;
        found.truncate(most);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| Position::of(last, query.sort));
        Page { certificates: found, next }
    }

    fn walk<'a>(
        &'a self,
        query: &Query,
        after: Option<&Position>,
    ) -> Box<dyn Iterator<Item = (&'a Position, &'a Arc<Certificate>)> + 'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let sorted = self.entries().sorted(query.sort);
        let after = after.cloned().map_or(Unbounded, Excluded);
        if query.descending {
            Box::new(sorted.range((Unbounded, after)).rev())
        } else {
            Box::new(sorted.range((after, Unbounded)))
        }
    }

    /// All entries that may pass the filters, where an index says that they are few; `None`: they may be many.
    fn few(&self, query: &Query) -> Option<Vec<&Arc<Certificate>>> {
        let entries = self.entries();
        if let Some(prefix) = &query.prefix {
            let (from, to) = prefix.bounds();
            let primaries: BTreeMap<_, _> = self
                .certificates_between(from, to)
                .filter_map(|found| {
                    Some((found.primary, self.certificate_details(&found.primary)?))
                })
                .collect();
            return Some(primaries.into_values().collect());
        }
        let none = OrdSet::new();
        let sets = [
            query.database.map(|id| entries.granted(id).unwrap_or(&none)),
            query.clearance.map(|clearance| entries.of_clearance(clearance)),
            (query.state == Some(State::Disabled)).then_some(&entries.disabled),
            (query.state == Some(State::NotYetValid)).then_some(&entries.begin_later),
        ];
        if let Some(smallest) = sets.into_iter().flatten().min_by_key(|set| set.len())
            && smallest.len() <= limits::LIST_SORTED_MAX
        {
            return Some(smallest.iter().filter_map(|it| self.certificate_details(it)).collect());
        }
        if !query.name_contains.is_empty() && query.sort != Sort::Name {
            let named = entries.by_name.iter();
            let named = named.filter(|(position, _)| position.may_be_called(&query.name_contains));
            let few: Vec<_> =
                named.map(|(_, found)| found).take(limits::LIST_SORTED_MAX + 1).collect();
            return (few.len() <= limits::LIST_SORTED_MAX).then_some(few);
        }
        let until = match (query.state, query.expires_within_ms) {
            (_, Some(within)) => within,
            (Some(State::Expired), None) => 0,
            (Some(State::Expiring), None) => EXPIRING_MS,
            _ => return None,
        };
        let until = Timestamp(query.at.0.saturating_add(until).saturating_add(1));
        let few: Vec<_> = entries.expired(until).take(limits::LIST_SORTED_MAX + 1).collect();
        (few.len() <= limits::LIST_SORTED_MAX).then_some(few)
    }

    fn page_of_few<'a>(
        &'a self,
        few: Vec<&'a Arc<Certificate>>,
        query: &Query,
        after: Option<&Position>,
        most: usize,
    ) -> Vec<&'a Arc<Certificate>> {
        let mut placed: Vec<_> =
            few.into_iter()
                .filter(|certificate| self.takes(query, certificate))
                .map(|certificate| (Position::of(certificate, query.sort), certificate))
                .filter(|(position, _)| {
                    after.is_none_or(|after| {
                        if query.descending { position < after } else { position > after }
                    })
                })
                .collect();
        placed
            .sort_unstable_by(|(a, _), (b, _)| if query.descending { b.cmp(a) } else { a.cmp(b) });
        placed.into_iter().take(most).map(|(_, certificate)| certificate).collect()
    }

    /// Whether an entry passes all filters.
    fn takes(&self, query: &Query, primary: &Certificate) -> bool {
        let registration = &primary.registration;
        query.clearance.is_none_or(|clearance| registration.clearance == clearance)
            && query.database.is_none_or(|id| registration.grants.contains_key(&id))
            && (query.name_contains.is_empty()
                || primary.entry.name_key.contains(&query.name_contains))
            && self.any_of_entry(primary, |it| {
                query.prefix.as_ref().is_none_or(|prefix| prefix.begins(&it.thumbprint))
            })
            && (query.state.is_none() && query.expires_within_ms.is_none()
                || self.any_of_entry(primary, |it| passes_dates(query, it)))
    }

    fn any_of_entry(
        &self,
        primary: &Certificate,
        holds: impl Fn(&authz::Registration) -> bool,
    ) -> bool {
        holds(&primary.registration)
            || (primary.entry.secondaries.iter())
                .filter_map(|secondary| self.certificate(secondary))
                .any(|secondary| holds(secondary))
    }
}

fn passes_dates(query: &Query, registration: &authz::Registration) -> bool {
    let state = State::of(registration, query.at);
    let ends = |within: i64| {
        state.is(State::Valid) && registration.not_after.0.saturating_sub(query.at.0) <= within
    };
    query.state.is_none_or(|wanted| state.is(wanted)) && query.expires_within_ms.is_none_or(ends)
}
