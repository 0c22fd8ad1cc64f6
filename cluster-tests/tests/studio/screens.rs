//! Every page in a real browser: pictures for people, and what can be judged without them.
//!
//! Each page is shown wide and narrow, light and dark. A script in the page looks for what a reader would stumble over
//! (`cluster_tests::browser`, `look.js`); the pictures are in `studio-screenshots` of the target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cluster_tests::{
    browser::{self, Browser, NARROW, Theme, WIDE},
    identity::Identity,
};

use crate::{
    pages::{self, PAGES},
    world::{World, put},
};

/// Pictures of one test, and what was found while they were taken.
pub struct Album {
    folder: PathBuf,
    problems: Vec<String>,
    contrast_lowest: f64,
    texts: u64,
    pictures: usize,
}

impl Album {
    /// An empty one; pictures of an earlier run are gone.
    pub fn new(name: &str) -> Result<Self> {
        let folder = browser::screenshots().join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, problems: Vec::new(), contrast_lowest: 21.0, texts: 0, pictures: 0 })
    }

    /// Where the pictures are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A picture of what is shown.
    pub async fn shoot(&mut self, browser: &Browser, name: &str) -> Result<()> {
        self.pictures += 1;
        browser.shoot(&self.folder.join(format!("{name}.png"))).await
    }

    /// Opens a page and looks at it in every size and theme.
    async fn page(&mut self, browser: &Browser, name: &str, url: &str) -> Result<()> {
        for size in [NARROW, WIDE] {
            browser.resize(size).await?;
            browser.goto(url).await?;
            self.themes(browser, name, size).await?;
        }
        self.keyboard(browser, name).await
    }

    /// Looks at what is shown already, which cannot be opened again, in every size and theme.
    async fn shown(&mut self, browser: &Browser, name: &str) -> Result<()> {
        // The width that it was loaded at comes first: what moves afterwards moves because of the test.
        self.themes(browser, name, WIDE).await?;
        self.keyboard(browser, name).await?;
        browser.resize(NARROW).await?;
        for theme in [Theme::Light, Theme::Dark] {
            browser.prefer(theme).await?;
            let found = browser.look(NARROW, theme).await?;
            self.note(name, found.problems.into_iter().filter(|it| !it.contains("moved while")));
            self.shoot(browser, &format!("{name}-{}-narrow", theme.name())).await?;
        }
        browser.resize(WIDE).await
    }

    async fn themes(&mut self, browser: &Browser, name: &str, size: browser::Size) -> Result<()> {
        for theme in [Theme::Light, Theme::Dark] {
            browser.prefer(theme).await?;
            let found = browser.look(size, theme).await.with_context(|| name.to_owned())?;
            self.contrast_lowest = self.contrast_lowest.min(found.contrast_lowest);
            self.texts += found.texts;
            self.note(name, found.problems);
            self.shoot(browser, &format!("{name}-{}-{}", theme.name(), size.name)).await?;
        }
        Ok(())
    }

    async fn keyboard(&mut self, browser: &Browser, name: &str) -> Result<()> {
        let left = browser.not_reached_by_keyboard().await.with_context(|| name.to_owned())?;
        self.note(name, left.into_iter().map(|it| format!("not reached with Tab: {it}")));
        Ok(())
    }

    fn note(&mut self, name: &str, problems: impl IntoIterator<Item = String>) {
        self.problems.extend(problems.into_iter().map(|it| format!("{name}: {it}")));
    }

    /// Tells what was found, and fails where that is something.
    fn judge(self) -> Result<()> {
        let Self { folder, problems, contrast_lowest, texts, pictures } = self;
        println!(
            "{pictures} screenshots in {}; {texts} texts measured, lowest contrast {contrast_lowest:.2}",
            folder.display()
        );
        let count = problems.len();
        anyhow::ensure!(count == 0, "{count} problems:\n{}", problems.join("\n"));
        Ok(())
    }
}

#[tokio::test]
async fn every_page_is_legible_labelled_and_still_in_every_size_and_theme() -> Result<()> {
    if !browser::is_here("the pages in a browser") {
        return Ok(());
    }
    let world = World::start().await?;
    let mut album = Album::new("pages")?;
    let place = pages::paths(&world).await?;
    let admin = world.browser("cluster-admin").await?;
    for page in PAGES {
        let url = world.url(0, &place(page.path));
        album.page(&admin, page.name, &url).await.with_context(|| page.name)?;
    }
    let reader = world.browser("read").await?;
    for page in PAGES.iter().filter(|page| SEEN_BY_A_READER.contains(&page.name)) {
        let url = world.url(0, &place(page.path));
        let name = format!("reader-{}", page.name);
        album.page(&reader, &name, &url).await.with_context(|| name.clone())?;
    }
    reader.close().await?;
    for name in ["none", "unknown", "expired", "disabled"] {
        let visitor = world.browser(name).await?;
        let name = format!("not-let-in-{name}");
        album
            .page(&visitor, &name, &world.url(0, "/studio"))
            .await
            .with_context(|| name.clone())?;
        visitor.close().await?;
    }
    // Samples are taken every 15 seconds: by now the charts have lines.
    album.page(&admin, "overview-with-charts", &world.url(0, "/studio")).await?;
    // The last: a purge takes the expired certificate along.
    answers_of_forms(&world, &admin, &mut album).await.context("answers of forms")?;
    admin.close().await?;
    album.judge()?;
    world.cluster.finish().await
}

