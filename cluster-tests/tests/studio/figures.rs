//! Figures: how long a node takes for the page of certificates, and what a first visit brings over the wire.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_tests::{
    browser::{self, Site},
    caller::{Caller, request_id},
    cluster::Cluster,
    identity::{Identity, client_params},
    machine::parameter,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rcgen::{DnType, KeyPair};
use rookery_proto::security::v1::{Access, Clearance, UploadCertificateRequest};

use crate::world::World;

/// The most that a first visit may bring: page, stylesheet, script, icon, with their headers.
const FIRST_VISIT_BYTES_MAX: u64 = 100_000;
/// Registrations under way at the same time.
const REGISTRATIONS: usize = 64;
/// Pages that are timed.
const ROUNDS: usize = 40;

#[tokio::test]
async fn a_first_visit_is_small() -> Result<()> {
    if !browser::is_here("the bytes of a first visit") {
        return Ok(());
    }
    let world = World::start().await?;
    let admin = world.browser("cluster-admin").await?;
    admin.goto(&world.url(0, "/studio/certificates")).await?;
    let bytes = "const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];\
                 return all.map((it) => [new URL(it.name).pathname, it.transferSize]);";
    let parts = admin.script(bytes).await?;
    let parts: Vec<(String, u64)> = serde_json::from_value(parts)?;
    let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    println!("a first visit of /studio/certificates: {sum} bytes over the wire: {parts:?}");
    // The icon is named twice and fetched once.
    let fetched = parts.iter().filter(|(_, bytes)| *bytes > 0).count();
    anyhow::ensure!(fetched >= 4, "not a first visit: {parts:?}");
    anyhow::ensure!(sum < FIRST_VISIT_BYTES_MAX, "{sum} bytes");
    admin.close().await?;
    world.cluster.finish().await
}

#[tokio::test]
async fn the_page_of_a_hundred_certificates_is_timed() -> Result<()> {
    time_the_page(parameter("STUDIO_CERTIFICATES", 100)?).await
}

/// The long form: `cargo nextest run --run-ignored only -E 'test(hundred_thousand)'`.
#[tokio::test]
#[ignore = "registers 100,000 certificates, which takes minutes"]
async fn the_page_of_a_hundred_thousand_certificates_is_timed() -> Result<()> {
    time_the_page(parameter("STUDIO_CERTIFICATES", 100_000)?).await
}

async fn time_the_page(count: usize) -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    let start = Instant::now();
    register(&admin, count).await?;
    println!("{count} certificates registered in {:.1} s", start.elapsed().as_secs_f64());
    let mut site = Site::new(&cluster.nodes[0], Some(&cluster.administrator))?;
    let middle = middle_page(&mut site).await?;
    for (what, path) in [
        ("the overview, for comparison", "/studio"),
        ("first page", "/studio/certificates"),
        ("a later page", middle.as_str()),
        ("by expiry", "/studio/certificates?sort=-expiry"),
        ("search for a name", "/studio/certificates?q=holder+77"),
        ("search without a hit", "/studio/certificates?q=nobody"),
        ("search for a thumbprint", "/studio/certificates?q=0123456789ab"),
        ("Users of a database", "/studio/certificates?clearance=user&database=sales"),
        ("those that are disabled", "/studio/certificates?state=disabled"),
    ] {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let answer = site.get(path).await?;
            times.push(start.elapsed());
            anyhow::ensure!(answer.status == 200, "{path}: {}", answer.status);
            bytes = answer.body.len();
        }
        times.sort_unstable();
        let ms = |at: usize| times[at].as_secs_f64() * 1000.0;
        println!(
            "{count} certificates, {what:<30} median {:>7.1} ms, slowest of {ROUNDS} {:>7.1} ms, {bytes} bytes",
            ms(ROUNDS / 2),
            ms(ROUNDS - 1),
        );
        anyhow::ensure!(times[ROUNDS / 2] < Duration::from_secs(2), "{path} takes {times:?}");
    }
    cluster.finish().await
}

/// The path of the page after the first.
async fn middle_page(site: &mut Site) -> Result<String> {
    let page = site.get("/studio/certificates").await?.text();
    browser::html::attribute(&page, "a[rel=next]", "href").context("a next page")
}

/// Registers Users, many at a time; one key for all of them, because only the certificate is looked at.
async fn register(admin: &Caller, count: usize) -> Result<()> {
    let key = KeyPair::generate()?;
    let request = |at: usize| -> Result<UploadCertificateRequest> {
        let name = format!("holder {at}");
        let mut params = client_params(&name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        Ok(UploadCertificateRequest {
            name: name.clone(),
            clearance: Clearance::User.into(),
            grants: cluster_tests::caller::granted(&[("sales", Access::Read)]),
            certificate: Identity::signed(&name, &params, &key)?.leaf().to_vec(),
            request_id: request_id(),
            ..Default::default()
        })
    };
    let register = async |at: usize| -> Result<()> {
        admin.security().upload_certificate(request(at)?).await?;
        Ok(())
    };
    stream::iter(0..count).map(register).buffer_unordered(REGISTRATIONS).try_collect::<()>().await
}
