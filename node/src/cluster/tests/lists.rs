//! Lists held against a model that looks at every entry and sorts.

use rookery_proto::log::v1::{GrantRecord, SecondaryRecord};

use super::*;
use crate::cluster::list::{EXPIRING_MS, Position, Query, Sort, State};

const DAY: i64 = 86_400_000;

fn id(number: u64) -> Thumbprint {
    Thumbprint::of(&number.to_be_bytes())
}

/// Entries that differ in all that can be asked for, some with secondaries.
fn registry(entries: u64) -> Registry {
    let mut registry = Registry::default();
    for n in 0..entries {
        let mix = |by: u64| (n * 7_919 + by * 104_729) % 1_000_003;
        let secondary = |place: u64| SecondaryRecord {
            thumbprint: id(1_000_000 + n * 10 + place).as_bytes().to_vec(),
            not_after_unix_ms: NOW + (mix(place) as i64 % 400 - 100) * DAY,
            key_digest: vec![2; 32],
            ..SecondaryRecord::default()
        };
        let record = CertificateRecord {
            thumbprint: id(n).as_bytes().to_vec(),
            name: format!("{} {}", ["Über", "über", "alice", "Bob"][mix(1) as usize % 4], n % 10),
            clearance: [USER, USER, USER, USER, OPERATOR, ADMIN, NODE][mix(2) as usize % 7],
            grants: (0..mix(3) % 3)
                .map(|database_id| GrantRecord { database_id: database_id + 1, access: 1 })
                .collect(),
            not_before_unix_ms: NOW + if mix(4) % 20 == 0 { DAY } else { -DAY },
            not_after_unix_ms: NOW + (mix(5) as i64 % 400 - 100) * DAY,
            disabled: mix(6) % 10 == 0,
            created_unix_ms: NOW - mix(7) as i64 % 50,
            revision: n,
            secondaries: (0..(n % 5).saturating_sub(2)).map(secondary).collect(),
            key_digest: vec![1; 32],
            ..CertificateRecord::default()
        };
        registry.set_certificate(record).unwrap();
    }
    registry
}

/// What a list must give: all entries, filtered and sorted the slow way.
fn model(registry: &Registry, query: &Query) -> Vec<Thumbprint> {
    let mut found: Vec<_> = registry
        .certificates(None)
        .filter(|it| !it.is_secondary())
        .filter(|it| {
            let r = &it.registration;
            let any = |holds: &dyn Fn(&crate::authz::Registration) -> bool| {
                registry.entry(it).any(|it| holds(&it.registration))
            };
            let state = |r: &crate::authz::Registration, wanted| {
                let left = r.not_after.0 - NOW;
                let begun = r.not_before.0 <= NOW + crate::authz::SKEW_MS;
                let valid = !r.disabled && begun && left >= 0;
                match wanted {
                    State::Disabled => r.disabled,
                    State::Expired => !r.disabled && begun && left < 0,
                    State::Valid => valid,
                    State::Expiring => valid && left < EXPIRING_MS,
                    State::NotYetValid => !r.disabled && !begun,
                }
            };
            query.clearance.is_none_or(|it| it == r.clearance)
                && query.database.is_none_or(|it| r.grants.contains_key(&it))
                && r.name.to_lowercase().contains(&query.name_contains)
                && query.prefix.as_ref().is_none_or(|prefix| {
                    any(&|r| r.thumbprint.to_string().starts_with(prefix.as_str()))
                })
                && query.state.is_none_or(|wanted| any(&|r| state(r, wanted)))
                && query.expires_within_ms.is_none_or(|within| {
                    any(&|r| state(r, State::Valid) && r.not_after.0 - NOW <= within)
                })
        })
        .collect();
    found.sort_by_key(|it| {
        let key = match query.sort {
            Sort::Name => (it.registration.name.to_lowercase(), 0),
            Sort::Expiry => (
                String::new(),
                registry.entry(it).map(|it| it.registration.not_after.0).min().unwrap(),
            ),
            Sort::Created => (String::new(), it.entry.created.0),
        };
        (key, it.primary)
    });
    if query.descending {
        found.reverse();
    }
    found.into_iter().map(|it| it.primary).collect()
}

