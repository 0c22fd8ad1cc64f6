//! The Studio's pages of databases and documents, asked for as a browser does it.

use std::collections::BTreeMap;

use super::*;

/// A browser with a certificate.
pub(super) struct Browser {
    pub(super) client: Client,
}

/// What came back of a request.
#[derive(Debug)]
pub(super) struct Shown {
    http: u16,
    /// Where it leads on.
    pub(super) location: String,
    pub(super) text: String,
}

impl Shown {
    /// Everything that this page must say, and what it must not.
    #[track_caller]
    pub(super) fn check(&self, http: u16, says: &[&str], never: &[&str]) {
        assert_eq!(self.http, http, "{}", self.text);
        for part in says {
            assert!(self.text.contains(part), "no {part:?} in {}", self.text);
        }
        for part in never {
            assert!(!self.text.contains(part), "{part:?} in {}", self.text);
        }
    }

    /// The path of the first link with this mark before its address.
    pub(super) fn link(&self, mark: &str) -> Option<String> {
        let (_, rest) = self.text.split_once(mark)?;
        let (_, rest) = rest.split_once("href=\"")?;
        Some(unescaped(rest.split_once('"')?.0))
    }

    /// The value of the first field of this name.
    #[track_caller]
    pub(super) fn value(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let found = self.text.split_once(&mark).and_then(|(_, rest)| rest.split_once('"'));
        unescaped(found.unwrap_or_else(|| panic!("no field {name} in {}", self.text)).0)
    }
}

pub(super) fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&#34;", "\"").replace("&#60;", "<").replace("&#62;", ">")
}

/// A form as a browser posts it (URL Standard, 5.2).
pub(super) fn encoded<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let part = |text: &str| {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    let pair = |(name, value)| format!("{}={}", part(name), part(value));
    let pairs: Vec<_> = fields.into_iter().map(pair).collect();
    pairs.join("&")
}

impl Browser {
    pub(super) async fn of(fixture: &Fixture, who: &TlsIdentity) -> Self {
        Self { client: fixture.connect(Some(who)).await }
    }

