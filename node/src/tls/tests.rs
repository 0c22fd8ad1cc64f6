//! Handshakes in memory: who gets through, who does not, and what is never skipped.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustls::{
    ClientConnection, HandshakeKind, ServerConnection,
    client::ResolvesClientCert,
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{
    testing::{certificate, identity},
    *,
};
use crate::limits;

type Connected = (ClientConnection, ServerConnection);

/// Runs a handshake to its end; the server's error first, since a TLS 1.3 client is done before the server decides.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<Connected, rustls::Error> {
    let name = ServerName::try_from("anything.example").unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    let mut wire = Vec::new();
    for _ in 0..20 {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// Shows any chain with any key, whether or not they belong together.
fn shown(chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Arc<SingleCertAndKey> {
    let key = PrivateKeyDer::try_from(key).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

fn client_showing(
    shown: Option<Arc<dyn ResolvesClientCert>>,
    versions: &[&'static SupportedProtocolVersion],
    expected: Thumbprint,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCertificate::new(&[expected])));
    Arc::new(match shown {
        Some(shown) => builder.with_client_cert_resolver(shown),
        None => builder.with_no_client_auth(),
    })
}

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[test]
fn pinned_client_accepts_one_certificate_and_learns_nothing_from_names() {
    let (server, other) = (CurrentIdentity::new(identity("n1")), identity("n1"));
    let client = CurrentIdentity::new(identity("n2"));
    let config = peer_port_config(&server).unwrap();
    let pinned = |thumbprint| pinned_client_config(client.load(), &[thumbprint]).unwrap();

    let (_, connection) = handshake(&pinned(server.load().thumbprint()), &config).unwrap();
    assert_eq!(leaf_thumbprint(&connection), Some(client.load().thumbprint()));
    assert_eq!(
        PeerCertificate::of(&connection).unwrap().der.as_ref(),
        client.load().certificate_der().as_ref()
    );
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));

    let error = handshake(&pinned(other.thumbprint()), &config).err().unwrap();
    assert!(error.to_string().contains("not the expected"), "{error}");
}

#[test]
fn server_certificate_without_its_key_is_refused() {
    let (stolen, own) = (certificate(&["n1".into()]), certificate(&["thief".into()]));
    for versions in [TLS13, TLS12] {
        let check = |key: &[u8]| {
            let shown: Arc<dyn ResolvesServerCert> = shown(vec![stolen.0.clone()], key);
            let server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(shown);
            let client = client_showing(None, versions, Thumbprint::of(&stolen.0));
            handshake(&client, &Arc::new(server)).map(|_| ())
        };
        assert_eq!(check(&stolen.1), Ok(()));
        let error = check(&own.1).unwrap_err();
        assert!(error.to_string().contains("BadSignature"), "{versions:?}: {error}");
    }
}

#[test]
fn client_certificate_without_its_key_is_refused() {
    let server = CurrentIdentity::new(identity("n1"));
    let expected = server.load().thumbprint();
    let config = client_port_config(&server, true).unwrap();
    let (stolen, own) = (certificate(&["admin".into()]), certificate(&["thief".into()]));
    for versions in [TLS13, TLS12] {
        let check = |key: &[u8]| {
            let shown = shown(vec![stolen.0.clone()], key);
            handshake(&client_showing(Some(shown), versions, expected), &config)
        };
        let (_, connection) = check(&stolen.1).unwrap();
        assert_eq!(leaf_thumbprint(&connection), Some(Thumbprint::of(&stolen.0)));
        let error = check(&own.1).err().unwrap();
        assert!(error.to_string().contains("BadSignature"), "{versions:?}: {error}");
    }
}

