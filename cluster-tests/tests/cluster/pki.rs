//! Files of keys and certificates between the cluster and other programs: OpenSSL, NSS, curl and Python's gRPC use what
//! the cluster makes, on a real node, and the cluster takes what OpenSSL makes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    binary,
    caller::{Caller, granted, reason, request_id},
    cluster::Cluster,
    golden,
    identity::{Identity, package_entry, thumbprint},
};
use rookery_proto::security::v1::{
    Access, Clearance, ExportServerCertificatesRequest, GenerateCertificateRequest,
    GenerateCertificateResponse, UploadCertificateRequest, UploadCertificateResponse,
    WhoAmIRequest,
};
use tokio::process::Command;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Key kinds, and how OpenSSL makes them.
const KEYS: [(&str, &[&str]); 4] = [
    ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("ed25519", &["-algorithm", "ED25519"]),
];

/// Runs a program that must succeed, in a folder; gives its standard output. Debian's packages of all of them stand in
/// `./dev test`, which installs what is missing.
async fn tool(folder: &Path, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| {
            format!("{program} is missing (Debian: openssl, curl, libnss3-tools; `./dev test` installs them)")
        })?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {} ended with {}\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn contains(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

/// Writes the entries of a package into a new folder.
fn unpack(cluster: &Cluster, name: &str, package: &[u8]) -> Result<PathBuf> {
    let folder = cluster.folder().join(name);
    zip::ZipArchive::new(std::io::Cursor::new(package))?.extract(&folder)?;
    Ok(folder)
}

async fn generate(
    admin: &Caller,
    request: GenerateCertificateRequest,
) -> Result<GenerateCertificateResponse, Status> {
    let request = GenerateCertificateRequest {
        clearance: Clearance::User.into(),
        grants: granted(&[("sales", Access::ReadWrite)]),
        request_id: request_id(),
        ..request
    };
    admin.security().generate_certificate(request).await.map(tonic::Response::into_inner)
}

async fn upload(
    admin: &Caller,
    certificate: Vec<u8>,
    password: &str,
) -> Result<UploadCertificateResponse, Status> {
    let request = UploadCertificateRequest {
        name: "uploaded".into(),
        clearance: Clearance::User.into(),
        grants: granted(&[("sales", Access::ReadWrite)]),
        certificate,
        password: password.into(),
        request_id: request_id(),
        ..Default::default()
    };
    admin.security().upload_certificate(request).await.map(tonic::Response::into_inner)
}

/// The field that a refusal blames.
pub(crate) fn field(status: &Status) -> String {
    let details = status.get_details_bad_request();
    let violation = details.and_then(|request| request.field_violations.into_iter().next());
    violation.map_or_else(String::new, |violation| violation.field)
}

#[tokio::test]
async fn other_programs_use_generated_packages_on_a_real_node() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    for (name, pfx_compat, password) in
        [("modern", false, ""), ("chosen", false, "pässwort 日本"), ("compatible", true, "")]
    {
        let request = GenerateCertificateRequest {
            name: name.into(),
            pfx_compat,
            password: password.into(),
            ..Default::default()
        };
        let made = generate(&admin, request).await?;
        let password = if password.is_empty() { made.password.as_str() } else { password };
        let folder = unpack(&cluster, name, &made.package)?;
        let thumbprint = made.certificate.context("a certificate")?.thumbprint;
        let client = Client { cluster: &cluster, folder: &folder, name, thumbprint: &thumbprint };
        client.curl(password).await.with_context(|| format!("{name}: curl"))?;
        client.openssl(password, pfx_compat).await.with_context(|| format!("{name}: openssl"))?;
        client.nss(password, &admin).await.with_context(|| format!("{name}: NSS"))?;
    }
    python(&cluster, &cluster.folder().join("chosen"), "chosen").await.context("python")?;
    cluster.finish().await
}

/// A generated package in the hands of other programs.
struct Client<'a> {
    cluster: &'a Cluster,
    folder: &'a Path,
    name: &'a str,
    thumbprint: &'a str,
}

/// A gRPC call without a field in its message, as one HTTP/1.1 request.
const WHO_AM_I: &[u8] = b"POST /rookery.security.v1.SecurityService/WhoAmI HTTP/1.1\r\nhost: n1\r\n\
    content-type: application/grpc\r\nte: trailers\r\nconnection: close\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0";

