//! How fast and how sharp revocations are: what `docs/testing.md` quotes.
//!
//! Deletes one certificate after the other while many requests of each run on three nodes, and prints how long the
//! acknowledgement took, when the first refusal and the last permission came, and how many requests started within 100 ms
//! after an acknowledgement. Ends with an error if one of those was allowed.

#![allow(clippy::print_stdout)] // It is there to be read.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use cluster_tests::{
    authorization_history::{self, Coverage, Request, Version},
    cluster::Cluster,
    lines::{Line, Watch},
    probes::{Call, Target},
};
use rookery_proto::security::v1::{Access, Clearance};

/// Measures revocations on three nodes.
#[derive(Parser)]
struct Arguments {
    /// Requests that must have started within 100 ms after an acknowledgement.
    #[arg(long, default_value_t = 10_000)]
    near: usize,
    /// Lets a follower of the cluster group stand still during each revocation.
    #[arg(long)]
    paused: bool,
    /// Most revocations.
    #[arg(long, default_value_t = 400)]
    rounds_max: usize,
}

const SALES: Target<'_> = Target { database: "sales", id: "planted" };
const LINES: [Line; 12] = {
    let (read, stale, topology) =
        (Line::Kept(Call::Read), Line::Kept(Call::StaleRead), Line::Kept(Call::Topology));
    [
        read, stale, topology, topology, stale, topology, read, stale, topology, topology, stale,
        topology,
    ]
};
const BEFORE: Duration = Duration::from_millis(60);
const AFTER: Duration = Duration::from_millis(130);

#[derive(Default)]
struct Figures {
    acknowledgement: Vec<f64>,
    first_refusal: Vec<f64>,
    last_permission: Vec<f64>,
    coverage: Coverage,
}

fn millis(at: Duration, from: Duration) -> f64 {
    (at.as_secs_f64() - from.as_secs_f64()) * 1_000.0
}

impl Figures {
    fn add(
        &mut self,
        requests: &[Request],
        invoked: Duration,
        acknowledged: Duration,
    ) -> Result<()> {
        let versions = [
            Version { invoked: Duration::ZERO, acknowledged: Some(Duration::ZERO), allows: true },
            Version { invoked, acknowledged: Some(acknowledged), allows: false },
        ];
        let checked = authorization_history::check(&versions, requests)?;
        self.coverage = self.coverage.and(checked);
        self.acknowledgement.push(millis(acknowledged, invoked));
        let refused = requests.iter().filter(|request| !request.allowed).map(|r| r.end).min();
        let allowed = requests.iter().filter(|request| request.allowed).map(|r| r.start).max();
        self.first_refusal.extend(refused.map(|at| millis(at, acknowledged)));
        self.last_permission.extend(allowed.map(|at| millis(at, acknowledged)));
        Ok(())
    }

    fn print(&mut self, what: &str) {
        println!("{what}: {} revocations", self.coverage.revocations);
        for (name, values) in [
            ("acknowledgement", &mut self.acknowledgement),
            ("first refusal - acknowledgement", &mut self.first_refusal),
            ("last permission (start) - acknowledgement", &mut self.last_permission),
        ] {
            values.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let place = (values.len() as f64 * share) as usize;
                values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
            };
            println!(
                "  {name:42} ms: min {:8.2}  p50 {:8.2}  p99 {:8.2}  max {:8.2}",
                at(0.0),
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
        println!(
            "  {} requests decided, {} of them started within 100 ms after an acknowledgement; 0 allowed after",
            self.coverage.requests, self.coverage.near
        );
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 3).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    let mut figures = Figures::default();
    for round in 0..arguments.rounds_max {
        if figures.coverage.near >= arguments.near {
            break;
        }
        let name = format!("holder-{round}");
        let holder = cluster.register(&name, Clearance::User, &[("sales", Access::Read)]).await?;
        let leader = cluster.leader("cluster").await?;
        let (admin, still) = (cluster.admin(leader)?, (leader + 1) % 3);
        let watch =
            Watch::start(&cluster, &[0, 1, 2], &holder, SALES, &LINES, Duration::ZERO).await?;
        tokio::time::sleep(BEFORE).await;
        if arguments.paused {
            cluster.nodes[still].pause()?;
        }
        let invoked = watch.now();
        admin.revoke(&holder.thumbprint()).await?;
        let acknowledged = watch.now();
        if arguments.paused {
            cluster.nodes[still].resume()?;
        }
        tokio::time::sleep(AFTER).await;
        let told = watch.finish().await?;
        let requests: Vec<Request> = told.into_iter().flat_map(|told| told.requests).collect();
        figures.add(&requests, invoked, acknowledged).with_context(|| format!("round {round}"))?;
        cluster.ready().await?;
    }
    figures.print(if arguments.paused { "a follower stands still" } else { "healthy" });
    anyhow::ensure!(figures.coverage.near >= arguments.near, "too few requests near a revocation");
    cluster.finish().await
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
