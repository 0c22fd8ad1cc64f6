//! Which field of a form was refused, in the words of the form, and why.

use axum::http::StatusCode;
use rookery_proto::security::v1::Grant;
use tonic::{Code, Status};

use super::fields::Fields;
use crate::studio::{answer, outcome};

/// What was refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// The id of the field in the form; empty where it is about none.
    pub id: &'static str,
    /// What the form calls the field.
    pub label: String,
    /// What is wrong with it.
    pub why: String,
    /// Nobody knows whether it was done all the same.
    pub unknown: bool,
}

/// Fields of the contract, the ids that forms give them, and their labels.
const FIELDS: [(&str, &str, &str); 12] = [
    ("name", "name", "Name"),
    ("clearance", "clearance", "Security clearance"),
    ("grants", "grants", "Databases of a User"),
    ("note", "note", "Note"),
    ("owner", "owner", "Owner"),
    ("lifetime_seconds", "days", "Valid for (days)"),
    ("not_after_unix_ms", "days", "Valid for (days)"),
    ("password", "password", "Password"),
    ("csr", "csr", "Certificate signing request"),
    ("pfx_compat", "compat", "For old Windows"),
    ("certificate", "file", "File"),
    ("certificates", "file", "File"),
];

impl Wrong {
    /// About one field.
    pub fn at(id: &'static str, why: impl Into<String>) -> Self {
        let label = FIELDS.iter().find(|it| it.1 == id).map_or("", |it| it.2);
        Self { id, label: label.to_owned(), why: why.into(), unknown: false }
    }

    /// What a call refused of a form.
    pub fn of(status: &Status, fields: &Fields) -> Self {
        // What the contract says of it to programs is about fields that a page does not show.
        let (path, why) = if status.code() == Code::DeadlineExceeded {
            (String::new(), "The cluster did not answer in time.".to_owned())
        } else {
            answer::field(status)
        };
        let unknown = outcome::is_unknown(status);
        Self { unknown, ..Self::named(&path, &why, &fields.grants()) }
    }

    /// What a call refused of files, of which each is for the node of the same place in `nodes`, or for all (no name).
    pub fn of_files(status: &Status, nodes: &[String]) -> Self {
        let wrong = Self::of(status, &Fields::default());
        let (path, _) = answer::field(status);
        let node = place(&path, "certificates").and_then(|place| nodes.get(place));
        match node.filter(|node| !node.is_empty()) {
            Some(node) => Self { label: format!("{} for {node}", wrong.label), ..wrong },
            None => wrong,
        }
    }

    /// Of a call that only looked, so that nothing can have been changed.
    pub fn unsent(self) -> Self {
        Self { unknown: false, ..self }
    }

    /// A field by its path in the contract.
    fn named(path: &str, why: &str, grants: &[Grant]) -> Self {
        let name = path.split(['[', '.']).next().unwrap_or_default();
        let Some((_, id, label)) = FIELDS.iter().find(|it| it.0 == name) else {
            return Self { label: path.to_owned(), why: why.to_owned(), ..Self::default() };
        };
        let grant = place(path, "grants").and_then(|place| grants.get(place));
        let label = match grant {
            Some(grant) => format!("{label}, {}", grant.database),
            None => (*label).to_owned(),
        };
        Self { id, label, why: why.to_owned(), unknown: false }
    }
}

/// The place in a list of the contract that a path points at.
fn place(path: &str, list: &str) -> Option<usize> {
    let (place, _) = path.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
    place.parse().ok()
}

/// The status of the page that shows a refusal.
pub fn code(status: &Status) -> StatusCode {
    answer::as_http(status.code()).0
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn what_nobody_knows_is_not_called_unchanged() {
        for (status, unknown) in [
            (Status::deadline_exceeded("late"), true),
            (Status::unavailable("gone"), true),
            (Status::invalid_argument("name: bad"), false),
            (Status::permission_denied("no"), false),
        ] {
            assert_eq!(Wrong::of(&status, &Fields::default()).unknown, unknown, "{status}");
            assert!(!Wrong::of(&status, &Fields::default()).unsent().unknown);
        }
    }

    #[test]
    fn a_file_that_is_refused_is_told_by_the_node_that_it_is_for() {
        let nodes = [String::new(), "n2".to_owned()];
        for (path, label) in [
            ("certificates[0].content", "File"),
            ("certificates[1].content", "File for n2"),
            ("certificates[2].content", "File"),
            ("certificates", "File"),
        ] {
            let details = ErrorDetails::with_bad_request_violation(path, "no key");
            let status = Status::with_error_details(Code::InvalidArgument, "no key", details);
            let wrong = Wrong::of_files(&status, &nodes);
            assert_eq!((wrong.id, wrong.label.as_str()), ("file", label));
        }
    }

    #[test]
    fn fields_of_the_contract_are_told_by_the_labels_of_the_form() {
        let grant = |database: &str| Grant { database: database.to_owned(), access: 1 };
        let grants = [grant("sales"), grant("stock")];
        for (path, why, id, label, said) in [
            ("name", "must not be empty.", "name", "Name", "must not be empty."),
            ("lifetime_seconds", "must be", "days", "Valid for (days)", "must be"),
            ("grants[1].database", "no", "grants", "Databases of a User, stock", "no"),
            ("grants[7].database", "no", "grants", "Databases of a User", "no"),
            ("grants", "too many.", "grants", "Databases of a User", "too many."),
            ("secondaries[2]", "no", "", "secondaries[2]", "no"),
            ("certificates[0]", "no key.", "file", "File", "no key."),
            ("", "This is not allowed.", "", "", "This is not allowed."),
        ] {
            let expected =
                Wrong { id, label: label.to_owned(), why: said.to_owned(), unknown: false };
            assert_eq!(Wrong::named(path, why, &grants), expected);
        }
    }
}
