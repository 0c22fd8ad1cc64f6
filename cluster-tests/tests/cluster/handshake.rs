//! What a socket of the client and of the peer listener does with everything that is no proper handshake
//! (robustness.md, "TCP / TLS handshake"), and what identity it takes from one that is.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::reason,
    cluster::Cluster,
    connection::{self, Tls},
    contract,
    identity::Identity,
};
use rookery_proto::security::v1::{Access, Clearance};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// The listener closes an unfinished handshake after 5 s; a busy machine may be somewhat late.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(8);
/// Handshakes that hang at once while somebody honest connects.
const HALF_OPEN: u16 = 1500;
const GROWTH_BYTES_MAX: u64 = 50_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_handshakes_end_and_disturb_nobody() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    admin.put("sales", "planted", "{}").await?;
    let memory = cluster.status(0).await?.resident_bytes;
    plaintext_is_not_answered(&cluster).await.context("plaintext")?;
    old_versions_are_refused(&cluster).await.context("old versions")?;
    what_stays_unfinished_is_closed(&cluster).await.context("unfinished")?;
    many_half_open_handshakes_do_not_keep_others_out(&cluster).await.context("half-open")?;
    sessions_are_never_resumed(&cluster).await.context("resumption")?;
    a_certificate_without_its_key_is_refused(&cluster).await.context("stolen")?;
    the_leaf_alone_is_the_identity(&mut cluster).await.context("smuggled")?;
    oversized_certificates_are_refused(&cluster).await.context("oversized")?;
    names_and_protocols_change_nothing(&cluster).await.context("SNI and ALPN")?;
    admin.get("sales", "planted").await?;
    let growth = cluster.status(0).await?.resident_bytes.saturating_sub(memory);
    anyhow::ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes");
    cluster.finish().await
}

fn listeners(cluster: &Cluster) -> [(&'static str, SocketAddr); 2] {
    let addresses = cluster.nodes[0].addresses;
    [("client", addresses.client), ("peer", addresses.peer)]
}

/// Sends `bytes` and reads until the other side closes.
///
/// # Errors
/// It does not close within [`HANDSHAKE_LIMIT`].
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    // A reset is a way to close as well.
    let read = tokio::time::timeout(HANDSHAKE_LIMIT, stream.read_to_end(&mut answer)).await;
    read.context("the connection stays open")?.ok();
    Ok(answer)
}

/// Nothing, or a TLS alert record (type 21); never a handshake, a banner or a page.
fn nothing_but_an_alert(answer: &[u8]) -> Result<()> {
    let alert = answer.is_empty() || (answer[0] == 21 && answer.len() <= 32);
    anyhow::ensure!(alert, "the answer is {:?}", String::from_utf8_lossy(answer));
    Ok(())
}

async fn plaintext_is_not_answered(cluster: &Cluster) -> Result<()> {
    let junk: Vec<u8> = (0..2000).map(|n| (n * 7 % 251) as u8).collect();
    let inputs: [(&str, &[u8]); 6] = [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("h2c", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("zeroes", &[0; 512]),
        ("junk", &junk),
        // A record that announces more than TLS allows.
        ("a huge record", &[22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff]),
    ];
    for (name, address) in listeners(cluster) {
        for (what, bytes) in inputs {
            let answer = exchange(address, bytes).await;
            let answer = answer.with_context(|| format!("{what} on the {name} port"))?;
            nothing_but_an_alert(&answer).with_context(|| format!("{what} on the {name} port"))?;
        }
    }
    Ok(())
}

/// A ClientHello of `version` (RFC 5246, section 7.4.1.2) without extensions.
fn client_hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend((suites.len() as u16 * 2).to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]); // no compression
    let mut handshake = vec![1];
    handshake.extend(&(body.len() as u32).to_be_bytes()[1..]);
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

async fn old_versions_are_refused(cluster: &Cluster) -> Result<()> {
    // RSA-AES-CBC, ECDHE-ECDSA-AES-CBC, RC4, 3DES, export, NULL and anonymous suites.
    let weak = [0x002f, 0xc009, 0xc013, 0x0005, 0x000a, 0x0003, 0x0001, 0x0018];
    // SSL 2 has a hello of its own: length, type 1, version 2.
    let ssl2 = [0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 7, 0, 0xc0, 5, 0, 0x80];
    for (name, address) in listeners(cluster) {
        for (what, hello) in [
            ("SSL 2", ssl2.to_vec()),
            ("SSL 3", client_hello(0x0300, &weak)),
            ("TLS 1.0", client_hello(0x0301, &weak)),
            ("TLS 1.1", client_hello(0x0302, &weak)),
            ("TLS 1.2 with weak suites", client_hello(0x0303, &weak)),
        ] {
            let answer = exchange(address, &hello).await;
            let answer = answer.with_context(|| format!("{what} on the {name} port"))?;
            nothing_but_an_alert(&answer).with_context(|| format!("{what} on the {name} port"))?;
        }
        let tls12 = Tls { versions: vec![&rustls::version::TLS12], ..Tls::default() };
        let config = tls12.config(cluster.nodes[0].certificate(), Some(&cluster.administrator))?;
        let connected = connection::connect(address, Arc::new(config)).await;
        anyhow::ensure!(connected.is_err(), "TLS 1.2 is served on the {name} port by default");
    }
    Ok(())
}

