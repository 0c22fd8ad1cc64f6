//! Connections that are listed and cut, and what is counted of pages and calls, on a node alone.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use rookery_proto::{
    monitoring::v1 as monitoring,
    security::v1::{self as security, Clearance},
};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;

use super::{Client, Fixture, reason};
use crate::{
    edge::expiry,
    tls::{TlsIdentity, testing::identity},
};

async fn list(client: &Client, whose: &str) -> Vec<monitoring::Connection> {
    let asked =
        monitoring::ListConnectionsRequest { thumbprint: whose.into(), ..Default::default() };
    client.monitoring().list_connections(asked).await.unwrap().into_inner().connections
}

async fn cut(client: &Client, whose: &str, node: &str, id: u64) -> Result<u64, Status> {
    let asked = monitoring::CloseConnectionsRequest {
        thumbprint: whose.into(),
        node: node.into(),
        connection_id: id,
        request_id: String::new(),
    };
    let told = client.monitoring().close_connections(asked).await?.into_inner();
    Ok(told.nodes.iter().map(|node| node.connections).sum())
}

fn thumbprint(who: &TlsIdentity) -> String {
    who.thumbprint().to_string()
}

async fn who_am_i(client: &Client) -> security::WhoAmIResponse {
    client.security().who_am_i(security::WhoAmIRequest {}).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_streams_at_once_and_takes_nothing_away() {
    let fixture = Fixture::start();
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[]).await;
    let client = fixture.connect(Some(&alice)).await;
    let mut watch =
        client.health().watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let root = fixture.as_root().await;
    let open = list(&root, &thumbprint(&alice)).await;
    assert_eq!((open.len(), open[0].calls, open[0].name.as_str()), (1, 1, "somebody"));
    assert_eq!((open[0].node.as_str(), open[0].surface.as_str()), ("n1", "client"));
    assert_eq!(cut(&root, &thumbprint(&alice), "", 0).await.unwrap(), 1);
    let end = timeout(Duration::from_secs(1), watch.message()).await.expect("the stream ends");
    let end = end.unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "CONNECTION_CUT"));
    // In its last two seconds it is told as one that closes, and still serves what its certificate may.
    assert_eq!(list(&root, &thumbprint(&alice)).await[0].closing, "cut by an administrator");
    assert!(who_am_i(&client).await.registered);
    assert_eq!(cut(&root, &thumbprint(&alice), "n1", open[0].id).await.unwrap(), 0, "it is cut");
    assert!(who_am_i(&fixture.connect(Some(&alice)).await).await.registered);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_disable_a_certificate_may_cut_its_connections() {
    let fixture = Fixture::start();
    let (operator, other, user, admin) =
        (identity("operator"), identity("other"), identity("user"), identity("admin"));
    fixture.register(&operator, Clearance::Operator, &[]).await;
    fixture.register(&other, Clearance::Operator, &[]).await;
    fixture.register(&user, Clearance::User, &[]).await;
    fixture.register(&admin, Clearance::ClusterAdmin, &[]).await;
    let stranger = identity("stranger");
    let mut connected = Vec::new();
    for who in [&operator, &other, &user, &admin, &stranger] {
        let client = fixture.connect(Some(who)).await;
        who_am_i(&client).await;
        connected.push(client);
    }
    let [as_operator, _, as_user, as_admin, _] = connected.as_slice() else { panic!("five") };
    let all = list(as_operator, "").await;
    for who in [&operator, &other, &user, &admin, &stranger] {
        assert!(all.iter().any(|it| it.thumbprint == thumbprint(who)), "an operator sees them all");
    }
    let check = async |client: &Client, whom: &TlsIdentity, expected: Result<u64, &str>| {
        let told = cut(client, &thumbprint(whom), "", 0).await.map_err(|status| reason(&status));
        assert_eq!(told.as_ref().map_err(String::as_str).copied(), expected);
    };
    check(as_user, &user, Err("CLEARANCE_TOO_LOW")).await;
    check(as_user, &admin, Err("CLEARANCE_TOO_LOW")).await;
    check(as_operator, &admin, Err("MANAGE_FORBIDDEN")).await;
    check(as_operator, &operator, Err("OWN_CERTIFICATE")).await;
    check(as_operator, &fixture.server, Err("MANAGE_FORBIDDEN")).await;
    check(as_admin, &fixture.server, Err("MANAGE_FORBIDDEN")).await;
    let denials: Vec<String> =
        fixture.fake.denials.lock().iter().map(|it| it.reason.clone()).collect();
    assert_eq!(denials.len(), 6, "each denial is noted: {denials:?}");
    check(as_operator, &other, Ok(1)).await;
    check(as_operator, &user, Ok(1)).await;
    check(as_operator, &stranger, Ok(1)).await;
    check(as_admin, &operator, Ok(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_names_what_there_is() {
    let fixture = Fixture::start();
    let root = fixture.as_root().await;
    let alice = thumbprint(&identity("alice"));
    for (whose, node, id, expected) in [
        ("", "", 0, Code::InvalidArgument),
        ("no thumbprint", "", 0, Code::InvalidArgument),
        (alice.as_str(), "", 7, Code::InvalidArgument),
        (alice.as_str(), "n9", 0, Code::NotFound),
    ] {
        let told = cut(&root, whose, node, id).await.unwrap_err();
        assert_eq!(told.code(), expected, "{whose:?} {node:?} {id}: {told:?}");
    }
    assert_eq!(cut(&root, &alice, "n1", u64::MAX).await.unwrap(), 0);
}

/// A page of the Studio.
async fn get(client: &Client, path: &str) -> (u16, String) {
    let request = http::Request::builder()
        .uri(format!("https://{}{path}", client.address))
        .body(tonic::body::Body::new(Full::new(Bytes::new())))
        .unwrap();
    answered(client, request).await
}

async fn post(client: &Client, path: &str, form: &str) -> (u16, String) {
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("https://{}{path}", client.address))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .body(tonic::body::Body::new(Full::new(Bytes::copy_from_slice(form.as_bytes()))))
        .unwrap();
    answered(client, request).await
}

async fn answered(client: &Client, request: http::Request<tonic::body::Body>) -> (u16, String) {
    let response = client.sender.clone().send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn counted(fixture: &Fixture) -> String {
    let engine = &fixture.edge.engine;
    let survey = expiry::survey(&engine.registry(), fixture.edge.clock.wall());
    fixture.edge.metrics.encode(&engine.status_local().await, &survey)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_counted_as_a_page_and_its_calls_as_calls() {
    let fixture = Fixture::start();
    let root = fixture.as_root().await;
    let (status, page) = get(&root, "/studio").await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("Calls per second") && page.contains("All is well"), "{page}");
    let (status, _) = get(&root, "/studio/no-such-page").await;
    assert_eq!(status, 404);
    let text = counted(&fixture).await;
    for line in [
        r#"rookery_requests_total{rpc="studio",code="OK"} 1"#,
        r#"rookery_requests_total{rpc="studio",code="NOT_FOUND"} 1"#,
        r#"rookery_requests_total{rpc="rookery.monitoring.v1.MonitoringService/GetMetrics",code="OK"} 1"#,
        r#"rookery_requests_total{rpc="rookery.cluster.v1.ClusterService/GetStatus",code="OK"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains(r#"rpc="other""#), "{text}");
    // The connection made two requests, whatever the page asked for in this process.
    let open = list(&root, &thumbprint(&fixture.root)).await;
    assert_eq!(open.iter().map(|it| it.calls).max(), Some(3), "two pages and this list: {open:?}");
    let calls = |text: &str| -> u64 {
        let rpcs =
            text.lines().filter(|it| it.starts_with(r#"rookery_requests_total{rpc="rookery."#));
        rpcs.map(|it| it.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let text = counted(&fixture).await;
    let timed = format!("rookery_request_seconds_count {}", calls(&text));
    assert!(text.contains(&timed), "a page has no time of its own: {timed}\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_certificate_shows_its_connections_and_who_may_cut_them() {
    let fixture = Fixture::start();
    let (operator, user) = (identity("operator"), identity("user"));
    fixture.register(&operator, Clearance::Operator, &[]).await;
    fixture.register(&user, Clearance::User, &[]).await;
    let connected = fixture.connect(Some(&user)).await;
    who_am_i(&connected).await;
    let as_operator = fixture.connect(Some(&operator)).await;
    let page_of = async |whom: &TlsIdentity| {
        let (status, page) =
            get(&as_operator, &format!("/studio/certificate?t={}", thumbprint(whom))).await;
        assert_eq!(status, 200, "{page}");
        page.split_once("Live connections").expect("the section").1.to_owned()
    };
    let page = page_of(&user).await;
    assert!(
        page.contains("1 open") && page.contains(">Cut all<") && page.contains(">Cut<"),
        "{page}"
    );
    assert!(!page.split_once("PEM").unwrap().0.contains("disabled title"), "{page}");
    let page = page_of(&fixture.root).await;
    assert!(page.contains("disabled title=\"Needs Cluster Admin clearance"), "{page}");
    let page = page_of(&operator).await;
    assert!(page.contains("(rule B3.own)"), "{page}");
    // A form that was made by hand meets the same rules.
    let form = format!("t={}", thumbprint(&fixture.root));
    let (status, page) = post(&as_operator, "/studio/certificate/cut", &form).await;
    assert_eq!(status, 403, "{page}");
    let form = format!("t={}", thumbprint(&user));
    let (status, page) = post(&as_operator, "/studio/certificate/cut", &form).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("1 connection was cut") && page.contains("may connect again"), "{page}");
    assert!(page.contains(">closing<"), "{page}");
    let form = format!("t={}&node=n1&id=-1", thumbprint(&user));
    let (status, _) = post(&as_operator, "/studio/certificate/cut", &form).await;
    assert_eq!(status, 422, "no number");
}
