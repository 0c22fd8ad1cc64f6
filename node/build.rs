//! Builds the shim between RocksDB's file encryption and this crate's cipher.

use std::{env, fs, path::PathBuf};

/// The private struct of RocksDB's C interface that the shim mirrors.
const MIRRORED: &str = "struct rocksdb_env_t {\n  Env* rep;\n  bool is_default;\n};\n";

fn main() {
    println!("cargo:rerun-if-changed=src/storage/env_shim.cc");
    println!("cargo:rerun-if-changed=build.rs");
    let sources = env::var_os("DEP_ROCKSDB_CARGO_MANIFEST_DIR")
        .map(|folder| PathBuf::from(folder).join("rocksdb"))
        .expect("librocksdb-sys names its sources");
    let interface = fs::read_to_string(sources.join("db/c.cc")).expect("db/c.cc can be read");
    assert!(
        interface.contains(MIRRORED),
        "RocksDB's struct rocksdb_env_t is not what src/storage/env_shim.cc mirrors: \
         compare both, and only then change the pinned versions"
    );
    // The macros that RocksDB's own build sets, because its headers look at them.
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(sources.join("include"))
        .define("NDEBUG", "1")
        .define("HAVE_ALIGNED_NEW", None)
        .define("HAVE_UINT128_EXTENSION", None)
        .define("OS_LINUX", None)
        .define("ROCKSDB_PLATFORM_POSIX", None)
        .define("ROCKSDB_LIB_IO_POSIX", None)
        .flag("-include")
        .flag("cstdint")
        .flag_if_supported("-Wno-unused-parameter")
        .file("src/storage/env_shim.cc")
        .compile("rookery_env_shim");
}
