//! The Studio over real TLS on three nodes: a second factor from its making to the log-out, a revocation between two clicks,
//! and a replacement of server certificates that is watched.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster_tests::{
    authenticator::code,
    cluster::{Cluster, HEAL_LIMIT},
    identity::Identity,
    pages::{Browser, Page},
    wait::eventually,
};
use rookery_proto::security::v1::Clearance;

fn browsers(cluster: &Cluster, identity: &Identity) -> Result<Vec<Browser>> {
    cluster.nodes.iter().map(|node| Browser::new(node, Some(identity))).collect()
}

#[tokio::test]
async fn a_second_factor_guards_the_pages_of_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let alice = cluster.register("alice", Clearance::Operator, &[]).await?;
    let mut at = browsers(&cluster, &alice)?;
    at[0].get("/studio/second-factor").await?.has(200, "Make a second factor")?;
    let first = &mut at[0];
    // A node learns the secret that factors are sealed with a moment after its start.
    let made = eventually("a second factor is made", HEAL_LIMIT, async || {
        first.post("/studio/second-factor/enrol", "t=").await?.has(200, "class=\"qr\"")
    })
    .await?;
    let secret = made.between("id=\"secret\">", "<")?.to_owned();
    let recovery = made.between("id=\"recovery-codes\"><li>", "<")?.to_owned();
    anyhow::ensure!(made.header("cache-control") == "no-store", "{:?}", made.headers);
    at[1].get("/studio").await?.has(200, "Overview")?;
    let form = format!("code={}", code(&secret, 0)?);
    at[1].post("/studio/second-factor/confirm", &form).await?.leads_to("/studio/second-factor")?;
    at[1].get("/studio").await?.has(200, "Log out")?;

    // Without the cookie no node shows a page; with it every node does.
    let cookie = at[1].cookie.clone();
    for browser in [0, 2] {
        let to = "/studio/log-in?to=%2Fstudio%2Fcertificates";
        at[browser].get("/studio/certificates").await?.leads_to(to)?;
        at[browser].cookie.clone_from(&cookie);
        at[browser].get("/studio/certificates").await?.has(200, "alice")?;
        at[browser].cookie = None;
    }
    // A wrong code on one node counts on the next; the right one leads to the page that was asked for.
    at[0].post("/studio/log-in", "code=000000").await?.has(403, "4 more wrong ones")?;
    at[2].post("/studio/log-in", "code=000000").await?.has(403, "3 more wrong ones")?;
    let used = at[2].post("/studio/log-in", &form).await?;
    used.has(409, "used already")?;
    let right = format!("code={}&to=%2Fstudio%2Fcertificates%3Fstate%3Dvalid", code(&secret, 1)?);
    at[2].post("/studio/log-in", &right).await?.leads_to("/studio/certificates?state=valid")?;
    at[2].get("/studio/certificates?state=valid").await?.has(200, "Log out")?;
    at[1].get("/studio").await?.leads_to("/studio/log-in?to=%2Fstudio")?;

    // After the log-out the same cookie opens nothing, on any node.
    let cookie = at[2].cookie.clone();
    anyhow::ensure!(cookie.is_some());
    at[2].post("/studio/log-out", "").await?.leads_to("/studio/log-in?why=out")?;
    anyhow::ensure!(at[2].cookie.is_none());
    for browser in &mut at {
        browser.cookie.clone_from(&cookie);
        browser.get("/studio").await?.leads_to("/studio/log-in?to=%2Fstudio")?;
    }
    let by_recovery = format!("recovery={recovery}&to=%2Fstudio");
    at[0].post("/studio/log-in", &by_recovery).await?.has(200, "9 are left")?;
    // Somebody else's certificate with this session's cookie is not logged in as anybody.
    let bob = cluster.register("bob", Clearance::Operator, &[]).await?;
    let mut thief = Browser::new(&cluster.nodes[0], Some(&bob))?;
    thief.cookie.clone_from(&at[0].cookie);
    let shown = thief.get("/studio").await?.has(200, "bob")?;
    anyhow::ensure!(!shown.text.contains("alice"), "{}", shown.text);
    cluster.finish().await
}

