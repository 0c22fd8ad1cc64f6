//! A client in another language, with nothing but a generated package and what PyPI has: put and get by reflection.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{granted, request_id},
    cluster::Cluster,
    golden,
};
use rookery_proto::security::v1::{Access, Clearance, GenerateCertificateRequest};
use tokio::process::Command;

/// The cache folder of `./dev`.
fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("ROOKERY_CACHE") {
        return Ok(PathBuf::from(cache));
    }
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("rookery"))
}

async fn run(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}", program.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{} {} ended with {}\n{stdout}{}",
        program.display(),
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}

/// `ROOKERY_PYTHON`, or a Python with the packages of requirements.txt, made once and kept until that file changes.
pub(crate) async fn python() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os("ROOKERY_PYTHON") {
        return Ok(PathBuf::from(python));
    }
    let requirements = golden::path("python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let folder = cache()?.join("python-client");
    let python = folder.join("bin/python");
    let mark = folder.join("installed.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let path = folder.display().to_string();
    run(Path::new("python3"), &["-m", "venv", "--clear", &path])
        .await
        .context("this test needs python3 with venv (Debian: python3-venv)")?;
    let requirements = requirements.display().to_string();
    run(
        &python,
        &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", &requirements],
    )
    .await
    .context(
        "this test installs grpcio from PyPI into the cache folder, and PyPI was not reached",
    )?;
    std::fs::write(mark, wanted)?;
    Ok(python)
}

#[tokio::test]
async fn a_python_program_puts_and_gets_with_a_generated_package_and_reflection() -> Result<()> {
    let python = python().await?;
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 3).await?;
    let request = GenerateCertificateRequest {
        name: "python client".into(),
        clearance: Clearance::User.into(),
        grants: granted(&[("sales", Access::ReadWrite)]),
        request_id: request_id(),
        ..Default::default()
    };
    let package = admin.security().generate_certificate(request).await?.into_inner().package;
    let path = cluster.folder().join("python.zip");
    std::fs::write(&path, package)?;
    let script = golden::path("python/put_and_get.py").display().to_string();
    let output = run(&python, &[&script, &path.display().to_string(), "sales"]).await?;
    golden::check("golden/python.txt", &output)?;
    for node in cluster.everywhere(Some(&cluster.administrator))? {
        let stored = node.get("sales", "python/1").await?;
        anyhow::ensure!(stored == "{\"from\": \"python\", \"text\": \"héron\"}".as_bytes());
    }
    cluster.same_state().await?;
    cluster.finish().await
}
