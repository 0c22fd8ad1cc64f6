//! Containers, requests and names that were made to hurt, over the real port: a documented refusal with the field that is
//! to blame, within a second, without memory, without a trace in the log of the cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, request_id},
    cluster::Cluster,
    containers::{PASSWORD, bag, certificate_bag, indefinite, key_bag, nested, pfx, tlv},
    identity::Identity,
};
use rookery_proto::security::v1::{
    Clearance, GenerateCertificateRequest, UploadCertificateRequest,
};
use tonic::{Code, Status};

use super::pki::field;

/// Longest answer to anything of this file.
const TIME_MAX: Duration = Duration::from_secs(1);
/// Memory may grow this much over the whole table (robustness.md: 50 MB).
const GROWTH_BYTES_MAX: u64 = 50_000_000;

/// What is sent, and what must come back.
struct Row {
    what: &'static str,
    certificate: Vec<u8>,
    password: String,
    code: Code,
    field: &'static str,
    /// A part of the message.
    says: &'static str,
}

fn rows() -> Result<Vec<Row>> {
    let holder = Identity::new("holder")?;
    let der = holder.leaf().to_vec();
    let one = certificate_bag(&der);
    let good = pfx(std::slice::from_ref(&one), 1);
    let mut rows = Vec::new();
    let mut add = |what, certificate: Vec<u8>, password: &str, field, says| {
        let password = password.to_owned();
        rows.push(Row { what, certificate, password, code: Code::InvalidArgument, field, says });
    };
    add("nothing", Vec::new(), "", "certificate", "empty");
    add("one byte", vec![0x30], "", "certificate", "cut off");
    add("one byte that is no DER", vec![7], "", "certificate", "no certificate was found");
    add("a wrong password", good.clone(), "wrong", "password", "not the password");
    add("no password", good.clone(), "", "password", "has a password");
    let long = "x".repeat(1_025);
    add("a long password", good.clone(), &long, "password", "longer than");
    let bomb = |rounds| pfx(std::slice::from_ref(&one), rounds);
    add("2^31 rounds", bomb(1 << 31), PASSWORD, "certificate", "2147483648 rounds");
    add("2^63 rounds", bomb(1 << 63), PASSWORD, "certificate", "rounds");
    add("1,000,001 rounds", bomb(1_000_001), PASSWORD, "certificate", "1000001 rounds");
    let levels = pfx(&[nested(1_000, one.clone())], 1);
    add("1,000 levels of bags", levels, PASSWORD, "certificate", "more than 4 levels of bags");
    let bags = pfx(&vec![bag(5, &tlv(0x30, &[])); 1_000], 1);
    add("1,000 bags", bags, PASSWORD, "certificate", "more than 64 bags");
    let keys = pfx(&vec![key_bag(1 << 31); 1_000], 1);
    add("1,000 keys of 2^31 rounds", keys, PASSWORD, "certificate", "more than 64 bags");
    add("a key alone", pfx(&[key_bag(1 << 31)], 1), PASSWORD, "certificate", "private key");
    let many = |count| pfx(&vec![one.clone(); count], 1);
    add("17 certificates", many(17), PASSWORD, "certificate", "more than 16 certificates");
    add("one certificate twice", many(2), PASSWORD, "certificate", "twice");
    add("10,000 certificates", many(10_000), PASSWORD, "certificate", "too large");
    let text = holder.certificate_pem().repeat(10_000).into_bytes();
    add("10,000 certificates in PEM", text, "", "certificate", "too large");
    add("indefinite BER", indefinite(&good), PASSWORD, "certificate", "BER");
    let short = good[..good.len() - 1].to_vec();
    add("a file that is cut off", short, PASSWORD, "certificate", "cut off");
    let more = [good.as_slice(), b"more"].concat();
    add("bytes behind", more, PASSWORD, "certificate", "bytes follow it");
    let mut changed = good;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    add("a changed bit", changed, PASSWORD, "password", "damaged");
    add("no certificate in a bag", pfx(&[certificate_bag(b"x")], 1), PASSWORD, "certificate", "");
    let authority = Identity::with("ca", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    })?;
    let authority = pfx(&[certificate_bag(authority.leaf())], 1);
    add("an authority alone", authority, PASSWORD, "certificate", "CA:TRUE");
    // More than a message may hold: refused before it is read.
    let (code, field) = (Code::ResourceExhausted, "");
    rows.push(Row {
        what: "100 MB",
        certificate: vec![0x30; 100_000_000],
        password: String::new(),
        code,
        field,
        says: "",
    });
    Ok(rows)
}

