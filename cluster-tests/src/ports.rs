//! Listening ports that no other test on this machine takes.
//!
//! Below the range from which the kernel takes ports for outgoing connections, so that a node which is down can come
//! back to its own port. A block of ports belongs to whoever holds the lock on the block's file.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Context as _, Result, bail};

const FIRST: u16 = 12_000;
const BLOCK: u16 = 40;
const BLOCKS: u16 = 400;

/// A block of ports of 127.0.0.1, held until it is dropped.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    end: u16,
    _lock: File,
}

impl Ports {
    /// Takes a block that nobody holds.
    ///
    /// # Errors
    /// The temporary folder cannot be written, or all blocks are held.
    pub fn claim() -> Result<Self> {
        let folder = std::env::temp_dir().join("rookery-test-ports");
        std::fs::create_dir_all(&folder).context("the folder of port locks")?;
        let start: u16 = rand::random_range(0..BLOCKS);
        for offset in 0..BLOCKS {
            let block = (start + offset) % BLOCKS;
            let lock = File::create(folder.join(block.to_string())).context("a port lock")?;
            if lock.try_lock().is_ok() {
                let next = FIRST + block * BLOCK;
                return Ok(Self { next, end: next + BLOCK, _lock: lock });
            }
        }
        bail!("all {BLOCKS} blocks of test ports are held")
    }

    /// The next port of the block that can be bound now.
    ///
    /// # Errors
    /// The block is used up.
    pub fn take(&mut self) -> Result<SocketAddr> {
        while self.next < self.end {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            self.next += 1;
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        bail!("the block of test ports is used up")
    }
}
