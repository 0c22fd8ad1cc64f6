//! What a registration is made of, as a form has it: name, clearance, databases with their access, note, owner.

use std::collections::BTreeMap;

use rookery_proto::{
    database::v1::{Database, ListDatabasesRequest},
    security::v1::{Access, Certificate, Clearance, Grant},
};
use serde::Deserialize;

use super::wrong::Wrong;
use crate::studio::{answer::Refused, contract::Calls, visit::Frame, words};

/// Databases in the grid. A cluster with more of them gives rights one database at a time, from the database's side.
const GRID_MAX: u32 = 200;

/// What the names of the grid's fields begin with; the database follows.
const GRANT: &str = "grant:";

/// The fields as they were entered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// The name.
    pub name: String,
    /// The clearance as the form names it.
    pub clearance: String,
    /// The note.
    pub note: String,
    /// The owner.
    pub owner: String,
    /// Every other field of the form, the grid among them.
    #[serde(flatten)]
    pub others: BTreeMap<String, String>,
}

impl Fields {
    /// A registered certificate's, to be edited or cloned.
    pub fn of(certificate: &Certificate) -> Self {
        let access = |grant: &Grant| {
            (format!("{GRANT}{}", grant.database), access_field(grant.access).to_owned())
        };
        Self {
            name: certificate.name.clone(),
            clearance: clearance_field(certificate.clearance).to_owned(),
            note: certificate.note.clone(),
            owner: certificate.owner.clone(),
            others: certificate.grants.iter().map(access).collect(),
        }
    }

    /// The clearance; unspecified, which is refused, for anything that the form does not offer.
    pub fn clearance(&self) -> Clearance {
        match self.clearance.as_str() {
            "user" => Clearance::User,
            "operator" => Clearance::Operator,
            "cluster-admin" => Clearance::ClusterAdmin,
            "cluster-node" => Clearance::ClusterNode,
            _ => Clearance::Unspecified,
        }
    }

    /// The grants of the grid; none for clearances that need none.
    pub fn grants(&self) -> Vec<Grant> {
        if self.clearance() != Clearance::User {
            return Vec::new();
        }
        let named = self.others.iter().filter_map(|(field, access)| {
            let database = field.strip_prefix(GRANT)?.to_owned();
            let access = match access.as_str() {
                "read" => Access::Read,
                "read-write" => Access::ReadWrite,
                "admin" => Access::Admin,
                _ => return None,
            };
            Some(Grant { database, access: access.into() })
        });
        named.collect()
    }

    /// What of an edit cannot be meant: the contract takes an empty field for one that stays as it is.
    pub fn missing(&self) -> Option<Wrong> {
        if self.name.trim().is_empty() {
            return Some(Wrong::at("name", "must not be empty."));
        }
        (self.clearance() == Clearance::Unspecified)
            .then(|| Wrong::at("clearance", "choose one of these."))
    }

    /// A further field of the form.
    pub fn other(&self, field: &str) -> &str {
        self.others.get(field).map_or("", String::as_str)
    }

    /// Whether the grid has this access at this database.
    pub fn has(&self, database: &str, access: &str) -> bool {
        self.other(&format!("{GRANT}{database}")) == access
    }
}

/// How a form names a clearance.
pub fn clearance_field(number: i32) -> &'static str {
    match Clearance::try_from(number) {
        Ok(Clearance::User) => "user",
        Ok(Clearance::Operator) => "operator",
        Ok(Clearance::ClusterAdmin) => "cluster-admin",
        Ok(Clearance::ClusterNode) => "cluster-node",
        Ok(Clearance::Unspecified) | Err(_) => "",
    }
}

fn access_field(number: i32) -> &'static str {
    match Access::try_from(number) {
        Ok(Access::Read) => "read",
        Ok(Access::ReadWrite) => "read-write",
        Ok(Access::Admin) => "admin",
        Ok(Access::Unspecified) | Err(_) => "",
    }
}

/// The columns of the grid.
pub const ACCESSES: [(&str, &str); 4] =
    [("", "none"), ("read", "Read"), ("read-write", "Read/Write"), ("admin", "Admin")];

/// The fields within a page: what is entered, what there is to choose, what was wrong.
pub struct Sheet {
    /// What is entered.
    pub fields: Fields,
    /// The rows of the grid.
    pub databases: Vec<Database>,
    /// There are more databases than rows.
    pub more_databases: bool,
    /// The field that was refused, and why.
    pub wrong: Option<Wrong>,
    /// Whether the clearance may be Cluster Node too.
    pub nodes_too: bool,
}

impl Sheet {
    /// Asks for the databases of the grid.
    pub async fn new(calls: &Calls, frame: &Frame, fields: Fields) -> Result<Self, Box<Refused>> {
        let asked = ListDatabasesRequest { page_size: GRID_MAX, page_token: String::new() };
        let listed = calls.databases().list_databases(asked).await.map_err(Refused::on(frame))?;
        let listed = listed.into_inner();
        Ok(Self {
            fields,
            databases: listed.databases,
            more_databases: !listed.next_page_token.is_empty(),
            wrong: None,
            nodes_too: false,
        })
    }

    /// Grants that are kept and not listed, counted.
    #[must_use]
    pub fn kept(&self) -> String {
        words::several(self.beyond().len() as u64, "more grant")
    }