impl Client<'_> {
    fn file(&self, ending: &str) -> String {
        format!("{}.{ending}", self.name)
    }

    /// The answer of `WhoAmI` names the certificate, so the server knew who called.
    fn known(&self, answer: &[u8]) -> Result<()> {
        let known = contains(answer, self.thumbprint) && contains(answer, "sales");
        anyhow::ensure!(known, "not known: {}", String::from_utf8_lossy(answer));
        Ok(())
    }

    async fn curl(&self, password: &str) -> Result<()> {
        std::fs::write(self.folder.join("empty"), [0; 5])?;
        let address = self.cluster.nodes[0].addresses.client;
        let url = format!("https://{address}/rookery.security.v1.SecurityService/WhoAmI");
        let call = ["-sS", "--max-time", "10", "--cacert", "ca.crt", "--data-binary", "@empty"];
        let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers", &url];
        let (certificate, key) = (self.file("crt"), self.file("key"));
        let with_pfx = format!("{}:{password}", self.file("pfx"));
        for how in [
            &["--cert", certificate.as_str(), "--key", &key][..],
            &["--cert-type", "P12", "--cert", &with_pfx],
        ] {
            for version in ["--http2", "--http1.1"] {
                let arguments = [&[version], &call[..], how, &headers].concat();
                self.known(&tool(self.folder, "curl", &arguments).await?)?;
            }
        }
        let anonymous = [&["--http2"], &call[..], &headers].concat();
        let answer = tool(self.folder, "curl", &anonymous).await?;
        anyhow::ensure!(self.known(&answer).is_err(), "known without a certificate");
        Ok(())
    }

    async fn openssl(&self, password: &str, compatible: bool) -> Result<()> {
        // Taken apart and used: what is used is what stood in the PFX.
        let (pfx, pass) = (self.file("pfx"), format!("pass:{password}"));
        let open = ["pkcs12", "-in", &pfx, "-passin", &pass, "-nodes", "-out", "opened.pem"];
        let legacy: &[&str] = if compatible { &["-legacy"] } else { &[] };
        tool(self.folder, "openssl", &[&open, legacy].concat()).await?;
        let wrong = ["pkcs12", "-in", &pfx, "-passin", "pass:wrong", "-nodes"];
        let refused = tool(self.folder, "openssl", &[&wrong, legacy].concat()).await;
        anyhow::ensure!(refused.is_err(), "the PFX opened under another password");
        std::fs::write(self.folder.join("request"), WHO_AM_I)?;
        let address = self.cluster.nodes[0].addresses.client;
        let command = format!(
            "openssl s_client -connect {address} -cert opened.pem -key opened.pem -CAfile ca.crt \
             -verify_return_error -quiet -alpn http/1.1 < request"
        );
        self.known(&tool(self.folder, "sh", &["-c", &command]).await?)
    }

    async fn nss(&self, password: &str, admin: &Caller) -> Result<()> {
        std::fs::create_dir(self.folder.join("nss"))?;
        let database = ["-d", "sql:nss"];
        let run = async |program: &str, arguments: &[&str]| {
            tool(self.folder, program, &[&database, arguments].concat()).await
        };
        run("certutil", &["-N", "--empty-password"]).await?;
        run("certutil", &["-A", "-n", "ca", "-t", "C,,", "-i", "ca.crt"]).await?;
        run("pk12util", &["-i", &self.file("pfx"), "-W", password]).await?;
        let nickname = format!("CN={}", self.name);
        let port = self.cluster.nodes[0].addresses.client.port().to_string();
        let server = ["-4", "-h", "127.0.0.1", "-p", &port, "-V", "tls1.2:tls1.3", "-n", &nickname];
        self.known(&run("tstclnt", &[&server[..], &["-A", "request"]].concat()).await?)?;
        // What NSS writes is BER: refused, and the command in the refusal helps.
        run("pk12util", &["-o", "nss.pfx", "-n", &nickname, "-W", "secret"]).await?;
        let bytes = std::fs::read(self.folder.join("nss.pfx"))?;
        let refused = upload(admin, bytes, "secret").await.err().context("BER was taken")?;
        anyhow::ensure!(refused.code() == Code::InvalidArgument, "{refused:?}");
        anyhow::ensure!(field(&refused) == "certificate", "{refused:?}");
        let command = refused.message().split('`').nth(1).context("a command in the refusal")?;
        let command = command.replace("FILE", "nss.pfx") + " -passin pass:secret";
        tool(self.folder, "sh", &["-c", &command]).await?;
        let bytes = std::fs::read(self.folder.join("certificate.pem"))?;
        let known = upload(admin, bytes, "").await.err().context("it is registered")?;
        anyhow::ensure!(reason(&known) == "ALREADY_EXISTS", "{known:?}");
        Ok(())
    }
}

