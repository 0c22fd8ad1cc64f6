//! What is no TLS, no HTTP or no gRPC, on a live listener; and that others are served meanwhile.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic::Code;

use super::{BOUNDS, Fixture};
use crate::{edge::rpcs::of_clients, limits, tls::testing::identity};

/// A ClientHello of TLS 1.1 (RFC 4346): one suite, no extensions.
fn tls11_hello() -> Vec<u8> {
    let mut hello = vec![0x03, 0x02]; // version
    hello.extend([7; 32]); // random
    hello.extend([0]); // session id
    hello.extend([0, 2, 0xc0, 0x09]); // ECDHE_ECDSA_WITH_AES_128_CBC_SHA
    hello.extend([1, 0]); // no compression
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 0x01, 0, 0, length];
    record.extend(hello);
    record
}

/// Sends bytes and reads until the other side closes; what came back, and when it closed.
async fn sent(fixture: &Fixture, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut back = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut back)).await;
    let _reset = read.expect("the connection is closed"); // A reset is a close too.
    (back, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_tls_is_closed_without_a_byte() {
    let fixture = Fixture::start();
    let random: Vec<u8> = (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect();
    let inputs: [(&str, &[u8]); 6] = [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("SSLv2", &[0x80, 0x2e, 0x01, 0x00, 0x02]),
        ("zeros", &[0; 64]),
        ("noise", &random),
    ];
    for (what, bytes) in inputs {
        let (back, took) = sent(&fixture, bytes).await;
        assert_eq!(back, b"", "{what}");
        assert!(took < BOUNDS.handshake_timeout, "{what} took {took:?}");
    }
    assert_eq!(fixture.as_root().await.empty(of_clients().next().unwrap().0).await.http, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_bad_tls_gets_an_alert_and_no_more() {
    let fixture = Fixture::start();
    let garbage = [[0x16, 3, 1, 0, 32].as_slice(), &[0xff; 32]].concat();
    let huge = [0x16, 3, 1, 0xff, 0xff].to_vec();
    for (what, bytes) in [("TLS 1.1", tls11_hello()), ("garbage", garbage), ("huge", huge)] {
        let (back, _) = sent(&fixture, &bytes).await;
        // Record type 21, two bytes: level fatal and the description.
        let is_alert = back.is_empty() || (back.len() == 7 && back[0] == 0x15 && back[5] == 2);
        assert!(is_alert, "{what}: {back:02x?}");
    }
    let (back, _) = sent(&fixture, &tls11_hello()).await;
    // handshake_failure or protocol_version: the hello has nothing that a newer version could answer.
    assert!(matches!(back.get(6), Some(40 | 70)), "{back:02x?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_a_deadline_however_slow_its_bytes() {
    let fixture = Fixture::start();
    for bytes in [&[][..], &[0x16], &[0x16, 3, 1]] {
        let (back, took) = sent(&fixture, bytes).await;
        assert_eq!(back, b"");
        assert!(took >= BOUNDS.handshake_timeout && took < Duration::from_secs(2), "{took:?}");
    }
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let began = Instant::now();
    let hello = tls11_hello();
    for byte in hello.iter().cycle() {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(3), "still open");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_shut_nobody_out() {
    let fixture = Fixture::start();
    let mut held = Vec::new();
    for _ in 0..BOUNDS.handshakes_max * 3 {
        held.push(TcpStream::connect(fixture.address).await.unwrap());
    }
    let began = Instant::now();
    let answer =
        fixture.as_root().await.empty("rookery.cluster.v1.ClusterService/GetTopology").await;
    assert_eq!(answer.code, Code::Ok);
    assert!(began.elapsed() < Duration::from_secs(1));
    sleep(BOUNDS.handshake_timeout * 2).await;
    assert!(fixture.connections.open() <= 1, "{} are still open", fixture.connections.open());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_decide_and_alpn_does_not() {
    let fixture = Fixture::start();
    let call = "rookery.database.v1.DatabaseService/ListDatabases";
    let stranger = identity("stranger");
    for alpn in [&[b"h2".as_slice()][..], &[]] {
        for (who, reason) in [
            (None, "CERTIFICATE_REQUIRED"),
            (Some(&stranger), "CERTIFICATE_UNKNOWN"),
            (Some(&fixture.root), ""),
        ] {
            let answer = fixture.connect_as(who, alpn).await.empty(call).await;
            assert_eq!(answer.reason, reason, "alpn {alpn:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_no_identity() {
    let fixture = Fixture::start();
    let root = fixture.root.thumbprint().to_string();
    let client = fixture.connect(None).await;
    for name in [
        "x-forwarded-client-cert",
        "x-ssl-client-cert",
        "x-ssl-client-verify",
        "x-forwarded-thumbprint",
        "x-node-id",
        "grpcgateway-accept",
        "authorization",
    ] {
        let path = "/rookery.database.v1.DatabaseService/ListDatabases";
        let answer = client.raw(path, &[(name, &root)], &[0; 5]).await;
        assert_eq!(answer.reason, "CERTIFICATE_REQUIRED", "{name}");
    }
}

/// One gRPC message with a flag and a length of our choice.
fn message(flag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[flag], length.to_be_bytes().as_slice(), body].concat()
}

/// A gzip stream of `count` zero bytes, made of stored blocks' better sibling: one dynamic run would need a compressor,
/// so it is a fixed Huffman block that repeats distance 1, length 258 (RFC 1951, section 3.2.6).
fn gzip_zeros(runs: usize) -> Vec<u8> {
    struct Bits(Vec<u8>, u32, u32);
    impl Bits {
        fn push(&mut self, value: u32, count: u32) {
            self.1 |= value << self.2;
            self.2 += count;
            while self.2 >= 8 {
                self.0.push((self.1 & 0xff) as u8);
                self.1 >>= 8;
                self.2 -= 8;
            }
        }
        fn code(&mut self, code: u32, count: u32) {
            self.push(code.reverse_bits() >> (32 - count), count);
        }
    }
    let header = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits(header, 0, 0);
    bits.push(0b011, 3); // final block, fixed codes
    bits.code(0x30, 8); // literal 0
    for _ in 0..runs {
        bits.code(0xc5, 8); // length 258
        bits.code(0, 5); // distance 1
    }
    bits.code(0, 7); // end of block
    bits.push(0, 7);
    bits.0.extend([0; 8]); // The checksum is wrong, and nobody gets that far.
    bits.0
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_get_a_documented_status_without_schema() {
    let fixture = Fixture::start();
    let client = fixture.as_root().await;
    let path = "/rookery.database.v1.DatabaseService/CreateDatabase";
    let bomb = gzip_zeros(limits::MESSAGE_BYTES_MAX / 258 + 10);
    assert!(bomb.len() < limits::MESSAGE_BYTES_MAX / 100);
    let length = |body: &[u8]| u32::try_from(body.len()).unwrap();
    let malformed = (Code::InvalidArgument, "MALFORMED_REQUEST");
    let too_large = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
    let inputs = [
        ("garbage", message(0, 4, &[0xff; 4]), None, malformed),
        ("invalid UTF-8 in a string", message(0, 3, &[0x0a, 1, 0xff]), None, malformed),
        ("wrong wire type", message(0, 2, &[0x08, 1]), None, malformed),
        ("compressed without an encoding", message(1, 1, &[0]), None, malformed),
        ("an unknown flag", message(7, 1, &[0]), None, malformed),
        ("less than announced", message(0, 100, &[0; 10]), None, malformed),
        ("no gzip", message(1, 4, &[1, 2, 3, 4]), Some("gzip"), malformed),
        ("4 GiB announced", message(0, u32::MAX, &[]), None, too_large),
        ("a gzip bomb", message(1, length(&bomb), &bomb), Some("gzip"), too_large),
    ];
    for (what, body, encoding, (code, reason)) in inputs {
        let headers: Vec<_> =
            encoding.map(|encoding| ("grpc-encoding", encoding)).into_iter().collect();
        let answer = client.raw(path, &headers, &body).await;
        assert_eq!((answer.code, answer.reason.as_str()), (code, reason), "{what}: {answer:?}");
        assert!(!answer.message.contains("CreateDatabase"), "{what}: {}", answer.message);
    }
    let answer = client.raw(path, &[("grpc-encoding", "br")], &message(1, 1, &[0])).await;
    assert_eq!(answer.code, Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_for_people_without_a_certificate_and_hold_no_state() {
    let fixture = Fixture::start();
    for who in [None, Some(&fixture.root)] {
        let stream = fixture.tls(who, &[b"http/1.1"]).await;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, serving) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(serving);
        for (path, expected) in [("/", 200), ("/nothing", 404), ("/index.html?x=%3Cscript%3E", 404)]
        {
            let request = http::Request::get(path)
                .header("host", "n1.example")
                .body(tonic::body::Body::empty())
                .unwrap();
            sender.ready().await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{path}");
            let headers = response.headers();
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["x-frame-options"], "DENY");
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"));
            assert!(headers.get("server").is_none());
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let page = String::from_utf8(body.to_vec()).unwrap();
            assert!(!page.contains("<script>") && !page.contains("n1"), "{page}");
        }
    }
}
