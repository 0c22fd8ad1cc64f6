//! Every page of the Studio and everything on it to click, with the operation of the permission table that each needs.
//!
//! The walk fails where a page shows something to click that has no row here, and where a row is shown by no page to
//! anybody. So a page that is added or changed is first told here.

use anyhow::Result;

use crate::world::World;

/// What something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A registered certificate; or it is only a way to another page.
    Nothing,
    /// An operation of the server.
    Server(&'static str),
    /// An operation on a database.
    Database(&'static str, &'static str),
}

use Needs::{Database, Nothing, Server};

/// A page.
pub struct Page {
    /// What it is called here and on screenshots.
    pub name: &'static str,
    /// Its path; `{user}`, `{operator}` and `{admin}` stand for the thumbprints of the targets.
    pub path: &'static str,
    /// What opening it needs.
    pub needs: Needs,
    /// What is on it to click.
    pub controls: &'static [(&'static str, Needs)],
}

const fn page(
    name: &'static str,
    path: &'static str,
    needs: Needs,
    controls: &'static [(&'static str, Needs)],
) -> Page {
    Page { name, path, needs, controls }
}

/// What every form of rights has.
const USER: (&str, Needs) = ("(user)", Nothing);
const OPERATOR: (&str, Needs) = ("(operator)", Nothing);
const ADMIN: (&str, Needs) = ("(cluster-admin)", Server("generate-admin-certificate"));
const CANCEL: (&str, Needs) = ("Cancel", Nothing);