/// Python's gRPC with the files of a folder, packed again: put and get on the node.
async fn python(cluster: &Cluster, folder: &Path, name: &str) -> Result<()> {
    let python = super::python::python().await?.display().to_string();
    let path = folder.join("again.zip");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path)?);
    for file in ["context.toml", "ca.crt", &format!("{name}.crt"), &format!("{name}.key")] {
        archive.start_file(file, zip::write::SimpleFileOptions::default())?;
        std::io::Write::write_all(&mut archive, &std::fs::read(folder.join(file))?)?;
    }
    archive.finish()?;
    let script = golden::path("python/put_and_get.py").display().to_string();
    let arguments = [script.as_str(), &path.display().to_string(), "sales"];
    let output = tool(cluster.folder(), &python, &arguments).await?;
    anyhow::ensure!(contains(&output, "node 1: python/1"), "{}", String::from_utf8_lossy(&output));
    let stored = cluster.admin(0)?.get("sales", "python/1").await?;
    anyhow::ensure!(contains(&stored, "héron"));
    Ok(())
}

#[tokio::test]
async fn containers_of_openssl_are_uploaded_and_their_holders_let_in() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    let folder = cluster.folder();
    let openssl = async |arguments: &[&str]| tool(folder, "openssl", arguments).await;
    let p256 = KEYS[1].1;
    openssl(&[&["genpkey", "-out", "ca.key"], p256].concat()).await?;
    openssl(&["req", "-x509", "-key", "ca.key", "-subj", "/CN=A CA", "-out", "ca.pem"]).await?;
    let extensions =
        "keyUsage=digitalSignature\nextendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE";
    std::fs::write(folder.join("extensions"), extensions)?;
    for (kind, key) in KEYS {
        for (protection, password) in
            [("", "secret"), ("-legacy", "secret"), ("", ""), ("-legacy", "")]
        {
            openssl(&[&["genpkey", "-out", "key.pem"], key].concat()).await?;
            openssl(&["req", "-new", "-key", "key.pem", "-subj", "/CN=x", "-out", "csr.pem"])
                .await?;
            let sign = ["x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key"];
            let until = ["-days", "30", "-extfile", "extensions", "-out", "cert.pem"];
            openssl(&[&sign[..], &until].concat()).await?;
            let pass = format!("pass:{password}");
            let make = ["pkcs12", "-export", "-in", "cert.pem", "-inkey", "key.pem"];
            let rest = ["-certfile", "ca.pem", "-passout", &pass, "-out", "out.pfx"];
            let how: &[&str] = if protection.is_empty() { &[] } else { &[protection] };
            openssl(&[&make[..], &rest, how].concat()).await?;
            let words = format!("{kind} {protection} {password:?}");
            let answer = upload(&admin, std::fs::read(folder.join("out.pfx"))?, password)
                .await
                .with_context(|| words.clone())?;
            anyhow::ensure!(
                answer.private_key_dropped && answer.authorities_skipped == 1,
                "{words}"
            );
            let holder = Identity::read(kind, &folder.join("cert.pem"), &folder.join("key.pem"))?;
            anyhow::ensure!(answer.thumbprints == [holder.thumbprint()], "{words}");
            let caller = cluster.nodes[0].caller(Some(&holder))?;
            caller.put("sales", kind, "{}").await.with_context(|| words.clone())?;
        }
    }
    cluster.finish().await
}

