//! What is to be renewed, above the list: what has expired, and what soon will, the soonest first.

use rookery_proto::security::v1::{
    Certificate, CertificateSort, CertificateState, ListCertificatesRequest,
};
use tonic::Status;

use crate::studio::{contract::Calls, visit::Frame, words};

/// Lines of each kind.
const ROWS_MAX: usize = 5;
/// Certificates that are counted of each kind.
const COUNTED_MAX: u32 = 100;

/// Certificates of one state.
pub struct Due {
    /// The class of the note.
    pub class: &'static str,
    /// The first of them.
    pub rows: Vec<Row>,
    /// How many there are besides; empty: none.
    pub more: String,
    /// The list of all of them.
    pub path: &'static str,
}

/// A certificate that is to be renewed.
pub struct Row {
    /// What it is called.
    pub name: String,
    /// Its page.
    pub path: String,
    /// When its time is over, or was.
    pub when: String,
}

/// A state that wants something done.
struct Kind {
    state: CertificateState,
    /// The state on the wire.
    word: &'static str,
    class: &'static str,
    verb: &'static str,
    /// The last one first: of what has expired, what expired a moment ago is missed first.
    descending: bool,
    path: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        state: CertificateState::Expired,
        word: "expired",
        class: "bad",
        verb: "expired",
        descending: true,
        path: "/studio/certificates?state=expired&sort=-expiry",
    },
    Kind {
        state: CertificateState::Expiring,
        word: "expiring",
        class: "warn",
        verb: "expires",
        descending: false,
        path: "/studio/certificates?state=expiring&sort=expiry",
    },
];

/// What there is to renew; nothing of a kind that there is none of.
pub async fn all(calls: &Calls, frame: &Frame) -> Result<Vec<Due>, Status> {
    let mut found = Vec::new();
    for kind in &KINDS {
        let asked = ListCertificatesRequest {
            page_size: COUNTED_MAX,
            state: kind.state.into(),
            sort: CertificateSort::Expiry.into(),
            descending: kind.descending,
            ..ListCertificatesRequest::default()
        };
        let listed = calls.security().list_certificates(asked).await?.into_inner();
        let unfinished = !listed.next_page_token.is_empty();
        found.push(kind.due(&listed.certificates, unfinished, frame.now()));
    }
    found.retain(|due| !due.rows.is_empty());
    Ok(found)
}

impl Kind {
    fn due(&self, certificates: &[Certificate], unfinished: bool, now: i64) -> Due {
        let left = certificates.len().saturating_sub(ROWS_MAX);
        let more = match (left, unfinished) {
            (0, _) => String::new(),
            (left, false) => format!("and {left} more"),
            (left, true) => format!("and more than {left} more"),
        };
        let rows = certificates.iter().take(ROWS_MAX).map(|it| self.row(it, now)).collect();
        Due { class: self.class, rows, more, path: self.path }
    }

    fn row(&self, it: &Certificate, now: i64) -> Row {
        // An entry is of a state where any of its certificates is.
        let primary = std::iter::once((&it.state, it.not_after_unix_ms));
        let others = it.secondaries.iter().map(|other| (&other.state, other.not_after_unix_ms));
        let ends = primary.chain(others).filter(|(state, _)| *state == self.word).map(|it| it.1);
        let end = ends.min().unwrap_or(it.not_after_unix_ms);
        Row {
            name: it.name.clone(),
            path: format!("/studio/certificate{}", words::query(&[("t", &it.thumbprint)])),
            when: format!("{} {}, {} UTC", self.verb, words::relative(end, now), words::date(end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::security::v1::SecondaryCertificate;

    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;
    const NOW: i64 = 1_795_334_400_000;

    fn certificate(name: &str, state: &str, days: i64) -> Certificate {
        Certificate {
            thumbprint: "ab".to_owned(),
            name: name.to_owned(),
            state: state.to_owned(),
            not_after_unix_ms: NOW + days * DAY,
            ..Certificate::default()
        }
    }

    #[test]
    fn what_is_left_out_is_counted_and_led_to() {
        let [expired, expiring] = KINDS;
        let many: Vec<_> =
            (0..8).map(|at| certificate(&format!("c{at}"), "expiring", 3 + at)).collect();
        for (count, unfinished, rows, more) in [
            (0, false, 0, ""),
            (5, false, 5, ""),
            (6, false, 5, "and 1 more"),
            (8, true, 5, "and more than 3 more"),
        ] {
            let due = expiring.due(&many[..count], unfinished, NOW);
            assert_eq!((due.rows.len(), due.more.as_str()), (rows, more));
        }
        let due = expiring.due(&many, false, NOW);
        assert_eq!(due.rows[0].when, "expires in 3 days, 2026-11-25 08:00 UTC");
        assert_eq!((due.rows[0].path.as_str(), due.class), ("/studio/certificate?t=ab", "warn"));
        let due = expired.due(&[certificate("old", "expired", -3)], false, NOW);
        assert_eq!(
            (due.rows[0].when.as_str(), due.class),
            ("expired 3 days ago, 2026-11-19 08:00 UTC", "bad")
        );
    }

    #[test]
    fn an_entry_is_told_by_the_certificate_of_it_that_is_to_be_renewed() {
        let [expired, expiring] = KINDS;
        let secondary = SecondaryCertificate {
            state: "expired".to_owned(),
            not_after_unix_ms: NOW - 4 * DAY,
            ..SecondaryCertificate::default()
        };
        let entry = Certificate { secondaries: vec![secondary], ..certificate("c", "expiring", 9) };
        assert!(expired.row(&entry, NOW).when.starts_with("expired 4 days ago"));
        assert!(expiring.row(&entry, NOW).when.starts_with("expires in 9 days"));
    }
}