/// Every page that is opened with GET.
pub const PAGES: &[Page] = &[
    page("overview", "/studio", Nothing, &[]),
    page(
        "certificates",
        "/studio/certificates?q=target-",
        Server("list-certificates"),
        &[
            ("Generate", Server("generate-certificate")),
            ("Upload", Server("upload-certificate")),
            ("Export server certificates", Server("export-server-certificates")),
            ("Replace server certificate", Server("replace-server-certificate")),
            ("Purge expired", Server("purge-certificates")),
            ("Show", Nothing),
            ("Clear", Nothing),
            ("Edit target-user", Server("edit-certificate")),
            ("Clone target-user", Server("generate-certificate")),
            ("Disable target-user", Server("disable-certificate")),
            ("Delete target-user", Server("delete-certificate")),
            ("Edit target-operator", Server("edit-certificate")),
            ("Clone target-operator", Server("generate-certificate")),
            ("Disable target-operator", Server("disable-certificate")),
            ("Delete target-operator", Server("delete-certificate")),
            ("Edit target-admin", Server("edit-admin-certificate")),
            ("Clone target-admin", Server("generate-admin-certificate")),
            ("Disable target-admin", Server("disable-admin-certificate")),
            ("Delete target-admin", Server("delete-admin-certificate")),
        ],
    ),
    page(
        "certificates-generate",
        "/studio/certificates/generate",
        Nothing,
        &[USER, OPERATOR, ADMIN, ("Generate", Server("generate-certificate")), CANCEL],
    ),
    page(
        "certificates-upload",
        "/studio/certificates/upload",
        Nothing,
        &[("Look into it", Server("upload-certificate")), CANCEL],
    ),
    page(
        "certificates-export",
        "/studio/certificates/export",
        Nothing,
        &[("Download", Server("export-server-certificates")), ("Back", Nothing)],
    ),
    page(
        "certificates-purge",
        "/studio/certificates/purge",
        Server("list-certificates"),
        &[("Purge", Server("purge-certificates")), CANCEL],
    ),
    page(
        "certificates-server",
        "/studio/certificates/server",
        Server("view-server-certificate-replacement"),
        &[("Replace", Server("replace-server-certificate"))],
    ),
    page(
        "certificate",
        "/studio/certificate?t={user}",
        Server("view-certificate"),
        &[
            ("Edit", Server("edit-certificate")),
            ("Clone", Server("generate-certificate")),
            ("Disable", Server("disable-certificate")),
            ("Delete", Server("delete-certificate")),
            ("Cut all", Server("close-connections")),
        ],
    ),
    page(
        "certificate-of-an-admin",
        "/studio/certificate?t={admin}",
        Server("view-certificate"),
        &[
            ("Edit", Server("edit-admin-certificate")),
            ("Clone", Server("generate-admin-certificate")),
            ("Disable", Server("disable-admin-certificate")),
            ("Delete", Server("delete-admin-certificate")),
            ("Cut all", Server("disable-admin-certificate")),
        ],
    ),
    page(
        "certificate-edit",
        "/studio/certificate/edit?t={user}",
        Server("view-certificate"),
        &[USER, OPERATOR, ADMIN, ("Save", Server("edit-certificate")), CANCEL],
    ),
    page(
        "certificate-edit-of-an-admin",
        "/studio/certificate/edit?t={admin}",
        Server("view-certificate"),
        &[USER, OPERATOR, ADMIN, ("Save", Server("edit-admin-certificate")), CANCEL],
    ),
    page(
        "certificate-clone",
        "/studio/certificate/clone?t={user}",
        Server("view-certificate"),
        &[("Generate", Server("generate-certificate")), CANCEL],
    ),
    page(
        "certificate-clone-of-an-admin",
        "/studio/certificate/clone?t={admin}",
        Server("view-certificate"),
        &[("Generate", Server("generate-admin-certificate")), CANCEL],
    ),
    page(
        "certificate-delete",
        "/studio/certificate/delete?t={user}",
        Server("view-certificate"),
        &[("Delete this certificate", Server("delete-certificate")), CANCEL],
    ),
    page(
        "certificate-delete-of-an-admin",
        "/studio/certificate/delete?t={admin}",
        Server("view-certificate"),
        &[("Delete this certificate", Server("delete-admin-certificate")), CANCEL],
    ),
    page(
        "second-factor",
        "/studio/second-factor",
        Nothing,
        &[("Make a second factor", Server("enrol-two-factor"))],
    ),
    page(
        "second-factor-of-a-user",
        "/studio/second-factor?t={user}",
        Server("view-certificate"),
        &[("Make a second factor", Server("edit-certificate"))],
    ),
    page(
        "second-factor-of-an-admin",
        "/studio/second-factor?t={admin}",
        Server("view-certificate"),
        &[("Make a second factor", Server("edit-admin-certificate"))],
    ),
    page(
        "databases",
        "/studio/databases",
        Nothing,
        &[
            ("Create", Server("create-database")),
            ("Documents of sales sales", Nothing),
            ("Documents of other other", Nothing),
        ],
    ),
    page(
        "databases-create",
        "/studio/databases/create",
        Nothing,
        &[("Create", Server("create-database")), CANCEL],
    ),
    page(
        "database",
        "/studio/database?db=sales",
        Database("sales", "view-database"),
        &[
            ("Documents", Nothing),
            ("Disable", Server("disable-database")),
            ("Delete", Server("delete-database")),
            ("Save db-admin", Server("edit-certificate")),
            ("Save read", Server("edit-certificate")),
            ("Save read-write", Server("edit-certificate")),
            ("Save target-user", Server("edit-certificate")),
            ("Give access to a User", Server("edit-certificate")),
        ],
    ),
    page(
        "database-grant",
        "/studio/database/grant?db=sales&q=target-user",
        Server("list-certificates"),
        &[("Search", Nothing), ("Give target-user", Server("edit-certificate"))],
    ),
    page(
        "database-delete",
        "/studio/database/delete?db=sales",
        Database("sales", "view-database"),
        &[("Delete the database", Server("delete-database")), CANCEL],
    ),
    page(
        "documents",
        "/studio/documents?db=sales",
        Database("sales", "list-documents"),
        &[
            ("Create", Database("sales", "put-document")),
            ("Export these rows", Database("sales", "list-documents")),
            ("Show", Nothing),
        ],
    ),
    page(
        "documents-not-granted",
        "/studio/documents?db=other",
        Database("other", "list-documents"),
        &[
            ("Create", Database("other", "put-document")),
            ("Export these rows", Database("other", "list-documents")),
            ("Show", Nothing),
        ],
    ),
    page(
        "documents-create",
        "/studio/documents/create?db=sales",
        Nothing,
        &[("Save", Database("sales", "put-document")), CANCEL],
    ),
    page(
        "document",
        "/studio/document?db=sales&id=orders/1",
        Database("sales", "read-document"),
        &[
            ("Save", Database("sales", "put-document")),
            CANCEL,
            ("Download", Nothing),
            ("Delete…", Database("sales", "delete-document")),
            ("Delete this document", Database("sales", "delete-document")),
        ],
    ),
    page(
        "document-not-granted",
        "/studio/document?db=other&id=orders/1",
        Database("other", "read-document"),
        &[
            ("Save", Database("other", "put-document")),
            CANCEL,
            ("Download", Nothing),
            ("Delete this document", Database("other", "delete-document")),
        ],
    ),
    page(
        "cluster",
        "/studio/cluster",
        Nothing,
        &[
            ("Demote n1", Server("demote-node")),
            ("Make leader n1", Server("transfer-leader")),
            ("Remove n1", Server("remove-node")),
            ("Demote n2", Server("demote-node")),
            ("Make leader n2", Server("transfer-leader")),
            ("Remove n2", Server("remove-node")),
            ("Demote n3", Server("demote-node")),
            ("Make leader n3", Server("transfer-leader")),
            ("Remove n3", Server("remove-node")),
            ("Make a token", Server("create-join-token")),
        ],
    ),
    page(
        "cluster-promote",
        "/studio/cluster/node?node=3&action=promote",
        Nothing,
        &[("Promote: n3", Server("promote-node")), CANCEL],
    ),
    page(
        "cluster-demote",
        "/studio/cluster/node?node=3&action=demote",
        Nothing,
        &[("Demote: n3", Server("demote-node")), CANCEL],
    ),
    page(
        "cluster-transfer",
        "/studio/cluster/node?node=3&action=transfer",
        Nothing,
        &[("Make leader: n3", Server("transfer-leader")), CANCEL],
    ),
    page(
        "cluster-remove",
        "/studio/cluster/node?node=3&action=remove",
        Nothing,
        &[("Remove: n3", Server("remove-node")), CANCEL],
    ),
    page(
        "audit",
        "/studio/audit?operation=register-certificate",
        Server("view-audit"),
        &[
            ("Verify", Server("verify-audit")),
            ("Export all", Server("export-audit")),
            ("Show", Nothing),
            ("Clear", Nothing),
        ],
    ),
];

/// What is downloaded or streams, with what it needs: nothing to look at, but a way in.
pub const FILES: &[(&str, Needs)] = &[
    ("/studio/documents/export?db=sales", Database("sales", "list-documents")),
    ("/studio/documents/export?db=other", Database("other", "list-documents")),
    ("/studio/document/download?db=sales&id=orders/1", Database("sales", "read-document")),
    ("/studio/document/download?db=other&id=orders/1", Database("other", "read-document")),
    ("/studio/certificates/server/live", Server("view-server-certificate-replacement")),
    ("/studio/audit/live", Server("view-audit")),
];

/// Paths of `PAGES` with the thumbprints of the targets in place.
pub async fn paths(world: &World) -> Result<impl Fn(&str) -> String + use<>> {
    let user = world.certificate("target-user").await?.thumbprint;
    let operator = world.certificate("target-operator").await?.thumbprint;
    let admin = world.certificate("target-admin").await?.thumbprint;
    Ok(move |path: &str| {
        path.replace("{user}", &user).replace("{operator}", &operator).replace("{admin}", &admin)
    })
}
