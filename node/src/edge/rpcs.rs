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

/// The name under which a request is counted; "other" for paths of nobody, so that clients make no labels.
#[must_use]
pub fn label(path: &str) -> &'static str {
    let full_name = path.strip_prefix('/').unwrap_or_default();
    RPCS.iter()
        .map(|(rpc, _)| *rpc)
        .find(|rpc| *rpc == full_name)
        .or_else(|| OTHERS.iter().find(|(of, _)| *of == path).map(|(_, name)| *name))
        .unwrap_or(if path == "/" { "page" } else { "other" })
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
        for (path, name) in [
            (
                "/rookery.document.v1.DocumentService/GetDocument",
                "rookery.document.v1.DocumentService/GetDocument",
            ),
            ("/grpc.health.v1.Health/Check", "grpc.health.v1.Health/Check"),
            ("/", "page"),
            ("", "other"),
            ("//rookery.document.v1.DocumentService/GetDocument", "other"),
            ("/rookery.document.v1.DocumentService/getdocument", "other"),
            ("/rookery.document.v1.DocumentService/GetDocument/", "other"),
        ] {
            assert_eq!(label(path), name, "{path}");
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