#[tokio::test]
async fn requests_are_certified_and_the_key_never_travels() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    let folder = cluster.folder();
    for (kind, key) in KEYS {
        tool(folder, "openssl", &[&["genpkey", "-out", "key.pem"], key].concat()).await?;
        let greedy = ["-subj", "/O=Rookery/CN=admin", "-addext", "basicConstraints=CA:TRUE"];
        let make = ["req", "-new", "-key", "key.pem", "-out", "csr.pem"];
        tool(folder, "openssl", &[&make[..], &greedy].concat()).await?;
        let csr = std::fs::read(folder.join("csr.pem"))?;
        let request = GenerateCertificateRequest { name: kind.into(), csr, ..Default::default() };
        let made = generate(&admin, request).await.with_context(|| kind.to_owned())?;
        anyhow::ensure!(made.password.is_empty(), "there is no PFX to have a password");
        let entries = zip::ZipArchive::new(std::io::Cursor::new(&made.package))?;
        let mut names: Vec<_> = entries.file_names().map(str::to_owned).collect();
        names.sort();
        let certificate_name = format!("{kind}.crt");
        anyhow::ensure!(
            names == ["README.md", "ca.crt", "context.toml", &certificate_name].map(str::to_owned),
            "{names:?}"
        );
        let certificate = made.certificate.context("a certificate")?;
        anyhow::ensure!(certificate.subject == format!("CN={kind}"), "{certificate:?}");
        let pem = package_entry(&made.package, &certificate_name)?;
        let holder = Identity::from_pem(kind, &pem, &std::fs::read(folder.join("key.pem"))?)?;
        let caller = cluster.nodes[0].caller(Some(&holder))?;
        caller.put("sales", kind, "{}").await.with_context(|| kind.to_owned())?;
        // The same request again is another certificate, with another serial number.
        let csr = std::fs::read(folder.join("csr.pem"))?;
        let request = GenerateCertificateRequest { name: kind.into(), csr, ..Default::default() };
        let again = generate(&admin, request).await?.certificate.context("a certificate")?;
        anyhow::ensure!(again.serial_hex != certificate.serial_hex && again.serial_hex.len() == 32);
    }
    on_the_command_line(&cluster).await.context("command line")?;
    cluster.finish().await
}

async fn on_the_command_line(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder();
    let package = cluster.package.display().to_string();
    let config = [("ROOKERY_CONFIG".to_owned(), folder.join("config").display().to_string())];
    let rookery = async |arguments: &[&str]| {
        let context = ["--context-file", package.as_str()];
        binary::run(folder, &config, &[&context, arguments].concat()).await
    };
    let user = ["--clearance", "user", "--db", "sales:rw"];
    let generate = ["cert", "generate", "carol", "--csr", "csr.pem", "--out", "carol.zip"];
    let made = rookery(&[&generate[..], &user].concat()).await?;
    anyhow::ensure!(made.code == 0, "{made:?}");
    let carol = unpack(cluster, "carol", &std::fs::read(folder.join("carol.zip"))?)?;
    std::fs::copy(folder.join("key.pem"), carol.join("carol.key"))?;
    let context = ["--context-file", "context.toml", "whoami", "-o", "json"];
    let who = binary::succeed(&carol, &config, &context).await?;
    anyhow::ensure!(who.contains("\"carol\""), "{who}");
    // A password never stands in the arguments.
    let make =
        ["pkcs12", "-export", "-in", "self.pem", "-inkey", "key.pem", "-passout", "pass:hush"];
    let own = ["req", "-x509", "-key", "key.pem", "-subj", "/CN=self", "-days", "9", "-out"];
    let leaf = ["self.pem", "-addext", "basicConstraints=critical,CA:FALSE"];
    tool(folder, "openssl", &[&own[..], &leaf].concat()).await?;
    tool(folder, "openssl", &[&make[..], &["-out", "self.pfx"]].concat()).await?;
    let upload = ["cert", "upload", "self.pfx", "--name", "self"];
    let refused = rookery(&[&upload[..], &user].concat()).await?;
    anyhow::ensure!(refused.code == 2 && refused.stderr.contains("has a password"), "{refused:?}");
    std::fs::write(folder.join("password"), "hush\n")?;
    let file = ["--password-file", "password"];
    // Looked at first: nothing of it is registered, and the password is in no answer.
    let inspect = ["cert", "inspect", "self.pfx"];
    let refused = rookery(&inspect).await?;
    anyhow::ensure!(refused.code == 2 && refused.stderr.contains("has a password"), "{refused:?}");
    std::fs::write(folder.join("wrong"), "a wrong hush\n")?;
    let refused = rookery(&[&inspect[..], &["--password-file", "wrong"]].concat()).await?;
    anyhow::ensure!(refused.code == 2 && !refused.stderr.contains("hush"), "{refused:?}");
    let looked = rookery(&[&inspect[..], &file].concat()).await?;
    anyhow::ensure!(looked.code == 0 && looked.stderr.contains("held a private key"), "{looked:?}");
    anyhow::ensure!(looked.stdout.contains("CN=self"), "{looked:?}");
    anyhow::ensure!(!format!("{}{}", looked.stdout, looked.stderr).contains("hush"), "{looked:?}");
    let listed = rookery(&["cert", "list", "--name", "self", "-o", "name"]).await?;
    anyhow::ensure!(listed.stdout.trim().is_empty(), "it was registered: {listed:?}");
    for node in &cluster.nodes {
        anyhow::ensure!(!std::fs::read_to_string(node.log())?.contains("hush"), "{}", node.name);
    }
    let taken = rookery(&[&upload[..], &user, &file].concat()).await?;
    anyhow::ensure!(taken.code == 0 && taken.stderr.contains("held a private key"), "{taken:?}");
    // The certificates of the servers, as a file that another cluster takes.
    for (out, begin) in [("servers.pfx", &b"\x30"[..]), ("servers.pem", b"-----BEGIN CERT")] {
        let exported = rookery(&["cert", "export-server", "--out", out]).await?;
        anyhow::ensure!(exported.code == 0 && exported.stderr.contains("RECEIVES"), "{exported:?}");
        anyhow::ensure!(std::fs::read(folder.join(out))?.starts_with(begin));
    }
    Ok(())
}

