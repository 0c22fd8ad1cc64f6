//! The fault proxy as a process: `fault-proxy --listen 127.0.0.1:8474`, then Toxiproxy's HTTP interface.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Parser;
use cluster_tests::fault_proxy::{Proxies, serve};
use tokio::net::TcpListener;

/// A TCP proxy that breaks links on request, with the HTTP interface of Toxiproxy 2.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where the HTTP interface listens
    #[arg(long, default_value = "127.0.0.1:8474")]
    listen: SocketAddr,
    /// Draws of toxicity, jitter and slices come from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("listening on {}", arguments.listen))?;
    serve(listener, Proxies::new(arguments.seed)).await.context("serving")
}
