//! What the fuzz programs share. The bodies are those of `rookery::fuzzing`.

#![allow(missing_docs)]

pub use libfuzzer_sys::fuzz_target;

/// The program of one target.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        $crate::fuzz_target!(|bytes: &[u8]| {
            static BODY: std::sync::LazyLock<fn(&[u8])> = std::sync::LazyLock::new(|| {
                rookery::fuzzing::target($name).expect("a target of this name").run
            });
            BODY(bytes)
        });
    };
}
