//! The rules of the repository that no compiler holds: which layer imports which, and who may name which library.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Modules of `node/src` and the modules each may import; ARCHITECTURE.md draws them.
const ARROWS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("names", &["limits"]),
    ("clock", &["names"]),
    ("os", &[]),
    ("fault", &[]),
    ("crypto", &["fault", "limits", "names", "os"]),
    ("storage", &["crypto", "fault", "limits", "names"]),
    ("authz", &["limits", "names"]),
    ("certificates", &["crypto", "limits", "names"]),
    ("tls", &["limits", "names", "os"]),
    ("audit", &["limits", "names", "tls"]),
    ("second_factor", &["limits", "names"]),
    ("results", &["authz", "limits", "names", "storage"]),
    ("cluster", &["audit", "authz", "certificates", "limits", "names", "results", "storage"]),
    ("database", &["authz", "limits", "names", "results", "storage"]),
    ("config", &["limits", "names"]),
    // A client of the contract in this process: it knows no layer, and asks `certificates` which text misleads.
    ("studio", &["certificates", "limits"]),
    ("telemetry", &["config", "limits", "names"]),
    (
        "consensus",
        &[
            "audit",
            "authz",
            "certificates",
            "clock",
            "cluster",
            "config",
            "database",
            "fault",
            "limits",
            "names",
            "results",
            "storage",
            "tls",
        ],
    ),
    (
        "own_certificate",
        &[
            "certificates",
            "clock",
            "cluster",
            "config",
            "consensus",
            "crypto",
            "limits",
            "names",
            "tls",
        ],
    ),
    (
        "edge",
        &[
            "audit",
            "authz",
            "certificates",
            "clock",
            "cluster",
            "config",
            "consensus",
            "crypto",
            "database",
            "fault",
            "limits",
            "names",
            "own_certificate",
            "results",
            "second_factor",
            "storage",
            "studio",
            "telemetry",
            "tls",
        ],
    ),
    (
        "cli",
        &[
            "audit",
            "authz",
            "certificates",
            "config",
            "crypto",
            "database",
            "edge",
            "limits",
            "names",
            "os",
            "own_certificate",
            "storage",
            "telemetry",
            "tls",
        ],
    ),
];

/// Libraries that only some folders may name, and why.
const FENCES: &[(&str, &[&str], &str)] = &[
    // telemetry names its log target.
    (
        "openraft",
        &["consensus", "telemetry"],
        "consensus is the only place that knows how Raft is done",
    ),
    ("rocksdb", &["storage"], "storage is the only place that knows the engine"),
    ("chacha20poly1305", &["crypto"], "crypto is the only place that names the AEAD"),
    ("chacha20", &["crypto"], "crypto is the only place that names the cipher"),
    ("pkcs5", &["crypto"], "crypto is the only place that names a cipher"),
    ("rc2", &["crypto"], "crypto is the only place that names a cipher"),
    ("hpke", &["crypto"], "crypto is the only place that names a cipher"),
    ("openssl", &[], "one TLS implementation: rustls"),
    ("native_tls", &[], "one TLS implementation: rustls"),
];

/// The folders in which `unsafe` may stand: calls into C.
const UNSAFE: &[&str] = &["storage/env.rs", "crypto/memory.rs", "clock.rs", "os.rs"];

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walk(&root, &mut found);
    found
        .into_iter()
        .map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text))
        .collect()
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file without comments and without its unit tests.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_str().unwrap_or_default();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs") || name == "fuzzing" // Bodies of fuzz targets: compiled for tests and for `fuzz/` alone.
    })
}

#[test]
fn every_module_imports_only_what_stands_below_it() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = module(&path);
        if matches!(from.as_str(), "lib" | "main") || is_test(&path) {
            continue;
        }
        let Some(allowed) = arrows.get(from.as_str()) else {
            wrong.push(format!("{}: module `{from}` has no row in ARROWS", path.display()));
            continue;
        };
        for (to, _) in ARROWS {
            let names =
                [format!("crate::{to}::"), format!("crate::{to};"), format!("crate::{{{to}")];
            let nested = code(&text).lines().any(|line| {
                let line = line.trim_start();
                line.starts_with(&format!("{to}::")) && in_crate_use(&text, line)
            });
            let named = names.iter().any(|name| code(&text).contains(name)) || nested;
            if named && *to != from && !allowed.contains(to) {
                wrong.push(format!("{}: `{from}` may not import `{to}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Whether a line stands in a `use crate::{ … };` block.
fn in_crate_use(text: &str, line: &str) -> bool {
    let mut inside = false;
    for candidate in text.lines() {
        if candidate.starts_with("use crate::{") {
            inside = true;
        }
        if inside && candidate.trim_start() == line {
            return true;
        }
        if inside && candidate.ends_with("};") {
            inside = false;
        }
    }
    false
}

#[test]
fn libraries_stay_behind_their_fences() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (library, folders, why) in FENCES.iter().filter(|_| !is_test(&path)) {
            let inside = folders.contains(&module(&path).as_str());
            let code = code(&text);
            let named =
                code.contains(&format!("{library}::")) || code.contains(&format!("use {library}"));
            if named && !inside {
                wrong.push(format!("{}: names `{library}`: {why}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_where_it_is_explained() {
    for (path, text) in sources() {
        let place = path.to_str().unwrap();
        let allows = code(&text).contains("allow(unsafe_code)");
        assert!(!allows || UNSAFE.contains(&place), "{place}: unsafe code outside {UNSAFE:?}");
        if allows {
            let blocks = text.matches("unsafe {").count() + text.matches("unsafe impl").count();
            let reasons = text.matches("SAFETY").count();
            assert!(
                reasons >= blocks,
                "{place}: {blocks} unsafe blocks, {reasons} SAFETY comments"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{}: begins without a `//!` line", path.display());
    }
}

#[test]
fn pinned_libraries_are_at_least_as_new_as_their_advisories_ask() {
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
    let least = [
        ("rustls", [0, 23, 45]),
        ("rustls-webpki", [0, 103, 13]),
        ("h2", [0, 4, 16]),
        ("tonic", [0, 14, 0]),
    ];
    for (name, least) in least {
        let found = lock
            .split("[[package]]")
            .find(|package| package.contains(&format!("\nname = \"{name}\"\n")))
            .and_then(|package| package.split("version = \"").nth(1))
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        let numbers: Vec<u32> = found.split('.').map(|n| n.parse().unwrap_or(0)).collect();
        assert!(numbers.as_slice() >= least.as_slice(), "{name} {found} is older than {least:?}");
    }
}

#[test]
fn what_is_released_has_no_fault_points() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(root.join("node/Cargo.toml")).unwrap();
    assert!(!manifest.contains("\ndefault = "), "node/Cargo.toml: a default feature");
    let mut scripts: Vec<_> =
        fs::read_dir(root.join("deploy")).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.push(root.join("dev"));
    let mut releases = 0;
    for path in scripts.iter().filter(|path| path.is_file()) {
        let text = fs::read_to_string(path).unwrap().replace("\\\n", " ");
        for line in text.lines().filter(|line| line.contains("--release")) {
            releases += 1;
            let with = line.contains("--features") || line.contains("debug_features");
            assert!(!with, "{}: a release build with features: {line}", path.display());
        }
    }
    assert!(releases >= 3, "found {releases} release builds: does this test look where they are?");
}