#[test]
fn sessions_are_never_resumed() {
    let server = CurrentIdentity::new(identity("n1"));
    let expected = server.load().thumbprint();
    let (leaf, key) = certificate(&["alice".into()]);
    let resumes = |config: Arc<ServerConfig>, versions, shown: bool| {
        let certificate = shown.then(|| self::shown(vec![leaf.clone()], &key) as _);
        let client = client_showing(certificate, versions, expected);
        (0..2).any(|_| {
            let (connection, _) = handshake(&client, &config).unwrap();
            connection.handshake_kind() == Some(HandshakeKind::Resumed)
        })
    };
    for versions in [TLS13, TLS12] {
        for shown in [true, false] {
            assert!(!resumes(client_port_config(&server, true).unwrap(), versions, shown));
        }
        // The same client does resume with a server of rustls' defaults, so the test above can fail.
        let mut default = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(server.clone());
        default.alpn_protocols = Vec::new();
        assert!(resumes(Arc::new(default), versions, false));
    }
    assert!(!resumes(peer_port_config(&server).unwrap(), TLS13, true));
}

#[test]
fn listeners_demand_versions_and_certificates() {
    struct Case {
        name: &'static str,
        server: fn(&Arc<CurrentIdentity>) -> Result<Arc<ServerConfig>, rustls::Error>,
        versions: &'static [&'static SupportedProtocolVersion],
        shown: bool,
        passes: bool,
    }
    let case =
        |name, server, versions, shown, passes| Case { name, server, versions, shown, passes };
    let peer: fn(&Arc<CurrentIdentity>) -> _ = peer_port_config;
    let client: fn(&Arc<CurrentIdentity>) -> _ = |identity| client_port_config(identity, false);
    let client12: fn(&Arc<CurrentIdentity>) -> _ = |identity| client_port_config(identity, true);
    let cases = [
        case("peer, 1.3, certificate", peer, TLS13, true, true),
        case("peer, 1.3, anonymous", peer, TLS13, false, false),
        case("peer, 1.2, certificate", peer, TLS12, true, false),
        case("client, 1.3, certificate", client, TLS13, true, true),
        case("client, 1.3, anonymous", client, TLS13, false, true),
        case("client, 1.2 off, certificate", client, TLS12, true, false),
        case("client, 1.2 on, certificate", client12, TLS12, true, true),
        case("client, 1.2 on, anonymous", client12, TLS12, false, true),
    ];
    let server = CurrentIdentity::new(identity("n1"));
    let (leaf, key) = certificate(&["alice".into()]);
    for case in cases {
        let certificate = case.shown.then(|| shown(vec![leaf.clone()], &key) as _);
        let config = client_showing(certificate, case.versions, server.load().thumbprint());
        let result = handshake(&config, &(case.server)(&server).unwrap());
        assert_eq!(result.is_ok(), case.passes, "{}", case.name);
        if let Ok((_, connection)) = result {
            let have = PeerCertificate::of(&connection).map(|c| c.thumbprint);
            assert_eq!(have, case.shown.then(|| Thumbprint::of(&leaf)), "{}", case.name);
        }
    }
}

#[test]
fn oversized_certificates_and_chains_are_refused() {
    let server = CurrentIdentity::new(identity("n1"));
    let config = client_port_config(&server, false).unwrap();
    let (leaf, key) = certificate(&["alice".into()]);
    let names: Vec<String> = (0..800).map(|n| format!("name-{n:04}.example")).collect();
    let (large, large_key) = certificate(&names);
    assert!(large.len() > limits::CERTIFICATE_BYTES_MAX);
    let check = |chain: Vec<_>, key: &[u8], expected: &str| {
        let client = client_showing(Some(shown(chain, key)), TLS13, server.load().thumbprint());
        let error = handshake(&client, &config).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| "accepted".into());
        assert!(error.contains(expected), "{error}");
    };
    check(vec![leaf.clone(); 3], &key, "accepted");
    check(vec![leaf.clone(); 4], &key, "the chain has 4");
    check(vec![large.clone()], &large_key, "bytes; at most");
    check(vec![leaf.clone(), large], &key, "bytes; at most");
    let mut trailing = leaf.to_vec();
    trailing.push(0);
    check(vec![trailing.into()], &key, "BadEncoding");
}

