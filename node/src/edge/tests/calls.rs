//! What calls do and answer, end to end.

use std::{io::Read as _, time::Duration};

use rookery_proto::{
    cluster::v1 as cluster,
    database::v1 as database,
    document::v1 as document,
    security::v1::{self as security, Access, Clearance},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_types::StatusExt as _;
use zeroize::Zeroizing;

use super::{Client, Fixture, fake::Mood, reason};
use crate::{
    edge::join_token::JoinToken,
    tls::{TlsIdentity, testing::identity},
};

fn told<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), reason(&status))
}

async fn put(client: &Client, database: &str, id: &str, json: &str) -> Result<String, Status> {
    let request = document::PutDocumentRequest {
        database: database.into(),
        id: id.into(),
        json: json.as_bytes().to_vec(),
        ..Default::default()
    };
    let response = client.documents().put_document(request).await?;
    Ok(response.into_inner().etag)
}

async fn get(client: &Client, database: &str, id: &str) -> Result<Vec<u8>, Status> {
    let request = document::GetDocumentRequest {
        database: database.into(),
        id: id.into(),
        ..Default::default()
    };
    let response = client.documents().get_document(request).await?;
    Ok(response.into_inner().document.unwrap().json)
}

async fn who_am_i(client: &Client) -> security::WhoAmIResponse {
    let response = client.security().who_am_i(security::WhoAmIRequest {}).await;
    response.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_goes_in_and_comes_out_byte_for_byte() {
    let fixture = Fixture::start();
    fixture.create_database("Sales").await;
    let client = fixture.as_root().await;
    let json = r#"{"b": 12345678901234567890123, "a":-0}"#;
    put(&client, "sales", "orders/1", json).await.unwrap();
    assert_eq!(get(&client, "SALES", "orders/1").await.unwrap(), json.as_bytes());
    assert_eq!(told(get(&client, "sales", "orders/2").await), (Code::NotFound, "NOT_FOUND".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_meets_the_same_words_at_a_closed_door_and_at_no_door() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    fixture.create_database("wages").await;
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[("sales", Access::Read)]).await;
    put(&fixture.as_root().await, "sales", "1", "{}").await.unwrap();
    let client = fixture.connect(Some(&alice)).await;
    assert_eq!(get(&client, "sales", "1").await.unwrap(), b"{}");
    let denied = (Code::PermissionDenied, "DATABASE_ACCESS_DENIED".to_owned());
    assert_eq!(told(put(&client, "sales", "1", "{}").await), denied);
    let existing = get(&client, "wages", "1").await.unwrap_err();
    let missing = get(&client, "nowhere", "1").await.unwrap_err();
    assert_eq!((existing.code(), reason(&existing)), denied);
    assert_eq!(existing.message(), missing.message());
    let info = |status: &Status| status.get_details_error_info().unwrap();
    assert_eq!(info(&existing).metadata, info(&missing).metadata);
    // Those who see all databases are told.
    let root = fixture.as_root().await;
    assert_eq!(told(get(&root, "nowhere", "1").await), (Code::NotFound, "NOT_FOUND".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_database_says_so_to_those_with_access_only() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    let (alice, bob) = (identity("alice"), identity("bob"));
    fixture.register(&alice, Clearance::User, &[("sales", Access::ReadWrite)]).await;
    fixture.register(&bob, Clearance::User, &[]).await;
    let request =
        database::DisableDatabaseRequest { name: "sales".into(), request_id: String::new() };
    fixture.as_root().await.databases().disable_database(request).await.unwrap();
    let alice = fixture.connect(Some(&alice)).await;
    let disabled = (Code::FailedPrecondition, "DATABASE_DISABLED".to_owned());
    assert_eq!(told(get(&alice, "sales", "1").await), disabled);
    let bob = fixture.connect(Some(&bob)).await;
    let denied = (Code::PermissionDenied, "DATABASE_ACCESS_DENIED".to_owned());
    assert_eq!(told(get(&bob, "sales", "1").await), denied);
    // It can still be looked at.
    let request = database::GetDatabaseRequest { name: "sales".into() };
    let shown = alice.databases().get_database(request).await.unwrap().into_inner();
    let shown = shown.database.unwrap();
    assert_eq!(shown.state(), database::DatabaseState::Disabled);
    assert_eq!(shown.access, "ReadWrite");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_hold_what_the_caller_may_see_page_by_page() {
    let fixture = Fixture::start();
    for name in ["c", "a", "B", "d"] {
        fixture.create_database(name).await;
    }
    let alice = identity("alice");
    let grants = [("a", Access::Read), ("b", Access::Admin), ("d", Access::ReadWrite)];
    fixture.register(&alice, Clearance::User, &grants).await;
    let client = fixture.connect(Some(&alice)).await;
    let list = |token: String| {
        let request = database::ListDatabasesRequest { page_size: 2, page_token: token };
        let client = client.clone();
        async move { client.databases().list_databases(request).await }
    };
    let first = list(String::new()).await.unwrap().into_inner();
    let names = |page: &database::ListDatabasesResponse| {
        page.databases.iter().map(|one| one.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["a", "B"]);
    let second = list(first.next_page_token.clone()).await.unwrap().into_inner();
    assert_eq!((names(&second), second.next_page_token.as_str()), (vec!["d".to_owned()], ""));
    let invalid = (Code::InvalidArgument, "INVALID_ARGUMENT".to_owned());
    assert_eq!(told(list("nonsense".into()).await), invalid);
    // A token of somebody else's list is no token of one's own.
    let request =
        database::ListDatabasesRequest { page_size: 2, page_token: first.next_page_token };
    let root = fixture.as_root().await;
    assert_eq!(told(root.databases().list_databases(request).await), invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_package_holds_a_certificate_that_opens_what_was_granted() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    let request = security::GenerateCertificateRequest {
        name: "Alice / sales".into(),
        clearance: Clearance::User.into(),
        grants: vec![security::Grant {
            database: "sales".into(),
            access: Access::ReadWrite.into(),
        }],
        ..Default::default()
    };
    let root = fixture.as_root().await;
    let made = root.security().generate_certificate(request).await.unwrap().into_inner();
    let certificate = made.certificate.unwrap();
    assert_eq!(certificate.name, "Alice / sales");
    assert_eq!(certificate.grants.len(), 1);
    assert_eq!(certificate.created_by, fixture.root.thumbprint().to_string());
    assert!(!made.password.is_empty() && made.file_name.ends_with(".zip"));
    assert!(!made.file_name.contains('/'));

    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(made.package)).unwrap();
    let mut file = |ending: &str| {
        let names = archive.file_names().map(str::to_owned).collect::<Vec<_>>();
        let name = names.iter().find(|name| name.ends_with(ending) && *name != "ca.crt").unwrap();
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let der = CertificateDer::from_pem_slice(&file(".crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&file(".key")).unwrap();
    let key = Zeroizing::new(key.secret_der().to_vec());
    let alice = TlsIdentity::new(vec![der], key).unwrap();
    assert_eq!(alice.thumbprint().to_string(), certificate.thumbprint);

    let client = fixture.connect(Some(&alice)).await;
    let me = who_am_i(&client).await;
    assert!(me.registered);
    assert_eq!((me.name.as_str(), me.clearance()), ("Alice / sales", Clearance::User));
    put(&client, "sales", "1", "{}").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_am_i_answers_everybody_and_tells_strangers_nothing_of_the_cluster() {
    let fixture = Fixture::start();
    let stranger = identity("stranger");
    let nobody = who_am_i(&fixture.connect(None).await).await;
    let unknown = who_am_i(&fixture.connect(Some(&stranger)).await).await;
    assert_eq!((nobody.registered, nobody.thumbprint.as_str()), (false, ""));
    assert_eq!(
        (unknown.registered, unknown.thumbprint),
        (false, stranger.thumbprint().to_string())
    );
    assert_eq!((unknown.cluster_id.as_str(), unknown.registry_revision), ("", 0));
    let root = who_am_i(&fixture.as_root().await).await;
    assert_eq!((root.registered, root.clearance()), (true, Clearance::ClusterAdmin));
    fixture.fake.be(Mood::Passive);
    assert!(!who_am_i(&fixture.as_root().await).await.registered);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_with_a_private_key_keeps_the_certificate_alone() {
    let fixture = Fixture::start();
    let alice = identity("alice");
    let certificate = crate::certificates::certificate_pem(alice.certificate_der());
    let key = crate::certificates::pem("PRIVATE KEY", alice.expose_key_der());
    let upload = |certificate: Vec<u8>, clearance: Clearance| security::UploadCertificateRequest {
        name: "alice".into(),
        clearance: clearance.into(),
        certificate,
        ..Default::default()
    };
    let client = fixture.as_root().await;
    let both = format!("{certificate}{}", key.expose()).into_bytes();
    let request = upload(both, Clearance::User);
    let answer = client.security().upload_certificate(request).await.unwrap().into_inner();
    assert!(answer.private_key_dropped);
    assert_eq!(answer.certificate.unwrap().der, alice.certificate_der().as_ref());
    let refusals = [
        (upload(b"junk".to_vec(), Clearance::User), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (
            upload(alice.certificate_der().to_vec(), Clearance::Unspecified),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            upload(alice.certificate_der().to_vec(), Clearance::User),
            Code::AlreadyExists,
            "ALREADY_EXISTS",
        ),
        (
            upload(fixture.server.certificate_der().to_vec(), Clearance::User),
            Code::PermissionDenied,
            "MANAGE_FORBIDDEN",
        ),
    ];
    for (request, code, reason) in refusals {
        let answer = client.security().upload_certificate(request).await;
        assert_eq!(told(answer), (code, reason.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_cannot_reach_above_an_operator() {
    let fixture = Fixture::start();
    let operator = identity("operator");
    fixture.register(&operator, Clearance::Operator, &[]).await;
    let client = fixture.connect(Some(&operator)).await;
    let forbidden = (Code::PermissionDenied, "MANAGE_FORBIDDEN".to_owned());
    let root = fixture.root.thumbprint().to_string();
    for clearance in [Clearance::ClusterAdmin, Clearance::ClusterNode] {
        let generate = security::GenerateCertificateRequest {
            name: "x".into(),
            clearance: clearance.into(),
            ..Default::default()
        };
        assert_eq!(told(client.security().generate_certificate(generate).await), forbidden);
        let edit = security::EditCertificateRequest {
            thumbprint: operator.thumbprint().to_string(),
            clearance: clearance.into(),
            ..Default::default()
        };
        assert_eq!(told(client.security().edit_certificate(edit).await), forbidden);
    }
    let delete = security::DeleteCertificateRequest { thumbprint: root, ..Default::default() };
    assert_eq!(told(client.security().delete_certificate(delete).await), forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_expect_the_etag_they_are_given() {
    let fixture = Fixture::start();
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[]).await;
    let client = fixture.as_root().await;
    let thumbprint = alice.thumbprint().to_string();
    let get = security::GetCertificateRequest { thumbprint: thumbprint.clone() };
    let shown = client.security().get_certificate(get).await.unwrap().into_inner();
    let etag = shown.certificate.unwrap().etag;
    let edit = |name: &str, etag: &str| security::EditCertificateRequest {
        thumbprint: thumbprint.clone(),
        name: name.into(),
        expected_etag: etag.into(),
        ..Default::default()
    };
    let edited = client.security().edit_certificate(edit("anna", &etag)).await.unwrap();
    assert_eq!(edited.into_inner().certificate.unwrap().name, "anna");
    let late = client.security().edit_certificate(edit("amy", &etag)).await;
    assert_eq!(told(late), (Code::Aborted, "CONCURRENCY".to_owned()));
    let nonsense = client.security().edit_certificate(edit("amy", "0")).await;
    assert_eq!(told(nonsense), (Code::InvalidArgument, "INVALID_ARGUMENT".to_owned()));
    // So do uploads that overwrite, and no others.
    let upload = |etag: &str, overwrite| security::UploadCertificateRequest {
        name: "agnes".into(),
        clearance: Clearance::User.into(),
        certificate: alice.certificate_der().to_vec(),
        overwrite,
        expected_etag: etag.into(),
        ..Default::default()
    };
    let late = client.security().upload_certificate(upload(&etag, true)).await;
    let field = late.as_ref().unwrap_err().get_details_bad_request().unwrap().field_violations;
    assert_eq!(field[0].field, "expected_etag");
    assert_eq!(told(late), (Code::Aborted, "CONCURRENCY".to_owned()));
    let alone = client.security().upload_certificate(upload(&etag, false)).await;
    assert_eq!(told(alone), (Code::InvalidArgument, "INVALID_ARGUMENT".to_owned()));
    let get = security::GetCertificateRequest { thumbprint };
    let shown = client.security().get_certificate(get).await.unwrap().into_inner();
    let now = shown.certificate.unwrap();
    assert_eq!(now.name, "anna");
    client.security().upload_certificate(upload(&now.etag, true)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_streams_at_once_explains_itself_and_closes_the_connection() {
    let fixture = Fixture::start();
    let alice = identity("alice");
    fixture.register(&alice, Clearance::Operator, &[]).await;
    let client = fixture.connect(Some(&alice)).await;
    let watch = client.health().watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    let delete = security::DeleteCertificateRequest {
        thumbprint: alice.thumbprint().to_string(),
        ..Default::default()
    };
    let root = fixture.as_root().await;
    root.security().delete_certificate(delete).await.unwrap();
    let revoked = Instant::now();
    let ended = timeout(Duration::from_secs(1), watch.message()).await.expect("the stream ends");
    let ended = ended.unwrap_err();
    assert_eq!((ended.code(), reason(&ended)), (Code::Unauthenticated, "RIGHTS_CHANGED".into()));

    let list = "rookery.database.v1.DatabaseService/ListDatabases";
    let answer = client.empty(list).await;
    assert_eq!(answer.reason, "CERTIFICATE_UNKNOWN", "on the open connection");
    while !client.sender.is_closed() {
        assert!(revoked.elapsed() < Duration::from_secs(6), "the connection stays open");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(revoked.elapsed() >= Duration::from_millis(1_800), "too early to be explained");
    assert!(!root.sender.is_closed());
    let again = fixture.connect(Some(&alice)).await.empty(list).await;
    assert_eq!(again.reason, "CERTIFICATE_UNKNOWN", "on a new connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_certainty_nothing_is_decided() {
    let fixture = Fixture::start();
    let client = fixture.as_root().await;
    let list = "rookery.database.v1.DatabaseService/ListDatabases";
    let health = async || {
        let answer = client.health().check(HealthCheckRequest::default()).await;
        answer.unwrap().into_inner().status()
    };
    assert_eq!(health().await, ServingStatus::Serving);
    fixture.fake.be(Mood::Stale);
    let answer = client.databases().list_databases(database::ListDatabasesRequest::default()).await;
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "AUTHORIZATION_STALE".into()));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert_eq!(health().await, ServingStatus::NotServing);
    fixture.fake.be(Mood::Passive);
    let answer = client.empty(list).await;
    assert_eq!((answer.code, answer.reason.as_str()), (Code::FailedPrecondition, "NOT_FORMED"));
    assert!(!answer.message.contains("n2"), "{}", answer.message);
    assert_eq!(health().await, ServingStatus::NotServing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_and_leaves_its_outcome_open() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    fixture.fake.be(Mood::Silent);
    let client = fixture.as_root().await;
    let mut request = tonic::Request::new(document::PutDocumentRequest {
        database: "sales".into(),
        id: "1".into(),
        json: b"{}".to_vec(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_millis(200));
    let began = Instant::now();
    let status = client.documents().put_document(request).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into())
    );
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["outcome"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_cannot_be_are_named_by_their_path() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    let client = fixture.as_root().await;
    let write = |json: &str, precondition| document::Write {
        id: "1".into(),
        precondition,
        operation: Some(document::write::Operation::Put(document::PutWrite {
            json: json.into(),
            collection: String::new(),
        })),
    };
    let batch = |writes| document::BatchWriteRequest {
        database: "sales".into(),
        writes,
        request_id: String::new(),
    };
    let path = |result: Result<(), Status>| {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let request = status.get_details_bad_request().unwrap();
        request.field_violations[0].field.clone()
    };
    let mut documents = client.documents();
    let nothing = Some(document::Precondition { condition: None });
    for (writes, expected) in [
        (vec![write("[]", None)], "writes[0].json"),
        (vec![write("{}", nothing)], "writes[0].precondition"),
        (vec![write("{}", None), write("{}", None)], "writes[1].id"),
        (vec![document::Write { id: "1".into(), ..Default::default() }], "writes[0].operation"),
        (vec![], "writes"),
    ] {
        assert_eq!(path(documents.batch_write(batch(writes)).await.map(drop)), expected);
    }
    let put = |id: &str, json: &str, request_id: &str| document::PutDocumentRequest {
        database: "sales".into(),
        id: id.into(),
        json: json.into(),
        request_id: request_id.into(),
        ..Default::default()
    };
    for (request, expected) in [
        (put("", "{}", ""), "id"),
        (put("a\u{0}", "{}", ""), "id"),
        (put("1", "{", ""), "json"),
        (put("1", "{}", "no-uuid"), "request_id"),
    ] {
        assert_eq!(path(documents.put_document(request).await.map(drop)), expected);
    }
    // One write of a batch of one is permitted as what it is.
    documents.batch_write(batch(vec![write("{}", None)])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn join_tokens_are_shown_once_and_let_one_node_in() {
    let fixture = Fixture::start();
    let root = fixture.as_root().await;
    let create = cluster::CreateJoinTokenRequest::default();
    let made = root.cluster().create_join_token(create).await.unwrap().into_inner();
    let token: JoinToken = made.token.parse().unwrap();
    assert_eq!((token.id.as_str(), token.pin), (made.id.as_str(), fixture.server.thumbprint()));
    let list = root.cluster().list_join_tokens(cluster::ListJoinTokensRequest {}).await.unwrap();
    assert_eq!(list.into_inner().tokens[0].id, made.id);
    let too_long =
        cluster::CreateJoinTokenRequest { lifetime_seconds: 8 * 24 * 3600, ..Default::default() };
    let refused = root.cluster().create_join_token(too_long).await;
    assert_eq!(told(refused), (Code::InvalidArgument, "INVALID_ARGUMENT".to_owned()));

    let join = |name: &str, secret: &[u8]| cluster::JoinRequest {
        token_id: made.id.clone(),
        token_secret: secret.to_vec(),
        node_name: name.into(),
        client_address: format!("{name}.example:7443"),
        peer_address: format!("{name}.example:7444"),
        incarnation: vec![2; 16],
        request_id: String::new(),
    };
    let new = fixture.connect(Some(&identity("n2.example"))).await;
    let refused = new.cluster().join(join("n2", &[9; 32])).await;
    assert_eq!(told(refused), (Code::PermissionDenied, "JOIN_TOKEN_REFUSED".to_owned()));
    let joined = new.cluster().join(join("n2", token.expose_secret())).await.unwrap().into_inner();
    assert_eq!((joined.node_id, joined.members.len()), (2, 2));
    let third = fixture.connect(Some(&identity("n3.example"))).await;
    let refused = third.cluster().join(join("n3", token.expose_secret())).await;
    assert_eq!(told(refused), (Code::PermissionDenied, "JOIN_TOKEN_REFUSED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_leader_can_do_names_the_leader() {
    let fixture = Fixture::start();
    let root = fixture.as_root().await;
    let demote = cluster::DemoteNodeRequest { node_id: 1, request_id: String::new() };
    let status = root.cluster().demote_node(demote).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "NOT_LEADER".into()));
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["leader_address"], "n1.example:7443");
    let unknown = cluster::DemoteNodeRequest { node_id: 99, request_id: String::new() };
    let answer = root.cluster().demote_node(unknown).await;
    assert_eq!(told(answer), (Code::NotFound, "NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_decisions_are_counted() {
    let fixture = Fixture::start();
    fixture.as_root().await.empty("rookery.cluster.v1.ClusterService/GetTopology").await;
    fixture.connect(None).await.empty("rookery.cluster.v1.ClusterService/GetTopology").await;
    fixture.connect(None).await.empty("made.up/Name").await;
    let status = crate::edge::engine::Engine::status_local(fixture.fake.as_ref()).await;
    let survey =
        crate::edge::expiry::survey(&fixture.edge.engine.registry(), fixture.edge.clock.wall());
    let page = fixture.edge.metrics.encode(&status, &survey);
    for line in [
        r#"rookery_requests_total{rpc="rookery.cluster.v1.ClusterService/GetTopology",code="OK"} 1"#,
        r#"rookery_requests_total{rpc="rookery.cluster.v1.ClusterService/GetTopology",code="UNAUTHENTICATED"} 1"#,
        r#"rookery_requests_total{rpc="other",code="UNIMPLEMENTED"} 1"#,
        r#"rookery_authorization_decisions_total{operation="view-topology",result="CERTIFICATE_REQUIRED"} 1"#,
        r#"rookery_leader{group="cluster"} 1"#,
        "rookery_authorization_fresh 1",
        r#"rookery_registered_certificates{state="valid"} 2"#,
        r#"rookery_registered_certificates{state="expired"} 0"#,
        r#"rookery_certificate_earliest_not_after_seconds{clearance="Cluster Admin"}"#,
        r#"rookery_certificate_earliest_not_after_seconds{clearance="Cluster Node"}"#,
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    assert!(!page.contains("made.up"), "a client made a label");
}
