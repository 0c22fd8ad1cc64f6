//! The journey of a certificate, in two windows: made and downloaded in one, imported and used in the other, taken away
//! again in the first.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use cluster_tests::{
    browser::{self, Browser, Profile},
    identity::package_entry,
};

use crate::{screens::Album, world::World};

#[tokio::test]
async fn a_certificate_is_generated_downloaded_used_and_revoked_in_two_windows() -> Result<()> {
    if !browser::is_here("the journey of a certificate in a browser") {
        return Ok(());
    }
    let world = World::start().await?;
    let mut album = Album::new("journey")?;
    let admin = world.browser("cluster-admin").await?;
    let (package, password) = generated(&world, &admin, &mut album).await.context("generate")?;
    let user = imported(&world, &package, &password).await.context("import")?;
    sees_exactly_what_it_may(&world, &user, &mut album).await.context("look around")?;
    loses_its_rights_at_the_next_click(&world, &admin, &user, &mut album)
        .await
        .context("revoke")?;
    user.close().await?;
    admin.close().await?;
    println!("screenshots: {}", album.folder().display());
    world.cluster.finish().await
}

/// The holder's name: with what would be markup.
const NAME: &str = "Invoices & <b>reading</b>";

/// Fills the form in, downloads the package, and takes the password off the page.
async fn generated(world: &World, admin: &Browser, album: &mut Album) -> Result<(Vec<u8>, String)> {
    admin.goto(&world.url(0, "/studio/certificates")).await?;
    admin.press("Generate").await?;
    admin.shows("h1", "Generate a client certificate").await?;
    admin.fill("#name", NAME).await?;
    admin.click("#user").await?;
    admin.click("input[name='grant:sales'][value='read']").await?;
    admin.fill("#days", "30").await?;
    album.shoot(admin, "1-form-filled-in").await?;
    admin.press("Generate").await?;
    admin.shows("h1", "was generated").await?;
    album.shoot(admin, "2-generated").await?;
    let shown = admin.text("#password").await?;
    let password = shown.split_whitespace().next().context("a password on the page")?.to_owned();
    admin.click("#download").await?;
    let file = admin.downloaded(".zip").await?;
    let package = fs::read(file)?;
    // Shown once: the page is not to be had again.
    admin.goto(&world.url(0, "/studio/certificates?q=Invoices")).await?;
    let list = admin.shows("main", NAME).await?;
    anyhow::ensure!(list.contains("sales · Read"), "the list shows {list}");
    Ok((package, password))
}

/// A new profile with what was downloaded.
async fn imported(world: &World, package: &[u8], password: &str) -> Result<Browser> {
    let profile = Profile::new(&world.authority())?;
    let file = profile.downloads().join("package.pfx");
    fs::write(&file, package_entry(package, ".pfx")?)?;
    anyhow::ensure!(profile.import(Path::new(&file), "wrong").is_err(), "any password opens it");
    profile.import(Path::new(&file), password)?;
    Browser::open(profile).await
}

/// On another node than the one that made it.
async fn sees_exactly_what_it_may(world: &World, user: &Browser, album: &mut Album) -> Result<()> {
    user.goto(&world.url(1, "/studio")).await?;
    let bar = user.text(".bar").await?;
    anyhow::ensure!(bar.contains(NAME) && bar.contains("User"), "the bar says {bar:?}");
    anyhow::ensure!(bar.contains("node n2"), "the bar says {bar:?}");
    album.shoot(user, "3-overview-of-the-user").await?;

    user.click(".rail a[href='/studio/databases']").await?;
    let table = user.shows("main table", "sales").await?;
    anyhow::ensure!(table.contains("Read") && !table.contains("other"), "the table says {table:?}");
    let why =
        user.script("return document.querySelector('main .head button:disabled').title").await?;
    anyhow::ensure!(why.as_str().is_some_and(|it| it.contains("B1.16a")), "{why}");
    album.shoot(user, "4-databases-of-the-user").await?;

    user.press("Documents").await?;
    user.shows("main table", "orders/1").await?;
    user.goto(&world.url(1, "/studio/document?db=sales&id=orders/1")).await?;
    user.shows("h1", "orders/1").await?;
    user.goto(&world.url(1, "/studio/document?db=other&id=orders/1")).await?;
    user.shows("main", "DATABASE_ACCESS_DENIED").await?;
    let rail = user.script("return document.querySelector('.rail li > span').title").await?;
    anyhow::ensure!(rail.as_str().is_some_and(|it| it.contains("Operator clearance")), "{rail}");
    user.goto(&world.url(1, "/studio/certificates")).await?;
    user.shows("main", "CLEARANCE_TOO_LOW").await?;
    album.shoot(user, "5-certificates-refused").await
}

/// Disabled, enabled, deleted in one window; each time the other is told at its next click.
async fn loses_its_rights_at_the_next_click(
    world: &World,
    admin: &Browser,
    user: &Browser,
    album: &mut Album,
) -> Result<()> {
    let databases = ".rail a[href='/studio/databases']";
    let thumbprint = world.certificate(NAME).await?.thumbprint;
    admin.goto(&world.url(0, &format!("/studio/certificate?t={thumbprint}"))).await?;
    user.goto(&world.url(1, "/studio")).await?;
    admin.press("Disable").await?;
    admin.shows(".head .tag", "disabled").await?;
    user.click(databases).await?;
    user.shows("h1", "Disabled certificate").await?;
    album.shoot(user, "6-disabled").await?;

    admin.press("Enable").await?;
    admin.shows(".head", "Disable").await?;
    user.goto(&world.url(1, "/studio")).await?;
    user.shows("h1", "Overview").await?;

    admin.press("Delete").await?;
    admin.shows("h1", "Delete Invoices").await?;
    album.shoot(admin, "7-delete").await?;
    admin.press("Delete this certificate").await?;
    admin.shows("h1", "Certificates").await?;
    user.click(databases).await?;
    let page = user.shows("main", "Unknown certificate").await?;
    anyhow::ensure!(page.contains(&thumbprint), "without the thumbprint to tell: {page}");
    album.shoot(user, "8-deleted").await?;
    let on = user.script("return document.querySelectorAll('.rail').length").await?;
    anyhow::ensure!(on == 0, "the frame is still there");
    Ok(())
}