#[tokio::test]
async fn server_certificates_are_exported_without_keys_and_let_in_elsewhere() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let operator = cluster.register("operator", Clearance::Operator, &[]).await?;
    let operator = cluster.nodes[1].caller(Some(&operator))?;
    let folder = cluster.folder().to_owned();
    let mut expected: Vec<String> =
        cluster.nodes.iter().map(|node| thumbprint(node.certificate())).collect();
    expected.sort();
    for password in ["", "secret"] {
        let request = ExportServerCertificatesRequest { password: password.into() };
        let answer = operator.security().export_server_certificates(request).await?.into_inner();
        let mut thumbprints = answer.thumbprints.clone();
        thumbprints.sort();
        anyhow::ensure!(thumbprints == expected, "{thumbprints:?}");
        std::fs::write(folder.join("servers.pfx"), &answer.pfx)?;
        let pass = format!("pass:{password}");
        let open = ["pkcs12", "-in", "servers.pfx", "-passin", &pass, "-nodes"];
        let opened = String::from_utf8(tool(&folder, "openssl", &open).await?)?;
        anyhow::ensure!(opened.matches("BEGIN CERTIFICATE").count() == 3, "{opened}");
        anyhow::ensure!(!opened.contains("PRIVATE KEY"), "{opened}");
        for der in cluster.nodes.iter().map(|node| node.certificate()) {
            let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            let line = &base64[..64];
            anyhow::ensure!(answer.pem.contains(line) && opened.contains(line));
        }
    }
    // The side that receives connections uploads: a cluster of one node exports, this one lets it in.
    let other = Cluster::start(1).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    let request = ExportServerCertificatesRequest { password: "x".into() };
    let exported =
        other.admin(0)?.security().export_server_certificates(request).await?.into_inner();
    let taken = upload(&cluster.admin(0)?, exported.pfx, "x").await?;
    anyhow::ensure!(taken.thumbprints == exported.thumbprints && !taken.private_key_dropped);
    let stranger = &other.nodes[0].identity;
    let who =
        cluster.nodes[2].caller(Some(stranger))?.security().who_am_i(WhoAmIRequest {}).await?;
    anyhow::ensure!(who.into_inner().registered, "the other cluster's node is let in");
    other.finish().await?;
    cluster.finish().await
}

/// A figure, not a promise: `cargo nextest run -p cluster-tests --run-ignored only generation_rate --no-capture`.
#[tokio::test]
#[ignore = "measures"]
async fn generation_rate() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.admin(0)?.create_database("sales", 1).await?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&rcgen::KeyPair::generate()?)?
        .der()
        .to_vec();
    for (what, csr, count) in [("with keys", Vec::new(), 200), ("for requests", csr, 1_000)] {
        let started = std::time::Instant::now();
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (admin, csr) = (cluster.admin(0)?, csr.clone());
            workers.spawn(async move {
                for _ in 0..count / 8 {
                    let name = "figure".to_owned();
                    let request =
                        GenerateCertificateRequest { name, csr: csr.clone(), ..Default::default() };
                    generate(&admin, request).await?;
                }
                Ok::<(), Status>(())
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        let rate = f64::from(count) / started.elapsed().as_secs_f64();
        std::io::Write::write_fmt(
            &mut std::io::stdout(),
            format_args!("{rate:.0} certificates a second {what}\n"),
        )?;
    }
    cluster.finish().await
}