#[tokio::test]
async fn a_revocation_is_seen_at_the_next_click_and_ends_what_is_live() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let alice = cluster.register("alice", Clearance::ClusterAdmin, &[]).await?;
    let mut at = browsers(&cluster, &alice)?;
    for browser in &mut at {
        browser.get("/studio").await?.has(200, "alice")?;
    }
    let mut watcher = Browser::new(&cluster.nodes[1], Some(&alice))?;
    let live = tokio::spawn(async move { watcher.get("/studio/audit/live").await });
    let mut admin = Browser::new(&cluster.nodes[0], Some(&cluster.administrator))?;
    let page = format!("/studio/certificate?t={}", alice.thumbprint());
    let etag = admin.get(&page).await?.between("name=\"etag\" value=\"", "\"")?.to_owned();
    let form = format!("t={}&etag={etag}&to=disabled", alice.thumbprint());
    // From another site it is not made.
    let elsewhere =
        [("origin", "https://evil.example"), ("content-type", "application/x-www-form-urlencoded")];
    let refused = admin.ask("POST", "/studio/certificate/state", &elsewhere, &form).await?;
    refused.has(403, "Nothing was changed")?;
    at[2].get("/studio").await?.has(200, "alice")?;
    admin.post("/studio/certificate/state", &form).await?.leads_to(&page)?;
    for browser in &mut at {
        // The connection ends with the rights; the next one is told why.
        let told = match browser.get("/studio").await {
            Ok(told) => told,
            Err(_) => browser.get("/studio").await?,
        };
        told.has(403, "Disabled certificate")?;
    }
    let ended = tokio::time::timeout(Duration::from_secs(5), live).await;
    anyhow::ensure!(ended.is_ok(), "the live stream goes on after the revocation");
    cluster.finish().await
}

/// A form with a file (RFC 7578).
async fn upload(browser: &mut Browser, path: &str, file: &str) -> Result<Page> {
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"new.pem\"\r\n\r\n{file}\r\n\
         --b\r\ncontent-disposition: form-data; name=\"force\"\r\n\r\nyes\r\n--b--\r\n"
    );
    let headers =
        [("sec-fetch-site", "same-origin"), ("content-type", "multipart/form-data; boundary=b")];
    browser.ask("POST", path, &headers, &body).await
}

#[tokio::test]
async fn a_replacement_is_watched_and_given_up_while_a_node_is_away() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut admin = Browser::new(&cluster.nodes[0], Some(&cluster.administrator))?;
    let server = "/studio/certificates/server";
    admin.get(server).await?.has(200, "n3")?;
    cluster.nodes[2].kill()?;
    let new = Identity::with("rookery-new", |params| {
        *params = cluster_tests::identity::node_params("rookery-new").expect("parameters");
    })?;
    let pem = format!("{}{}", new.certificate_pem(), new.key_pem());
    let started = eventually("the replacement starts", HEAL_LIMIT, async || {
        upload(&mut admin, server, &pem).await?.leads_to(server)
    })
    .await;
    started?;
    let admin = &mut admin;
    eventually("two nodes have the new one", HEAL_LIMIT, async || {
        let page = admin.get(server).await?.has(200, "It waits for n3:")?;
        anyhow::ensure!(page.text.matches(">installed<").count() == 2, "{}", page.text);
        anyhow::ensure!(
            page.text.contains("http-equiv=\"refresh\"") && page.text.contains("<noscript>")
        );
        Ok(())
    })
    .await?;
    // The live stream tells the end and ends itself.
    let mut watcher = Browser::new(&cluster.nodes[1], Some(&cluster.administrator))?;
    let live = tokio::spawn(async move { watcher.get("/studio/certificates/server/live").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    admin.post("/studio/certificates/server/abort", "").await?.leads_to(server)?;
    let page = admin.get(server).await?.has(200, "aborted")?;
    anyhow::ensure!(!page.text.contains("http-equiv=\"refresh\""), "{}", page.text);
    let told = tokio::time::timeout(Duration::from_secs(10), live).await???;
    anyhow::ensure!(told.header("content-type") == "text/event-stream", "{:?}", told.headers);
    let first = told.text.find("It waits for n3").context("the step before")?;
    let last = told.text.find("aborted").context("the end")?;
    anyhow::ensure!(first < last && told.text.contains("event: ended"), "{}", told.text);
    admin.post("/studio/certificates/server/abort", "").await?.has(404, "No replacement")?;
    cluster.nodes[2].start()?;
    cluster.ready().await?;
    cluster.finish().await
}