/// Pages that look otherwise to a User.
const SEEN_BY_A_READER: [&str; 5] =
    ["overview", "certificates", "databases", "document", "cluster"];

/// The pages that only a form leads to.
async fn answers_of_forms(world: &World, admin: &Browser, album: &mut Album) -> Result<()> {
    let file = world.cluster.folder().join("upload.pem");
    std::fs::write(&file, Identity::new("uploaded")?.certificate_pem())?;
    admin.goto(&world.url(0, "/studio/certificates/upload")).await?;
    admin.choose_file("#file", &file).await?;
    admin.press("Look into it").await?;
    admin.shows("h1", "Register this certificate").await?;
    album.shown(admin, "certificates-uploading").await?;
    admin.fill("#name", "uploaded here").await?;
    admin.click("#operator").await?;
    admin.press("Register").await?;
    admin.shows("h1", "is registered").await?;
    album.shown(admin, "certificates-uploaded").await?;

    admin.goto(&world.url(0, "/studio/certificates/generate")).await?;
    admin.fill("#name", "generated here").await?;
    admin.click("#user").await?;
    admin.press("Generate").await?;
    admin.shows("h1", "was generated").await?;
    album.shown(admin, "certificates-generated").await?;

    let user = world.certificate("target-user").await?.thumbprint;
    admin.goto(&world.url(0, &format!("/studio/certificate/edit?t={user}"))).await?;
    admin.click("input[name='grant:sales'][value='admin']").await?;
    admin.press("Save").await?;
    admin.shows("main", "This gives the holder more rights").await?;
    album.shown(admin, "certificate-edit-to-be-confirmed").await?;

    admin.goto(&world.url(0, "/studio/documents/create?db=sales")).await?;
    admin.fill("#id", "orders/1").await?;
    admin.fill("#json", "{\"mine\": true}").await?;
    admin.press("Save").await?;
    admin.shows("main", "Somebody else stored this document").await?;
    album.shown(admin, "document-conflict").await?;

    admin.goto(&world.url(0, "/studio/cluster")).await?;
    admin.press("Make a token").await?;
    admin.shows("h1", "A join token").await?;
    album.shown(admin, "cluster-token").await?;

    admin.goto(&world.url(0, "/studio/audit")).await?;
    admin.press("Verify").await?;
    admin.shows("main", "The chain is intact").await?;
    album.shown(admin, "audit-verified").await?;

    admin.goto(&world.url(0, "/studio/certificates/purge")).await?;
    admin.press("Purge").await?;
    admin.shows("main", "deleted").await?;
    album.shown(admin, "certificates-purged").await?;

    // The page of a call that failed, within the frame; the console names its status, which is what it is for.
    admin.goto(&world.url(0, "/studio/database?db=missing")).await?;
    admin.console().await?;
    album.shown(admin, "refused").await?;
    new_records_come_by_themselves(world, admin).await
}

/// The table of the audit log follows, until it is paused.
async fn new_records_come_by_themselves(world: &World, admin: &Browser) -> Result<()> {
    admin.goto(&world.url(0, "/studio/audit?operation=create-join-token")).await?;
    admin.press("Follow").await?;
    admin.shows("#live", "Pause").await?;
    let rows = "return document.querySelectorAll('#records tr').length";
    let before = admin.script(rows).await?;
    let mut other = world.site("cluster-admin")?;
    cluster_tests::wait::eventually(
        "a new record is shown",
        std::time::Duration::from_secs(15),
        async || {
            // Again each time: the first may be older than the stream.
            other.post("/studio/cluster/token", &[("minutes", "60")]).await?;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            let now = admin.script(rows).await?;
            anyhow::ensure!(now.as_u64() > before.as_u64(), "{now} rows after {before}");
            Ok(())
        },
    )
    .await?;
    admin.click("#live").await?;
    admin.shows("#live", "Follow").await.map(drop)?;
    put(&world.cluster.admin(0)?, "sales", "orders/1", "orders", "{}").await.map(drop)
}
