//! The Studio over real TLS, with the real router and the real state machines: who is let in, what every answer carries, and
//! the way of somebody who has a second factor.

mod certificates;

use rookery_proto::{
    log::v1::{self as log, ClusterCommand, cluster_command::Command},
    security::v1::{self as security, Clearance},
};

use super::{fake::Mood, *};
use crate::{edge::engine::Engine as _, second_factor};

/// A browser without a screen: it keeps one cookie and says where its requests come from.
struct Browser {
    client: Client,
    cookie: Option<String>,
}

/// What it was answered.
struct Shown {
    what: String,
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Shown {
    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn has(&self, status: u16, part: &str) -> &Self {
        let text = self.text();
        assert_eq!(self.status, status, "{}: {text}", self.what);
        assert!(text.contains(part), "{}: no {part:?} in\n{text}", self.what);
        self
    }

    /// A redirection to this address.
    #[track_caller]
    fn leads_to(&self, location: &str) -> &Self {
        assert_eq!((self.status, self.header("location")), (303, location), "{}", self.what);
        self
    }
}

impl Browser {
    async fn of(fixture: &Fixture, who: Option<&TlsIdentity>) -> Self {
        Self { client: fixture.connect(who).await, cookie: None }
    }

    async fn get(&mut self, path: &str) -> Shown {
        self.ask("GET", path, &[("sec-fetch-site", "same-origin")], "").await
    }