async fn what_stays_unfinished_is_closed(cluster: &Cluster) -> Result<()> {
    let half = client_hello(0x0303, &[0x1301]);
    let half = &half[..half.len() / 2];
    let mut waits = Vec::new();
    for (name, address) in listeners(cluster) {
        for (what, bytes) in [("silence", &[][..]), ("half a hello", half)] {
            let bytes = bytes.to_vec();
            waits.push(tokio::spawn(async move {
                let answer = exchange(address, &bytes).await;
                answer.map(drop).with_context(|| format!("{what} on the {name} port"))
            }));
        }
        // One byte a second is no progress either.
        let slow = half.to_vec();
        waits.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            let start = Instant::now();
            for byte in slow {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                let mut answer = [0; 64];
                let read = stream.read(&mut answer);
                let ended = tokio::time::timeout(Duration::from_secs(1), read).await;
                if let Ok(Ok(0) | Err(_)) = ended {
                    break;
                }
                let open = start.elapsed();
                anyhow::ensure!(
                    open < HANDSHAKE_LIMIT,
                    "a slow {name} handshake is open for {open:?}"
                );
            }
            Ok(())
        }));
    }
    for wait in waits {
        wait.await??;
    }
    Ok(())
}

async fn many_half_open_handshakes_do_not_keep_others_out(cluster: &Cluster) -> Result<()> {
    let address = cluster.nodes[0].addresses.client;
    let mut held = Vec::new();
    for _ in 0..HALF_OPEN {
        // From another address of the loopback network: the limit a source must not be ours.
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
        let connect = tokio::time::timeout(Duration::from_secs(2), socket.connect(address)).await;
        let Ok(Ok(mut stream)) = connect else { continue };
        stream.write_all(&[22, 3, 1, 2, 0]).await.ok();
        held.push(stream);
    }
    anyhow::ensure!(held.len() > usize::from(HALF_OPEN) / 2, "only {} were held", held.len());
    for _ in 0..3 {
        let start = Instant::now();
        cluster.admin(0)?.get("sales", "planted").await?;
        let took = start.elapsed();
        anyhow::ensure!(took < Duration::from_secs(1), "an honest client waited {took:?}");
    }
    Ok(())
}

async fn sessions_are_never_resumed(cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes[0];
    for (name, address) in listeners(cluster) {
        let identity = if name == "peer" { &node.identity } else { &cluster.administrator };
        let tls = Tls { resumption: true, early_data: true, ..Tls::default() };
        let config = Arc::new(tls.config(node.certificate(), Some(identity))?);
        for _ in 0..3 {
            let mut stream = connection::connect(address, Arc::clone(&config)).await?;
            // The HTTP/2 preface, so that tickets would arrive with the answer.
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
            let mut answer = [0; 256];
            let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut answer)).await;
            let _ = read; // The peer port may have nothing to say to a client.
            let (_, session) = stream.get_ref();
            let kind = session.handshake_kind();
            anyhow::ensure!(kind != Some(HandshakeKind::Resumed), "the {name} port resumed");
            anyhow::ensure!(!session.is_early_data_accepted(), "the {name} port took early data");
            anyhow::ensure!(session.tls13_tickets_received() == 0, "the {name} port sent tickets");
        }
    }
    Ok(())
}

async fn a_certificate_without_its_key_is_refused(cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes[0];
    let thief = Identity::new("thief")?;
    for victim in [&cluster.administrator, &node.identity] {
        let stolen = victim.stolen_by(&thief);
        let caller = node.caller(Some(&stolen))?;
        let outcome = caller.get("sales", "planted").await;
        anyhow::ensure!(outcome.is_err(), "{} was let in", stolen.name);
        for (_, address) in listeners(cluster) {
            let config = Tls::default().config(node.certificate(), Some(&stolen))?;
            let Ok(mut stream) = connection::connect(address, Arc::new(config)).await else {
                continue;
            };
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            let read = tokio::time::timeout(HANDSHAKE_LIMIT, read).await;
            anyhow::ensure!(matches!(read, Ok(Err(_))), "no alert for {}: {read:?}", stolen.name);
        }
    }
    Ok(())
}

