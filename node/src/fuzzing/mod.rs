//! The bodies of the fuzz targets: what must hold for every byte that a disk, a peer or a client can hand in.
//!
//! Each body is a plain function of bytes that panics where a property does not hold. `fuzz/` makes a libFuzzer program of
//! each; the tests here run all of them on arbitrary bytes and on mutated valid input (`FUZZ_SEED` repeats a run,
//! `FUZZ_CASES` asks for more). What a body asserts is more than that nothing panics:
//!
//! | of | holds |
//! | --- | --- |
//! | what is refused | it changes nothing, and says so within a bound |
//! | what is accepted | it is encoded again to the same bytes, or read again to the same value |
//! | entries of a log | replicas that apply them in other batches, or start anew in between, agree in state and replies |
//! | sealed bytes | they open unchanged or not at all |
//! | memory and time | what is made of an input is bounded by the input |
//!
//! Compiled for tests and with the feature `fuzzing` alone. Nothing of the node calls it.

#![allow(clippy::unwrap_used, clippy::panic)] // A property that does not hold ends the run: that is what this is for.

mod audit;
mod certificates;
mod cluster;
mod database;
mod input;
mod names;
mod peers;
mod sealed;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;

pub use input::mutate;

/// A body and what it begins with.
pub struct Target {
    /// Its name, which is that of the program in `fuzz/`.
    pub name: &'static str,
    /// The body; says whether the input got beyond the first refusal, which is what a run is judged by.
    ///
    /// # Panics
    /// Where a property does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Valid input to begin with, small.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many cases of each kind a test runs: less where one takes long.
    pub cases: u32,
}

const USUAL: u32 = 512;

/// All bodies.
pub const TARGETS: &[Target] = &[
    Target {
        name: "cluster_commands",
        run: cluster::commands,
        seeds: cluster::seeds,
        cases: USUAL,
    },
    Target {
        name: "database_commands",
        run: database::commands,
        seeds: database::command_seeds,
        cases: USUAL,
    },
    Target {
        name: "document",
        run: database::document,
        seeds: database::document_seeds,
        cases: 4 * USUAL,
    },
    Target {
        name: "record_keys",
        run: database::record_keys,
        seeds: database::key_seeds,
        cases: 4 * USUAL,
    },
    Target {
        name: "page_token",
        run: database::page_token,
        seeds: database::token_seeds,
        cases: 4 * USUAL,
    },
    Target {
        name: "sealed_record",
        run: sealed::record,
        seeds: sealed::record_seeds,
        cases: 4 * USUAL,
    },
    Target {
        name: "file_header",
        run: sealed::file_header,
        seeds: sealed::script_seeds,
        cases: USUAL,
    },
    Target { name: "keyring", run: sealed::keyring, seeds: sealed::script_seeds, cases: USUAL },
    Target { name: "backup", run: sealed::backup, seeds: sealed::backup_seeds, cases: USUAL },
    Target {
        name: "sealed_secret",
        run: sealed::secret,
        seeds: sealed::script_seeds,
        cases: USUAL,
    },
    Target { name: "upload", run: certificates::upload, seeds: certificates::seeds, cases: USUAL },
    Target { name: "snapshot", run: snapshots::receive, seeds: snapshots::seeds, cases: USUAL },
    Target { name: "peer_messages", run: peers::messages, seeds: peers::seeds, cases: 2 * USUAL },
    Target { name: "names", run: names::names, seeds: names::name_seeds, cases: 4 * USUAL },
    Target {
        name: "join_token",
        run: names::join_token,
        seeds: names::token_seeds,
        cases: 2 * USUAL,
    },
    Target {
        name: "second_factor",
        run: names::second_factor,
        seeds: names::factor_seeds,
        cases: 2 * USUAL,
    },
    Target { name: "config", run: names::config, seeds: names::config_seeds, cases: USUAL },
    Target { name: "audit_export", run: audit::export, seeds: audit::seeds, cases: USUAL / 2 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