fn judge(
    what: &str,
    outcome: Result<(), Status>,
    took: Duration,
    (code, blamed, says): (Code, &str, &str),
) -> Option<String> {
    let Err(status) = outcome else { return Some(format!("{what}: was accepted")) };
    let as_told =
        status.code() == code && field(&status) == blamed && status.message().contains(says);
    if !as_told {
        return Some(format!("{what}: {status:?}, expected {code:?} for {blamed:?}: {says:?}"));
    }
    (took > TIME_MAX).then(|| format!("{what}: took {took:?}"))
}

#[tokio::test]
async fn containers_made_to_hurt_are_refused_at_once_and_leave_no_trace() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    let before = cluster.same_state().await?;
    let callers = cluster.everywhere(Some(&cluster.administrator))?;
    let mut memory = Vec::new();
    for at in 0..3 {
        memory.push(cluster.status(at).await?.resident_bytes);
    }
    let mut problems = Vec::new();
    for (number, row) in rows()?.into_iter().enumerate() {
        let started = Instant::now();
        let outcome = upload(&callers[number % 3], row.certificate, &row.password).await;
        let expected = (row.code, row.field, row.says);
        problems.extend(judge(row.what, outcome, started.elapsed(), expected));
    }
    problems.extend(refuse_requests(&callers).await?);
    anyhow::ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    let after = cluster.same_state().await?;
    anyhow::ensure!(before == after, "something reached a log: {before:?} {after:?}");
    for (at, before) in memory.into_iter().enumerate() {
        let growth = cluster.status(at).await?.resident_bytes.saturating_sub(before);
        anyhow::ensure!(growth < GROWTH_BYTES_MAX, "n{} grew by {growth} bytes", at + 1);
    }
    admin.put("sales", "still-serves", "{}").await?;
    cluster.finish().await
}

async fn upload(caller: &Caller, certificate: Vec<u8>, password: &str) -> Result<(), Status> {
    let request = UploadCertificateRequest {
        name: "hostile".into(),
        clearance: Clearance::User.into(),
        certificate,
        password: password.into(),
        request_id: request_id(),
        ..Default::default()
    };
    caller.security().upload_certificate(request).await.map(drop)
}

