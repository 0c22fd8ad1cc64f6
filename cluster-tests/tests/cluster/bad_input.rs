//! Documents and names that must be refused, over the real ports: a documented status, no trace in the Raft log,
//! nothing in the node's log, and the node goes on.

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, put_request, request_id},
    cluster::Cluster,
    contract,
    identity::Identity,
};
use rookery_proto::{
    document::v1 as document,
    security::v1::{Access, Clearance, GenerateCertificateRequest, Grant},
};
use tonic::{Code, Status};

/// Memory may grow this much over a table of bad input (robustness.md: 50 MB).
const GROWTH_BYTES_MAX: u64 = 50_000_000;

struct Refused {
    what: String,
    json: Vec<u8>,
    code: Code,
}

fn documents() -> Vec<Refused> {
    let mut rows = Vec::new();
    let mut row = |what: &str, json: Vec<u8>, code| {
        rows.push(Refused { what: what.to_owned(), json, code });
    };
    let invalid = Code::InvalidArgument;
    for (what, json) in [
        ("nothing", ""),
        ("blanks", "  \n"),
        ("an array", "[]"),
        ("a string", "\"a\""),
        ("a number", "7"),
        ("null", "null"),
        ("NaN", r#"{"a":NaN}"#),
        ("Infinity", r#"{"a":Infinity}"#),
        ("minus Infinity", r#"{"a":-Infinity}"#),
        ("a comment", "{/* */}"),
        ("a line comment", "{} // x"),
        ("a byte order mark", "\u{feff}{}"),
        ("trailing text", "{} x"),
        ("two objects", "{}{}"),
        ("a trailing comma", r#"{"a":1,}"#),
        ("single quotes", "{'a':1}"),
        ("an unquoted name", "{a:1}"),
        ("a missing value", r#"{"a":}"#),
        ("an open object", r#"{"a":1"#),
        ("a leading zero", r#"{"a":01}"#),
        ("a leading plus", r#"{"a":+1}"#),
        ("a lone point", r#"{"a":1.}"#),
        ("a hex number", r#"{"a":0x1}"#),
        ("a number out of range", r#"{"a":1e400}"#),
        ("a number far out of range", r#"{"a":-1e999999999999}"#),
        ("duplicate names", r#"{"a":1,"a":2}"#),
        ("duplicate names within", r#"{"x":[{"a":1,"b":2,"a":3}]}"#),
        ("duplicate names, one escaped", "{\"a\":1,\"\\u0061\":2}"),
        ("a lone high surrogate", r#"{"a":"\ud800"}"#),
        ("a lone low surrogate", r#"{"a":"\udc00"}"#),
        ("swapped surrogates", r#"{"a":"\udc00\ud800"}"#),
        ("an unknown escape", r#"{"a":"\x"}"#),
        ("a short escape", r#"{"a":"\u00"}"#),
        ("a raw control character", "{\"a\":\"\u{1}\"}"),
        ("a raw line feed in a string", "{\"a\":\"\n\"}"),
        ("a vertical tab between tokens", "{\u{b}}"),
        ("a no-break space between tokens", "{\u{a0}}"),
    ] {
        row(what, json.as_bytes().to_vec(), invalid);
    }
    row("a NUL behind the object", b"{}\0".to_vec(), invalid);
    row("invalid UTF-8 in a string", b"{\"a\":\"\xff\"}".to_vec(), invalid);
    row("an overlong encoding", b"{\"a\":\"\xc0\x80\"}".to_vec(), invalid);
    row("an encoded surrogate", b"{\"a\":\"\xed\xa0\x80\"}".to_vec(), invalid);
    let nested = |depth: usize| {
        format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
    };
    row("65 levels", nested(64), invalid);
    row("128 levels", nested(127), invalid);
    row("200,000 levels", nested(199_999), invalid);
    row("200,000 open brackets", format!("{{\"a\":{}", "[".repeat(200_000)).into_bytes(), invalid);
    let members = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    };
    row("100,001 members", members(100_001), Code::ResourceExhausted);
    let name = |bytes: usize| format!("{{\"{}\":1}}", "n".repeat(bytes)).into_bytes();
    row("a name of 64 KiB and a byte", name(64 * 1024 + 1), Code::ResourceExhausted);
    let size = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)).into_bytes();
    row("4 MiB and a byte", size(4 * 1024 * 1024 + 1), Code::ResourceExhausted);
    row("20 MiB", size(20 * 1024 * 1024), Code::ResourceExhausted);
    rows
}

/// What must hold of every refusal: its code, and that it tells the client nothing about the server's inside.
fn judge(what: &str, outcome: Result<(), Status>, expected: &[Code]) -> Option<String> {
    let Err(status) = outcome else { return Some(format!("{what}: was accepted")) };
    if !expected.contains(&status.code()) {
        return Some(format!("{what}: {status:?}, expected {expected:?}"));
    }
    let leaks = ["/src/", ".rs:", "panicked", "stack backtrace", "rocksdb", "prost", "serde"];
    let leak = leaks.into_iter().find(|leak| status.message().contains(leak));
    leak.map(|leak| format!("{what}: the message holds {leak:?}: {}", status.message()))
}

#[tokio::test]
async fn bad_documents_and_names_are_refused_and_leave_no_trace() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    admin.put("sales", "a", "{}").await?;
    let before = cluster.same_state().await?;
    let memory = memory(&mut cluster).await?;
    let nodes = cluster.everywhere(Some(&cluster.administrator))?;
    let mut problems = refuse_documents(&nodes).await;
    problems.extend(refuse_ids(&nodes).await);
    problems.extend(refuse_database_names(&nodes).await);
    problems.extend(refuse_certificates(&nodes).await?);
    problems.extend(refuse_messages(&nodes).await?);
    anyhow::ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    let after = cluster.same_state().await?;
    anyhow::ensure!(before["sales"] == after["sales"], "something reached the log of the database");
    anyhow::ensure!(before["cluster"] == after["cluster"], "something reached the cluster's log");
    for (at, (before, after)) in memory.iter().zip(self::memory(&mut cluster).await?).enumerate() {
        let growth = after.saturating_sub(*before);
        anyhow::ensure!(growth < GROWTH_BYTES_MAX, "n{} grew by {growth} bytes", at + 1);
    }
    admin.put("sales", "still-serves", "{}").await?;
    cluster.finish().await
}

async fn memory(cluster: &mut Cluster) -> Result<Vec<u64>> {
    let mut bytes = Vec::new();
    for at in cluster.running() {
        bytes.push(cluster.status(at).await?.resident_bytes);
    }
    Ok(bytes)
}

async fn refuse_documents(nodes: &[Caller]) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, row) in documents().into_iter().enumerate() {
        let request =
            document::PutDocumentRequest { json: row.json, ..put_request("sales", "bad", "") };
        let outcome = nodes[number % 3].documents().put_document(request).await.map(drop);
        // A message over the limit of the transport may be refused before it is read.
        let mut codes = vec![row.code];
        if row.code == Code::ResourceExhausted {
            codes.extend([Code::OutOfRange, Code::InvalidArgument]);
        }
        problems.extend(judge(&row.what, outcome, &codes));
    }
    problems
}

async fn refuse_ids(nodes: &[Caller]) -> Vec<String> {
    let too_long = "i".repeat(513);
    let huge = "i".repeat(65_536);
    let ids = ["", "\0", "a\0b", "a\nb", "\u{1b}[31m", "\u{7f}", "\u{85}", &too_long, &huge];
    let mut problems = Vec::new();
    for (number, id) in ids.into_iter().enumerate() {
        let node = &nodes[number % 3];
        let what = format!("id {:?}", id.chars().take(20).collect::<String>());
        let invalid = [Code::InvalidArgument];
        problems.extend(judge(&what, node.put("sales", id, "{}").await.map(drop), &invalid));
        problems.extend(judge(&what, node.get("sales", id).await.map(drop), &invalid));
        let collection = document::PutDocumentRequest {
            collection: if id.is_empty() { "c".repeat(129) } else { id.to_owned() },
            ..put_request("sales", "collected", "{}")
        };
        let outcome = node.documents().put_document(collection).await.map(drop);
        problems.extend(judge(&format!("collection {what}"), outcome, &invalid));
    }
    problems
}

/// Names of robustness.md, "Names".
fn bad_database_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        ".",
        "..",
        "../x",
        "..%2f",
        "/etc",
        "a/b",
        "a\\b",
        "C:",
        "\0",
        "a\0",
        "a b",
        "a ",
        " a",
        "a.",
        "_a",
        "-a",
        ".a",
        "😀",
        "ſales",
        "\u{212a}elvin",
        "ı",
        "İ",
        "ｓａｌｅｓ",
        "cafe\u{301}",
        "a\u{200b}b",
        "a\u{202e}b",
        "%",
        "*",
        "a:b",
        "a;b",
        "a'b",
        "a\"b",
        "a\nb",
        "CON",
        "con",
        "nul",
        "AUX",
        "prn",
        "com1",
        "LPT9",
        "con.txt",
        "System",
        "system",
        "<b>",
        "_internal",
        "_internalx",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    names.push("a".repeat(129));
    names.push("a".repeat(65_536));
    names
}

async fn refuse_database_names(nodes: &[Caller]) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, name) in bad_database_names().into_iter().enumerate() {
        let node = &nodes[number % 3];
        let what = format!("database {:?}", name.chars().take(20).collect::<String>());
        let invalid = [Code::InvalidArgument];
        let created = node.create_database(&name, 3).await;
        problems.extend(judge(&what, created, &invalid));
        // A name that cannot exist may be called missing or malformed.
        let invalid = [Code::InvalidArgument, Code::NotFound];
        problems.extend(judge(&what, node.put(&name, "a", "{}").await.map(drop), &invalid));
        problems.extend(judge(&what, node.get(&name, "a").await.map(drop), &invalid));
        let identity = match Identity::new("x") {
            Ok(identity) => identity,
            Err(error) => return vec![error.to_string()],
        };
        let granted =
            node.register(&identity, Clearance::User, &[(name.as_str(), Access::Read)]).await;
        problems.extend(judge(&format!("grant on {what}"), granted, &invalid));
    }
    problems
}

async fn refuse_certificates(nodes: &[Caller]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let invalid = [Code::InvalidArgument];
    let long = "n".repeat(129);
    for name in ["", " ", "\t", "a\nb", "a\0b", "\u{1b}[2J", "a\rb", long.as_str()] {
        let request = GenerateCertificateRequest {
            name: name.to_owned(),
            clearance: Clearance::User.into(),
            request_id: request_id(),
            ..Default::default()
        };
        let outcome = nodes[0].security().generate_certificate(request).await.map(drop);
        problems.extend(judge(&format!("certificate name {name:?}"), outcome, &invalid));
    }
    for (what, clearance, access) in [
        ("no clearance", 0, 1),
        ("clearance 9", 9, 1),
        ("access 0", 1, 0),
        ("access 9", 1, 9),
        ("clearance -1", -1, 1),
    ] {
        let request = GenerateCertificateRequest {
            name: "odd".into(),
            clearance,
            grants: vec![Grant { database: "sales".into(), access }],
            request_id: request_id(),
            ..Default::default()
        };
        let outcome = nodes[1].security().generate_certificate(request).await.map(drop);
        problems.extend(judge(what, outcome, &invalid));
    }
    for (what, certificate) in bad_certificates()? {
        let request = rookery_proto::security::v1::UploadCertificateRequest {
            name: "odd".into(),
            clearance: Clearance::User.into(),
            certificate,
            request_id: request_id(),
            ..Default::default()
        };
        let outcome = nodes[2].security().upload_certificate(request).await.map(drop);
        problems.extend(judge(what, outcome, &[Code::InvalidArgument, Code::ResourceExhausted]));
    }
    for thumbprint in
        ["", "zz", &"a".repeat(40), &"a".repeat(63), &"ａ".repeat(64), &"a".repeat(10_000)]
    {
        let request = rookery_proto::security::v1::GetCertificateRequest {
            thumbprint: thumbprint.to_owned(),
        };
        let outcome = nodes[0].security().get_certificate(request).await.map(drop);
        let what = format!("thumbprint {:?}", thumbprint.chars().take(12).collect::<String>());
        problems.extend(judge(&what, outcome, &invalid));
    }
    Ok(problems)
}

/// Certificates that no registration may take (robustness.md, "Client certificates").
fn bad_certificates() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let good = Identity::new("good")?;
    let der = good.leaf().to_vec();
    let with = |what, change: fn(&mut rcgen::CertificateParams)| -> Result<_> {
        Ok((what, Identity::with("odd", change)?.leaf().to_vec()))
    };
    let mut garbled = der.clone();
    *garbled.last_mut().context("a certificate has bytes")? ^= 1;
    let pem = good.certificate_pem();
    Ok(vec![
        ("no certificate", Vec::new()),
        ("one byte", vec![0x30]),
        ("text", b"certificate".to_vec()),
        ("a truncated certificate", der[..der.len() - 1].to_vec()),
        ("a byte behind the certificate", [der.as_slice(), &[0]].concat()),
        ("a garbled self-signature", garbled),
        ("17 certificates", pem.repeat(17).into_bytes()),
        ("a key alone", good.key_pem().into_bytes()),
        ("a broken PEM", pem.replace("MII", "!!!").into_bytes()),
        with("a CA", |p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained))?,
        with("an expired one", |p| {
            p.not_after = p.not_before + std::time::Duration::from_secs(60)
        })?,
        with("for servers only", |p| {
            p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        })?,
        with("for signing certificates only", |p| {
            p.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        })?,
        with("with an unknown critical extension", |p| {
            let mut odd = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            odd.set_criticality(true);
            p.custom_extensions = vec![odd];
        })?,
        with("4,000 names", |p| {
            let name = |n| format!("h{n}.example").try_into().map(rcgen::SanType::DnsName);
            p.subject_alt_names = (0..4000).filter_map(|n| name(n).ok()).collect();
        })?,
    ])
}

/// A message that is no message, for every RPC: its first varint never ends.
async fn refuse_messages(nodes: &[Caller]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let refusals =
        [Code::InvalidArgument, Code::Internal, Code::Unimplemented, Code::PermissionDenied];
    for (number, rpc) in contract::rpcs()?.into_iter().enumerate() {
        let channel = &nodes[number % 3].channel;
        let outcome = contract::call(channel, &rpc.path(), vec![vec![0xff; 40]]).await.map(drop);
        problems.extend(judge(&format!("garbage for {}", rpc.path()), outcome, &refusals));
    }
    Ok(problems)
}
