//! What the fuzz programs share. The bodies are those of `rookery::fuzzing`.

#![allow(missing_docs)]

use std::{env, fs, path::Path};

pub use libfuzzer_sys::fuzz_target;
use rookery::fuzzing::{self, Target};

/// The program of one target.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        $crate::fuzz_target!(
            init: $crate::write_seeds($name),
            |bytes: &[u8]| {
                static BODY: std::sync::LazyLock<fn(&[u8]) -> bool> =
                    std::sync::LazyLock::new(|| $crate::target($name).run);
                BODY(bytes);
            }
        );
    };
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    fuzzing::target(name).expect("a target of this name")
}

/// Writes what a target begins with into the folder that `FUZZ_SEEDS` names, before libFuzzer reads it.
pub fn write_seeds(name: &str) {
    let Some(folder) = env::var_os("FUZZ_SEEDS") else { return };
    for (number, seed) in (target(name).seeds)().iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number}"));
        fs::write(path, seed).expect("a seed can be written");
    }
}
