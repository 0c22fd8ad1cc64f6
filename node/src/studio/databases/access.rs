//! Grants from the database's side: search a User by name, give, change, take. Every change is an edit of one certificate,
//! all its other grants kept, and is confirmed where it gives or takes anything.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::Query;
use rookery_proto::security::v1::{
    Access, Certificate, Clearance, EditCertificateRequest, GetCertificateRequest, Grant,
    ListCertificatesRequest,
};
use serde::Deserialize;
use tonic::{Code, Status};

use super::{path, show};
use crate::studio::{
    answer::{self, Answer, Refused},
    outcome::Wrong,
    posted::Posted,
    visit::{Frame, Visit},
    words,
};

/// Users that a search shows.
const FOUND_MAX: u32 = 20;

/// Who is searched.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Search {
    db: String,
    q: String,
}

impl Search {
    fn request(&self) -> ListCertificatesRequest {
        let words = self.q.trim();
        // Many hexadecimal digits are the beginning of a thumbprint, everything else is part of a name.
        let digits = words.replace([':', ' '], "");
        let is_thumbprint =
            digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (name_contains, thumbprint_prefix) = match is_thumbprint {
            true => (String::new(), digits),
            false => (words.to_owned(), String::new()),
        };
        ListCertificatesRequest {
            page_size: FOUND_MAX,
            clearance: Clearance::User.into(),
            name_contains,
            thumbprint_prefix,
            ..ListCertificatesRequest::default()
        }
    }
}

#[derive(Template)]
#[template(path = "databases/grant.html")]
struct GrantPage {
    frame: Frame,
    search: Search,
    users: Vec<User>,
    more: bool,
}

impl GrantPage {
    fn back(&self) -> String {
        path(&self.search.db)
    }
}

/// A User who may be given access, or has some.
struct User {
    it: Certificate,
    /// The access to this database; unspecified: none.
    access: i32,
}

impl User {
    fn of(it: Certificate, database: &str) -> Self {
        Self { access: access(&it, database), it }
    }

    fn words(&self) -> &'static str {
        words::access(self.access)
    }

    /// Whether the form is to begin with this access: what they have, or the least.
    fn begins_with(&self, access: Access) -> bool {
        let none = self.access == i32::from(Access::Unspecified);
        self.access == i32::from(access) || (none && access == Access::Read)
    }

    fn short(&self) -> &str {
        words::short(&self.it.thumbprint)
    }

    fn path(&self) -> String {
        format!("/studio/certificate{}", words::query(&[("t", &self.it.thumbprint)]))
    }
}

/// What a certificate's own grant on a database gives.
fn access(certificate: &Certificate, database: &str) -> i32 {
    let grant = certificate.grants.iter().find(|it| it.database.eq_ignore_ascii_case(database));
    grant.map_or(0, |grant| grant.access)
}

/// `GET /studio/database/grant?db=&q=`: a User by name, or by the beginning of a thumbprint.
pub async fn search(visit: Visit, Query(search): Query<Search>) -> Answer {
    let Visit { calls, frame } = visit;
    let found = calls.security().list_certificates(search.request()).await;
    let found = found.map_err(Refused::on(&frame))?.into_inner();
    let users = found.certificates.into_iter().map(|it| User::of(it, &search.db)).collect();
    let more = !found.next_page_token.is_empty();
    Ok(answer::page(&GrantPage { frame, search, users, more }))
}

/// Access that is given or taken.
#[derive(Debug, Clone, Deserialize)]
pub struct Change {
    db: String,
    /// Thumbprint.
    t: String,
    access: String,
    /// Of the registration that was shown.
    #[serde(default)]
    etag: String,
    /// The etag of the registration that was shown when the change was confirmed.
    #[serde(default)]
    confirmed: String,
    #[serde(default)]
    request_id: String,
}

impl Change {
    /// What is asked for; a form that asks for anything else asks for nothing, and above all not for less.
    fn access(&self) -> Result<i32, Status> {
        match self.access.as_str() {
            "none" => Ok(Access::Unspecified.into()),
            "read" => Ok(Access::Read.into()),
            "read-write" => Ok(Access::ReadWrite.into()),
            "admin" => Ok(Access::Admin.into()),
            _ => Err(Status::invalid_argument("The form names no access that there is.")),
        }
    }

