//! Every body on arbitrary bytes, on mutated and on spliced valid input.
//!
//! A run prints its seed; `FUZZ_SEED=<64 hex digits>` repeats it, `FUZZ_CASES=<times>` makes it longer.

use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::*;

/// The seed of this run.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    match std::env::var("FUZZ_SEED") {
        Ok(text) => hex::decode_to_slice(text, &mut seed).expect("FUZZ_SEED: 64 hex digits"),
        Err(_) => getrandom::fill(&mut seed).unwrap(),
    }
    seed
}

fn check(name: &str) {
    let target = target(name).expect("a target of this name");
    let seed = seed();
    println!("FUZZ_SEED={} ({name})", hex::encode(seed));
    let times: u32 = std::env::var("FUZZ_CASES").map_or(1, |text| text.parse().unwrap());
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name}: nothing to begin with");
    let reached = seeds.iter().filter(|seed| (target.run)(seed)).count();
    assert!(reached > 0, "{name}: no seed gets beyond the first refusal");
    (target.run)(&[]);

    let valid = prop::sample::select(seeds.clone());
    let script = prop::collection::vec(any::<u8>(), 0..48);
    let mutated = (valid.clone(), script).prop_map(|(valid, script)| mutate(&valid, &script));
    let splice = (valid.clone(), valid, any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let spliced = splice.prop_map(|(one, two, at, from)| {
        let (at, from) = (at.index(one.len() + 1), from.index(two.len() + 1));
        [&one[..at], &two[from..]].concat()
    });
    let arbitrary = prop::collection::vec(any::<u8>(), 0..512);
    let config = Config {
        cases: target.cases * times,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };

    for (what, strategy) in [
        ("arbitrary", arbitrary.boxed()),
        ("mutated", mutated.boxed()),
        ("spliced", spliced.boxed()),
    ] {
        // A runner counts its cases over all that it runs: one for each.
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config.clone(), rng);
        let reached = Cell::new(0);
        let failed = runner.run(&strategy, |bytes| {
            reached.set(reached.get() + u32::from((target.run)(&bytes)));
            Ok(())
        });
        println!("{name}, {what}: {} of {} went far", reached.get(), target.cases * times);
        match failed {
            // Of mutated input some must stay valid, or the run tried one refusal over and over.
            Ok(()) => {
                assert!(what != "mutated" || reached.get() * 200 > target.cases, "too little")
            }
            Err(TestError::Fail(why, bytes)) => panic!(
                "{name}, {what}, FUZZ_SEED={}: {why}\nsmallest input: {}",
                hex::encode(seed),
                hex::encode(bytes)
            ),
            Err(TestError::Abort(why)) => panic!("{name}, {what}: {why}"),
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run_here_and_has_a_program() {
            let here = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(here));
            let programs = include_str!("../../../fuzz/Cargo.toml");
            for name in here {
                assert!(programs.contains(&format!("name = \"{name}\"\n")), "{name} has no program");
            }
        }
    };
}

targets! {
    cluster_commands database_commands document record_keys page_token sealed_record file_header keyring backup
    sealed_secret upload snapshot peer_messages names join_token second_factor config audit_export
}

#[test]
fn an_empty_script_changes_nothing_and_every_other_stays_within_bounds() {
    let valid: Vec<u8> = (0..100).collect();
    assert_eq!(mutate(&valid, &[]), valid);
    for what in 0..=u8::MAX {
        let script = [what, 0, 0, 7, 0, 0, 40, what].repeat(200);
        let changed = mutate(&valid, &script);
        assert!(changed.len() <= 4 * valid.len() + 4_096 + 64, "{what}");
    }
    assert_ne!(mutate(&valid, &[0, 0, 0, 7, 0, 0, 0, 3]), valid);
}