    pub(super) async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Shown {
        let origin = format!("https://{}", self.client.address);
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{origin}{path}"))
            .header("origin", origin)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(tonic::body::Body::new(Full::new(Bytes::from(body))))
            .unwrap();
        let response = self.client.sender.clone().send_request(request).await.unwrap();
        let http = response.status().as_u16();
        let location = response.headers().get("location");
        let location = location.map_or_else(String::new, |it| it.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Shown { http, location, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(super) async fn get(&self, path: &str) -> Shown {
        self.send("GET", path, Vec::new()).await
    }

    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Shown {
        self.send("POST", path, encoded(fields.iter().copied()).into_bytes()).await
    }

    async fn put(&self, id: &str, json: &str, etag: &str) -> Shown {
        let fields = [("db", "sales"), ("id", id), ("collection", "C"), ("json", json)];
        self.post("/studio/document", &[&fields[..], &[("etag", etag)]].concat()).await
    }
}

pub(super) async fn started() -> (Fixture, Browser) {
    let fixture = Fixture::start();
    fixture.create_database("sales").await;
    let browser = Browser::of(&fixture, &fixture.root).await;
    (fixture, browser)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_created_changed_and_deleted() {
    let (_fixture, root) = started().await;
    let form = root.get("/studio/documents/create?db=sales").await;
    form.check(200, &["New document", "name=\"json\""], &["disabled"]);
    let made = root.put("orders/1", "{\r\n  \"n\": 12345678901234567890123\r\n}", "").await;
    made.check(303, &[], &[]);
    assert_eq!(made.location, "/studio/document?db=sales&id=orders%2F1");
    let page = root.get(&made.location).await;
    page.check(200, &["orders/1", "12345678901234567890123", "Save"], &["New document"]);
    // The line ends of the form are not those of the document.
    let file = root.get("/studio/document/download?db=sales&id=orders%2F1").await;
    assert_eq!(file.text, "{\n  \"n\": 12345678901234567890123\n}");
    let changed = root.put("orders/1", "{\"n\":2}", &page.value("etag")).await;
    changed.check(303, &[], &[]);
    root.get("/studio/documents?db=sales").await.check(
        200,
        &["orders/1", "<td class=\"wrap\"><bdi>2</bdi>", "1 in sales", "C</bdi> <b>1</b>"],
        &["Next page"],
    );
    let etag = root.get(&made.location).await.value("etag");
    let which = [("db", "sales"), ("id", "orders/1"), ("etag", etag.as_str())];
    root.post("/studio/document/delete", &which).await.check(303, &[], &[]);
    root.get(&made.location).await.check(404, &["Not found"], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_slower_sees_both_versions_and_chooses() {
    let (_fixture, root) = started().await;
    root.put("a", "{\"n\":1,\"same\":true}", "").await.check(303, &[], &[]);
    let seen = root.get("/studio/document?db=sales&id=a").await.value("etag");
    root.put("a", "{\"n\":\"theirs\",\"same\":true}", &seen).await.check(303, &[], &[]);

    let conflict = root.put("a", "{\"n\":\"ours\",\"same\":true}", &seen).await;
    conflict.check(
        409,
        &[
            "Somebody else stored this document",
            "What differs",
            "&#34;ours&#34;",
            "&#34;theirs&#34;",
            "Save mine over that version",
            "Keep what is stored",
        ],
        &["<bdi>same</bdi>"],
    );
    let current = conflict.value("etag");
    assert_ne!(current, seen, "a save from here is held to the version that was shown");
    // Nothing was changed by looking, and a delete of the old version is refused alike.
    let gone = [("db", "sales"), ("id", "a"), ("etag", seen.as_str())];
    let refused = root.post("/studio/document/delete", &gone).await;
    refused.check(409, &["Nothing was changed", "theirs"], &[]);
    root.put("a", "{\"n\":\"ours\"}", &current).await.check(303, &[], &[]);
    root.get("/studio/document?db=sales&id=a").await.check(200, &["ours"], &["theirs"]);

    // A new one whose id is taken, and a change of one that is gone.
    root.put("a", "{\"n\":3}", "").await.check(409, &["Stored now", "Save mine over"], &[]);
    let etag = root.get("/studio/document?db=sales&id=a").await.value("etag");
    let which = [("db", "sales"), ("id", "a"), ("etag", etag.as_str())];
    root.post("/studio/document/delete", &which).await.check(303, &[], &[]);
    let gone = root.put("a", "{\"n\":4}", &etag).await;
    gone.check(409, &["deleted this document", "Create it again"], &["Keep what is stored"]);
    assert_eq!(gone.value("etag"), "");
    root.put("a", "{\"n\":4}", "").await.check(303, &[], &[]);
    // What is no document is told, and what was entered stays.
    let wrong = root.put("b", "{\"a\":1,\"a\":2}", "").await;
    wrong.check(400, &["a second member of this name", "&#34;a&#34;:2"], &["Stored now"]);
    let wrong = root.put("a", "{", &etag).await;
    wrong.check(400, &["still below", ">\n{</textarea>"], &["Metadata", "Download", "Delete"]);
    // A delete that names no version deletes nothing.
    let blind = root.post("/studio/document/delete", &[("db", "sales"), ("id", "a")]).await;
    blind.check(400, &["names no version"], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_and_characters_that_nobody_sees_are_shown_as_what_they_are() {
    let (_fixture, root) = started().await;
    let id = "<script>alert(1)</script>\"'&\u{202e}gpj";
    let json = "{\"<img src=x onerror=a>\":\"</textarea><script>\u{202e}\",\"b\":\"a\\u0000b\"}";
    root.put(id, json, "").await.check(303, &[], &[]);
    let never = &["<script>alert", "<img src=x", "</textarea><script>"];
    let list = root.get("/studio/documents?db=sales").await;
    list.check(200, &["U+202E", "U+0000", "&#60;script&#62;alert(1)"], never);
    assert!(!list.text.contains(['\u{202e}', '\0']), "a list has them by their numbers alone");
    let path = list.link("<tbody>").unwrap();
    let page = root.get(&path).await;
    page.check(200, &["nobody sees", "line 2, character", "U+202E"], never);
    let outside = page.text.split("<textarea").next().unwrap();
    assert_eq!(outside.matches('\u{202e}').count(), 1, "in the id of the form and nowhere else");
    // What the form holds is the document, so that saving it again changes nothing.
    assert_eq!(page.value("id"), id.replace('\'', "&#39;"));
    for path in [
        "/studio/documents?db=sales&columns=%3Cblink%3E%E2%80%AE,b",
        "/studio/documents?db=sales&prefix=%3Cblink%3E%E2%80%AE&collection=%22%3E%3Cblink%3E",
        "/studio/documents?db=%3Cblink%3E",
        "/studio/document?db=sales&id=%3Cblink%3E",
        "/studio/database?db=%22%3E%3Cblink%3E",
    ] {
        let shown = root.get(path).await;
        assert!(!shown.text.contains("<blink>"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_what_they_may_and_why_not_the_rest() {
    let (fixture, root) = started().await;
    fixture.create_database("wages").await;
    root.put("a", "{\"n\":1}", "").await.check(303, &[], &[]);
    let reader = identity("reader");
    fixture.register(&reader, Clearance::User, &[("sales", Access::Read)]).await;
    let reader = Browser::of(&fixture, &reader).await;

    reader.get("/studio/databases").await.check(200, &["sales", "B1.16a"], &["wages"]);
    let database = reader.get("/studio/database?db=sales").await;
    database.check(
        200,
        &["</b>document</div>", "Needs Operator clearance", "B2.54a"],
        &["<form class=\"inline\" method=\"post\" action=\"/studio/database/access\""],
    );
    let list = reader.get("/studio/documents?db=sales").await;
    list.check(
        200,
        &["1 in sales", "disabled title=\"Needs ReadWrite access", "Export these rows"],
        &[],
    );
    let page = reader.get("/studio/document?db=sales&id=a").await;
    page.check(
        200,
        &["readonly", "(rule B2.4a)", "(rule B2.4c)"],
        &["action=\"/studio/document/delete\""],
    );

    // What a button does not offer, a forged form does not get either.
    let etag = page.value("etag");
    reader.put("a", "{\"n\":2}", &etag).await.check(403, &["Read access"], &[]);
    for (path, fields) in [
        ("/studio/document/delete", &[("db", "sales"), ("id", "a"), ("etag", etag.as_str())][..]),
        ("/studio/database/state", &[("db", "sales"), ("to", "disabled")]),
        ("/studio/database/delete", &[("db", "sales"), ("typed", "sales")]),
        ("/studio/databases/create", &[("name", "mine"), ("replicas", "1")]),
        (
            "/studio/database/access",
            &[("db", "sales"), ("t", &"ab".repeat(32)), ("access", "admin")],
        ),
    ] {
        reader.post(path, fields).await.check(403, &[], &[]);
    }
    for path in [
        "/studio/database?db=wages",
        "/studio/database?db=nowhere",
        "/studio/document?db=wages&id=a",
        "/studio/documents/export?db=wages",
        "/studio/database/delete?db=wages",
        "/studio/database/grant?db=sales",
    ] {
        reader.get(path).await.check(403, &["Not allowed"], &[]);
    }
    // The page around them stays, so that another database can be chosen.
    reader.get("/studio/documents?db=wages").await.check(403, &["sales</option>"], &["Export"]);
    root.get("/studio/document?db=sales&id=a").await.check(200, &["&#34;n&#34;: 1"], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_on_and_back_and_an_export_holds_the_shown_rows() {
    let (fixture, root) = started().await;
    let client = fixture.as_root().await;
    let write = |number: usize| rookery_proto::document::v1::Write {
        id: format!("d{number:03}"),
        precondition: None,
        operation: Some(rookery_proto::document::v1::write::Operation::Put(
            rookery_proto::document::v1::PutWrite {
                collection: ["", "Odd"][number % 2].to_owned(),
                json: format!("{{\"n\":{number}}}").into_bytes(),
            },
        )),
    };
    let request = rookery_proto::document::v1::BatchWriteRequest {
        database: "sales".into(),
        writes: (0..120).map(write).collect(),
        ..Default::default()
    };
    client.documents().batch_write(request).await.unwrap();

    let first = root.get("/studio/documents?db=sales").await;
    first.check(
        200,
        &["d000", "d049", "120 in sales", "no collection <b>60"],
        &["d050", "Previous"],
    );
    let second = root.get(&first.link("rel=\"next\"").unwrap()).await;
    second.check(200, &["d050", "d099", "Previous page"], &["d049"]);
    let third = root.get(&second.link("rel=\"next\"").unwrap()).await;
    third.check(200, &["d100", "d119", "Previous page"], &["rel=\"next\""]);
    let back = root.get(&third.link("rel=\"prev\"").unwrap()).await;
    back.check(200, &["d050", "d099"], &["d049", "d100"]);
    let start = root.get(&back.link("rel=\"prev\"").unwrap()).await;
    start.check(200, &["d000"], &["d050", "Previous"]);
    let odd = root.get(&first.link("<ul class=\"chips\"").unwrap()).await;
    odd.check(200, &["d001", "d099"], &["d000", "d100"]);

    let export = second.text.split("Create</a>").nth(1).unwrap();
    let export = unescaped(export.split_once("href=\"").unwrap().1.split_once('"').unwrap().0);
    let file = root.get(&export).await;
    let ids: Vec<String> = file
        .text
        .lines()
        .map(|line| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(line).unwrap())
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = (50..100).map(|number| format!("d{number:03}")).collect();
    assert_eq!(ids, expected);
    let etag = root.get("/studio/document?db=sales&id=d060").await.value("etag");
    root.put("d060", "{}", &etag).await.check(303, &[], &[]);
    root.get(&export).await.check(409, &["have changed since they were shown"], &["d050"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_too_large_for_a_form_is_offered_as_a_file_and_a_form_too_large_is_told() {
    let (fixture, root) = started().await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(300 * 1024));
    let client = fixture.as_root().await;
    let request = rookery_proto::document::v1::PutDocumentRequest {
        database: "sales".into(),
        id: "large".into(),
        json: large.clone().into_bytes(),
        ..Default::default()
    };
    client.documents().put_document(request).await.unwrap();
    let page = root.get("/studio/document?db=sales&id=large").await;
    page.check(200, &["300.0 KiB", "Download", "Its beginning"], &["<textarea"]);
    assert!(page.text.len() < 20_000, "{} bytes", page.text.len());
    root.get("/studio/documents?db=sales").await.check(200, &["300.0 KiB"], &[]);
    let file = root.get("/studio/document/download?db=sales&id=large").await;
    assert_eq!((file.http, file.text), (200, large));

    // More than a document may have, within the form's bound; and more than a form may have.
    let ten = format!("{{\"a\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let refused = root.put("ten", &ten, "").await;
    refused.check(
        429,
        &["larger than 4194304 bytes", "not repeated here"],
        &["<textarea", "still below"],
    );
    assert!(refused.text.len() < 20_000);
    let form = vec![b'a'; crate::limits::STUDIO_FORM_BYTES_MAX + 1];
    for path in ["/studio/document", "/studio/document/delete", "/studio/database/access"] {
        root.send("POST", path, form.clone()).await.check(
            413,
            &["Too large", "Nothing was changed"],
            &[],
        );
    }
    // The connection serves on.
    root.get("/studio/documents?db=sales").await.check(200, &["large"], &["id=ten"]);
    root.post("/studio/document", &[("db", "sales")]).await.check(400, &["cannot be read"], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_given_and_taken_from_the_side_of_the_database() {
    let (fixture, root) = started().await;
    let (ann, op) = (identity("ann"), identity("op"));
    fixture.register(&ann, Clearance::User, &[]).await;
    fixture.register(&op, Clearance::Operator, &[]).await;
    let t = ann.thumbprint().to_string();
    let found = root.get("/studio/database/grant?db=sales&q=some").await;
    found.check(200, &["somebody", &t], &[&op.thumbprint().to_string()]);
    root.get("/studio/database/grant?db=sales&q=nobody").await.check(200, &["No User"], &[&t]);
    root.get(&format!("/studio/database/grant?db=sales&q={}", &t[..10])).await.check(
        200,
        &[&t],
        &[],
    );

    let etag = found.value("etag");
    let give = |access: &'static str, etag: &str, confirmed: &str| {
        let fields = [
            ("db", "sales"),
            ("t", &*t),
            ("access", access),
            ("etag", etag),
            ("confirmed", confirmed),
        ];
        encoded(fields).into_bytes()
    };
    let send = async |body: Vec<u8>| root.send("POST", "/studio/database/access", body).await;
    let holds = async |access: &str| {
        let page = root.get("/studio/database?db=sales").await;
        let held = page.text.contains(&format!("<td>{access}</td><td>valid</td>"));
        held || (access == "none" && page.text.contains("No User has access"))
    };
    let asked = send(give("read-write", &etag, "")).await;
    asked.check(200, &["gives the holder more rights", "Read/Write", "Nothing was changed"], &[]);
    assert!(holds("none").await, "it waits for the confirmation");
    // A confirmation of another state of the registration is none.
    send(give("read-write", &etag, "1")).await.check(200, &["more rights"], &[]);
    assert!(holds("none").await);
    send(give("read-write", &etag, &asked.value("confirmed"))).await.check(303, &[], &[]);
    assert!(holds("Read/Write").await);
    // What is no access takes none away; an old form changes nothing; less is confirmed as more is.
    for forged in ["", "owner"] {
        let refused = send(give(forged, "", "")).await;
        refused.check(400, &["no access that there is"], &[]);
    }
    send(give("none", &etag, "")).await.check(409, &[], &[]);
    assert!(holds("Read/Write").await);
    let found = root.get("/studio/database/grant?db=sales&q=some").await;
    found.check(200, &["<option value=\"read-write\" selected>"], &["\"read\" selected"]);
    for (access, words, held) in
        [("read", "takes rights away", "Read"), ("none", "takes all access to sales away", "none")]
    {
        let etag = root.get("/studio/database?db=sales").await.value("etag");
        let asked = send(give(access, &etag, "")).await;
        asked.check(200, &[words, "Nothing was changed yet", "less"], &["more rights"]);
        assert!(!holds(held).await, "it waits for the confirmation");
        send(give(access, &etag, &asked.value("confirmed"))).await.check(303, &[], &[]);
        assert!(holds(held).await);
    }
    let operator = op.thumbprint().to_string();
    let fields = [("db", "sales"), ("t", operator.as_str()), ("access", "read")];
    root.post("/studio/database/access", &fields).await.check(
        409,
        &["Only a User has grants"],
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_created_disabled_and_deleted_by_its_typed_name() {
    let (_fixture, root) = started().await;
    let form = root.get("/studio/databases/create").await;
    form.check(200, &["On which nodes", "name=\"node:n1\""], &["disabled"]);
    let made = root.post("/studio/databases/create", &[("name", "new"), ("node:n1", "on")]).await;
    made.check(303, &[], &[]);
    assert_eq!(made.location, "/studio/database?db=new");
    let twice = root.post("/studio/databases/create", &[("name", "NEW"), ("node:n1", "on")]).await;
    twice.check(409, &["value=\"NEW\"", "name=\"node:n1\" checked"], &[]);
    let fields = [("name", "other"), ("node:n9", "on")];
    root.post("/studio/databases/create", &fields).await.check(404, &["n9"], &[]);

    root.put("a", "{\"n\":1}", "").await.check(303, &[], &[]);
    root.get("/studio/databases").await.check(200, &["7 B", "<td class=\"number\">1</td>"], &[]);
    root.post("/studio/database/state", &[("db", "sales"), ("to", "gone")]).await.check(
        400,
        &[],
        &[],
    );
    root.post("/studio/database/state", &[("db", "sales"), ("to", "disabled")]).await.check(
        303,
        &[],
        &[],
    );
    root.get("/studio/database?db=sales").await.check(
        200,
        &["disabled database is not counted"],
        &[],
    );
    root.get("/studio/documents?db=sales").await.check(409, &["is disabled"], &[]);
    root.get("/studio/documents").await.check(200, &["selected>new"], &["is disabled"]);
    root.get("/studio").await.check(200, &["<b>2</b>", "databases, 1 disabled"], &[]);
    root.post("/studio/database/state", &[("db", "sales"), ("to", "enabled")]).await.check(
        303,
        &[],
        &[],
    );

    let lost = root.get("/studio/database/delete?db=sales").await;
    lost.check(200, &["1 document, 7 B", "n1", "encryption key"], &[]);
    for typed in ["", "Sales", "sales ", "new"] {
        let wrong =
            root.post("/studio/database/delete", &[("db", "sales"), ("typed", typed)]).await;
        wrong.check(400, &["This is not the name"], &[]);
    }
    root.get("/studio/databases").await.check(200, &["sales"], &[]);
    let deleted =
        root.post("/studio/database/delete", &[("db", "sales"), ("typed", "sales")]).await;
    deleted.check(303, &[], &[]);
    root.get("/studio/databases").await.check(200, &["new"], &["sales"]);
}