    /// A confirmation is of the registration that was shown; of another one it has to be given again.
    fn is_confirmed(&self, certificate: &Certificate) -> bool {
        !self.confirmed.is_empty() && self.confirmed == certificate.etag
    }
}

#[derive(Template)]
#[template(path = "databases/confirm.html")]
struct ConfirmPage {
    frame: Frame,
    change: Change,
    user: User,
    after: i32,
}

impl ConfirmPage {
    fn gives(&self) -> bool {
        self.after > self.user.access
    }

    fn takes_all(&self) -> bool {
        self.after == i32::from(Access::Unspecified)
    }

    fn then(&self) -> &'static str {
        words::access(self.after)
    }

    fn back(&self) -> String {
        path(&self.change.db)
    }
}

/// `POST /studio/database/access`.
pub async fn submit(visit: Visit, Posted(change): Posted<Change>) -> Answer {
    let (status, wrong) = match wanted(&visit, &change).await {
        Ok(Wanted::Confirmation(user, after)) => {
            let page = ConfirmPage { frame: visit.frame, change, user: *user, after };
            return Ok(answer::page(&page));
        }
        Ok(Wanted::Edit(edit)) => match visit.calls.security().edit_certificate(*edit).await {
            Ok(_) => return Ok(answer::see(&path(&change.db))),
            Err(status) => {
                let wrong = Wrong::of(&visit.frame, &status, &change.request_id);
                (status, wrong)
            }
        },
        Err(status) => {
            let wrong = Wrong::of(&visit.frame, &status, "").unsent();
            (status, wrong)
        }
    };
    // Whoever may not is told so, whatever they may see of the database.
    if status.code() == Code::PermissionDenied {
        return Err(Refused::told(&visit.frame, &status, wrong));
    }
    show::after_change(visit, &change.db, &status, wrong).await
}

/// What comes next.
enum Wanted {
    Confirmation(Box<User>, i32),
    Edit(Box<EditCertificateRequest>),
}

/// Looks what the change would change: what changes anything is confirmed first.
async fn wanted(visit: &Visit, change: &Change) -> Result<Wanted, Status> {
    let after = change.access()?;
    let asked = GetCertificateRequest { thumbprint: change.t.trim().to_owned() };
    let found = visit.calls.security().get_certificate(asked).await?.into_inner();
    change.on(found.certificate.unwrap_or_default(), after)
}

impl Change {
    fn on(&self, certificate: Certificate, after: i32) -> Result<Wanted, Status> {
        if certificate.clearance != i32::from(Clearance::User) {
            let why = "Only a User has grants; every other clearance reaches all databases.";
            return Err(Status::failed_precondition(why));
        }
        let is_so = after == access(&certificate, &self.db);
        let is_old = !self.etag.is_empty() && self.etag != certificate.etag;
        // A form that comes a second time finds what it asks for, and what the cluster answered it the first time.
        let comes_again = is_so && !self.request_id.is_empty();
        if is_old && !comes_again {
            let why =
                "The certificate was changed after this page was opened. Open the database again.";
            return Err(Status::aborted(why));
        }
        if !is_so && !self.is_confirmed(&certificate) {
            return Ok(Wanted::Confirmation(Box::new(User::of(certificate, &self.db)), after));
        }
        Ok(Wanted::Edit(Box::new(edit(certificate, self, after))))
    }
}

