//! What a page does after it was opened: records that come by themselves, a replacement that is watched to its end, a
//! session that begins and ends, nodes that change their roles.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    authenticator,
    browser::{self, Browser, Profile},
    cluster::HEAL_LIMIT,
    identity::{Identity, node_params},
    wait::eventually,
};
use rookery_proto::security::v1::{Access, Clearance};
use serde_json::json;

use crate::{screens::Album, world::World};

#[tokio::test]
async fn pages_move_by_themselves_where_they_say_so() -> Result<()> {
    if !browser::is_here("pages that move, in a browser") {
        return Ok(());
    }
    let mut world = World::start().await?;
    let mut album = Album::new("live")?;
    let admin = world.browser("cluster-admin").await?;
    follows_the_audit_log(&mut world, &admin, &mut album).await.context("audit")?;
    watches_a_replacement(&mut world, &admin, &mut album).await.context("server certificate")?;
    changes_roles(&world, &admin, &mut album).await.context("roles")?;
    let console = admin.console().await?;
    anyhow::ensure!(console.is_empty(), "the console says {console:?}");
    admin.close().await?;
    println!("screenshots: {}", album.folder().display());
    world.cluster.finish().await
}

/// Streams that end before they begin, as a browser tells of an answer that is none.
const REFUSED_STREAM: &str = "window.EventSource = class extends EventTarget {
  static CLOSED = 2;
  readyState = 2;
  constructor() { super(); setTimeout(() => this.dispatchEvent(new Event('error')), 0); }
  close() {}
};";

