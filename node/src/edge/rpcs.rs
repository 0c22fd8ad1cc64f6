//! Names of RPCs: from the path of a request to the operation of the one table in [`authz`](crate::authz::RPCS).
//!
//! Nothing is authorized by path. The path picks a handler, and the handler names its operation; this module gives the
//! counters names from a fixed set, and the test below holds the handlers against the table.

use crate::authz::{RPCS, RpcRule};

/// RPCs that stand outside the contract, with their paths.
const OTHERS: [(&str, &str); 4] = [
    ("/grpc.health.v1.Health/Check", "grpc.health.v1.Health/Check"),
    ("/grpc.health.v1.Health/Watch", "grpc.health.v1.Health/Watch"),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ),
];

/// The areas of the Studio by what their paths begin with, and what their pages are counted as. The first that fits.
const PAGES: [(&str, &str); 7] = [
    ("/studio/assets/", "studio/assets"),
    ("/studio/certificate", "studio/certificates"),
    ("/studio/database", "studio/databases"),
    ("/studio/document", "studio/documents"),
    ("/studio/cluster", "studio/cluster"),
    ("/studio/audit", "studio/audit"),
    ("/studio", "studio"),
];

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Out of a fixed set, so that clients make no labels.
    pub name: &'static str,
    /// Of what kind.
    pub kind: Kind,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call of a service, also one that a page makes in this process.
    Rpc,
    /// A page, or what belongs to it.
    Page,
    /// A path of nobody.
    Other,
}

/// What a request to a path is counted as.
#[must_use]
pub fn label(path: &str) -> Label {
    let full_name = path.strip_prefix('/').unwrap_or_default();
    let rpc = RPCS.iter().map(|(rpc, _)| *rpc).find(|rpc| *rpc == full_name);
    let rpc = rpc.or_else(|| OTHERS.iter().find(|(of, _)| *of == path).map(|(_, name)| *name));
    if let Some(name) = rpc {
        return Label { name, kind: Kind::Rpc };
    }
    if path == "/" {
        return Label { name: "page", kind: Kind::Page };
    }
    match PAGES.iter().find(|(begins, _)| path.starts_with(begins)) {
        Some((_, name)) => Label { name, kind: Kind::Page },
        None => Label { name: "other", kind: Kind::Other },
    }
}

/// The RPCs of the client listener and what each one requires.
pub fn of_clients() -> impl Iterator<Item = (&'static str, RpcRule)> {
    RPCS.iter().copied().filter(|(rpc, rule)| {
        !rpc.starts_with("rookery.peer.") && !matches!(rule, RpcRule::AdminSocket)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_a_fixed_set() {
        use Kind::{Other, Page, Rpc};
        for (path, name, kind) in [
            (
                "/rookery.document.v1.DocumentService/GetDocument",
                "rookery.document.v1.DocumentService/GetDocument",
                Rpc,
            ),
            ("/grpc.health.v1.Health/Check", "grpc.health.v1.Health/Check", Rpc),
            ("/", "page", Page),
            ("/studio", "studio", Page),
            ("/studio/", "studio", Page),
            ("/studio/no-such-page", "studio", Page),
            ("/studio/assets/style-0123456789ab.css", "studio/assets", Page),
            ("/studio/certificates", "studio/certificates", Page),
            ("/studio/certificate/edit", "studio/certificates", Page),
            ("/studio/database/access", "studio/databases", Page),
            ("/studio/documents/export", "studio/documents", Page),
            ("/studio/cluster/node", "studio/cluster", Page),
            ("/studio/audit/live", "studio/audit", Page),
            ("", "other", Other),
            ("/favicon.ico", "other", Other),
            ("//rookery.document.v1.DocumentService/GetDocument", "other", Other),
            ("/rookery.document.v1.DocumentService/getdocument", "other", Other),
            ("/rookery.document.v1.DocumentService/GetDocument/", "other", Other),
        ] {
            assert_eq!(label(path), Label { name, kind }, "{path}");
        }
    }

    #[test]
    fn peers_and_the_admin_socket_have_no_rpc_on_the_client_listener() {
        assert!(of_clients().count() >= 28);
        for (rpc, _) in of_clients() {
            assert!(!rpc.contains("AdminService") && !rpc.contains("PeerService"), "{rpc}");
        }
    }
}
