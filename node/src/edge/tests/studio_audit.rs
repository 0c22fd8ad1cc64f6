//! The audit page and the records that are followed on it: nothing is left out between the page, a pause, and a connection
//! that is made again.

use super::{
    studio_data::{Browser, Shown, started, unescaped},
    *,
};

/// The events of a stream that ends, which the engine of these tests does after what there is.
async fn events(root: &Browser, path: &str, last: Option<&str>) -> String {
    let origin = format!("https://{}", root.client.address);
    let mut request = http::Request::builder().uri(format!("{origin}{path}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let request = request.body(tonic::body::Body::new(Full::new(Bytes::new()))).unwrap();
    let answer = root.client.sender.clone().send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Where a page has its records followed.
fn live(page: &Shown) -> String {
    let found = page.text.split_once("data-live=\"").and_then(|(_, rest)| rest.split_once('"'));
    unescaped(found.unwrap_or_else(|| panic!("nothing to follow in {}", page.text)).0)
}

fn sequences(text: &str) -> Vec<u64> {
    let cells = text.split("</td><td class=\"number\">").skip(1);
    cells.map(|it| it.split('<').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_followed_goes_on_where_the_page_ends() {
    let (fixture, root) = started().await;
    let page = root.get("/studio/audit").await;
    let newest = sequences(&page.text)[0];
    let here = live(&page);
    assert_eq!(here, format!("/studio/audit/live?after={newest}"));
    assert_eq!(sequences(&events(&root, &here, None).await), [0_u64; 0]);
    // What came after the page was made, however much later somebody follows it.
    for name in ["one", "two"] {
        fixture.create_database(name).await;
    }
    let told = events(&root, &here, None).await;
    assert_eq!(sequences(&told), [newest + 2, newest + 1]);
    assert!(told.contains(&format!("id: {}\n", newest + 2)), "{told}");
    // A browser that connects again says what it has.
    let last = (newest + 1).to_string();
    assert_eq!(sequences(&events(&root, &here, Some(&last)).await), [newest + 2]);
    // Without either, from now on.
    assert_eq!(sequences(&events(&root, "/studio/audit/live", None).await), [0_u64; 0]);
    // The filters are those of the page; where nothing fits, what comes later is followed all the same.
    let page = root.get("/studio/audit?operation=enable-database").await;
    page.check(200, &["id=\"no-records\""], &[]);
    let here = live(&page);
    assert_eq!(here, format!("/studio/audit/live?operation=enable-database&after={}", newest + 2));
    let fields = [("db", "sales"), ("to", "disabled")];
    root.post("/studio/database/state", &fields).await.check(303, &[], &[]);
    let fields = [("db", "sales"), ("to", "enabled")];
    root.post("/studio/database/state", &fields).await.check(303, &[], &[]);
    assert_eq!(sequences(&events(&root, &here, None).await), [newest + 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_page_is_followed_and_a_verification_keeps_the_filters() {
    let (fixture, root) = started().await;
    for number in 0..110 {
        fixture.create_database(&format!("db{number:03}")).await;
    }
    let first = root.get("/studio/audit?operation=create-database").await;
    assert_eq!(sequences(&first.text).len(), 100);
    let older = first.link("rel=\"next\"").unwrap();
    root.get(&older).await.check(200, &["Newest"], &["data-live"]);
    // To the second.
    let at = first.text.split("<td class=\"date\">").nth(1).unwrap();
    assert_eq!(at.split('<').next().unwrap().len(), "2026-11-22 08:15:30".len(), "{at}");

    first.check(200, &["name=\"operation\" value=\"create-database\""], &[]);
    let fields = [("operation", "create-database"), ("target", "db00")];
    let verified = root.post("/studio/audit/verify", &fields).await;
    verified.check(200, &["The chain is intact", " records from 1 ", "value=\"db00\""], &[]);
    assert_eq!(sequences(&verified.text).len(), 10, "{}", verified.text);
    root.post("/studio/audit/verify", &[]).await.check(200, &["The chain is intact"], &[]);
}