/// Records appear on top while they are followed, and no more once that is paused.
async fn follows_the_audit_log(
    world: &mut World,
    admin: &Browser,
    album: &mut Album,
) -> Result<()> {
    admin.goto(&world.url(0, "/studio/audit")).await?;
    admin.shows("#live", "Follow").await?;
    let rows = "return document.querySelectorAll('#records tr').length";
    let before = admin.script(rows).await?.as_u64().context("a number of rows")?;
    admin.press("Follow").await?;
    admin.shows("#live", "Pause").await?;
    // The stream is open once a record has come; until then each registration is another chance.
    let mut registered = 0;
    eventually("a record comes by itself", HEAL_LIMIT, async || {
        registered += 1;
        let name = format!("followed-{registered}");
        world.cluster.register(&name, Clearance::User, &[("sales", Access::Read)]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = admin.script(rows).await?.as_u64().context("a number of rows")?;
        anyhow::ensure!(now > before, "{now} rows");
        Ok(())
    })
    .await?;
    let top = admin.text("#records tr").await?;
    anyhow::ensure!(top.contains("upload-certificate"), "the newest row is {top:?}");
    album.shoot(admin, "1-audit-followed").await?;

    admin.press("Pause").await?;
    admin.shows("#live", "Follow").await?;
    let paused = admin.script(rows).await?;
    world.cluster.register("not-followed", Clearance::User, &[]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let still = admin.script(rows).await?;
    anyhow::ensure!(still == paused, "{paused} rows became {still} after the pause");
    // Followed again, nothing of the pause is left out.
    admin.press("Follow").await?;
    admin.shows("#live-told", "Following").await?;
    let numbers = "return [...document.querySelectorAll('#records td:nth-child(2)')].map((it) => +it.textContent)";
    let paused = paused.as_u64().context("a number of rows")?;
    eventually("the records of the pause come", HEAL_LIMIT, async || {
        let now = admin.script(rows).await?.as_u64().context("a number of rows")?;
        anyhow::ensure!(now > paused, "{now} rows");
        Ok(())
    })
    .await?;
    let numbers: Vec<u64> = serde_json::from_value(admin.script(numbers).await?)?;
    let gap = numbers.windows(2).find(|pair| pair[0] != pair[1] + 1);
    anyhow::ensure!(gap.is_none(), "records are missing or twice at {gap:?}");
    admin.press("Pause").await?;
    admin.shows("#live-told", "Paused").await?;
    // A stream that is refused is told, and sets the button back.
    admin.script(REFUSED_STREAM).await?;
    admin.press("Follow").await?;
    admin.shows("#live-told", "cannot be followed now").await?;
    admin.shows("#live", "Follow").await?;
    Ok(())
}

/// A new certificate for all nodes but one, which has its own, from the form to the end, which the page tells without a click.
async fn watches_a_replacement(
    world: &mut World,
    admin: &Browser,
    album: &mut Album,
) -> Result<()> {
    let authority = world.authority();
    let ca = authority.ancestors().nth(2).context("the folder of the cluster")?.join("ca");
    let params = node_params("rookery-new")?;
    let issued =
        || Identity::issued("rookery-new", &params, &ca.join("ca.crt"), &ca.join("ca.key"));
    let (new, of_second) = (issued()?, issued()?);
    admin.goto(&world.url(0, "/studio/certificates/server")).await?;
    for (field, identity) in [("#file", &new), ("input[name='file:n2']", &of_second)] {
        let file = admin.profile().downloads().join(format!("{}.pem", identity.thumbprint()));
        fs::write(&file, format!("{}{}", identity.certificate_pem(), identity.key_pem()))?;
        admin.choose_file(field, &file).await?;
    }
    admin.click("#force").await?;
    album.shoot(admin, "2-replacement-filled-in").await?;
    admin.press("Replace").await?;
    admin.shows("main", "n3").await?;
    album.shoot(admin, "3-replacement-begun").await?;
    admin.shows("main", "Last replacement").await?;
    let progress = admin.text("#progress").await?;
    let table = admin.text("main table").await?;
    for (node, short) in [
        ("n1", &new.thumbprint()[..12]),
        ("n2", &of_second.thumbprint()[..12]),
        ("n3", &new.thumbprint()[..12]),
    ] {
        anyhow::ensure!(progress.contains(short), "the page tells {progress:?}");
        let row = table.lines().find(|line| line.contains(node)).unwrap_or_default();
        anyhow::ensure!(row.contains(short), "the table holds {table:?}");
    }
    for (at, node) in world.cluster.nodes.iter_mut().enumerate() {
        node.identity = if at == 1 { of_second.clone() } else { new.clone() };
    }
    album.shoot(admin, "4-replacement-ended").await
}

/// The leadership goes to the second node; the third loses its vote and gets it back.
async fn changes_roles(world: &World, admin: &Browser, album: &mut Album) -> Result<()> {
    let cluster = world.url(0, "/studio/cluster");
    // The name with its tags, and the role: not the buttons, of which one makes a leader.
    let cell = |name: &str, part: &str| {
        let row = format!("//tbody/tr[th[starts-with(normalize-space(), '{name}')]]");
        if part == "leader" { format!("{row}/th") } else { format!("{row}/td[1]") }
    };
    let shows = async |name: &str, part: &str| {
        eventually(&format!("{name} is {part}"), HEAL_LIMIT, async || {
            admin.goto(&cluster).await?;
            let script = format!(
                "return document.evaluate(\"{}\", document, null, XPathResult.STRING_TYPE, null).stringValue",
                cell(name, part)
            );
            let text = admin.script(&script).await?;
            anyhow::ensure!(text.as_str().is_some_and(|it| it.contains(part)), "it is {text}");
            Ok(())
        })
        .await
    };
    for (action, node, name, part) in [
        ("transfer", 2, "n2", "leader"),
        ("demote", 3, "n3", "learner"),
        ("promote", 3, "n3", "voter"),
        ("transfer", 1, "n1", "leader"),
    ] {
        admin.goto(&cluster).await?;
        let link = format!("a[href='/studio/cluster/node?node={node}&action={action}']");
        admin.click(&link).await.with_context(|| format!("{action} {name}"))?;
        let words = admin.text("main form button").await?;
        anyhow::ensure!(words.contains(name), "the button says {words:?}");
        album.shoot(admin, &format!("5-{action}-{name}")).await?;
        admin.click("main form button").await?;
        shows(name, part).await.with_context(|| format!("{action} {name}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_second_factor_is_made_and_opens_sessions_in_a_browser() -> Result<()> {
    if !browser::is_here("a second factor in a browser") {
        return Ok(());
    }
    let mut world = World::start().await?;
    let mut album = Album::new("second-factor")?;
    let holder = world.cluster.register("holder", Clearance::Operator, &[]).await?;
    let first = Browser::open(Profile::with(&world.authority(), &holder)?).await?;
    let secret = makes_it(&world, &first, &mut album).await.context("make")?;
    let second = Browser::open(Profile::with(&world.authority(), &holder)?).await?;
    logs_in(&world, &second, &secret, &mut album).await.context("log in")?;
    // There is one session; the other window is told at its next click, and so is this one after it has logged out.
    first.click(".rail a[href='/studio/databases']").await?;
    first.shows("h1", "Log in").await?;
    second.script("document.querySelector('.bar form').requestSubmit()").await?;
    second.shows("main, .alone", "You are logged out").await?;
    second.goto(&world.url(0, "/studio")).await?;
    second.shows("h1", "Log in").await?;
    first.close().await?;
    second.close().await?;
    world.cluster.finish().await
}

/// On the page of one's own factor; gives the secret.
async fn makes_it(world: &World, browser: &Browser, album: &mut Album) -> Result<String> {
    // A node learns the secret that factors are sealed with a moment after its start.
    eventually("a second factor is made", HEAL_LIMIT, async || {
        browser.goto(&world.url(0, "/studio/second-factor")).await?;
        browser.press("Make a second factor").await?;
        browser.shows("h1", "A second factor for holder").await
    })
    .await?;
    let secret = browser.text("#secret").await?;
    let drawn = browser
        .script("return document.querySelector('svg.qr path:last-child').getBBox().width")
        .await?;
    anyhow::ensure!(
        drawn.as_f64().is_some_and(|width| width > 20.0),
        "the QR code is {drawn} wide"
    );
    album.shoot(browser, "1-made").await?;
    browser.fill("#code", &authenticator::code(&secret, 0)?).await?;
    browser.press("Confirm").await?;
    browser.shows(".head", "in force").await?;
    album.shoot(browser, "2-confirmed").await?;
    Ok(secret)
}

/// In a window that has the certificate and no session: a wrong code, then the right one.
async fn logs_in(world: &World, browser: &Browser, secret: &str, album: &mut Album) -> Result<()> {
    browser.goto(&world.url(1, "/studio/certificates?state=valid")).await?;
    browser.shows("h1", "Log in").await?;
    let before = cookies(browser).await?;
    anyhow::ensure!(before.is_empty(), "before the log-in there are {before:?}");
    browser.fill("#code", "000000").await?;
    browser.press("Log in").await?;
    browser.shows("#wrong", "4 more wrong ones").await?;
    album.shoot(browser, "3-wrong-code").await?;
    browser.fill("#code", &authenticator::code(secret, 1)?).await?;
    browser.press("Log in").await?;
    browser.shows("h1", "Certificates").await?;
    let at = browser.script("return location.pathname + location.search").await?;
    anyhow::ensure!(at == json!("/studio/certificates?state=valid"), "the log-in led to {at}");
    album.shoot(browser, "4-logged-in").await?;
    let cookies = cookies(browser).await?;
    let [cookie] = cookies.as_slice() else { anyhow::bail!("there are {cookies:?}") };
    for (field, expected) in [
        ("httpOnly", json!(true)),
        ("secure", json!(true)),
        ("sameSite", json!("Strict")),
        ("path", json!("/")),
    ] {
        anyhow::ensure!(cookie[field] == expected, "{field} of {cookie}");
    }
    let seen = browser.script("return document.cookie").await?;
    anyhow::ensure!(seen == json!(""), "a script of the page reads {seen}");
    Ok(())
}

async fn cookies(browser: &Browser) -> Result<Vec<serde_json::Value>> {
    let answer = browser.tools("Network.getCookies", json!({})).await?;
    Ok(answer["cookies"].as_array().context("cookies")?.clone())
}
