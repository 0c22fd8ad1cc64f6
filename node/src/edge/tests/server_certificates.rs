//! What a replacement of the nodes' certificates is refused for before anything of it stands in the log.

use rookery_proto::{
    log::v1::{self as log, cluster_command::Command},
    security::v1 as security,
};
use tokio::time::{Duration, Instant};
use tonic::Code;

use super::{Client, Fixture, reason};
use crate::{
    certificates::{certificate_pem, pem},
    edge::engine::Engine as _,
    tls::testing::certificate,
};

fn replace() -> security::ReplaceServerCertificatesRequest {
    let (der, key) = certificate(&["n1.example".to_owned()]);
    let content = format!("{}{}", certificate_pem(&der), pem("PRIVATE KEY", &key).expose());
    let new = security::NewServerCertificate {
        content: content.into_bytes(),
        ..security::NewServerCertificate::default()
    };
    security::ReplaceServerCertificatesRequest { certificates: vec![new], ..Default::default() }
}

async fn is_under_way(client: &Client) -> bool {
    let asked = security::GetServerCertificateReplacementRequest {};
    let mut client = client.server_certificates();
    let answer = client.get_server_certificate_replacement(asked).await.unwrap();
    answer.into_inner().replacement.is_some()
}

/// Its private key can be sealed to nobody, so nothing begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_place_for_the_new_key_is_told_of_up_front() {
    let fixture = Fixture::start();
    let client = fixture.as_root().await;
    let revision = fixture.fake.registry().revision;
    let refused = client.server_certificates().replace_server_certificates(replace()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(reason(&refused), "SEALING_KEY_MISSING");
    assert!(refused.message().contains("n1"), "{refused:?}");
    assert!(!is_under_way(&client).await);
    assert_eq!(fixture.fake.registry().revision, revision);

    let key = fixture.edge.node.sealing.public().as_bytes().to_vec();
    let register = Command::RegisterSealingKey(log::RegisterSealingKey { node_id: 1, key });
    let command = log::ClusterCommand { command: Some(register) };
    let deadline = Instant::now() + Duration::from_secs(5);
    fixture.fake.propose_as_member(command, deadline).await.unwrap();
    client.server_certificates().replace_server_certificates(replace()).await.unwrap();
    assert!(is_under_way(&client).await);
}