async fn refuse_requests(callers: &[Caller]) -> Result<Vec<String>> {
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::default().serialize_request(&key)?.der().to_vec();
    let mut unsigned = csr.clone();
    *unsigned.last_mut().context("a request has bytes")? ^= 1;
    let past = 1_000_000_000_000;
    let ask = GenerateCertificateRequest {
        name: "hostile".into(),
        clearance: Clearance::User.into(),
        ..Default::default()
    };
    let with_csr = |csr: Vec<u8>| GenerateCertificateRequest { csr, ..ask.clone() };
    let until = |not_after_unix_ms| GenerateCertificateRequest { not_after_unix_ms, ..ask.clone() };
    let table = [
        ("one byte", with_csr(vec![0x30]), "csr", "damaged"),
        ("a word", with_csr(b"request".to_vec()), "csr", "no certificate request"),
        ("a key", with_csr(key.serialize_pem().into_bytes()), "csr", "private key"),
        ("a large one", with_csr(vec![0x30; 17_000]), "csr", "too large"),
        ("a signature that does not hold", with_csr(unsigned), "csr", "not signed by the key"),
        (
            "a password for a request",
            GenerateCertificateRequest { password: "x".into(), ..with_csr(csr.clone()) },
            "password",
            "stays with its owner",
        ),
        (
            "an old PFX for a request",
            GenerateCertificateRequest { pfx_compat: true, ..with_csr(csr) },
            "pfx_compat",
            "stays with its owner",
        ),
        (
            "an emoji for a password",
            GenerateCertificateRequest { password: "🦀".into(), ..ask.clone() },
            "password",
            "U+FFFF",
        ),
        ("a moment that is past", until(past), "not_after_unix_ms", "in the future"),
        ("a moment before time", until(-1), "not_after_unix_ms", "in the future"),
        ("a moment too far away", until(i64::MAX), "not_after_unix_ms", "seconds from now"),
        (
            "two ends",
            GenerateCertificateRequest { lifetime_seconds: 3600, ..until(past) },
            "not_after_unix_ms",
            "together",
        ),
        (
            "a lifetime of a second",
            GenerateCertificateRequest { lifetime_seconds: 1, ..ask.clone() },
            "lifetime_seconds",
            "must be 60",
        ),
        (
            "a lifetime without end",
            GenerateCertificateRequest { lifetime_seconds: u64::MAX, ..ask.clone() },
            "lifetime_seconds",
            "must be 60",
        ),
    ];
    let mut problems = Vec::new();
    for (number, (what, request, blamed, says)) in table.into_iter().enumerate() {
        let started = Instant::now();
        let request = GenerateCertificateRequest { request_id: request_id(), ..request };
        let caller = &callers[number % callers.len()];
        let outcome = caller.security().generate_certificate(request).await.map(drop);
        let expected = (Code::InvalidArgument, blamed, says);
        problems.extend(judge(what, outcome, started.elapsed(), expected));
    }
    Ok(problems)
}

#[tokio::test]
async fn no_name_leaves_its_place() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    let long = "n".repeat(128);
    for name in [
        "../../etc/passwd",
        "/root/.ssh/authorized_keys",
        "..\\..\\windows\\system32",
        "C:\\x",
        "con",
        "a, O=Rookery, CN=admin",
        "a+CN=admin",
        "a/CN=admin",
        "#1\"<>;=\\",
        "README",
        "ca",
        "-rf",
        "日本",
        &long,
    ] {
        let request = GenerateCertificateRequest {
            name: name.into(),
            clearance: Clearance::User.into(),
            request_id: request_id(),
            ..Default::default()
        };
        let made = admin.security().generate_certificate(request).await?.into_inner();
        let plain = |text: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            text.chars().all(allowed) && !text.contains("..") && !text.starts_with(['.', '-'])
        };
        anyhow::ensure!(plain(&made.file_name), "{name:?}: {:?}", made.file_name);
        let archive = zip::ZipArchive::new(std::io::Cursor::new(&made.package))?;
        let names: Vec<_> = archive.file_names().collect();
        anyhow::ensure!(names.len() == 6, "{name:?}: one name hides another: {names:?}");
        anyhow::ensure!(names.iter().all(|name| plain(name)), "{name:?}: {names:?}");
        let certificate = made.certificate.context("a certificate")?;
        anyhow::ensure!(certificate.name == name);
        // One attribute, whatever stands in it.
        let unescaped =
            certificate.subject.replace("\\,", "").replace("\\+", "").replace("\\=", "");
        let attributes = unescaped.matches(['=', ',', '+']).count();
        anyhow::ensure!(attributes == 1, "{name:?}: {}", certificate.subject);
    }
    for name in ["a\nb", "a\r\nb", "\u{1b}[31mred", "a\0b", "\u{7f}", "a\tb"] {
        let request = GenerateCertificateRequest {
            name: name.into(),
            clearance: Clearance::User.into(),
            request_id: request_id(),
            ..Default::default()
        };
        let status = admin.security().generate_certificate(request).await.err().context("taken")?;
        anyhow::ensure!(status.code() == Code::InvalidArgument && field(&status) == "name");
        anyhow::ensure!(!status.message().chars().any(char::is_control), "{:?}", status.message());
    }
    cluster.finish().await
}
