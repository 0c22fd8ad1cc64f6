//! What no page of ours sends, and what people should never have typed: shown as it is, refused, and nothing changed.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use cluster_tests::{
    browser::{self, Html, Site, html},
    identity::Identity,
};
use http::Method;
use rookery_proto::security::v1::{Access, Clearance};

use crate::{
    pages::{self, PAGES},
    world::{World, put},
};

/// What would run, break out of an attribute, or turn a line around, if a page let it.
const ODD: [&str; 9] = [
    "<script>window.__x=1</script>",
    "\"><img src=x onerror=\"window.__x=1\">",
    "' onmouseover='window.__x=1",
    "</textarea><svg onload=window.__x=1>",
    "{{7*7}} {% raw %} ${7*7}",
    "javascript:window.__x=1",
    "\u{202e}txt.exe\u{202c}",
    "a\u{0}b\u{7}c\u{1b}[31m",
    "\u{feff}\u{200b}\u{2028}line",
];

/// Elements that only markup from outside could make: handlers, foreign scripts, frames, pictures that are not the icon.
const FOREIGN: &str = "[onerror], [onload], [onmouseover], script:not([src^='/studio/assets/']), iframe, \
                       svg:not(.spark, .chart svg), \
                       img:not([src^='/studio/assets/']), a[href^='javascript']";

#[tokio::test]
async fn requests_that_no_page_makes_are_refused_and_change_nothing() -> Result<()> {
    let world = World::start().await?;
    changes_from_other_sites(&world).await.context("other sites")?;
    forged_fields(&world).await.context("forged fields")?;
    stale_versions(&world).await.context("stale versions")?;
    huge_values(&world).await.context("huge values")?;
    wrong_ways_in(&world).await.context("wrong ways in")?;
    every_answer_says_what_browsers_may_do_with_it(&world).await.context("headers")?;
    world.cluster.finish().await
}

#[tokio::test]
async fn markup_and_control_characters_are_shown_and_never_run() -> Result<()> {
    let world = World::start().await?;
    let paths = planted(&world).await.context("planting")?;
    let mut site = world.site("cluster-admin")?;
    for path in &paths {
        let answer = site.get(path).await?;
        foreign(path, &answer.text())?;
    }
    if browser::is_here("markup in a browser") {
        nothing_runs(&world, &paths).await.context("in a browser")?;
    }
    world.cluster.finish().await
}

/// Fails where a page holds elements that did not come from a template.
fn foreign(path: &str, text: &str) -> Result<()> {
    let count = html::count(text, FOREIGN);
    anyhow::ensure!(count == 0, "{path} holds {count} foreign elements");
    Ok(())
}