fn edit(certificate: Certificate, change: &Change, access: i32) -> EditCertificateRequest {
    let mut grants: BTreeMap<String, Grant> = certificate
        .grants
        .into_iter()
        .map(|grant| (grant.database.to_ascii_lowercase(), grant))
        .collect();
    let key = change.db.to_ascii_lowercase();
    if access == i32::from(Access::Unspecified) {
        grants.remove(&key);
    } else {
        grants.insert(key, Grant { database: change.db.clone(), access });
    }
    EditCertificateRequest {
        thumbprint: certificate.thumbprint,
        clearance: certificate.clearance,
        grants: grants.into_values().collect(),
        set_grants: true,
        // What was shown, or for a form that shows none, what was read a moment ago.
        expected_etag: match change.etag.as_str() {
            "" => certificate.etag,
            shown => shown.to_owned(),
        },
        request_id: change.request_id.clone(),
        ..EditCertificateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Certificate {
        let grant = |database: &str, access: Access| Grant {
            database: database.to_owned(),
            access: access.into(),
        };
        Certificate {
            thumbprint: "ab".repeat(32),
            clearance: Clearance::User.into(),
            etag: "7".to_owned(),
            grants: vec![grant("Sales", Access::Read), grant("stock", Access::Admin)],
            ..Certificate::default()
        }
    }

    fn change(db: &str, access: &str, etag: &str, confirmed: &str) -> Change {
        let [db, access, etag, confirmed] = [db, access, etag, confirmed].map(str::to_owned);
        Change { db, t: "ab".repeat(32), access, etag, confirmed, request_id: String::new() }
    }

    #[test]
    fn a_change_of_one_grant_keeps_all_others() {
        let check = |change: &Change, expected: &[(&str, Access)], etag: &str| {
            let access = change.access().unwrap_or(-1);
            let edited = edit(alice(), change, access);
            let grants: Vec<_> =
                edited.grants.iter().map(|it| (it.database.as_str(), it.access)).collect();
            let expected: Vec<_> =
                expected.iter().map(|(name, access)| (*name, i32::from(*access))).collect();
            assert_eq!(grants, expected);
            assert!(edited.set_grants && edited.expected_etag == etag, "{edited:?}");
        };
        let stock = ("stock", Access::Admin);
        check(&change("sales", "admin", "6", ""), &[("sales", Access::Admin), stock], "6");
        check(&change("SALES", "none", "", ""), &[stock], "7");
        check(
            &change("new", "read", "7", "7"),
            &[("new", Access::Read), ("Sales", Access::Read), stock],
            "7",
        );
    }

    #[test]
    fn an_access_that_does_not_exist_takes_none_away() {
        for access in ["", "owner", "None", "Read", "4"] {
            assert!(change("sales", access, "", "").access().is_err(), "{access}");
        }
        assert_eq!(access(&alice(), "sALES"), i32::from(Access::Read));
        assert_eq!(access(&alice(), "other"), 0);
    }

    #[test]
    fn a_confirmation_is_of_the_registration_that_was_shown() {
        for (confirmed, expected) in [("7", true), ("6", false), ("", false)] {
            assert_eq!(change("new", "read", "7", confirmed).is_confirmed(&alice()), expected);
        }
        let none = Certificate { etag: String::new(), ..alice() };
        assert!(!change("new", "read", "", "").is_confirmed(&none));
    }

    #[test]
    fn what_gives_or_takes_is_confirmed_and_a_copy_of_the_form_is_answered_as_the_first() {
        let check = |change: Change, expected: Result<&str, Code>| {
            let wanted = change.access().and_then(|after| change.on(alice(), after));
            let wanted = wanted.map(|it| match it {
                Wanted::Confirmation(..) => "confirm",
                Wanted::Edit(_) => "edit",
            });
            assert_eq!(wanted.map_err(|status| status.code()), expected, "{change:?}");
        };
        let again = |change: Change| Change { request_id: "id".to_owned(), ..change };
        for access in ["none", "read-write", "admin"] {
            check(change("sales", access, "7", ""), Ok("confirm"));
            check(change("sales", access, "7", "6"), Ok("confirm"));
            check(change("sales", access, "7", "7"), Ok("edit"));
            check(again(change("sales", access, "6", "6")), Err(Code::Aborted));
        }
        check(change("sales", "read", "7", ""), Ok("edit"));
        check(change("sales", "read", "6", ""), Err(Code::Aborted));
        check(again(change("sales", "read", "6", "6")), Ok("edit"));
        check(change("other", "none", "7", ""), Ok("edit"));
    }

    #[test]
    fn a_search_is_for_a_name_or_the_beginning_of_a_thumbprint() {
        for (q, name, thumbprint) in [
            (" Ann ", "Ann", ""),
            ("deadbeef", "", "deadbeef"),
            ("DE:AD:BE:EF 00", "", "DEADBEEF00"),
            ("deadbee", "deadbee", ""),
            ("", "", ""),
        ] {
            let search = Search { db: "sales".to_owned(), q: q.to_owned() };
            let asked = search.request();
            assert_eq!((&*asked.name_contains, &*asked.thumbprint_prefix), (name, thumbprint));
            assert_eq!(asked.clearance, i32::from(Clearance::User));
        }
    }
}
