//! Every form of the Studio as somebody posts it who was never shown it.
//!
//! Whoever may not is refused and has changed nothing. Whoever may gets what they asked for, on a target of their own,
//! or an answer that only those get who may ask (no such node, not the right name).

use anyhow::{Context as _, Result};
use cluster_tests::{
    browser::{Answer, Site},
    identity::Identity,
};
use rookery_proto::security::v1::Clearance;

use crate::{
    pages::Needs::{self, Database, Server},
    world::{World, put},
};

/// A form.
pub struct Form {
    /// What the golden file calls it.
    pub name: &'static str,
    /// Where it is posted.
    pub path: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Its fields.
    fields: Fields,
}

/// What stands in a form. What is done to somebody is done to a standing target by who may not, and to a new one by
/// who may.
enum Fields {
    /// These.
    Plain(&'static [(&'static str, &'static str)]),
    /// These, with names nobody else has (`{new}`), and for who may not, those after them in their place.
    ByRight {
        may: &'static [(&'static str, &'static str)],
        may_not: &'static [(&'static str, &'static str)],
    },
    /// The thumbprint and etag of a certificate of this clearance, and these.
    Certificate(Clearance, &'static [(&'static str, &'static str)]),
    /// A new certificate in PEM, and these.
    Pem(&'static [(&'static str, &'static str)]),
    /// A document that exists, with its etag, and these.
    Document(&'static [(&'static str, &'static str)]),
    /// A new certificate as a file, and these.
    CertificateFile(&'static [(&'static str, &'static str)]),
    /// No certificate as a file, and these.
    OtherFile(&'static [(&'static str, &'static str)]),
}

use Fields::{ByRight, Certificate, CertificateFile, Document, OtherFile, Pem, Plain};

const fn form(name: &'static str, path: &'static str, needs: Needs, fields: Fields) -> Form {
    Form { name, path, needs, fields }
}

const NEW_USER: &[(&str, &str)] = &[("name", "{new}"), ("clearance", "user"), ("days", "30")];
const NEW_ADMIN: &[(&str, &str)] =
    &[("name", "{new}"), ("clearance", "cluster-admin"), ("days", "30")];
const EDITED_USER: &[(&str, &str)] =
    &[("name", "{new}"), ("clearance", "user"), ("grant:sales", "read")];
const EDITED_ADMIN: &[(&str, &str)] =
    &[("name", "{new}"), ("clearance", "cluster-admin"), ("note", "edited")];
const CLONE: &[(&str, &str)] = &[("name", "{new}"), ("days", "30")];
const NO_NODE: &str = "999";

/// Every form that changes something. `purge` is the last: it takes the expired certificate along.
pub const FORMS: &[Form] = &[
    form(
        "generate a User",
        "/studio/certificates/generate",
        Server("generate-certificate"),
        Plain(NEW_USER),
    ),
    form(
        "generate a Cluster Admin",
        "/studio/certificates/generate",
        Server("generate-admin-certificate"),
        Plain(NEW_ADMIN),
    ),
    form(
        "look into an upload",
        "/studio/certificates/upload",
        Server("upload-certificate"),
        CertificateFile(&[]),
    ),
    form(
        "register a User",
        "/studio/certificates/register",
        Server("upload-certificate"),
        Pem(NEW_USER),
    ),
    form(
        "register a Cluster Admin",
        "/studio/certificates/register",
        Server("upload-admin-certificate"),
        Pem(NEW_ADMIN),
    ),
    form(
        "edit a User",
        "/studio/certificate/edit",
        Server("edit-certificate"),
        Certificate(Clearance::User, EDITED_USER),
    ),
    form(
        "edit an Operator",
        "/studio/certificate/edit",
        Server("edit-certificate"),
        Certificate(
            Clearance::Operator,
            &[("name", "{new}"), ("clearance", "operator"), ("note", "edited")],
        ),
    ),
    form(
        "edit a Cluster Admin",
        "/studio/certificate/edit",
        Server("edit-admin-certificate"),
        Certificate(Clearance::ClusterAdmin, EDITED_ADMIN),
    ),
    form(
        "raise a User to Cluster Admin",
        "/studio/certificate/edit",
        Server("edit-admin-certificate"),
        Certificate(Clearance::User, &[("name", "{new}"), ("clearance", "cluster-admin")]),
    ),
    form(
        "clone a User",
        "/studio/certificate/clone",
        Server("generate-certificate"),
        Certificate(Clearance::User, CLONE),
    ),
    form(
        "clone a Cluster Admin",
        "/studio/certificate/clone",
        Server("generate-admin-certificate"),
        Certificate(Clearance::ClusterAdmin, CLONE),
    ),
    form(
        "disable a User",
        "/studio/certificate/state",
        Server("disable-certificate"),
        Certificate(Clearance::User, &[("to", "disabled")]),
    ),
    form(
        "disable a Cluster Admin",
        "/studio/certificate/state",
        Server("disable-admin-certificate"),
        Certificate(Clearance::ClusterAdmin, &[("to", "disabled")]),
    ),
    form(
        "cut the connections of a User",
        "/studio/certificate/cut",
        Server("close-connections"),
        Certificate(Clearance::User, &[]),
    ),
    form(
        "cut the connections of a Cluster Admin",
        "/studio/certificate/cut",
        Server("disable-admin-certificate"),
        Certificate(Clearance::ClusterAdmin, &[]),
    ),
    form(
        "make a second factor of a User",
        "/studio/second-factor/enrol",
        Server("edit-certificate"),
        Certificate(Clearance::User, &[]),
    ),
    form(
        "make a second factor of a Cluster Admin",
        "/studio/second-factor/enrol",
        Server("edit-admin-certificate"),
        Certificate(Clearance::ClusterAdmin, &[]),
    ),
    form(
        "remove a second factor of a User",
        "/studio/second-factor/remove",
        Server("edit-certificate"),
        Certificate(Clearance::User, &[]),
    ),
    form(
        "delete a User",
        "/studio/certificate/delete",
        Server("delete-certificate"),
        Certificate(Clearance::User, &[]),
    ),
    form(
        "delete an Operator",
        "/studio/certificate/delete",
        Server("delete-certificate"),
        Certificate(Clearance::Operator, &[]),
    ),
    form(
        "delete a Cluster Admin",
        "/studio/certificate/delete",
        Server("delete-admin-certificate"),
        Certificate(Clearance::ClusterAdmin, &[]),
    ),
    form(
        "export server certificates",
        "/studio/certificates/export",
        Server("export-server-certificates"),
        Plain(&[("format", "pem")]),
    ),
    form(
        "replace server certificates",
        "/studio/certificates/server",
        Server("replace-server-certificate"),
        OtherFile(&[("immediately", "yes")]),
    ),
    form(
        "abort a replacement",
        "/studio/certificates/server/abort",
        Server("reset-server-certificate-replacement"),
        Plain(&[]),
    ),
    form(
        "create a database",
        "/studio/databases/create",
        Server("create-database"),
        ByRight {
            may: &[("name", "{new}"), ("replicas", "99")],
            may_not: &[("name", "{new}"), ("replicas", "1")],
        },
    ),
    form(
        "disable a database",
        "/studio/database/state",
        Server("disable-database"),
        Plain(&[("db", "other"), ("to", "disabled")]),
    ),
    form(
        "enable a database",
        "/studio/database/state",
        Server("enable-database"),
        Plain(&[("db", "other"), ("to", "enabled")]),
    ),
    form(
        "give access at a database",
        "/studio/database/access",
        Server("edit-certificate"),
        Certificate(Clearance::User, &[("db", "other"), ("access", "admin")]),
    ),
    form(
        "delete a database",
        "/studio/database/delete",
        Server("delete-database"),
        ByRight {
            may: &[("db", "missing"), ("typed", "missing")],
            may_not: &[("db", "sales"), ("typed", "sales")],
        },
    ),
    form(
        "create a document",
        "/studio/document",
        Database("sales", "put-document"),
        Plain(&[("db", "sales"), ("id", "{new}"), ("json", "{\"a\":1}")]),
    ),
    form(
        "create a document where nothing is granted",
        "/studio/document",
        Database("other", "put-document"),
        Plain(&[("db", "other"), ("id", "{new}"), ("json", "{\"a\":1}")]),
    ),
    form(
        "change a document",
        "/studio/document",
        Database("sales", "put-document"),
        Document(&[("json", "{\"a\":2}")]),
    ),
    form(
        "delete a document",
        "/studio/document/delete",
        Database("sales", "delete-document"),
        Document(&[]),
    ),
    form(
        "make a join token",
        "/studio/cluster/token",
        Server("create-join-token"),
        Plain(&[("minutes", "60")]),
    ),
    form(
        "revoke a join token",
        "/studio/cluster/token/revoke",
        Server("revoke-join-token"),
        Plain(&[("id", "no-such-token")]),
    ),
    form(
        "promote a node",
        "/studio/cluster/node",
        Server("promote-node"),
        ByRight {
            may: &[("node", NO_NODE), ("action", "promote")],
            may_not: &[("node", "3"), ("action", "promote")],
        },
    ),
    form(
        "demote a node",
        "/studio/cluster/node",
        Server("demote-node"),
        ByRight {
            may: &[("node", NO_NODE), ("action", "demote")],
            may_not: &[("node", "3"), ("action", "demote")],
        },
    ),
    form(
        "hand over the leadership",
        "/studio/cluster/node",
        Server("transfer-leader"),
        ByRight {
            may: &[("node", NO_NODE), ("action", "transfer")],
            may_not: &[("node", "3"), ("action", "transfer")],
        },
    ),
    form(
        "remove a node",
        "/studio/cluster/node",
        Server("remove-node"),
        ByRight {
            may: &[("node", NO_NODE), ("action", "remove")],
            may_not: &[("node", "3"), ("action", "remove")],
        },
    ),
    form("verify the audit log", "/studio/audit/verify", Server("verify-audit"), Plain(&[])),
    form("export the audit log", "/studio/audit/export", Server("export-audit"), Plain(&[])),
    form("purge", "/studio/certificates/purge", Server("purge-certificates"), Plain(&[])),
];

impl Form {
    /// Fills the form in and posts it, as somebody who may, or may not.
    pub async fn post(&self, world: &World, site: &mut Site, may: bool) -> Result<Answer> {
        let new = format!("new-{}", uuid::Uuid::new_v4().simple());
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut file = None;
        let plain = match &self.fields {
            Plain(plain) => plain,
            ByRight { may: those, may_not } => {
                if may {
                    those
                } else {
                    may_not
                }
            }
            Certificate(clearance, plain) => {
                let target = target(world, *clearance, &new, may).await?;
                fields.push(("t".into(), target.thumbprint));
                fields.push(("etag".into(), target.etag));
                plain
            }
            Pem(plain) => {
                fields.push(("pem".into(), Identity::new(&new)?.certificate_pem()));
                plain
            }
            Document(plain) => {
                let id = if may { new.clone() } else { "orders/1".to_owned() };
                let admin = world.cluster.admin(0)?;
                let etag = match may {
                    true => put(&admin, "sales", &id, "orders", "{}").await?,
                    false => admin.document("sales", &id).await?.etag,
                };
                fields.push(("db".into(), "sales".into()));
                fields.push(("id".into(), id));
                fields.push(("etag".into(), etag));
                plain
            }
            CertificateFile(plain) => {
                file = Some(Identity::new(&new)?.certificate_pem().into_bytes());
                plain
            }
            OtherFile(plain) => {
                file = Some(b"no certificate".to_vec());
                plain
            }
        };
        let filled =
            plain.iter().map(|(name, value)| ((*name).to_owned(), value.replace("{new}", &new)));
        fields.extend(filled);
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = match file {
            Some(file) => site.post_file(self.path, &file, &fields).await,
            None => site.post(self.path, &fields).await,
        };
        confirmed(site, self.path, answer.with_context(|| self.name)?).await
    }
}

/// Confirms what a page asks to be confirmed, by all that it carries; any other answer is what it is.
pub async fn confirmed(site: &mut Site, path: &str, answer: Answer) -> Result<Answer> {
    let text = answer.text();
    let hidden = hidden(&text);
    if !hidden.iter().any(|(name, _)| name == "confirmed") {
        return Ok(answer);
    }
    let fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    site.post(path, &fields).await
}

/// The fields of a page's forms that nobody sees.
fn hidden(text: &str) -> Vec<(String, String)> {
    let escapes = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    let plain = |text: &str| {
        escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    let inputs = text.split("<input type=\"hidden\" name=\"").skip(1);
    let pair = |input: &str| {
        let (name, rest) = input.split_once("\" value=\"")?;
        Some((plain(name), plain(rest.split_once('"')?.0)))
    };
    inputs.filter_map(pair).collect()
}

/// The certificate that something is done to.
async fn target(
    world: &World,
    clearance: Clearance,
    new: &str,
    may: bool,
) -> Result<rookery_proto::security::v1::Certificate> {
    let standing = match clearance {
        Clearance::Operator => "target-operator",
        Clearance::ClusterAdmin => "target-admin",
        Clearance::Unspecified | Clearance::User | Clearance::ClusterNode => "target-user",
    };
    if !may {
        return world.certificate(standing).await;
    }
    world.cluster.admin(0)?.register(&Identity::new(new)?, clearance, &[]).await?;
    world.certificate(new).await
}