/// Puts odd words wherever words can be put; gives the pages that show them.
async fn planted(world: &World) -> Result<Vec<String>> {
    let admin = world.cluster.admin(0)?;
    let mut site = world.site("cluster-admin")?;
    let mut paths: Vec<String> =
        ["/studio", "/studio/certificates", "/studio/audit"].map(str::to_owned).to_vec();
    let (mut taken, mut refused) = (0, 0);
    for (at, odd) in ODD.into_iter().enumerate() {
        let pem = Identity::new(&format!("odd {at}"))?.certificate_pem();
        let fields = [
            ("pem", pem.as_str()),
            ("name", odd),
            ("clearance", "user"),
            ("note", odd),
            ("owner", odd),
            ("grant:sales", "read"),
        ];
        let answer = site.post("/studio/certificates/register", &fields).await?;
        foreign("the answer to a registration", &answer.text())?;
        match answer.status {
            200 => taken += 1,
            400 => refused += 1,
            status => anyhow::bail!("{odd:?} as a name: {status}"),
        }
        // Whatever a field holds comes back in the form, as text.
        for path in
            ["/studio/certificates/generate", "/studio/databases/create", "/studio/document"]
        {
            let fields = [("name", odd), ("db", "sales"), ("id", ""), ("json", odd), ("days", odd)];
            let answer = site.post(path, &fields).await?;
            anyhow::ensure!(answer.status == 400, "{path} with {odd:?}: {}", answer.status);
            foreign(path, &answer.text())?;
        }
        let json = serde_json::json!({ odd: odd, "list": [odd], "customer": odd }).to_string();
        let id = format!("odd/{at}/{}", odd.replace(|it: char| it.is_control(), ""));
        if put(&admin, "sales", &id, "odd", &json).await.is_ok() {
            taken += 1;
            paths.push(document(&id));
        }
        let query: String = form_urlencoded::byte_serialize(odd.as_bytes()).collect();
        paths.push(format!("/studio/certificates?q={query}&database={query}"));
        paths.push(format!("/studio/documents?db=sales&prefix={query}&columns={query}"));
        paths.push(format!("/studio/documents/create?db={query}&collection={query}"));
        paths.push(format!("/studio/database/delete?db={query}"));
        paths.push(format!("/studio/audit?actor={query}&target={query}"));
    }
    anyhow::ensure!(taken > ODD.len(), "only {taken} odd words were taken, {refused} refused");
    for certificate in world.certificates("").await? {
        let t = &certificate.thumbprint;
        for page in ["", "/edit", "/clone", "/delete"] {
            paths.push(format!("/studio/certificate{page}?t={t}"));
        }
    }
    paths.push("/studio/documents?db=sales&prefix=odd/".to_owned());
    paths.push("/studio/database?db=sales".to_owned());
    Ok(paths)
}

fn document(id: &str) -> String {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("/studio/document?db=sales&id={id}")
}

async fn nothing_runs(world: &World, paths: &[String]) -> Result<()> {
    let admin = world.browser("cluster-admin").await?;
    for path in paths {
        admin.goto(&world.url(0, path)).await?;
        let ran = admin.script("return typeof window.__x").await?;
        anyhow::ensure!(ran == "undefined", "a script ran on {path}");
        let console = admin.console().await?;
        let violations: Vec<_> =
            console.iter().filter(|line| line.contains("Content Security Policy")).collect();
        anyhow::ensure!(violations.is_empty(), "{path}: {violations:?}");
    }
    // Shown as it is: the reader sees the very characters.
    admin.goto(&world.url(0, "/studio/certificates?q=window.__x")).await?;
    admin.shows("main", "<script>window.__x=1</script>").await?;
    another_site_posts(world, &admin).await.context("a page of another site")?;
    admin.close().await
}

