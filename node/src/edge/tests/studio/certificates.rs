//! The Studio's pages of certificates: what is confirmed is what was shown, what is refused says why, nothing is made twice.

use std::collections::BTreeMap;

use rcgen::{CertificateParams, KeyPair};

use super::{super::studio_data::encoded, *};

const EDIT: &str = "/studio/certificate/edit";
const GENERATE: &str = "/studio/certificates/generate";
const REGISTER: &str = "/studio/certificates/register";

type Fields = BTreeMap<String, String>;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
}

impl Shown {
    /// The fields of its form that nobody sees.
    fn hidden(&self) -> Fields {
        let text = self.text();
        let main = between(&text, "<main", "</main>");
        let inputs = main.split("<input type=\"hidden\" name=\"").skip(1);
        let pair = |input: &str| {
            let (name, rest) = input.split_once("\" value=\"").unwrap();
            let value = rest.split('"').next().unwrap().replace("&#34;", "\"");
            (name.to_owned(), value.replace("&#38;", "&"))
        };
        inputs.map(pair).collect()
    }
}

impl Browser {
    async fn send(&mut self, path: &str, fields: &Fields) -> Shown {
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.post(path, &encoded(fields)).await
    }

    /// A form with a file.
    async fn upload(&mut self, path: &str, file: &str, with: &[(&str, &str)]) -> Shown {
        let origin = format!("https://{}", self.client.address);
        let mut body = String::new();
        for (name, value) in with {
            body += &format!(
                "--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        body += &format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.pem\"\r\n\r\n{file}\r\n--b--\r\n"
        );
        self.ask("POST", path, &[("origin", &origin), OWN, MULTIPART], &body).await
    }
}

impl Fixture {
    /// As the registry has it.
    async fn certificate(&self, who: &str) -> security::Certificate {
        let request = security::GetCertificateRequest { thumbprint: who.to_owned() };
        let found = self.as_root().await.security().get_certificate(request).await.unwrap();
        found.into_inner().certificate.unwrap()
    }

