//! Network namespaces on this machine: one a node, each with its own address on a bridge that the tests stand on too.
//!
//! ```text
//!   tests (root namespace)  10.87.B.1 ── bridge rookeryB
//!                                          │      │      │
//!   namespaces rookery-B-1, -2, …     10.87.B.11  .12   .13    a veth pair each
//! ```
//!
//! A fault is a rule of iptables in the namespace of whoever does not hear: packets of one sender, dropped all, dropped
//! by chance, or answered with a reset. The tests' own address is never touched, so clients reach a node that its peers
//! do not (fault F25).
//!
//! A network belongs to whoever holds the lock on its block of addresses; all names hold the number of the block. What a
//! killed run left behind is therefore known by its free lock, and removed before the next network is made.

mod block;
mod tools;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use block::Block;
use tools::{ip, nsenter, tool};

/// Most namespaces of one network.
const PLACES_MAX: usize = 16;
/// The chain that holds the rules of faults, so that healing is emptying it.
const CHAIN: &str = "FAULTS";

/// A bridge with one namespace for each place. Removed on drop, with every process in it.
#[derive(Debug)]
pub struct Network {
    block: Block,
    places: usize,
}

/// What happens to packets that match a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They vanish: connections stay open and silent.
    Drop,
    /// They are answered with a TCP reset.
    Reset,
    /// That many in a hundred vanish.
    Lose(u8),
}

impl Network {
    /// Makes a bridge and `places` namespaces; removes what killed runs left behind first.
    ///
    /// # Errors
    /// This machine has no namespaces, bridges or iptables for this user; the error says which.
    pub fn new(places: usize) -> Result<Self> {
        anyhow::ensure!((1..=PLACES_MAX).contains(&places), "1 to {PLACES_MAX} places");
        block::remove_leftovers();
        // The network is there before its parts are, so that an error removes those that were made.
        let network = Self { block: Block::claim()?, places };
        network.block.remove();
        network.build().context("making a network of namespaces")?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        let bridge = self.block.bridge();
        let address = format!("{}/24", self.gateway());
        ip(&["link", "add", &bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        ip(&["address", "add", &address, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for place in 0..self.places {
            self.build_place(place).with_context(|| format!("place {place}"))?;
        }
        Ok(())
    }

    fn build_place(&self, place: usize) -> Result<()> {
        let (namespace, bridge) = (self.block.namespace(place), self.block.bridge());
        let outside = self.block.interface(place);
        let address = format!("{}/24", self.address(place));
        ip(&["netns", "add", &namespace])?;
        let peer = ["peer", "name", "eth0", "netns", &namespace];
        ip(&[&["link", "add", &outside, "type", "veth"], peer.as_slice()].concat())?;
        ip(&["link", "set", &outside, "master", &bridge, "up"])?;
        ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
        for interface in ["lo", "eth0"] {
            ip(&["-n", &namespace, "link", "set", interface, "up"])?;
        }
        self.iptables(place, &["-N", CHAIN])?;
        self.iptables(place, &["-A", "INPUT", "-j", CHAIN])
    }

    /// The address of the tests.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.block.address(1)
    }

    /// The address of a place.
    #[must_use]
    pub fn address(&self, place: usize) -> IpAddr {
        IpAddr::V4(self.block.address(u8::try_from(11 + place).unwrap_or(u8::MAX)))
    }

    /// What stands before a command so that it runs in the place; the process id stays that of the command.
    #[must_use]
    pub fn launcher(&self, place: usize) -> Vec<String> {
        let namespace = self.namespace_file(place).display().to_string();
        vec!["nsenter".to_owned(), format!("--net={namespace}"), "--".to_owned()]
    }

    fn namespace_file(&self, place: usize) -> PathBuf {
        block::folder_of_namespaces().join(self.block.namespace(place))
    }

    /// From now on packets from one place to another meet `fate`, and those the other way do not.
    ///
    /// # Errors
    /// iptables refuses, such as a match that the kernel does not have.
    pub fn impair(&self, from: usize, to: usize, fate: Fate) -> Result<()> {
        let source = self.address(from).to_string();
        let rule = ["-A", CHAIN, "-s", &source];
        let probability;
        let target: &[&str] = match fate {
            Fate::Drop => &["-j", "DROP"],
            Fate::Reset => &["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"],
            Fate::Lose(percent) => {
                probability = format!("{:.2}", f64::from(percent) / 100.0);
                let chance = ["-m", "statistic", "--mode", "random", "--probability"];
                &[chance.as_slice(), &[&probability, "-j", "DROP"]].concat()
            }
        };
        self.iptables(to, &[rule.as_slice(), target].concat())
    }

    /// Ends every fault in all places.
    ///
    /// # Errors
    /// iptables refuses.
    pub fn heal(&self) -> Result<()> {
        (0..self.places).try_for_each(|place| self.iptables(place, &["-F", CHAIN]))
    }

    /// Packets from one place to another are dropped no more. That they are not is no error.
    ///
    /// # Errors
    /// There is no chain of faults in that place.
    pub fn mend(&self, from: usize, to: usize) -> Result<()> {
        let source = self.address(from).to_string();
        let rule = [CHAIN, "-s", &source, "-j", "DROP"];
        self.iptables(to, &["-L", CHAIN, "-n"])?;
        while self.iptables(to, &[&["-C"], rule.as_slice()].concat()).is_ok() {
            self.iptables(to, &[&["-D"], rule.as_slice()].concat())?;
        }
        Ok(())
    }

    fn iptables(&self, place: usize, arguments: &[&str]) -> Result<()> {
        let namespace = self.namespace_file(place).display().to_string();
        nsenter(&namespace, &[&["iptables", "-w", "5"], arguments].concat())
    }

    /// Whether this machine can drop packets by chance.
    ///
    /// # Errors
    /// Why not.
    pub fn loses_by_chance(&self) -> Result<()> {
        self.impair(0, 0, Fate::Lose(30))?;
        self.heal()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.block.remove();
    }
}

/// Whether this machine has what a network needs.
///
/// # Errors
/// What it lacks.
pub fn available() -> Result<()> {
    for (program, argument) in [("ip", "-V"), ("iptables", "--version"), ("nsenter", "--version")] {
        tool(program, &[argument])?;
    }
    Network::new(1).map(drop)
}

#[cfg(test)]
mod tests;