fn queries() -> Vec<Query> {
    let base = || Query { at: Timestamp(NOW), ..Query::default() };
    let prefix = |text: &str| Some(text.parse().unwrap());
    let mut queries = vec![
        base(),
        Query { name_contains: "über".into(), ..base() },
        Query { name_contains: "nobody".into(), ..base() },
        Query { prefix: prefix("A"), ..base() },
        Query { prefix: prefix("0b"), ..base() },
        Query { prefix: prefix(&id(1_000_043).to_string()), ..base() },
        Query { database: Some(DatabaseId(2)), ..base() },
        Query { database: Some(DatabaseId(9)), ..base() },
        Query { expires_within_ms: Some(7 * DAY), ..base() },
        Query { expires_within_ms: Some(7 * DAY), clearance: Some(Clearance::Operator), ..base() },
        Query { state: Some(State::Expired), database: Some(DatabaseId(1)), ..base() },
    ];
    queries.extend(Clearance::ALL.map(|it| Query { clearance: Some(it), ..base() }));
    let states =
        [State::Valid, State::Expiring, State::Expired, State::NotYetValid, State::Disabled];
    queries.extend(states.map(|it| Query { state: Some(it), ..base() }));
    queries
}

#[test]
fn every_list_in_pages_is_what_the_model_says() {
    // Few enough to be sorted each time, and too many for that.
    for entries in [300, limits::LIST_SORTED_MAX as u64 * 3] {
        let registry = registry(entries);
        let small = entries == 300;
        for query in queries() {
            for sort in [Sort::Name, Sort::Expiry, Sort::Created] {
                for descending in [false, true] {
                    let query = Query { sort, descending, ..query.clone() };
                    let expected = model(&registry, &query);
                    for most in if small { vec![1, 7, 1_000] } else { vec![997] } {
                        assert_eq!(walked(&registry, &query, most), expected, "{query:?} {most}");
                    }
                }
            }
        }
    }
}

/// All pages of a list, each after the last one's token.
fn walked(registry: &Registry, query: &Query, most: usize) -> Vec<Thumbprint> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = registry.list(query, after.as_ref(), most);
        assert!(page.certificates.len() <= most);
        all.extend(page.certificates.iter().map(|it| it.primary));
        let Some(next) = page.next else { return all };
        after = Some(Position::from_bytes(&next.to_bytes(), query.sort).unwrap());
    }
}

#[test]
fn a_list_goes_on_where_it_was_though_entries_come_and_go() {
    let mut registry = registry(100);
    let query = Query { at: Timestamp(NOW), ..Query::default() };
    let all = walked(&registry, &query, 1_000);
    let first = registry.list(&query, None, 40);
    let next = first.next.unwrap();
    // The last one of the page, one before it, and one after it go.
    for gone in [39, 3, 60] {
        registry.remove_certificate(&all[gone]);
    }
    let rest: Vec<_> = registry
        .list(&query, Some(&next), 1_000)
        .certificates
        .iter()
        .map(|it| it.primary)
        .collect();
    let mut expected = all[40..].to_vec();
    expected.retain(|it| *it != all[60]);
    assert_eq!(rest, expected);
}

#[test]
fn positions_that_are_none_are_refused() {
    for (bytes, sort) in [
        (vec![], Sort::Name),
        (vec![1; 31], Sort::Expiry),
        (vec![1; 32], Sort::Expiry),
        (vec![1; 41], Sort::Created),
        ([vec![1; 32], vec![0xff, 0xfe]].concat(), Sort::Name),
    ] {
        assert_eq!(Position::from_bytes(&bytes, sort), None, "{bytes:?}");
    }
}