    /// Grants on databases that the grid does not list, as fields: a form that left them out would withdraw them.
    #[must_use]
    pub fn beyond(&self) -> Vec<(&str, &str)> {
        let listed = |field: &str| {
            let database = field.strip_prefix(GRANT);
            self.databases
                .iter()
                .any(|it| database.is_some_and(|name| it.name.eq_ignore_ascii_case(name)))
        };
        let others = self.fields.others.iter();
        others
            .filter(|(field, access)| {
                field.starts_with(GRANT) && !access.is_empty() && !listed(field)
            })
            .map(|(field, access)| (field.as_str(), access.as_str()))
            .collect()
    }

    /// Whether the field of this id was refused.
    pub fn is_wrong(&self, id: &str) -> bool {
        self.wrong.as_ref().is_some_and(|wrong| wrong.id == id)
    }
}

/// One line of what a change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What it was.
    pub before: String,
    /// What it will be.
    pub after: String,
    /// Whether the holder gets a right that they do not have.
    pub widens: bool,
}

/// Grants by their databases.
pub fn accesses(grants: &[Grant]) -> BTreeMap<String, i32> {
    grants.iter().map(|grant| (grant.database.clone(), grant.access)).collect()
}

/// What an edit changes, and which of it widens rights.
pub fn differences(before: &Certificate, after: &Fields) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut text = |field: &str, before: &str, after: &str| {
        if before != after {
            let (before, after) = (before.to_owned(), after.to_owned());
            out.push(Difference { field: field.to_owned(), before, after, widens: false });
        }
    };
    text("Name", &before.name, &after.name);
    text("Note", &before.note, &after.note);
    text("Owner", &before.owner, &after.owner);
    let clearance = i32::from(after.clearance());
    if before.clearance != clearance {
        out.push(Difference {
            field: "Clearance".to_owned(),
            before: words::clearance(before.clearance).to_owned(),
            after: words::clearance(clearance).to_owned(),
            widens: clearance > before.clearance,
        });
    }
    let (old, new) = (accesses(&before.grants), accesses(&after.grants()));
    // Every other clearance reaches all databases, so a grant in its place gives nothing.
    let is_user = [before.clearance, clearance].iter().all(|it| *it == i32::from(Clearance::User));
    for database in old.keys().chain(new.keys().filter(|it| !old.contains_key(*it))) {
        let (had, gets) =
            (old.get(database).copied().unwrap_or(0), new.get(database).copied().unwrap_or(0));
        if had != gets {
            out.push(Difference {
                field: format!("Access to {database}"),
                before: words::access(had).to_owned(),
                after: words::access(gets).to_owned(),
                widens: is_user && gets > had,
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(clearance: &str, grants: &[(&str, &str)]) -> Fields {
        let others = grants
            .iter()
            .map(|(database, access)| (format!("{GRANT}{database}"), (*access).to_owned()));
        Fields {
            name: "alice".to_owned(),
            clearance: clearance.to_owned(),
            others: others.collect(),
            ..Fields::default()
        }
    }

    fn registered(clearance: Clearance, grants: &[(&str, Access)]) -> Certificate {
        let grant = |(database, access): &(&str, Access)| Grant {
            database: (*database).to_owned(),
            access: (*access).into(),
        };
        Certificate {
            name: "alice".to_owned(),
            clearance: clearance.into(),
            grants: grants.iter().map(grant).collect(),
            ..Certificate::default()
        }
    }

    #[test]
    fn an_edit_shows_what_it_changes_and_what_it_widens() {
        let alice =
            registered(Clearance::User, &[("sales", Access::Read), ("stock", Access::Admin)]);
        let check = |after: &Fields, expected: &[(&str, &str, &str, bool)]| {
            let found = differences(&alice, after);
            let found: Vec<_> =
                found.iter().map(|it| (&*it.field, &*it.before, &*it.after, it.widens)).collect();
            assert_eq!(found, expected);
        };
        check(&Fields::of(&alice), &[]);
        check(
            &fields("user", &[("sales", "admin"), ("stock", "admin")]),
            &[("Access to sales", "Read", "Admin", true)],
        );
        check(
            &fields("user", &[("sales", "read"), ("stock", "read")]),
            &[("Access to stock", "Admin", "Read", false)],
        );
        check(
            &fields("user", &[("sales", "read"), ("stock", "")]),
            &[("Access to stock", "Admin", "–", false)],
        );
        check(
            &fields("operator", &[("sales", "read")]),
            &[
                ("Clearance", "User", "Operator", true),
                ("Access to sales", "Read", "–", false),
                ("Access to stock", "Admin", "–", false),
            ],
        );
        let admin = registered(Clearance::ClusterAdmin, &[]);
        let demoted = differences(&admin, &fields("user", &[("sales", "admin")]));
        assert_eq!(demoted.iter().filter(|it| it.widens).count(), 0, "{demoted:?}");
        assert_eq!(demoted.len(), 2);
        let nobody = fields("root", &[("sales", "owner")]);
        assert_eq!(nobody.missing().map(|it| it.id), Some("clearance"));
        assert_eq!(
            Fields { name: " ".into(), ..nobody.clone() }.missing().map(|it| it.id),
            Some("name")
        );
        assert_eq!(fields("cluster-node", &[]).missing(), None);
        assert_eq!(nobody.clearance(), Clearance::Unspecified, "a forged value is no clearance");
        assert!(fields("user", &[("sales", "owner")]).grants().is_empty(), "and no access");
    }
}
