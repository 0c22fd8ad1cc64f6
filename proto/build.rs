//! Compiles the .proto files without protoc (protox) into client and server code.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

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
        .compile_fds(descriptors)?;
    Ok(())
}
