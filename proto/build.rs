//! Compiles the .proto files without protoc (protox) into client and server code.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

/// Messages with a password, a key or a token. `quiet.rs` writes their `Debug`.
const SECRET: &[&str] = &[
    ".rookery.admin.v1.JoinClusterRequest",
    ".rookery.cluster.v1.CreateJoinTokenResponse",
    ".rookery.cluster.v1.JoinRequest",
    ".rookery.security.v1.CloneCertificateRequest",
    ".rookery.security.v1.CloneCertificateResponse",
    ".rookery.security.v1.ConfirmResponse",
    ".rookery.security.v1.EnrolResponse",
    ".rookery.security.v1.ExportServerCertificatesRequest",
    ".rookery.security.v1.GenerateCertificateRequest",
    ".rookery.security.v1.GenerateCertificateResponse",
    ".rookery.security.v1.InspectCertificateRequest",
    ".rookery.security.v1.LogInResponse",
    ".rookery.security.v1.NewServerCertificate",
    ".rookery.security.v1.UploadCertificateRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let areas = [
        "document",
        "database",
        "security",
        "cluster",
        "admin",
        "peer",
        "log",
        "audit",
        "monitoring",
    ];
    let mut files = Vec::new();
    for area in areas {
        let folder = PathBuf::from(format!("rookery/{area}/v1"));
        println!("cargo:rerun-if-changed={}", folder.display());
        for entry in fs::read_dir(&folder)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".rookery.log.v1.Entry")
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    Ok(())
}