    async fn named(&self, name: &str) -> Vec<security::Certificate> {
        let request =
            security::ListCertificatesRequest { name_contains: name.into(), ..Default::default() };
        let found = self.as_root().await.security().list_certificates(request).await.unwrap();
        found.into_inner().certificates
    }
}

/// A certificate in PEM that is valid from so many days from now to at least so many, and its key.
fn dated(name: &str, from: i32, to: i32) -> (String, String) {
    let midnight = |days: i32| {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = today.saturating_add(jiff::Span::new().days(days));
        rcgen::date_time_ymd(
            day.year().into(),
            u8::try_from(day.month()).unwrap(),
            u8::try_from(day.day()).unwrap(),
        )
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (midnight(from), midnight(to + 1));
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn pem(who: &TlsIdentity) -> String {
    crate::certificates::certificate_pem(who.certificate_der())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_differs_from_what_was_confirmed_is_asked_about_again() {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[("sales", Access::Read)]).await;
    let t = alice.thumbprint().to_string();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let form = root.get(&format!("{EDIT}?t={t}")).await;
    form.has(200, "are kept by the cluster and are not in the certificate");
    let mut entered = form.hidden();
    entered.extend(fields(&[
        ("name", "somebody"),
        ("clearance", "user"),
        ("grant:sales", "admin"),
    ]));
    let asked = root.send(EDIT, &entered).await;
    asked.has(200, "This gives the holder more rights").has(200, "Nothing was changed");
    let main = asked.text();
    let main = between(&main, "<main", "</main>");
    for kind in ["type=\"text\"", "type=\"radio\"", "<select", "<textarea"] {
        assert!(!main.contains(kind), "{kind} can be changed beside the confirmation");
    }

    // Whatever else comes back was not shown: asked again, with its own differences, and nothing is changed.
    let before = fixture.certificate(&t).await;
    for (changed, differs) in [
        (("clearance", "cluster-admin"), "<td class=\"wrap\">Cluster Admin"),
        (("clearance", "operator"), "<td class=\"wrap\">Operator"),
        (("name", "mallory"), "<td class=\"wrap\">mallory"),
        (("owner", "mallory"), "<td class=\"wrap\">mallory"),
        (("confirmed", &before.etag), "<td class=\"wrap\">Admin"),
        (("confirmed", ""), "<td class=\"wrap\">Admin"),
    ] {
        let mut forged = asked.hidden();
        forged.extend(fields(&[changed]));
        let again = root.send(EDIT, &forged).await;
        again.has(200, "Confirm these changes").has(200, differs);
        assert_ne!(again.hidden()["confirmed"], changed.1);
        assert_eq!(fixture.certificate(&t).await, before, "{changed:?}");
    }
    // A confirmation of one visitor is none of another.
    let boss = identity("boss");
    fixture.register(&boss, Clearance::ClusterAdmin, &[]).await;
    let mut other = Browser::of(&fixture, Some(&boss)).await;
    other.send(EDIT, &asked.hidden()).await.has(200, "Nothing was changed yet");
    assert_eq!(fixture.certificate(&t).await, before);

    // Back to the form, with what was entered; and what was shown, confirmed.
    let mut back = asked.hidden();
    back.extend(fields(&[("change", "yes")]));
    let form = root.send(EDIT, &back).await;
    form.has(200, "value=\"admin\" aria-label=\"Admin on sales\" checked").has(200, "Save");
    assert_eq!(fixture.certificate(&t).await, before);
    root.send(EDIT, &asked.hidden()).await.leads_to(&format!("/studio/certificate?t={t}"));
    assert_eq!(fixture.certificate(&t).await.grants[0].access, i32::from(Access::Admin));
    // Of another version it is none.
    let stale = root.send(EDIT, &asked.hidden()).await;
    stale.has(409, "Somebody changed this certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_is_not_undone_after_a_look_back_at_the_form() {
    let fixture = Fixture::start();
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[]).await;
    let t = alice.thumbprint().to_string();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let mut mine = root.get(&format!("{EDIT}?t={t}")).await.hidden();
    mine.extend(fields(&[("name", "somebody"), ("clearance", "user"), ("owner", "me")]));
    let theirs = security::EditCertificateRequest {
        thumbprint: t.clone(),
        note: Some("theirs".into()),
        ..Default::default()
    };
    fixture.as_root().await.security().edit_certificate(theirs).await.unwrap();
    let asked = root.send(EDIT, &mine).await;
    asked.has(409, "Somebody changed this certificate").has(409, "<td class=\"wrap\">theirs");
    // The form keeps the version that it was opened with, so it is asked again.
    let mut back = asked.hidden();
    back.extend(fields(&[("change", "yes")]));
    let mut form = root.send(EDIT, &back).await.hidden();
    form.extend(fields(&[("name", "somebody"), ("clearance", "user"), ("owner", "me")]));
    let again = root.send(EDIT, &form).await;
    again.has(409, "<td class=\"wrap\">theirs");
    assert_eq!(fixture.certificate(&t).await.note, "theirs");
    root.send(EDIT, &again.hidden()).await.leads_to(&format!("/studio/certificate?t={t}"));
    let now = fixture.certificate(&t).await;
    assert_eq!((now.note.as_str(), now.owner.as_str()), ("", "me"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_their_own_rights_by_confirming_something_else() {
    let fixture = Fixture::start();
    let boss = identity("boss");
    fixture.register(&boss, Clearance::ClusterAdmin, &[]).await;
    let t = boss.thumbprint().to_string();
    let mut browser = Browser::of(&fixture, Some(&boss)).await;
    let mut entered = browser.get(&format!("{EDIT}?t={t}")).await.hidden();
    entered.extend(fields(&[("name", "boss"), ("clearance", "operator")]));
    let asked = browser.send(EDIT, &entered).await;
    asked.has(200, "You take rights from yourself");
    let mut lower = asked.hidden();
    lower.extend(fields(&[("clearance", "user")]));
    let again = browser.send(EDIT, &lower).await;
    again.has(200, "You take rights from yourself").has(200, "<td class=\"wrap\">User");
    assert_eq!(fixture.certificate(&t).await.clearance, i32::from(Clearance::ClusterAdmin));
    browser.send(EDIT, &asked.hidden()).await.leads_to(&format!("/studio/certificate?t={t}"));
    assert_eq!(fixture.certificate(&t).await.clearance, i32::from(Clearance::Operator));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_changed_so_what_the_rules_allow_is_possible() {
    let fixture = Fixture::start();
    let (operator, node) = (identity("operator"), identity("foreign"));
    fixture.register(&operator, Clearance::Operator, &[]).await;
    fixture.register(&node, Clearance::ClusterNode, &[]).await;
    let t = operator.thumbprint().to_string();
    let mut browser = Browser::of(&fixture, Some(&operator)).await;
    let form = browser.get(&format!("{EDIT}?t={t}")).await;
    form.has(200, "change its name and nothing else (rule B3.own)");
    let mut entered = form.hidden();
    entered.extend(fields(&[("name", "renamed"), ("clearance", "operator")]));
    browser.send(EDIT, &entered).await.leads_to(&format!("/studio/certificate?t={t}"));
    assert_eq!(fixture.certificate(&t).await.name, "renamed");
    let mut entered = browser.get(&format!("{EDIT}?t={t}")).await.hidden();
    entered.extend(fields(&[("name", "renamed"), ("clearance", "operator"), ("note", "x")]));
    browser.send(EDIT, &entered).await.has(403, "nothing else");
    for (field, value, id) in [("name", " ", "name"), ("clearance", "root", "clearance")] {
        let mut empty = entered.clone();
        empty.extend(fields(&[(field, value)]));
        browser.send(EDIT, &empty).await.has(400, &format!("<a href=\"#{id}\">"));
    }

    let t = node.thumbprint().to_string();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let form = root.get(&format!("{EDIT}?t={t}")).await;
    form.has(200, "value=\"cluster-node\" checked");
    let mut entered = form.hidden();
    entered.extend(fields(&[("name", "other cluster"), ("clearance", "cluster-node")]));
    root.send(EDIT, &entered).await.leads_to(&format!("/studio/certificate?t={t}"));
    let now = fixture.certificate(&t).await;
    assert_eq!((now.name.as_str(), now.clearance), ("other cluster", 4));

    // Grants stay where only a note is written.
    fixture.create_database("sales").await;
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[("sales", Access::Read)]).await;
    let t = alice.thumbprint().to_string();
    let mut entered = root.get(&format!("{EDIT}?t={t}")).await.hidden();
    let with =
        [("name", "somebody"), ("clearance", "user"), ("note", "x"), ("grant:sales", "read")];
    entered.extend(fields(&with));
    root.send(EDIT, &entered).await.leads_to(&format!("/studio/certificate?t={t}"));
    let now = fixture.certificate(&t).await;
    assert_eq!((now.note.as_str(), now.grants.len()), ("x", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_says_what_its_dates_mean_and_what_was_left_out() {
    let fixture = Fixture::start();
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[]).await;
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let page = "/studio/certificates/upload";
    let known = root.upload(page, &pem(&alice), &[]).await;
    let path = format!("already, as <a href=\"/studio/certificate?t={}\">", alice.thumbprint());
    known.has(200, "Register this certificate").has(200, &path).has(200, "tag good\">valid");
    let (old, _) = dated("old", -30, -3);
    root.upload(page, &old, &[]).await.has(200, "ago and cannot be registered");
    root.upload(page, "junk", &[]).await.has(400, "<a href=\"#file\">File</a>: ");

    // A key that was dropped is told as often as the form is shown.
    let (early, key) = dated("early", 400, 800);
    let shown = root.upload(page, &format!("{early}{key}"), &[]).await;
    let dropped = "There was a private key in the file";
    shown.has(200, dropped).has(200, "It is not valid yet").has(200, "<td class=\"wrap\">no</td>");
    let mut form = shown.hidden();
    form.extend(fields(&[("clearance", "operator")]));
    let refused = root.send(REGISTER, &form).await;
    refused.has(400, dropped).has(400, "<a href=\"#name\">Name</a>: ");
    refused.has(400, "aria-invalid=\"true\" aria-describedby=\"wrong\"");
    for (issuers, words) in
        [("1", "1 certificate of an issuer was left out"), ("3", "3 certificates of issuers were")]
    {
        let mut form = refused.hidden();
        form.extend(fields(&[("issuers", issuers), ("clearance", "operator")]));
        root.send(REGISTER, &form).await.has(400, words);
    }
    let mut form = refused.hidden();
    form.extend(fields(&[("name", "early"), ("clearance", "operator")]));
    let done = root.send(REGISTER, &form).await;
    done.has(200, "It lets nobody in now").has(200, "from 20");
    assert!(!done.text().contains("lets its holder in now"));
    // The same form again is the same registration.
    root.send(REGISTER, &form).await.has(200, "early is registered");
    assert_eq!(fixture.named("early").await.len(), 1);
    form.extend(fields(&[("name", "other")]));
    root.send(REGISTER, &form).await.has(409, "This form was sent already");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_is_shown_and_confirmed_as_an_edit_is() {
    let fixture = Fixture::start();
    let (alice, boss) = (identity("alice"), identity("boss"));
    fixture.register(&alice, Clearance::User, &[]).await;
    fixture.register(&boss, Clearance::ClusterAdmin, &[]).await;
    let mut browser = Browser::of(&fixture, Some(&boss)).await;
    let form = |who: &TlsIdentity, name: &str| {
        fields(&[
            ("pem", &pem(who)),
            ("name", name),
            ("clearance", "operator"),
            ("overwrite", "yes"),
        ])
    };
    let t = alice.thumbprint().to_string();
    let before = fixture.certificate(&t).await;
    let mut plain = form(&alice, "alice");
    plain.remove("overwrite");
    browser.send(REGISTER, &plain).await.has(409, "registered already");
    let asked = browser.send(REGISTER, &form(&alice, "alice")).await;
    asked
        .has(200, "This certificate is registered already")
        .has(200, "<td class=\"wrap\">Operator");
    let mut forged = asked.hidden();
    forged.extend(fields(&[("clearance", "cluster-admin")]));
    browser.send(REGISTER, &forged).await.has(200, "<td class=\"wrap\">Cluster Admin");
    let mut back = asked.hidden();
    back.extend(fields(&[("change", "yes")]));
    browser.send(REGISTER, &back).await.has(200, "value=\"operator\" checked");
    assert_eq!(fixture.certificate(&t).await, before);
    browser.send(REGISTER, &asked.hidden()).await.has(200, "alice is registered");
    assert_eq!(fixture.certificate(&t).await.clearance, i32::from(Clearance::Operator));

    // Over one's own entry it says so, and is possible.
    let t = boss.thumbprint().to_string();
    let asked = browser.send(REGISTER, &form(&boss, "boss")).await;
    let own = browser.send(REGISTER, &asked.hidden()).await;
    own.has(200, "You take rights from yourself");
    assert_eq!(fixture.certificate(&t).await.clearance, i32::from(Clearance::ClusterAdmin));
    browser.send(REGISTER, &own.hidden()).await.has(200, "boss is registered");
    assert_eq!(fixture.certificate(&t).await.clearance, i32::from(Clearance::Operator));

    // What is disabled stays so, and the page does not say otherwise.
    let disable = security::DisableCertificateRequest {
        thumbprint: alice.thumbprint().to_string(),
        ..Default::default()
    };
    fixture.as_root().await.security().disable_certificate(disable).await.unwrap();
    let asked = browser.send(REGISTER, &form(&alice, "ann")).await;
    let done = browser.send(REGISTER, &asked.hidden()).await;
    done.has(200, "It lets nobody in now").has(200, "it is disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_that_the_rules_always_refuse_are_shown_disabled_with_the_rule() {
    let fixture = Fixture::start();
    let foreign = identity("foreign");
    fixture.register(&foreign, Clearance::ClusterNode, &[]).await;
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let list = root.get("/studio/certificates").await.text();
    let row = |name: &str| between(&list, &format!(">{name}</a>"), "</tr>").to_owned();
    let cases = [
        (fixture.root.thumbprint(), row("root"), &["B3.own", "B3.own"][..]),
        (
            fixture.server.thumbprint(),
            row("n1"),
            &["B3.member", "B3.generate-node", "B3.member", "B3.member"],
        ),
        (foreign.thumbprint(), row("somebody"), &["B3.generate-node", "B3.disable-node"]),
    ];
    for (thumbprint, row, expected) in cases {
        let page = root.get(&format!("/studio/certificate?t={thumbprint}")).await;
        let page = page.has(200, "Thumbprint").text();
        for text in [row.as_str(), between(&page, "<h1>", "<div class=\"columns\">")] {
            let hidden = text.split("<span class=\"hidden\">: ").skip(1);
            let rules: Vec<_> =
                hidden.map(|it| between(it, "(rule ", ").</span>").to_owned()).collect();
            assert_eq!(rules, expected, "{text}");
        }
    }
    // Whoever may not see the nodes' certificates is told so.
    let operator = identity("operator");
    fixture.register(&operator, Clearance::Operator, &[]).await;
    let mut browser = Browser::of(&fixture, Some(&operator)).await;
    let list = browser.get("/studio/certificates").await;
    list.has(200, "<h2>Server certificates</h2>").has(200, "<p class=\"soft\">Needs ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_names_the_soonest_and_counts_the_rest() {
    let fixture = Fixture::start();
    let client = fixture.as_root().await;
    for days in [9, 4, 7, 3, 8, 5, 6] {
        let name = format!("ends in {days}");
        let request = security::UploadCertificateRequest {
            name: name.clone(),
            clearance: Clearance::User.into(),
            certificate: dated(&name, -1, days).0.into_bytes(),
            ..Default::default()
        };
        client.security().upload_certificate(request).await.unwrap();
    }
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let page = root.get("/studio/certificates").await;
    let text = page.has(200, "<div class=\"note warn\" role=\"status\">").text();
    let note = between(&text, "<div class=\"note warn\" role=\"status\">", "</div>");
    let names: Vec<_> =
        note.split("\">ends in ").skip(1).map(|it| it.split('<').next().unwrap()).collect();
    assert_eq!(names, ["3", "4", "5", "6", "7"], "{note}");
    assert_eq!(note.matches("<a href=\"/studio/certificate?t=").count(), 5);
    let all = between(note, "<li><a href=\"/studio/certificates", "\">and 2 more</a>");
    let all = format!("/studio/certificates{}", all.replace("&#38;", "&"));
    let list = root.get(&all).await;
    let table = list.text();
    let table = between(&table, "<h2>Registered", "</table>");
    assert_eq!(table.matches("<th scope=\"row\">").count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_twice_generates_once_and_says_what_to_do() {
    let fixture = Fixture::start();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let mut form = root.get(GENERATE).await.has(200, "max=\"7300\"").hidden();
    let first_id = form["request_id"].clone();
    form.extend(fields(&[("name", "invoices"), ("clearance", "user"), ("days", "7301")]));
    let refused = root.send(GENERATE, &form).await;
    refused.has(400, "<a href=\"#days\">Valid for (days)</a>: ").has(400, "1 to 7300");
    refused.has(400, "max=\"7300\" required aria-invalid=\"true\" aria-describedby=\"wrong\"");
    form.extend(fields(&[("days", "30"), ("grant:missing", "read")]));
    let refused = root.send(GENERATE, &form).await;
    refused.has(404, "<a href=\"#grants\">Databases of a User, missing</a>: ");
    // What was refused has used its id up, so the form has another one.
    assert_ne!(refused.hidden()["request_id"], first_id);
    form.remove("grant:missing");
    form.extend(refused.hidden());
    form.retain(|field, _| !field.starts_with("grant:"));
    let made = root.send(GENERATE, &form).await;
    made.has(200, "keep its password").has(200, "holds the .pfx");
    let again = root.send(GENERATE, &form).await;
    again.has(409, "This form was sent already").has(409, "cannot be had again");
    assert!(!again.text().contains("id=\"download\""));
    assert_eq!(fixture.named("invoices").await.len(), 1);

    let t = fixture.named("invoices").await[0].thumbprint.clone();
    let page = format!("/studio/certificate/clone?t={t}");
    let mut clone = root.get(&page).await.hidden();
    clone.extend(fields(&[("name", "copied"), ("days", "30")]));
    root.send("/studio/certificate/clone", &clone).await.has(200, "id=\"download\"");
    root.send("/studio/certificate/clone", &clone).await.has(409, "This form was sent already");
    assert_eq!(fixture.named("copied").await.len(), 1);
    // A form without an id is taken too.
    clone.remove("request_id");
    root.send("/studio/certificate/clone", &clone).await.has(200, "id=\"download\"");
    clone.extend(fields(&[("days", "0")]));
    root.send("/studio/certificate/clone", &clone).await.has(400, "<a href=\"#days\">");

    // Who registered it, and by which rule of the page it was deleted.
    let shown = root.get(&format!("/studio/certificate?t={t}")).await;
    shown.has(
        200,
        &format!("by <a href=\"/studio/certificate?t={}\">root</a>", fixture.root.thumbprint()),
    );
    root.post("/studio/certificate/delete", &format!("t={t}"))
        .await
        .leads_to("/studio/certificates?done=deleted");
    root.get("/studio/certificates?done=deleted").await.has(200, "The certificate was deleted");
    let forged = root.get("/studio/certificates?done=%3Cb%3Eeverything").await;
    assert!(!forged.has(200, "Registered").text().contains("everything"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_for_a_signing_request_promises_no_key() {
    let fixture = Fixture::start();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["own".to_owned()]).unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let mut form = root.get(GENERATE).await.hidden();
    form.extend(fields(&[
        ("name", "own"),
        ("clearance", "operator"),
        ("days", "30"),
        ("csr", &csr),
    ]));
    let mut locked = form.clone();
    locked.extend(fields(&[("password", "secret")]));
    root.send(GENERATE, &locked).await.has(400, "<a href=\"#password\">Password</a>: ");
    let made = root.send(GENERATE, &form).await;
    made.has(200, "There is no password").has(200, "It holds no key and no .pfx");
    for never in ["keep its password", "holds the .pfx", "id=\"password\""] {
        assert!(!made.text().contains(never), "{never}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_says_which_databases_it_leaves_out() {
    let fixture = Fixture::start();
    let client = fixture.as_root().await;
    for number in 0..201 {
        let name = format!("db{number:03}");
        let request = database::CreateDatabaseRequest { name, ..Default::default() };
        client.databases().create_database(request).await.unwrap();
    }
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let form = root.get(GENERATE).await;
    form.has(200, "These are the first 200 databases").has(200, "grant:db199");
    assert!(!form.text().contains("grant:db200"));
    // One that is not listed stays, whatever else is edited.
    let alice = identity("alice");
    fixture.register(&alice, Clearance::User, &[("db200", Access::Read)]).await;
    let form = root.get(&format!("{EDIT}?t={}", alice.thumbprint())).await;
    form.has(200, "1 more grant on databases");
    assert_eq!(form.hidden()["grant:db200"], "read");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_server_certificate_again_is_told_to_change_nothing() {
    let fixture = Fixture::start();
    let mut root = Browser::of(&fixture, Some(&fixture.root)).await;
    let key = crate::certificates::pem("PRIVATE KEY", fixture.server.expose_key_der());
    let file = format!("{}{}", pem(&fixture.server), key.expose());
    let page = "/studio/certificates/server";
    let same = root.upload(page, &file, &[("force", "yes")]).await;
    same.has(200, "The nodes have this certificate already");
    assert!(!root.get(page).await.text().contains("already"));
    let junk = root.upload(page, "junk", &[]).await;
    junk.has(400, "<a href=\"#file\">File</a>: ").has(400, "Nothing was changed");
}
