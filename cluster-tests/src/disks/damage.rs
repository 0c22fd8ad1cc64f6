//! Changes to the files of a stopped node.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::machine::run;

/// What a file of a node's folder is for, by its name.
#[must_use]
pub fn class(file: &Path) -> &'static str {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let inside = |folder: &str| file.iter().any(|part| part == folder);
    match name {
        _ if inside("sentinel") => "sentinel",
        _ if inside("store") && name.ends_with(".log") => "write-ahead log",
        _ if inside("store") && name.ends_with(".sst") => "table",
        _ if name.starts_with("MANIFEST") => "MANIFEST",
        _ if name.starts_with("OPTIONS") => "OPTIONS",
        "CURRENT" => "CURRENT",
        "IDENTITY" => "IDENTITY",
        "keyring" => "keyring",
        "certificates" => "certificates",
        "sealing" => "sealing key",
        "reserve" => "reserve",
        "master.key" => "master key",
        "node.key" => "node key",
        "node.crt" | "ca.crt" => "node certificate",
        "cluster.toml" | "rookery.toml" => "configuration",
        _ => "other",
    }
}

/// All files with content below a folder, by class; what a node prints is left out.
///
/// # Errors
/// A folder cannot be read.
pub fn files(folder: &Path) -> Result<BTreeMap<&'static str, Vec<PathBuf>>> {
    let mut classes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if entry.metadata()?.len() > 0 && path.is_file() {
                let relative = path.strip_prefix(folder)?.to_owned();
                if !matches!(relative.to_str(), Some("log.txt" | "pid")) {
                    classes.entry(class(&relative)).or_default().push(relative);
                }
            }
        }
    }
    classes.values_mut().for_each(|files| files.sort());
    Ok(classes)
}

/// Copies a folder with everything in it; empty blocks stay holes.
///
/// # Errors
/// `cp` fails.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (format!("{}/.", from.display()), to.display().to_string());
    fs::create_dir_all(&to)?;
    run("cp", &["-a", "--sparse=always", &from, &to]).map(drop)
}

/// Changes one bit of a file.
///
/// # Errors
/// The file is shorter, or cannot be written.
pub fn flip(file: &Path, bit: u64) -> Result<()> {
    let open = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    open.read_exact_at(&mut byte, bit / 8)?;
    byte[0] ^= 1 << (bit % 8);
    Ok(open.write_all_at(&byte, bit / 8)?)
}

/// Cuts a file to `length` bytes.
///
/// # Errors
/// It cannot be written.
pub fn cut(file: &Path, length: u64) -> Result<()> {
    Ok(OpenOptions::new().write(true).open(file)?.set_len(length)?)
}

/// The newest write-ahead log of a data folder.
///
/// # Errors
/// There is none.
pub fn newest_log(data: &Path) -> Result<PathBuf> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(data.join("store"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    logs.into_iter().max().context("no write-ahead log")
}
