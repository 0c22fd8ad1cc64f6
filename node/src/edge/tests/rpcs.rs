//! Every RPC of the contract, called by everybody.

use tonic::Code;

use super::{Client, Fixture};
use crate::{
    authz::{Clearance, RpcRule, ServerRule},
    edge::rpcs::of_clients,
    tls::testing::identity,
};

/// The code and reason that a caller of this clearance gets, `None` where the call is let in.
fn denial(rule: RpcRule, clearance: Option<Clearance>) -> Option<(Code, &'static str)> {
    let registered = |ok: bool, reason| (!ok).then_some((Code::PermissionDenied, reason));
    match (rule, clearance) {
        (RpcRule::Server(operation), clearance) => match (operation.rule(), clearance) {
            (ServerRule::Public, _) | (ServerRule::JoinToken, Some(_)) => None,
            (_, None) => Some((Code::Unauthenticated, "CERTIFICATE_")),
            (rule, Some(have)) => {
                let need = rule.clearance().unwrap();
                registered(have.covers(need), "CLEARANCE_TOO_LOW")
            }
        },
        (RpcRule::Database(_), None) => Some((Code::Unauthenticated, "CERTIFICATE_")),
        // No database is named, and this User has none.
        (RpcRule::Database(_), Some(have)) => {
            registered(have.covers(Clearance::Operator), "DATABASE_ACCESS_DENIED")
        }
        (RpcRule::AdminSocket, _) => panic!("not on the client listener"),
    }
}

async fn check(who: &str, client: &Client, clearance: Option<Clearance>, certificate: bool) {
    for (rpc, rule) in of_clients() {
        let answer = client.empty(rpc).await;
        let token =
            matches!(rule, RpcRule::Server(operation) if operation.rule() == ServerRule::JoinToken);
        let expected = if token && certificate { None } else { denial(rule, clearance) };
        match expected {
            Some((code, reason)) => {
                assert_eq!(answer.code, code, "{who} calls {rpc}: {answer:?}");
                assert!(answer.reason.starts_with(reason), "{who} calls {rpc}: {answer:?}");
                assert!(!answer.message.is_empty(), "{who} calls {rpc}");
            }
            None => {
                let let_in = !matches!(
                    answer.code,
                    Code::Unauthenticated
                        | Code::PermissionDenied
                        | Code::Unimplemented
                        | Code::Internal
                );
                assert!(let_in, "{who} calls {rpc}: {answer:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_decided_for_every_caller() {
    use rookery_proto::security::v1::Clearance as Number;
    let fixture = Fixture::start();
    check("nobody", &fixture.connect(None).await, None, false).await;
    let stranger = identity("stranger");
    check("a stranger", &fixture.connect(Some(&stranger)).await, None, true).await;
    for (number, clearance) in
        [(Number::User, Clearance::User), (Number::Operator, Clearance::Operator)]
    {
        let who = identity("somebody");
        fixture.register(&who, number, &[]).await;
        let client = fixture.connect(Some(&who)).await;
        check(clearance.title(), &client, Some(clearance), true).await;
    }
    check("root", &fixture.as_root().await, Some(Clearance::ClusterAdmin), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_and_owners_say_is_not_heard_on_the_client_listener() {
    let fixture = Fixture::start();
    let client = fixture.as_root().await;
    for rpc in [
        "rookery.peer.v1.PeerService/Channel",
        "rookery.peer.v1.PeerService/Probe",
        "rookery.admin.v1.AdminService/Bootstrap",
        "rookery.document.v1.DocumentService/Nothing",
        "rookery.document.v1.DocumentService/getDocument",
        "rookery.document.v1.DocumentService/GetDocument/",
        "/rookery.document.v1.DocumentService/GetDocument",
        "%72ookery.document.v1.DocumentService/GetDocument",
        "nothing",
    ] {
        let answer = client.empty(rpc).await;
        assert_eq!((answer.http, answer.code), (200, Code::Unimplemented), "{rpc}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_in_the_path_changes_nothing_about_the_decision() {
    let fixture = Fixture::start();
    let rpc = "rookery.security.v1.SecurityService/ListCertificates?x=1";
    let answer = fixture.connect(None).await.empty(rpc).await;
    assert_eq!(answer.reason, "CERTIFICATE_REQUIRED");
    assert_eq!(fixture.as_root().await.empty(rpc).await.code, Code::Ok);
}