#[test]
fn identity_is_the_first_certificate_whatever_follows() {
    let server = CurrentIdentity::new(identity("n1"));
    let config = client_port_config(&server, false).unwrap();
    let (own, key) = certificate(&["mallory".into()]);
    let (administrator, _) = certificate(&["admin".into()]);
    let shown = shown(vec![own.clone(), administrator], &key);
    let client = client_showing(Some(shown), TLS13, server.load().thumbprint());
    let (_, connection) = handshake(&client, &config).unwrap();
    assert_eq!(leaf_thumbprint(&connection), Some(Thumbprint::of(&own)));
    assert_eq!(PeerCertificate::of(&connection).unwrap().thumbprint, Thumbprint::of(&own));
}

#[test]
fn a_replaced_identity_is_served_from_the_next_handshake_on() {
    let server = CurrentIdentity::new(identity("n1"));
    let client = CurrentIdentity::new(identity("n2"));
    let config = peer_port_config(&server).unwrap();
    let before = server.load().thumbprint();
    handshake(&pinned_client_config(client.load(), &[before]).unwrap(), &config).unwrap();
    server.replace(identity("n1"));
    let after = server.load().thumbprint();
    assert!(handshake(&pinned_client_config(client.load(), &[before]).unwrap(), &config).is_err());
    handshake(&pinned_client_config(client.load(), &[after]).unwrap(), &config).unwrap();
}

#[test]
fn the_peer_port_speaks_h2_alone() {
    let server = CurrentIdentity::new(identity("n1"));
    let client = CurrentIdentity::new(identity("n2"));
    let mut pinned = pinned_client_config(client.load(), &[server.load().thumbprint()]).unwrap();
    Arc::make_mut(&mut pinned).alpn_protocols = vec![b"http/1.1".to_vec()];
    assert!(handshake(&pinned, &peer_port_config(&server).unwrap()).is_err());
    handshake(&pinned, &client_port_config(&server, false).unwrap()).unwrap();
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn key_files_must_be_closed_and_fit_their_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("inner")).unwrap();
    let (leaf, key) = certificate(&["n1".into()]);
    let (_, other) = certificate(&["n2".into()]);
    write(&path("node.crt"), &pem("CERTIFICATE", &leaf), 0o644);
    let key_pem = pem("PRIVATE KEY", &key);
    write(&path("node.key"), &key_pem, 0o600);
    write(&path("open.key"), &key_pem, 0o640);
    write(&path("two.key"), &format!("{key_pem}{key_pem}"), 0o600);
    write(&path("none.key"), "nothing here", 0o400);
    write(&path("other.key"), &pem("PRIVATE KEY", &other), 0o600);
    write(&path("garbage.key"), &pem("PRIVATE KEY", &[1, 2, 3]), 0o600);
    write(&path("huge.key"), &" ".repeat(300 * 1024), 0o600);
    std::os::unix::fs::symlink(path("node.key"), path("link.key")).unwrap();
    std::os::unix::fs::symlink(path("node.key"), path("inner/out.key")).unwrap();

    let check = |key: &str, expected: Option<&str>| {
        let loaded = TlsIdentity::load(&path("node.crt"), &path(key));
        match (loaded, expected) {
            (Ok(identity), None) => assert_eq!(identity.thumbprint(), Thumbprint::of(&leaf)),
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{key}: {error}");
            }
            (loaded, expected) => panic!("{key}: {loaded:?}, expected {expected:?}"),
        }
    };
    check("node.key", None);
    check("link.key", None);
    check("inner/out.key", Some("leads out of its folder"));
    check("open.key", Some("open to other users (mode 0640)"));
    check("two.key", Some("more than one"));
    check("none.key", Some("no unencrypted private key"));
    check("other.key", Some("KeyMismatch"));
    check("garbage.key", Some("cannot be used"));
    check("huge.key", Some("larger than"));
    check("missing.key", Some("cannot read"));
    check("inner", Some("not a regular file"));
}

#[test]
fn keys_never_show_in_debug_output() {
    let identity = identity("n1");
    let shown = format!("{identity:?} {:?}", CurrentIdentity::new(identity.clone()));
    assert!(!shown.contains(&hex::encode(identity.expose_key_der())));
    assert!(shown.len() < 100, "{shown}");
}