/// A page of another site sends a form here, with the visitor's certificate.
async fn another_site_posts(world: &World, admin: &browser::Browser) -> Result<()> {
    let target = world.certificate("target-user").await?.thumbprint;
    let action = world.url(0, "/studio/certificate/delete");
    let page = format!(
        "<!doctype html><title>Elsewhere</title><form method=post action='{action}'>\
         <input type=hidden name=t value='{target}'><button id=go>Win a prize</button></form>"
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let elsewhere = format!("http://localhost:{}/", listener.local_addr()?.port());
    let pages = axum::Router::new()
        .fallback(move || std::future::ready(axum::response::Html(page.clone())));
    let server = tokio::spawn(async move { axum::serve(listener, pages).await });
    let before = world.state().await?;
    admin.goto(&elsewhere).await?;
    admin.click("#go").await?;
    admin.shows("body", "another site").await?;
    server.abort();
    anyhow::ensure!(world.state().await? == before, "it changed something");
    Ok(())
}

/// Every combination of headers that is not a page of this origin.
async fn changes_from_other_sites(world: &World) -> Result<()> {
    let mut site = world.site("cluster-admin")?;
    let target = world.certificate("target-user").await?.thumbprint;
    let body = Bytes::from(format!("t={target}"));
    let own = site.origin();
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let before = world.state().await?;
    for headers in [
        vec![],
        vec![("origin", "https://evil.example")],
        vec![("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
        vec![("origin", "null")],
        vec![("origin", "null"), ("sec-fetch-site", "same-origin")],
        vec![("origin", own.as_str()), ("sec-fetch-site", "cross-site")],
        vec![("origin", own.as_str()), ("sec-fetch-site", "same-site")],
        vec![("origin", own.as_str()), ("sec-fetch-site", "none")],
        vec![("sec-fetch-site", "cross-site")],
        vec![("referer", own.as_str())],
    ] {
        let sent = [headers.clone(), vec![kind]].concat();
        for path in ["/studio/certificate/delete", "/studio/certificates/purge"] {
            let answer = site.send(Method::POST, path, &sent, body.clone()).await?;
            anyhow::ensure!(answer.status == 403, "{path} {headers:?}: {}", answer.status);
        }
    }
    anyhow::ensure!(world.state().await? == before, "something was changed");
    // The same from here is taken, so what refused it was where it came from.
    let answer = site.post("/studio/certificate/delete", &[("t", &target)]).await?;
    anyhow::ensure!(answer.status == 303, "from here: {}", answer.status);
    let renewed = Identity::new("target-user")?;
    world.cluster.admin(0)?.register(&renewed, Clearance::User, &[("sales", Access::Read)]).await?;
    Ok(())
}

/// Fields that the page would not have sent.
async fn forged_fields(world: &World) -> Result<()> {
    let before = world.state().await?;
    let user = world.certificate("target-user").await?;
    let own = world.certificate("operator").await?;
    let (t, etag) = (user.thumbprint.as_str(), user.etag.as_str());
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u16]);
    let cases: [Case<'_>; 9] = [
        // An Operator who raises somebody, and themselves.
        (
            "operator",
            "/studio/certificate/edit",
            &[
                ("t", t),
                ("etag", etag),
                ("name", "x"),
                ("clearance", "cluster-admin"),
                ("confirmed", etag),
            ],
            &[403],
        ),
        (
            "operator",
            "/studio/certificate/edit",
            &[
                ("t", &own.thumbprint),
                ("etag", &own.etag),
                ("name", "x"),
                ("clearance", "cluster-admin"),
                ("confirmed", &own.etag),
            ],
            &[403],
        ),
        (
            "operator",
            "/studio/certificates/generate",
            &[("name", "x"), ("clearance", "cluster-admin"), ("days", "1")],
            &[403],
        ),
        (
            "operator",
            "/studio/certificates/generate",
            &[("name", "x"), ("clearance", "cluster-node"), ("days", "1")],
            &[400, 403],
        ),
        // Nothing that the form offers.
        (
            "operator",
            "/studio/certificates/generate",
            &[("name", "x"), ("clearance", "root"), ("days", "1")],
            &[400],
        ),
        ("operator", "/studio/certificates/generate", &[("name", "x"), ("days", "1")], &[400]),
        (
            "operator",
            "/studio/certificates/generate",
            &[("name", "x"), ("clearance", "user"), ("days", "1"), ("grant:missing", "admin")],
            &[400, 404],
        ),
        // A widening without its confirmation, and with that of another version: asked again.
        (
            "operator",
            "/studio/certificate/edit",
            &[
                ("t", t),
                ("etag", etag),
                ("name", "x"),
                ("clearance", "user"),
                ("grant:sales", "admin"),
            ],
            &[200],
        ),
        (
            "operator",
            "/studio/certificate/edit",
            &[
                ("t", t),
                ("etag", etag),
                ("name", "x"),
                ("clearance", "user"),
                ("grant:sales", "admin"),
                ("confirmed", "old"),
            ],
            &[200],
        ),
    ];
    for (name, path, fields, expected) in cases {
        let answer = world.site(name)?.post(path, fields).await?;
        let status = answer.status;
        anyhow::ensure!(expected.contains(&status), "{name} {path} {fields:?}: {status}");
        let page = Html::read(&answer.text());
        let told = page.text.contains("Nothing was changed");
        anyhow::ensure!(told, "{name} {path} {fields:?}: it says {:?}", page.text);
    }
    // One field twice is no way around either.
    let mut site = world.site("operator")?;
    let fields =
        [("name", "x"), ("clearance", "user"), ("clearance", "cluster-admin"), ("days", "1")];
    let answer = site.post("/studio/certificates/generate", &fields).await?;
    anyhow::ensure!((400..500).contains(&answer.status), "a field twice: {}", answer.status);
    anyhow::ensure!(world.state().await? == before, "something was changed");
    Ok(())
}

/// A version that is no longer the newest.
async fn stale_versions(world: &World) -> Result<()> {
    let mut site = world.site("cluster-admin")?;
    let admin = world.cluster.admin(0)?;
    let old = world.certificate("target-user").await?;
    let etag_read = put(&admin, "sales", "stale", "orders", "{\"v\":1}").await?;
    let fields = [
        ("t", old.thumbprint.as_str()),
        ("etag", &old.etag),
        ("name", "target-user"),
        ("clearance", "user"),
        ("note", "first"),
        ("grant:sales", "read"),
    ];
    let edited = site.post("/studio/certificate/edit", &fields).await?;
    anyhow::ensure!(edited.status == 303, "the first edit: {}", edited.status);
    put(&admin, "sales", "stale", "orders", "{\"v\":2}").await?;
    let before = world.state().await?;
    let (t, etag) = (old.thumbprint.as_str(), old.etag.as_str());
    let second = [
        ("t", t),
        ("etag", etag),
        ("name", "target-user"),
        ("clearance", "user"),
        ("note", "second"),
        ("grant:sales", "read"),
    ];
    let document =
        [("db", "sales"), ("id", "stale"), ("etag", etag_read.as_str()), ("json", "{\"mine\":3}")];
    for (path, fields, shows) in [
        ("/studio/certificate/edit", &second[..], "second"),
        ("/studio/certificate/state", &[("t", t), ("etag", etag), ("to", "disabled")], ""),
        (
            "/studio/database/access",
            &[("db", "sales"), ("t", t), ("etag", etag), ("access", "admin")],
            "",
        ),
        ("/studio/document", &document, "{\"mine\":3}"),
        ("/studio/document/delete", &document[..3], ""),
    ] {
        let answer = site.post(path, fields).await?;
        anyhow::ensure!(answer.status == 409, "{path}: {}", answer.status);
        let text = answer.text();
        let escaped = shows.replace('"', "&#34;");
        anyhow::ensure!(text.contains(&escaped), "{path} has lost {shows:?}");
        anyhow::ensure!(text.contains("Nothing was changed"), "{path} does not say so");
        if path == "/studio/document" {
            anyhow::ensure!(text.contains("&#34;v&#34;: 2"), "{path} does not show what is there");
        }
    }
    anyhow::ensure!(world.state().await? == before, "something was changed");
    Ok(())
}

/// Ten megabytes where a word belongs, and where a document belongs.
async fn huge_values(world: &World) -> Result<()> {
    let mut site = world.site("cluster-admin")?;
    let huge = "x".repeat(10 * 1024 * 1024);
    let before = world.state().await?;
    for (path, fields) in [
        (
            "/studio/certificates/generate",
            &[("name", huge.as_str()), ("clearance", "user"), ("days", "1")][..],
        ),
        ("/studio/databases/create", &[("name", &huge), ("replicas", "1")]),
        ("/studio/certificate/state", &[("t", &huge), ("etag", ""), ("to", "disabled")]),
        ("/studio/certificate/delete", &[("t", &huge)]),
        ("/studio/document", &[("db", "sales"), ("id", &huge), ("json", "{}")]),
        ("/studio/document", &[("db", &huge), ("id", "x"), ("json", "{}")]),
        ("/studio/certificates/register", &[("pem", &huge), ("name", "x"), ("clearance", "user")]),
    ] {
        let answer = site.post(path, fields).await?;
        let status = answer.status;
        anyhow::ensure!((400..500).contains(&status), "{path}: {status}");
        println!("10 MiB to {path}: {status}, answered with {} KiB", answer.body.len() / 1024);
    }
    let answer = site.post_file("/studio/certificates/upload", huge.as_bytes(), &[]).await?;
    anyhow::ensure!(answer.status == 413, "a huge file: {}", answer.status);
    let over = "x".repeat(21 * 1024 * 1024);
    let answer = site.post("/studio/document", &[("db", "sales"), ("json", &over)]).await;
    // The node may hang up on what it does not read.
    let refused = answer.map_or(true, |it| it.status == 413);
    anyhow::ensure!(refused, "a form beyond its bound was taken");
    anyhow::ensure!(world.state().await? == before, "something was changed");

    // A document of that size is stored or refused as such; either way the pages stand.
    let mut site = world.site("cluster-admin")?;
    let json = format!("{{\"long\":\"{huge}\"}}");
    let fields = [("db", "sales"), ("id", "huge"), ("json", json.as_str())];
    let answer = site.post("/studio/document", &fields).await?;
    anyhow::ensure!(matches!(answer.status, 303 | 400 | 413 | 429), "{}", answer.status);
    if answer.status == 303 {
        let list = site.get("/studio/documents?db=sales&prefix=huge").await?;
        anyhow::ensure!(list.status == 200 && list.body.len() < 64 * 1024, "{}", list.body.len());
    }
    Ok(())
}

/// Methods, paths and queries that are none.
async fn wrong_ways_in(world: &World) -> Result<()> {
    let mut site = world.site("cluster-admin")?;
    let before = world.state().await?;
    let origin = site.origin();
    let headers = [("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
    for (method, path, expected) in [
        (Method::GET, "/studio/certificate/state", 405),
        (Method::GET, "/studio/certificates/register", 405),
        (Method::POST, "/studio/certificates", 405),
        (Method::DELETE, "/studio/certificate", 405),
        (Method::PUT, "/studio/document", 405),
        (Method::GET, "/studio/certificate", 400),
        (Method::GET, "/studio/certificate?t=zz", 400),
        (Method::GET, "/studio/document?db=sales", 400),
        (Method::GET, "/studio/document?db=sales&id=missing", 404),
        (Method::GET, "/studio/certificates?page=forged", 400),
        (Method::GET, "/studio/documents?db=sales&page=forged", 400),
        (Method::GET, "/studio/cluster/node?node=3&action=explode", 400),
        (Method::GET, "/studio/cluster/node?node=-1&action=remove", 400),
        (Method::GET, "/studio/assets/style.css", 404),
        (Method::GET, "/studio/assets/..%2f..%2fetc%2fpasswd", 404),
    ] {
        let answer = site.send(method.clone(), path, &headers, Bytes::new()).await?;
        anyhow::ensure!(answer.status == expected, "{method} {path}: {}", answer.status);
    }
    anyhow::ensure!(world.state().await? == before, "something was changed");
    Ok(())
}

/// The headers that keep other sites out, on pages, refusals and files alike.
async fn every_answer_says_what_browsers_may_do_with_it(world: &World) -> Result<()> {
    let place = pages::paths(world).await?;
    let style = style_of(&mut world.site("none")?).await?;
    let paths = PAGES.iter().map(|page| place(page.path)).chain([style]);
    let mut sites = [world.site("cluster-admin")?, world.site("read")?, world.site("none")?];
    for path in paths {
        for site in &mut sites {
            let answer = site.get(&path).await?;
            let policy = answer.header("content-security-policy");
            anyhow::ensure!(policy.contains("default-src 'self'"), "{path}: {policy:?}");
            anyhow::ensure!(policy.contains("frame-ancestors 'none'"), "{path}: {policy:?}");
            anyhow::ensure!(!policy.contains("unsafe"), "{path}: {policy:?}");
            let sniff = answer.header("x-content-type-options");
            anyhow::ensure!(sniff == "nosniff", "{path}: {sniff:?}");
            let inline = html::count(&answer.text(), "style, [style], script:not([src])");
            anyhow::ensure!(inline == 0, "{path}: {inline} inline styles or scripts");
        }
    }
    Ok(())
}

/// The path of the stylesheet, as the page of somebody without a certificate names it.
async fn style_of(site: &mut Site) -> Result<String> {
    let page = site.get("/studio").await?.text();
    html::attribute(&page, "link[rel=stylesheet]", "href").context("a stylesheet")
}
