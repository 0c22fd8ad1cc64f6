//! What the Studio says of a change that failed, that was refused, or that nobody knows the end of; and forms that come
//! twice.

use super::{
    fake::Mood,
    studio_data::{Browser, started},
    *,
};

const UNKNOWN: &str = "It is not known whether this was done";
const NOTHING: &str = "Nothing was changed";
const AGAIN: &str = "send the same form again";

async fn new_id(root: &Browser) -> String {
    root.get("/studio/databases/create").await.value("request_id")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_looked_for_changes_nothing_and_the_page_does_not_say_so() {
    let (fixture, root) = started().await;
    for (path, http) in [
        ("/studio/database?db=missing", 404),
        ("/studio/document?db=sales&id=missing", 404),
        ("/studio/cluster/node?node=9&action=remove", 404),
        ("/studio/certificate?t=zz", 400),
        ("/studio/nothing", 404),
    ] {
        root.get(path).await.check(http, &[], &[NOTHING, UNKNOWN]);
    }
    for (path, fields, http) in [
        ("/studio/database/state", &[("db", "missing"), ("to", "disabled")][..], 404),
        ("/studio/database/state", &[("db", "sales")], 400),
        ("/studio/database/delete", &[("db", "missing"), ("typed", "missing")], 404),
        ("/studio/databases/create", &[("name", "sales"), ("node:n1", "on")], 409),
        ("/studio/cluster/node", &[("node", "1"), ("action", "transfer")], 503),
        ("/studio/cluster/node", &[("node", "9"), ("action", "remove")], 404),
        ("/studio/cluster/token", &[("minutes", "x")], 400),
        ("/studio/nothing", &[], 404),
        ("/studio/document/delete", &[("db", "sales"), ("id", "missing")], 404),
    ] {
        let shown = root.post(path, fields).await;
        shown.check(http, &[NOTHING], &[UNKNOWN, "request_id,"]);
        assert_eq!(shown.text.matches(NOTHING).count(), 1, "{path}: {}", shown.text);
    }
    fixture.fake.be(Mood::Stale);
    root.get("/studio").await.check(503, &["hears no leader"], &[NOTHING]);
    let fields = [("db", "sales"), ("to", "disabled")];
    root.post("/studio/database/state", &fields).await.check(503, &[NOTHING], &[UNKNOWN]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_knows_the_page_says_so_and_the_same_form_is_done_once() {
    let (fixture, root) = started().await;
    let id = new_id(&root).await;
    let create = [("name", "new"), ("node:n1", "on"), ("request_id", id.as_str())];
    fixture.fake.be(Mood::Unanswered);
    let told = root.post("/studio/databases/create", &create).await;
    told.check(504, &[UNKNOWN, "/studio/databases\"", AGAIN], &[NOTHING, "same request_id"]);
    assert_eq!(told.value("request_id"), id, "the form is sent again as the same");
    fixture.fake.be(Mood::Serving);
    let again = root.post("/studio/databases/create", &create).await;
    again.check(303, &[], &[]);
    assert_eq!(again.location, "/studio/database?db=new");

    // A document: its page keeps what was entered.
    let id = new_id(&root).await;
    let put = [("db", "sales"), ("id", "a"), ("json", "{\"n\":1}"), ("request_id", id.as_str())];
    fixture.fake.be(Mood::Unanswered);
    let told = root.post("/studio/document", &put).await;
    told.check(504, &[UNKNOWN, AGAIN, "still below"], &[NOTHING]);
    assert_eq!(told.value("request_id"), id);
    fixture.fake.be(Mood::Serving);
    let page = "/studio/document?db=sales&id=a";
    let etag = root.get(page).await.value("etag");
    root.post("/studio/document", &put).await.check(303, &[], &[]);
    assert_eq!(root.get(page).await.value("etag"), etag, "it is still the first that was stored");

    // Without an id, as an older page has it: nothing is promised.
    fixture.fake.be(Mood::Unanswered);
    let state = [("db", "sales"), ("to", "disabled")];
    root.post("/studio/database/state", &state).await.check(504, &[UNKNOWN], &[NOTHING, AGAIN]);
    let delete = [("db", "new"), ("typed", "new"), ("request_id", id.as_str())];
    root.post("/studio/database/delete", &delete).await.check(504, &[UNKNOWN, AGAIN], &[NOTHING]);
    // A token that was made and not shown is lost.
    fixture.fake.be(Mood::Serving);
    let id = new_id(&root).await;
    fixture.fake.be(Mood::Unanswered);
    let token = [("minutes", "5"), ("request_id", id.as_str())];
    let told = root.post("/studio/cluster/token", &token).await;
    told.check(504, &[UNKNOWN, "can be revoked"], &[NOTHING, AGAIN]);
    fixture.fake.be(Mood::Serving);
    root.get("/studio/databases").await.check(200, &["disabled"], &["db=new"]);
    root.get("/studio/cluster").await.check(200, &["Open token"], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_comes_twice_is_done_once_and_answered_as_the_first_time() {
    let (fixture, root) = started().await;
    let ann = identity("ann");
    fixture.register(&ann, Clearance::User, &[]).await;
    let t = ann.thumbprint().to_string();
    let twice = async |path: &str, fields: &[(&str, &str)], leads_to: &str| {
        let id = new_id(&root).await;
        let fields = [fields, &[("request_id", id.as_str())]].concat();
        let mut versions = Vec::new();
        for round in 1..=2 {
            let answer = root.post(path, &fields).await;
            assert_eq!(answer.location, leads_to, "{path}, {round}: {}", answer.text);
            if leads_to.starts_with("/studio/document?") {
                versions.push(root.get(leads_to).await.value("etag"));
            }
        }
        versions.dedup();
        assert!(versions.len() <= 1, "{path} was done twice: {versions:?}");
        id
    };
    let document = "/studio/document?db=sales&id=a";
    let put = [("db", "sales"), ("id", "a"), ("json", "{\"n\":1}")];
    let id = twice("/studio/document", &put, document).await;
    // The same id with something else in the form is neither done nor taken for the first.
    let other = [("db", "sales"), ("id", "b"), ("json", "{}"), ("request_id", id.as_str())];
    let told = root.post("/studio/document", &other).await;
    told.check(400, &["sent before with other content", NOTHING], &[UNKNOWN]);
    assert_ne!(told.value("request_id"), id, "the form that is shown again counts as a new one");
    root.get("/studio/document?db=sales&id=b").await.check(404, &[], &[]);
    // Without an id the second is the conflict that it is.
    root.post("/studio/document", &put).await.check(409, &["Somebody else stored"], &[]);

    let etag = root.get(document).await.value("etag");
    let change = [("db", "sales"), ("id", "a"), ("json", "{\"n\":2}"), ("etag", etag.as_str())];
    twice("/studio/document", &change, document).await;
    let etag = root.get(document).await.value("etag");
    let gone = [("db", "sales"), ("id", "a"), ("etag", etag.as_str())];
    twice("/studio/document/delete", &gone, "/studio/documents?db=sales").await;

    let etag = root.get("/studio/database/grant?db=sales&q=some").await.value("etag");
    let give = [
        ("db", "sales"),
        ("t", t.as_str()),
        ("access", "admin"),
        ("etag", etag.as_str()),
        ("confirmed", etag.as_str()),
    ];
    twice("/studio/database/access", &give, "/studio/database?db=sales").await;
    let state = [("db", "sales"), ("to", "disabled")];
    twice("/studio/database/state", &state, "/studio/database?db=sales").await;
    let new = [("name", "new"), ("node:n1", "on")];
    twice("/studio/databases/create", &new, "/studio/database?db=new").await;
    let delete = [("db", "new"), ("typed", "new")];
    twice("/studio/database/delete", &delete, "/studio/databases").await;

    // A token is shown once; a form that comes twice makes one.
    let id = new_id(&root).await;
    let token = [("minutes", "5"), ("request_id", id.as_str())];
    root.post("/studio/cluster/token", &token).await.check(200, &["id=\"token\""], &[]);
    let told = root.post("/studio/cluster/token", &token).await;
    told.check(400, &["was sent before", NOTHING], &["id=\"token\"", AGAIN]);
    let page = root.get("/studio/cluster").await;
    assert_eq!(page.text.matches("/studio/cluster/token/revoke").count(), 1, "{}", page.text);
    // What is no id is told as such.
    let wrong = [("minutes", "5"), ("request_id", "x")];
    root.post("/studio/cluster/token", &wrong).await.check(400, &["must be a UUID"], &[UNKNOWN]);
}