    /// A form of a page of this origin.
    async fn post(&mut self, path: &str, form: &str) -> Shown {
        let origin = format!("https://{}", self.client.address);
        let headers = [
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.ask("POST", path, &headers, form).await
    }

    async fn ask(&mut self, method: &str, path: &str, with: &[(&str, &str)], body: &str) -> Shown {
        let uri = format!("https://{}{path}", self.client.address);
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in with {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let body = tonic::body::Body::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        let sent = self.client.sender.clone().send_request(request.body(body).unwrap()).await;
        let (head, body) = sent.unwrap().into_parts();
        if let Some(set) = head.headers.get("set-cookie") {
            let set = set.to_str().unwrap();
            let kept = set.split(';').next().unwrap().to_owned();
            self.cookie = (!set.contains("Max-Age=0")).then_some(kept);
        }
        let body = body.collect().await.unwrap().to_bytes();
        let what = format!("{method} {path} {with:?}");
        Shown { what, status: head.status.as_u16(), headers: head.headers, body }
    }
}

/// What keeps other sites out stands on every answer.
#[track_caller]
fn is_guarded(shown: &Shown, is_asset: bool) {
    let what = &shown.what;
    let policy = shown.header("content-security-policy");
    for part in
        ["default-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(part), "{what}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{what}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        assert_eq!(shown.header(name), value, "{what}: {name}");
    }
    assert!(shown.header("permissions-policy").contains("camera=()"), "{what}");
    let kept = shown.header("cache-control");
    assert_eq!(kept == "no-store", !is_asset, "{what}: {kept}");
    if shown.status != 303 && !is_asset {
        assert_eq!(shown.header("content-type"), "text/html; charset=utf-8", "{what}");
        assert!(shown.text().starts_with("<!doctype html>"), "{what}: {}", shown.text());
        for inline in ["<style", " style=\"", "<script>", " onclick", "javascript:"] {
            assert!(!shown.text().contains(inline), "{what}: {inline}");
        }
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");
const OTHER: (&str, &str) = ("sec-fetch-site", "cross-site");
const MULTIPART: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_a_page_and_keeps_other_sites_out() {
    let fixture = Fixture::start();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let long = format!("t={}", "a".repeat(crate::limits::STUDIO_FORM_BYTES_MAX));
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let cases: [Case<'_>; 20] = [
        ("GET", "/studio", &[], "", 200, "Overview"),
        ("GET", "/studio/certificates?q=%3Cscript%3E", &[], "", 200, "Registered certificates"),
        ("GET", "/studio/", &[], "", 404, "No such page"),
        ("GET", "/studio/nothing", &[], "", 404, "No such page"),
        ("GET", "/studio/certificates/../../etc/passwd", &[], "", 404, "No such page"),
        ("GET", "/studio/certificate", &[], "", 400, "Not understood"),
        ("GET", "/studio/certificate?t=zz", &[], "", 400, "thumbprint"),
        ("GET", "/studio/cluster/node?node=x&action=remove", &[], "", 400, "Not understood"),
        ("GET", "/studio/log-out", &[], "", 405, "Not taken"),
        ("POST", "/studio", &[OWN, FORM], "", 405, "Not taken"),
        ("PUT", "/studio/certificates", &[OWN], "", 405, "Not taken"),
        ("BREW", "/studio/certificates", &[OWN], "", 405, "Not taken"),
        ("POST", "/studio/certificate/delete", &[OWN, FORM], "x=y", 422, "Not understood"),
        ("POST", "/studio/certificate/delete", &[OWN, FORM], "t=%ff%fe", 400, "thumbprint"),
        ("POST", "/studio/certificate/delete", &[OWN], "t=ab", 415, "Not understood"),
        ("POST", "/studio/certificate/delete", &[OWN, FORM], &long, 413, "Too large"),
        ("POST", "/studio/certificates/upload", &[OWN, FORM], "a=b", 415, "no form with files"),
        (
            "POST",
            "/studio/certificates/upload",
            &[OWN, MULTIPART],
            "--b\r\n",
            400,
            "ends too early",
        ),
        ("POST", "/studio/certificate/delete", &[FORM], "t=ab", 403, "which page it came from"),
        ("POST", "/studio/certificate/delete", &[OTHER, FORM], "t=ab", 403, "another site"),
    ];
    for (method, path, headers, body, status, part) in cases {
        let shown = root.ask(method, path, headers, body).await;
        is_guarded(shown.has(status, part), false);
        let in_frame = shown.text().contains("class=\"rail\"");
        assert_eq!(in_frame, status != 403, "{}", shown.what);
        if status == 405 {
            assert!(!shown.header("allow").is_empty(), "{}", shown.what);
        }
        assert!(!shown.text().contains("Failed to deserialize"), "{}", shown.what);
    }
    let style = crate::studio::assets::style();
    is_guarded(root.get(&style).await.has(200, ":root"), true);
    is_guarded(root.get("/studio/assets/nothing.css").await.has(404, "No such file"), false);
}

/// What a page of any site can have a browser send, with the visitor's certificate: no content type, or one that needs no
/// leave of the other side.
#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_any_site_reaches_a_service() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    let fixture = Fixture::start();
    let alice = identity("alice");
    fixture.register(&alice, Clearance::Operator, &[]).await;
    let thumbprint = alice.thumbprint().to_string();
    // A message of 66 bytes with a field of 64: the thumbprint.
    let message = format!("\0\0\0\0\u{42}\u{a}\u{40}{thumbprint}");
    let path = "/rookery.security.v1.SecurityService/DeleteCertificate";
    let shown = format!("/studio/certificate?t={thumbprint}");
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let sent: [&[(&str, &str)]; 8] = [
        &[],
        &[OTHER],
        &[FORM],
        &[("content-type", "text/plain")],
        &[("content-type", "application/grpc-web")],
        &[GRPC, OTHER],
        &[GRPC, OWN],
        &[GRPC, ("origin", "https://elsewhere.example")],
    ];
    for headers in sent {
        root.ask("POST", path, headers, &message).await.has(415, "Nothing was changed");
        root.get(&shown).await.has(200, &thumbprint);
    }
    // The same bytes of a gRPC client do what they say.
    let answer = fixture.as_root().await.raw(path, &[], message.as_bytes()).await;
    assert_eq!(answer.code, tonic::Code::Ok, "{answer:?}");
    root.get(&shown).await.has(404, "Not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_reads_why_and_changes_nothing() {
    let fixture = Fixture::start();
    let (stranger, alice) = (identity("stranger"), identity("alice"));
    fixture.register(&alice, Clearance::Operator, &[]).await;
    let disable = security::DisableCertificateRequest {
        thumbprint: alice.thumbprint().to_string(),
        ..Default::default()
    };
    fixture.as_root().await.security().disable_certificate(disable).await.unwrap();
    for (who, title) in [
        (None, "No certificate"),
        (Some(&stranger), "Unknown certificate"),
        (Some(&alice), "Disabled certificate"),
    ] {
        let mut browser = Browser::of(&fixture, who).await;
        for path in [
            "/studio",
            "/studio/nothing",
            "/studio/log-in",
            "/studio/second-factor",
            "/studio/audit/live",
        ] {
            let shown = browser.get(path).await;
            is_guarded(shown.has(403, title), false);
            let thumbprint = who.map(|who| who.thumbprint().to_string()).unwrap_or_default();
            assert!(shown.text().contains(&thumbprint), "{path}");
            for browser in ["Chrome", "Firefox", "Safari"] {
                assert!(shown.text().contains(browser), "{path}: {browser}");
            }
            assert!(!shown.text().contains("class=\"rail\""), "{path}");
        }
        for (path, form) in [
            ("/studio/certificate/delete", format!("t={}", fixture.root.thumbprint())),
            ("/studio/log-out", String::new()),
            ("/studio/cluster/token", "minutes=5".to_owned()),
        ] {
            is_guarded(browser.post(path, &form).await.has(403, title), false);
        }
    }
    fixture.fake.be(Mood::Passive);
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    root.get("/studio").await.has(409, "does not belong to a cluster yet");
    fixture.fake.be(Mood::Stale);
    root.get("/studio").await.has(503, "hears no leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_neither_hide_nor_break_out_and_go_back_as_they_were() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let mallory = identity("mallory");
    let request = security::UploadCertificateRequest {
        name: "</title><script>alert(1)</script>\"'".into(),
        clearance: Clearance::Operator.into(),
        certificate: mallory.certificate_der().to_vec(),
        note: "<img src=x onerror=alert(1)>".into(),
        ..Default::default()
    };
    fixture.as_root().await.security().upload_certificate(request).await.unwrap();
    let of = |page: &str| format!("/studio/certificate{page}?t={}", mallory.thumbprint());
    let name = "&#60;/title&#62;&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;";
    for path in
        ["/studio/certificates".to_owned(), of(""), of("/delete"), of("/clone"), of("/edit")]
    {
        let shown = root.get(&path).await;
        let text = shown.has(200, name).text();
        assert!(!text.contains("<script>") && !text.contains("<img src=x"), "{path}");
    }
    // Ids and contents of documents may hold what names may not.
    let document = rookery_proto::document::v1::PutDocumentRequest {
        database: "sales".into(),
        id: "</td>\u{202e}ecila\u{200b}".into(),
        json: "{\"a\":\"</textarea><i>\u{2066}\"}".into(),
        ..Default::default()
    };
    fixture.as_root().await.documents().put_document(document).await.unwrap();
    let list = root.get("/studio/documents?db=sales").await;
    let marked = "<bdi>&#60;/td&#62;<span class=\"odd\" title=\"a character that cannot be seen\">U+202E</span>ecila";
    let text = list.has(200, marked).text();
    assert!(!text.contains(['\u{202e}', '\u{200b}', '\u{2066}']), "{text}");
    assert!(!text.contains("<i>") && !text.contains("</td>\u{202e}"), "{text}");
    // What the form has goes back unchanged: saving it is no change.
    let path = "/studio/document?db=sales&id=%3C%2Ftd%3E%E2%80%AEecila%E2%80%8B";
    let edit = root.get(path).await;
    edit.has(200, "name=\"id\" value=\"&#60;/td&#62;\u{202e}ecila\u{200b}\"");
    edit.has(200, "&#60;/textarea&#62;&#60;i&#62;\u{2066}");
    edit.has(200, &format!("<h1 class=\"wrap\">{marked}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_takes_less_than_a_hundred_kilobytes() {
    let fixture = Fixture::start();
    for number in 0..60 {
        fixture.register(&identity(&format!("holder {number}")), Clearance::User, &[]).await;
    }
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    for (coding, bytes_max) in [("gzip", 30_000), ("identity", 100_000)] {
        let mut bytes = 0;
        let assets = crate::studio::assets::all();
        for path in assets.iter().map(String::as_str).chain(["/studio/certificates"]) {
            let headers = [("sec-fetch-site", "none"), ("accept-encoding", coding)];
            let shown = root.ask("GET", path, &headers, "").await;
            assert_eq!(shown.status, 200, "{path}");
            assert_eq!(shown.header("content-encoding") == "gzip", coding == "gzip", "{path}");
            bytes += shown.body.len();
        }
        println!("a first visit of 50 certificates, {coding}: {bytes} bytes");
        assert!(bytes < bytes_max, "{coding}: {bytes} bytes");
    }
}

/// Makes the fixture's node able to seal, as a node that has joined is.
async fn with_sealing_key(fixture: &Fixture) {
    let key = fixture.edge.node.sealing.public().as_bytes().to_vec();
    let register = Command::RegisterSealingKey(log::RegisterSealingKey { node_id: 1, key });
    let command = ClusterCommand { command: Some(register) };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    fixture.fake.propose_as_member(command, deadline).await.unwrap();
}

/// The code of a secret for the present step, or one beside it.
fn code(secret: &str, offset: i64) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let key = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let step = now / i64::try_from(second_factor::STEP_SECONDS).unwrap() + offset;
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&key).unwrap();
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[19] & 15);
    let four: [u8; 4] = digest[offset..offset + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

/// What stands between two marks of a page.
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in\n{text}"));
    rest.split_once(after).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_made_confirmed_logged_in_with_and_removed() {
    let fixture = Fixture::start();
    with_sealing_key(&fixture).await;
    let alice = identity("alice");
    fixture.register(&alice, Clearance::Operator, &[]).await;
    let mut browser = Browser::of(&fixture, Some(&alice)).await;
    browser.get("/studio/second-factor").await.has(200, "Make a second factor");

    let made = browser.post("/studio/second-factor/enrol", "t=").await;
    is_guarded(made.has(200, "<svg class=\"qr\""), false);
    assert_eq!(made.header("content-encoding"), "");
    let secret = between(&made.text(), "id=\"secret\">", "<").replace(' ', "");
    let recovery = between(&made.text(), "id=\"recovery-codes\"><li>", "<").to_owned();
    // It counts from the first code on.
    browser.get("/studio").await.has(200, "Overview");
    let wrong = browser.post("/studio/second-factor/confirm", "code=000000").await;
    wrong.has(403, "more wrong ones lock");
    assert!(!wrong.text().contains(&secret), "the secret is shown once");
    let first = code(&secret, -1);
    let form = format!("code={}+{}", &first[..3], &first[3..]);
    browser.post("/studio/second-factor/confirm", &form).await.leads_to("/studio/second-factor");
    browser.get("/studio/second-factor").await.has(200, "in force").has(200, "10 of 10");
    browser.get("/studio").await.has(200, "Log out");

    // Another browser with the same certificate has no session.
    let mut thief = Browser::of(&fixture, Some(&alice)).await;
    let asked = "/studio/certificates?q=a";
    let log_in = "/studio/log-in?to=%2Fstudio%2Fcertificates%3Fq%3Da";
    thief.get(asked).await.leads_to(log_in);
    thief.ask("GET", asked, &[OTHER], "").await.has(200, "http-equiv=\"refresh\"");
    thief
        .get("/studio/second-factor")
        .await
        .leads_to("/studio/log-in?to=%2Fstudio%2Fsecond-factor");
    let lost = "/studio/log-in?to=%2Fstudio%2Fcertificates&why=change";
    let remove = format!("t={}", alice.thumbprint());
    thief.post("/studio/certificate/delete", &remove).await.leads_to(lost);
    thief.get(lost).await.has(200, "Nothing was changed");
    for forged in ["ab".repeat(32), "x".to_owned(), String::new()] {
        thief.cookie = Some(format!("__Host-rookery-session={forged}"));
        thief.get(asked).await.leads_to(log_in);
    }
    thief.cookie = None;
    thief
        .get(log_in)
        .await
        .has(200, "autocomplete=\"one-time-code\"")
        .has(200, "inputmode=\"numeric\"");
    thief.post("/studio/log-in", "code=000000&to=/studio").await.has(403, "more wrong ones lock");
    thief.post("/studio/log-in", "code=12").await.has(400, "six digits");
    thief.post("/studio/log-in", &format!("code={first}")).await.has(409, "used already");

    // The right code: the cookie, and the page that was asked for.
    let right = format!("code={}&minutes=30&to=%2Fstudio%2Fcertificates%3Fq%3Da", code(&secret, 0));
    let opened = thief.post("/studio/log-in", &right).await;
    let cookie = opened.leads_to(asked).header("set-cookie").to_owned();
    for part in ["__Host-rookery-session=", "Path=/;", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let seconds: i64 = between(&cookie, "Max-Age=", ";").parse().unwrap();
    assert!((1750..=1800).contains(&seconds), "{cookie}");
    thief.get(asked).await.has(200, "Registered certificates");
    thief.get(log_in).await.leads_to(asked);
    // It took the place of the first one.
    browser.get("/studio").await.leads_to("/studio/log-in?to=%2Fstudio");

    // A recovery code, and a way back that is none.
    let evil = format!("recovery={recovery}&to=https%3A%2F%2Fevil.example%2Fstudio");
    let opened = browser.post("/studio/log-in", &evil).await;
    opened.has(200, "9 are left").has(200, "href=\"/studio\"");
    assert!(!opened.text().contains("evil"));
    let out = browser.post("/studio/log-out", "").await;
    assert!(out.leads_to("/studio/log-in?why=out").header("set-cookie").contains("Max-Age=0"));
    browser.get("/studio/log-in?why=out").await.has(200, "You are logged out");
    browser.get("/studio").await.leads_to("/studio/log-in?to=%2Fstudio");

    // An administrator takes it off.
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let page = format!("/studio/second-factor?t={}", alice.thumbprint());
    root.get(&page).await.has(200, "in force");
    root.get(&format!("/studio/second-factor/remove?t={}", alice.thumbprint()))
        .await
        .has(200, "Remove it");
    root.post("/studio/second-factor/remove", &remove).await.leads_to(&page);
    browser.get("/studio").await.has(200, "Overview");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_have_a_second_factor_may_make_one_and_nothing_else() {
    let fixture = Fixture::start();
    with_sealing_key(&fixture).await;
    let alice = identity("alice");
    fixture.register(&alice, Clearance::Operator, &[]).await;
    let origin = format!("https://{}", fixture.address).parse().unwrap();
    let mut trust = security::trust_service_client::TrustServiceClient::with_origin(
        fixture.as_root().await,
        origin,
    );
    let policy = security::SecurityPolicy {
        renewal: security::Renewal::Explicit.into(),
        second_factor_required_for: vec![Clearance::Operator.into()],
        ..Default::default()
    };
    let set = security::SetSecurityPolicyRequest { policy: Some(policy), ..Default::default() };
    trust.set_security_policy(set).await.unwrap();
    let mut browser = Browser::of(&fixture, Some(&alice)).await;
    for path in ["/studio", "/studio/certificates", "/studio/nothing", "/studio/log-in"] {
        browser.get(path).await.leads_to("/studio/second-factor");
    }
    let page = browser.get("/studio/second-factor").await;
    page.has(200, "demands a second factor").has(200, "Make a second factor");
    let made = browser.post("/studio/second-factor/enrol", "").await;
    let secret = between(made.has(200, "Confirm it").text().as_str(), "id=\"secret\">", "<")
        .replace(' ', "");
    let form = format!("code={}", code(&secret, 0));
    browser.post("/studio/second-factor/confirm", &form).await.leads_to("/studio/second-factor");
    browser.get("/studio/certificates").await.has(200, "Registered certificates");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_generated_with_a_second_factor() {
    let fixture = Fixture::start();
    with_sealing_key(&fixture).await;
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let form = "name=alice&clearance=operator&days=30&second-factor=yes";
    let made = root.post("/studio/certificates/generate", form).await;
    made.has(200, "shown once").has(200, "id=\"download\"").has(200, "id=\"secret\"");
    is_guarded(&made, false);
    let without =
        root.post("/studio/certificates/generate", "name=bob&clearance=operator&days=30").await;
    assert!(!without.has(200, "id=\"download\"").text().contains("id=\"secret\""));
}