async fn the_leaf_alone_is_the_identity(cluster: &mut Cluster) -> Result<()> {
    let reader = cluster.register("reader", Clearance::User, &[("sales", Access::Read)]).await?;
    let unknown = Identity::new("unknown")?;
    let mut smuggler = unknown.clone();
    smuggler.chain.push(cluster.administrator.leaf().clone());
    let mut look_alike = Identity::with("admin", |params| {
        params.serial_number = Some(rcgen_serial());
    })?;
    look_alike.name = "look-alike".into();
    let mut elevated = reader.clone();
    elevated.chain.push(cluster.administrator.leaf().clone());
    for (identity, expected) in [
        (&smuggler, "CERTIFICATE_UNKNOWN"),
        (&look_alike, "CERTIFICATE_UNKNOWN"),
        (&elevated, "DATABASE_ACCESS_DENIED"),
    ] {
        let caller = cluster.nodes[0].caller(Some(identity))?;
        let status = caller.put("sales", "x", "{}").await.err().context("was allowed")?;
        anyhow::ensure!(reason(&status) == expected, "{}: {status:?}", identity.name);
    }
    Ok(())
}

fn rcgen_serial() -> rcgen::SerialNumber {
    rcgen::SerialNumber::from(1)
}

async fn oversized_certificates_are_refused(cluster: &Cluster) -> Result<()> {
    let names = |count: usize| {
        Identity::with("large", |params| {
            let name = |n| format!("host-{n}.example").try_into().map(rcgen::SanType::DnsName);
            params.subject_alt_names = (0..count).filter_map(|n| name(n).ok()).collect();
        })
    };
    let mut long_chain = Identity::new("long")?;
    long_chain.chain = std::iter::repeat_n(long_chain.leaf().clone(), 100).collect();
    for identity in [names(1000)?, names(4000)?, long_chain] {
        let caller = cluster.nodes[0].caller(Some(&identity))?;
        let who = rookery_proto::security::v1::WhoAmIRequest {};
        let outcome = caller.security().who_am_i(who).await;
        let bytes: usize = identity.chain.iter().map(|c| c.len()).sum();
        anyhow::ensure!(outcome.is_err(), "{bytes} bytes of certificates passed");
    }
    Ok(())
}

async fn names_and_protocols_change_nothing(cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes[0];
    let address = node.addresses.client;
    // Another server name in the handshake is no other identity, and the same certificate is served.
    let config = Arc::new(Tls::default().config(node.certificate(), Some(&cluster.administrator))?);
    for name in ["evil.example", "n2", "localhost"] {
        let stream = TcpStream::connect(address).await?;
        let name = rustls_pki_types::ServerName::try_from(name.to_owned())?;
        tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, stream).await?;
    }
    // Without ALPN and with http/1.1 the connection is refused or speaks HTTP/1.1; no gRPC call is decided otherwise.
    for alpn in [vec![], vec![b"http/1.1".to_vec()], vec![b"http/1.1".to_vec(), b"h2".to_vec()]] {
        let tls = Tls { alpn: alpn.clone(), ..Tls::default() };
        let config = tls.config(node.certificate(), None)?;
        let Ok(mut stream) = connection::connect(address, Arc::new(config)).await else { continue };
        let path = "/rookery.document.v1.DocumentService/GetDocument";
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: n1\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\nConnection: close\r\n\r\n\0\0\0\0\0"
        );
        if stream.write_all(request.as_bytes()).await.is_err() {
            continue;
        }
        let mut answer = Vec::new();
        tokio::time::timeout(HANDSHAKE_LIMIT, stream.read_to_end(&mut answer)).await?.ok();
        let answer = String::from_utf8_lossy(&answer);
        anyhow::ensure!(!answer.contains("grpc-status: 0"), "{alpn:?}: {answer}");
        anyhow::ensure!(!answer.contains("planted"), "{alpn:?}: {answer}");
    }
    // An ALPN of nothing that is known ends the handshake.
    let tls = Tls { alpn: vec![b"spdy/1".to_vec()], ..Tls::default() };
    let config = tls.config(node.certificate(), None)?;
    let connected = connection::connect(address, Arc::new(config)).await;
    anyhow::ensure!(connected.is_err(), "an unknown protocol was accepted");
    // Odd paths of known calls are no way around the table.
    let caller = node.caller(None)?;
    for path in [
        "/rookery.document.v1.DocumentService/GetDocument?x=1",
        "/rookery.document.v1.DocumentService/GetDocument/",
        "//rookery.document.v1.DocumentService/GetDocument",
        "/rookery.document.v1.documentservice/getdocument",
        "/rookery.document.v1.DocumentService/%47etDocument",
    ] {
        let outcome = contract::call(&caller.channel, path, vec![Vec::new()]).await;
        anyhow::ensure!(outcome.is_err(), "{path} was served without a certificate");
    }
    Ok(())
}
