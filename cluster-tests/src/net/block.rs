//! Blocks of addresses: who holds one, what everything in it is called, and how it is removed.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::tools::{ip, output, tool};

/// Networks on this machine at once.
const BLOCKS: u8 = 200;

/// A block of addresses, held until it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    number: u8,
    _lock: File,
}

impl Block {
    /// Takes a block that nobody holds.
    pub(super) fn claim() -> Result<Self> {
        let start: u8 = rand::random_range(0..BLOCKS);
        for offset in 0..BLOCKS {
            let number = u8::try_from((u16::from(start) + u16::from(offset)) % u16::from(BLOCKS))?;
            if let Some(lock) = lock(number)? {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("all {BLOCKS} blocks of test networks are held")
    }

    #[cfg(test)]
    pub(super) fn unlock_for_tests(&self) {
        let _ = self._lock.unlock();
    }

    pub(super) fn bridge(&self) -> String {
        format!("rookery{}", self.number)
    }

    /// The end of a place's cable in the root namespace; at most 15 characters.
    pub(super) fn interface(&self, place: usize) -> String {
        format!("rk{}n{place}", self.number)
    }

    pub(super) fn namespace(&self, place: usize) -> String {
        format!("rookery-{}-{place}", self.number)
    }

    pub(super) fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 87, self.number, host)
    }

    /// Ends every process in the block's namespaces and removes them with the bridge. What is not there is no error.
    pub(super) fn remove(&self) {
        let prefix = format!("rookery-{}-", self.number);
        for namespace in namespaces() {
            if !namespace.starts_with(&prefix) {
                continue;
            }
            end_processes(&namespace);
            // Its cable goes with it. Where this fails, the next network of this block tries again.
            let _ = ip(&["netns", "delete", &namespace]);
        }
        if Path::new("/sys/class/net").join(self.bridge()).exists() {
            let _ = ip(&["link", "delete", &self.bridge()]);
        }
    }
}

/// Removes the networks whose locks nobody holds: their runs were killed.
pub(super) fn remove_leftovers() {
    for namespace in namespaces() {
        let number = namespace.strip_prefix("rookery-").and_then(|rest| rest.split_once('-'));
        let Some(number) = number.and_then(|(number, _)| number.parse().ok()) else { continue };
        if let Ok(Some(lock)) = lock(number) {
            Block { number, _lock: lock }.remove();
        }
    }
}

fn end_processes(namespace: &str) {
    for _ in 0..20 {
        let pids = output("ip", &["netns", "pids", namespace]).unwrap_or_default();
        let pids: Vec<&str> = pids.split_whitespace().collect();
        if pids.is_empty() {
            return;
        }
        // One that has ended meanwhile is no error.
        let _ = tool("kill", &[&["-KILL"], pids.as_slice()].concat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where `ip netns` keeps its namespaces.
pub(super) fn folder_of_namespaces() -> PathBuf {
    PathBuf::from("/run/netns")
}

fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder_of_namespaces()) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lock(number: u8) -> Result<Option<File>> {
    let folder = std::env::temp_dir().join("rookery-test-networks");
    fs::create_dir_all(&folder).context("the folder of network locks")?;
    let lock = File::create(folder.join(number.to_string())).context("a network lock")?;
    Ok(lock.try_lock().is_ok().then_some(lock))
}
