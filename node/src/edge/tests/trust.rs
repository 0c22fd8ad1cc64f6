//! Who is known besides the registered, and what is noted of those who call.

use rookery_proto::{
    admin::v1::{self as admin, admin_service_server::AdminService as _},
    cluster::v1 as cluster,
    log::v1::{self as log, cluster_command::Command},
    security::v1::{self as security, Clearance},
};
use tokio::time::{Duration, Instant};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::{Client, Fixture, reason};
use crate::{
    edge::engine::Engine as _,
    names::Thumbprint,
    tls::{TlsIdentity, testing::identity},
};

async fn by_node(fixture: &Fixture, command: Command) {
    let command = log::ClusterCommand { command: Some(command) };
    let deadline = Instant::now() + Duration::from_secs(5);
    fixture.fake.propose_as_member(command, deadline).await.unwrap();
}

async fn declare(fixture: &Fixture, thumbprints: &[Thumbprint]) {
    let thumbprints = thumbprints.iter().map(|it| it.as_bytes().to_vec()).collect();
    let declare = log::DeclareWellKnownAdmins { node_id: 1, thumbprints };
    by_node(fixture, Command::DeclareWellKnownAdmins(declare)).await;
}

async fn topology(client: &Client) -> Result<(), Status> {
    client.cluster().get_topology(cluster::GetTopologyRequest {}).await.map(drop)
}

/// A client certificate by `ca`, for `key`, from and until these years.
fn issued(ca: &str, key: &rcgen::KeyPair, from: i32, to: i32) -> TlsIdentity {
    let mut issuer = rcgen::CertificateParams::new(Vec::new()).unwrap();
    issuer.distinguished_name.push(rcgen::DnType::CommonName, ca);
    let issuer = rcgen::Issuer::new(issuer, rcgen::KeyPair::generate().unwrap());
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let certificate = params.signed_by(key, &issuer).unwrap();
    TlsIdentity::new(vec![certificate.der().clone()], Zeroizing::new(key.serialize_der())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_well_known_admin_is_held_to_the_dates_of_its_certificate() {
    let fixture = Fixture::start();
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = issued("CA", &key, 2000, 2001);
    let good = identity("breakglass");
    let (past, present) =
        (fixture.connect(Some(&expired)).await, fixture.connect(Some(&good)).await);
    assert_eq!(reason(&topology(&present).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    let mut both = [expired.thumbprint(), good.thumbprint()];
    both.sort();
    declare(&fixture, &both).await;
    topology(&present).await.unwrap();
    assert_eq!(reason(&topology(&past).await.unwrap_err()), "CERTIFICATE_EXPIRED");
    // It is a Cluster Admin in everything, and says of itself that no registration made it one.
    let me = present.security().who_am_i(security::WhoAmIRequest {}).await.unwrap().into_inner();
    assert!(me.well_known && !me.registered && !me.cluster_id.is_empty());
    assert_eq!((me.clearance(), me.state.as_str()), (Clearance::ClusterAdmin, "valid"));
    declare(&fixture, &[]).await;
    assert_eq!(reason(&topology(&present).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_certificate_is_registered_by_its_first_call_or_not_at_all() {
    let fixture = Fixture::start();
    let key = rcgen::KeyPair::generate().unwrap();
    let old = issued("CA", &key, 2020, 2060);
    fixture.register(&old, Clearance::Operator, &[]).await;
    let new = issued("CA", &key, 2020, 2070);
    let client = fixture.connect(Some(&new)).await;
    assert_eq!(reason(&topology(&client).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    let policy = log::SecurityPolicyRecord { renewal: 2, ..Default::default() };
    let set = log::SetSecurityPolicy { policy: Some(policy), expected_revision: 0 };
    by_node_as_admin(&fixture, set).await;
    // The same connection, the next call.
    topology(&client).await.unwrap();
    let registry = fixture.fake.registry();
    assert_eq!(registry.certificate(&new.thumbprint()).unwrap().clearance.title(), "Operator");
    let before = registry.revision;
    for stranger in [issued("another CA", &key, 2020, 2080), identity("stranger")] {
        let client = fixture.connect(Some(&stranger)).await;
        assert_eq!(reason(&topology(&client).await.unwrap_err()), "CERTIFICATE_UNKNOWN");
    }
    assert_eq!(fixture.fake.registry().revision, before, "strangers write nothing");
}

/// Sets the policy with the power of the node, which is that of a Cluster Admin.
async fn by_node_as_admin(fixture: &Fixture, set: log::SetSecurityPolicy) {
    by_node(fixture, Command::SetSecurityPolicy(set)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_waits_once_a_minute_and_only_for_those_who_were_accepted() {
    let fixture = Fixture::start();
    let (user, stranger) = (identity("user"), identity("stranger"));
    fixture.register(&user, Clearance::User, &[]).await;
    let (client, unknown) =
        (fixture.connect(Some(&user)).await, fixture.connect(Some(&stranger)).await);
    topology(&client).await.unwrap();
    topology(&unknown).await.unwrap_err();
    let waiting = format!("{:?}", fixture.edge.recognition);
    assert!(waiting.contains(&user.thumbprint().short()), "{waiting}");
    assert!(!waiting.contains(&stranger.thumbprint().short()), "{waiting}");
    // Denied is used as well: somebody holds the key and calls.
    let second = identity("second");
    fixture.register(&second, Clearance::User, &[]).await;
    let client = fixture.connect(Some(&second)).await;
    let list = security::ListCertificatesRequest::default();
    assert_eq!(
        client.security().list_certificates(list).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let waiting = format!("{:?}", fixture.edge.recognition);
    assert!(waiting.contains(&second.thumbprint().short()), "{waiting}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_socket_registers_with_care() {
    let fixture = Fixture::start();
    let service = crate::edge::services::admin_service(&fixture.edge);
    let trust = |der: &[u8], name: &str, clearance: i32| {
        let (certificate, name) = (der.to_vec(), name.to_owned());
        let request =
            admin::TrustCertificateRequest { certificate, name, clearance, grants: vec![] };
        service.trust_certificate(Request::new(request))
    };
    let admin = i32::from(Clearance::ClusterAdmin);
    let new = identity("back");
    for (der, name, clearance, field) in [
        (new.certificate_der().as_ref(), "", admin, "name"),
        (new.certificate_der().as_ref(), "back", 0, "clearance"),
        (
            new.certificate_der().as_ref(),
            "back",
            i32::from(Clearance::ClusterNode),
            "put.clearance",
        ),
        (b"nothing".as_slice(), "back", admin, "certificate"),
        (fixture.server.certificate_der().as_ref(), "back", admin, "certificate"),
    ] {
        let refused = trust(der, name, clearance).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused:?}");
        assert!(
            refused.message().starts_with(field) || refused.message().contains("nodes become"),
            "{field}: {refused:?}"
        );
    }
    trust(new.certificate_der(), "back", admin).await.unwrap();
    topology(&fixture.connect(Some(&new)).await).await.unwrap();
    fixture.fake.be(super::fake::Mood::Passive);
    let refused = trust(identity("later").certificate_der(), "later", admin).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_FORMED");
}
