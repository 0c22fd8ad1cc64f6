//! What an upload holds, before anything of it is registered.

use super::*;

async fn inspect(
    client: &Client,
    certificate: &[u8],
    password: &str,
) -> Result<security::InspectCertificateResponse, Status> {
    let (certificate, password) = (certificate.to_vec(), password.to_owned());
    let request = security::InspectCertificateRequest { certificate, password };
    Ok(client.security().inspect_certificate(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_looked_at_and_nothing_is_registered() {
    let fixture = Fixture::start();
    let operator = identity("operator");
    fixture.register(&operator, Clearance::Operator, &[]).await;
    let client = fixture.connect(Some(&operator)).await;
    let registered = async || {
        let request = security::ListCertificatesRequest::default();
        client.security().list_certificates(request).await.unwrap().into_inner().certificates.len()
    };
    let before = registered().await;
    let ann = identity("ann");
    let read = inspect(&client, ann.certificate_der(), "").await.unwrap();
    let [found] = read.certificates.as_slice() else { panic!("{read:?}") };
    assert_eq!(found.thumbprint, ann.thumbprint().to_string());
    assert_eq!((found.state.as_str(), found.name.as_str(), found.etag.as_str()), ("valid", "", ""));
    assert!(!found.subject.is_empty() && found.der == **ann.certificate_der());
    assert!(!read.private_key_dropped && read.authorities_skipped == 0);
    assert_eq!(registered().await, before);
    assert_eq!(
        fixture
            .connect(Some(&ann))
            .await
            .security()
            .list_certificates(security::ListCertificatesRequest::default(),)
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_no_answer_and_a_wrong_one_is_blamed() {
    let fixture = Fixture::start();
    let root = fixture.as_root().await;
    let password = "correct horse".to_owned();
    let request = security::ExportServerCertificatesRequest { password };
    let exported = root.security().export_server_certificates(request).await.unwrap().into_inner();
    for wrong in ["", "battery staple"] {
        let status = inspect(&root, &exported.pfx, wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let blamed = status.get_details_bad_request().unwrap().field_violations.remove(0);
        assert_eq!(blamed.field, "password");
        assert!(!format!("{status:?} {blamed:?}").contains("staple"));
    }
    let read = inspect(&root, &exported.pfx, "correct horse").await.unwrap();
    assert_eq!(read.certificates.len(), 1);
    assert!(!format!("{read:?}").contains("horse"));
    for junk in [&b""[..], b"junk", &[0x30, 0x82], &[0x30; 300_000]] {
        let status = inspect(&root, junk, "").await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_inspect() {
    let fixture = Fixture::start();
    let user = identity("user");
    fixture.register(&user, Clearance::User, &[]).await;
    for (who, code) in [
        (Some(&user), Code::PermissionDenied),
        (Some(&identity("stranger")), Code::Unauthenticated),
        (None, Code::Unauthenticated),
    ] {
        let client = fixture.connect(who).await;
        let status = inspect(&client, user.certificate_der(), "").await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
}
