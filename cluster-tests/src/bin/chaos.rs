//! Chaos: a cluster in network namespaces, faults by a seeded schedule, clients all the while, judged by the contract.
//!
//! Exit code: 0 nothing was broken, 1 a promise was, 2 the run says nothing (too little was seen, or the harness failed).
#![allow(clippy::print_stdout, clippy::print_stderr)] // The report is the product.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use cluster_tests::chaos::{
    fault::Kind,
    report::{End, Report},
    run::{Length, Plan, run},
};

/// Injects faults into a cluster on this machine and judges what its clients saw
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How long faults are injected; without it every kind of fault comes once
    #[arg(long)]
    minutes: Option<f64>,
    /// The schedule; drawn where it is not given
    #[arg(long, env = "CHAOS_SEED")]
    seed: Option<u64>,
    /// Only these kinds of faults, such as kill-leader; repeatable
    #[arg(long = "fault", value_parser = kind)]
    faults: Vec<Kind>,
    /// Prints the kinds of faults and ends
    #[arg(long)]
    list: bool,
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| "no such kind; --list prints them".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        Kind::ALL.iter().for_each(|kind| println!("{}", kind.name()));
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000_000));
    println!("CHAOS_SEED={seed}");
    let length = match arguments.minutes {
        Some(minutes) => Length::For(Duration::from_secs_f64(minutes * 60.0)),
        None => Length::Once,
    };
    let kinds = if arguments.faults.is_empty() { Kind::ALL.to_vec() } else { arguments.faults };
    let plan = Plan { seed, length, kinds, patience: 1, tell: |line| println!("{line}") };
    let began = Instant::now();
    match execute(&plan) {
        Ok(report) => {
            println!("{}in {:.0} s all in all", report.text(), began.elapsed().as_secs_f64());
            ExitCode::from(report.end().code())
        }
        Err(why) => {
            eprintln!(
                "REJECTED: the harness failed, or was interrupted: {why:?}\nCHAOS_SEED={seed}"
            );
            ExitCode::from(End::Rejected.code())
        }
    }
}

/// Runs until the report, or until Ctrl-C or SIGTERM; everything that was started is ended and removed either way.
#[tokio::main]
async fn execute(plan: &Plan) -> Result<Report> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        report = run(plan) => report,
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("waiting for Ctrl-C")?;
            anyhow::bail!("interrupted")
        }
        _ = term.recv() => anyhow::bail!("asked to end"),
    }
}
