//! What clients of the document service may rely on, through any node.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, put_request, reason, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    wait::eventually,
};
use rookery_proto::{
    database::v1 as database,
    document::v1::{self as document, Precondition, precondition::Condition, write::Operation},
    security::v1::{Access, Clearance},
};
use tonic::{Code, Status};

const DB: &str = "sales";

/// Documents whose bytes a parser that rebuilds them would change.
const VERBATIM: &[&str] = &[
    "{}",
    "{ }",
    "{\n  \"b\" : 1,\r\n\t\"a\" : [ ] }",
    r#"{"n":12345678901234567890123}"#,
    r#"{"n":0.1000000000000000055511151231257827,"z":-0,"e":1E5,"f":1.0}"#,
    r#"{"b":1,"a":2,"@metadata":{"x":1},"__proto__":{},"$type":"y","":0}"#,
    r#"{"s":"\u0000\u00e9é\/\"\ud83d\ude00😀"}"#,
];

#[tokio::test]
async fn documents_behave_alike_through_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database(DB, 3).await?;
    let nodes = cluster.everywhere(Some(&cluster.administrator))?;
    bytes_come_back_as_they_were(&nodes).await.context("bytes")?;
    what_one_node_acknowledged_every_node_reads(&nodes).await.context("read your writes")?;
    a_repeated_request_id_is_applied_once(&nodes).await.context("request ids")?;
    preconditions_hold_or_nothing_happens(&nodes).await.context("preconditions")?;
    a_batch_is_applied_whole_or_not_at_all(&nodes).await.context("batches")?;
    concurrent_compare_and_set_loses_no_update(&nodes).await.context("compare and set")?;
    stale_reads_catch_up(&nodes).await.context("stale reads")?;
    deletes_and_missing_documents(&nodes).await.context("deletes")?;
    pages_cover_each_document_once_in_byte_order(&nodes).await.context("pages")?;
    page_tokens_are_bound_to_caller_and_query(&mut cluster, &nodes).await.context("page tokens")?;
    database_names_are_one_key_whatever_their_case(&nodes).await.context("database names")?;
    a_disabled_database_answers_no_document_call(&nodes).await.context("disabling")?;
    a_database_on_one_node_is_served_by_all(&nodes).await.context("placement")?;
    cluster.same_state().await?;
    cluster.finish().await
}

async fn bytes_come_back_as_they_were(nodes: &[Caller]) -> Result<()> {
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(4 * 1024 * 1024 - 11));
    for (number, json) in VERBATIM.iter().copied().chain([large.as_str()]).enumerate() {
        let id = format!("verbatim/{number}");
        nodes[number % 3].put(DB, &id, json).await.with_context(|| id.clone())?;
        for node in nodes {
            let stored = node.get(DB, &id).await?;
            anyhow::ensure!(stored == json.as_bytes(), "{id} came back changed");
        }
    }
    let longest = "i".repeat(512);
    let odd_ids = ["a", "a b", "../a", "é", "日本", "a/b/c", "%00", longest.as_str()];
    for id in odd_ids {
        nodes[0].put(DB, id, "{}").await.with_context(|| format!("id {id:?}"))?;
        let stored = nodes[1].document(DB, id).await?;
        anyhow::ensure!(stored.id == id && stored.modified_unix_ms > 0 && stored.revision > 0);
    }
    Ok(())
}

async fn what_one_node_acknowledged_every_node_reads(nodes: &[Caller]) -> Result<()> {
    for count in 0..60 {
        let json = format!(r#"{{"count":{count}}}"#);
        nodes[count % 3].put(DB, "counter", &json).await?;
        for reader in [(count + 1) % 3, (count + 2) % 3] {
            let seen = nodes[reader].get(DB, "counter").await?;
            anyhow::ensure!(seen == json.as_bytes(), "n{} read an old value", reader + 1);
        }
    }
    Ok(())
}

async fn a_repeated_request_id_is_applied_once(nodes: &[Caller]) -> Result<()> {
    let request = put_request(DB, "once", r#"{"first":true}"#);
    let put = async |node: &Caller| node.documents().put_document(request.clone()).await;
    let first = put(&nodes[0]).await?.into_inner();
    nodes[1].put(DB, "once", r#"{"second":true}"#).await?;
    for node in nodes {
        let again = put(node).await?.into_inner();
        anyhow::ensure!(again.etag == first.etag, "a retry got another answer");
        let stored = node.get(DB, "once").await?;
        anyhow::ensure!(stored == br#"{"second":true}"#, "a retry was applied again");
    }
    let other = document::PutDocumentRequest { json: b"{}".to_vec(), ..request.clone() };
    let status =
        nodes[2].documents().put_document(other).await.err().context("an id was reused")?;
    anyhow::ensure!(reason(&status) == "REQUEST_ID_REUSED", "{status:?}");
    let malformed = document::PutDocumentRequest { request_id: "7".into(), ..request };
    let status = nodes[0].documents().put_document(malformed).await.err().context("no UUID")?;
    anyhow::ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    Ok(())
}

fn if_etag(etag: &str) -> Option<Precondition> {
    Some(Precondition { condition: Some(Condition::Etag(etag.to_owned())) })
}

fn if_new() -> Option<Precondition> {
    Some(Precondition { condition: Some(Condition::MustNotExist(true)) })
}

async fn put_if(
    node: &Caller,
    id: &str,
    json: &str,
    precondition: Option<Precondition>,
) -> Result<String, Status> {
    let request = document::PutDocumentRequest { precondition, ..put_request(DB, id, json) };
    Ok(node.documents().put_document(request).await?.into_inner().etag)
}

fn conflicted<T: std::fmt::Debug>(outcome: &Result<T, Status>) -> Result<()> {
    let refused = outcome
        .as_ref()
        .is_err_and(|status| status.code() == Code::Aborted && reason(status) == "CONCURRENCY");
    anyhow::ensure!(refused, "expected ABORTED CONCURRENCY, got {outcome:?}");
    Ok(())
}

async fn preconditions_hold_or_nothing_happens(nodes: &[Caller]) -> Result<()> {
    let one = put_if(&nodes[0], "if", r#"{"v":1}"#, if_new()).await?;
    conflicted(&put_if(&nodes[1], "if", r#"{"v":0}"#, if_new()).await)?;
    let two = put_if(&nodes[1], "if", r#"{"v":2}"#, if_etag(&one)).await?;
    anyhow::ensure!(one != two, "an etag did not change");
    conflicted(&put_if(&nodes[2], "if", r#"{"v":0}"#, if_etag(&one)).await)?;
    conflicted(&put_if(&nodes[2], "if-missing", "{}", if_etag(&one)).await)?;
    anyhow::ensure!(nodes[2].get(DB, "if").await? == br#"{"v":2}"#);
    let delete = |precondition| document::DeleteDocumentRequest {
        database: DB.into(),
        id: "if".into(),
        precondition,
        request_id: request_id(),
    };
    conflicted(&nodes[0].documents().delete_document(delete(if_etag(&one))).await)?;
    nodes[0].documents().delete_document(delete(if_etag(&two))).await?;
    let again = put_if(&nodes[0], "if", r#"{"v":3}"#, if_new()).await?;
    anyhow::ensure!(again != one && again != two, "an etag came back");
    Ok(())
}

fn write(id: &str, json: &str, precondition: Option<Precondition>) -> document::Write {
    let put = document::PutWrite { collection: "Batch".into(), json: json.as_bytes().to_vec() };
    document::Write { id: id.into(), precondition, operation: Some(Operation::Put(put)) }
}

async fn batch(
    node: &Caller,
    writes: Vec<document::Write>,
) -> Result<document::BatchWriteResponse, Status> {
    let request =
        document::BatchWriteRequest { database: DB.into(), writes, request_id: request_id() };
    Ok(node.documents().batch_write(request).await?.into_inner())
}

async fn a_batch_is_applied_whole_or_not_at_all(nodes: &[Caller]) -> Result<()> {
    let answer = batch(&nodes[0], vec![write("b/1", "{}", None), write("b/2", "{}", None)]).await?;
    anyhow::ensure!(answer.results.len() == 2, "{answer:?}");
    anyhow::ensure!(answer.results[0].etag != answer.results[1].etag, "{answer:?}");
    let half = vec![write("b/3", "{}", None), write("b/1", "{}", if_new())];
    conflicted(&batch(&nodes[1], half).await)?;
    for node in nodes {
        let missing = node.get(DB, "b/3").await.err().context("half a batch was applied")?;
        anyhow::ensure!(missing.code() == Code::NotFound, "{missing:?}");
    }
    let delete = document::Write {
        id: "b/1".into(),
        precondition: None,
        operation: Some(Operation::Delete(document::DeleteWrite {})),
    };
    let mixed = batch(&nodes[2], vec![delete, write("b/4", "{}", if_new())]).await?;
    anyhow::ensure!(mixed.results[0].deleted && mixed.results[0].etag.is_empty(), "{mixed:?}");
    for (what, writes) in [
        ("an empty batch", Vec::new()),
        ("one id twice", vec![write("b/5", "{}", None), write("b/5", "{}", None)]),
        (
            "a write without operation",
            vec![document::Write { id: "b/6".into(), ..Default::default() }],
        ),
        ("bad JSON", vec![write("b/7", "{}", None), write("b/8", "[]", None)]),
        ("too many", (0..10_001).map(|n| write(&format!("c/{n}"), "{}", None)).collect()),
    ] {
        let status = batch(&nodes[0], writes).await.err().with_context(|| what.to_owned())?;
        let refused = matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted);
        anyhow::ensure!(refused, "{what}: {status:?}");
    }
    Ok(())
}

async fn concurrent_compare_and_set_loses_no_update(nodes: &[Caller]) -> Result<()> {
    const CLIENTS: usize = 6;
    const EACH: usize = 15;
    nodes[0].put(DB, "sum", "{\"n\":0}").await?;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let node = nodes[client % nodes.len()].clone();
        clients.push(tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let current = node.document(DB, "sum").await?;
                let value: serde_json::Value = serde_json::from_slice(&current.json)?;
                let next = value["n"].as_u64().context("a number")? + 1;
                let json = format!("{{\"n\":{next}}}");
                match put_if(&node, "sum", &json, if_etag(&current.etag)).await {
                    Ok(_) => done += 1,
                    Err(status) if status.code() == Code::Aborted => {}
                    Err(status) => anyhow::bail!("{status:?}"),
                }
            }
            Ok(())
        }));
    }
    for client in clients {
        client.await??;
    }
    let sum = nodes[0].get(DB, "sum").await?;
    anyhow::ensure!(sum == format!("{{\"n\":{}}}", CLIENTS * EACH).into_bytes());
    Ok(())
}

async fn stale_reads_catch_up(nodes: &[Caller]) -> Result<()> {
    nodes[0].put(DB, "stale", r#"{"v":1}"#).await?;
    for node in nodes {
        eventually("a stale read sees the write", HEAL_LIMIT, async || {
            let request = document::GetDocumentRequest {
                database: DB.into(),
                id: "stale".into(),
                stale_ok: true,
            };
            let answer = node.documents().get_document(request).await?.into_inner();
            anyhow::ensure!(answer.document.is_some_and(|d| d.json == br#"{"v":1}"#));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn deletes_and_missing_documents(nodes: &[Caller]) -> Result<()> {
    let delete = async |node: &Caller, id: &str| {
        let request = document::DeleteDocumentRequest {
            database: DB.into(),
            id: id.into(),
            request_id: request_id(),
            ..Default::default()
        };
        node.documents().delete_document(request).await.map(|answer| answer.into_inner().deleted)
    };
    nodes[0].put(DB, "gone", "{}").await?;
    anyhow::ensure!(delete(&nodes[1], "gone").await?);
    anyhow::ensure!(!delete(&nodes[2], "gone").await?);
    for node in nodes {
        let status = node.get(DB, "gone").await.err().context("a deleted document was read")?;
        anyhow::ensure!(status.code() == Code::NotFound, "{status:?}");
        let status = node.get("no-such-database", "a").await.err().context("no database")?;
        anyhow::ensure!(status.code() == Code::NotFound, "{status:?}");
    }
    Ok(())
}

/// All pages of a query; checks that no page is larger than asked.
async fn all_pages(
    node: &Caller,
    query: document::ListDocumentsRequest,
) -> Result<Vec<document::Document>> {
    let mut documents = Vec::new();
    let mut query = query;
    loop {
        let page = node.documents().list_documents(query.clone()).await?.into_inner();
        anyhow::ensure!(page.documents.len() <= query.page_size as usize, "a page is too large");
        documents.extend(page.documents);
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            return Ok(documents);
        }
    }
}

fn query(prefix: &str, collection: &str, page_size: u32) -> document::ListDocumentsRequest {
    document::ListDocumentsRequest {
        database: DB.into(),
        prefix: prefix.into(),
        collection: collection.into(),
        page_size,
        ..Default::default()
    }
}

async fn pages_cover_each_document_once_in_byte_order(nodes: &[Caller]) -> Result<()> {
    let mut writes = Vec::new();
    for number in 0..250 {
        let collection = if number % 5 == 0 { "Fifth" } else { "Rest" };
        let put = document::PutWrite {
            collection: collection.into(),
            json: format!("{{\"n\":{number}}}").into_bytes(),
        };
        let operation = Some(Operation::Put(put));
        writes.push(document::Write {
            id: format!("page/{number}"),
            precondition: None,
            operation,
        });
    }
    batch(&nodes[0], writes).await?;
    // Neighbours of the prefix, which no page may hold.
    for id in ["page", "page.", "page0", "pagf"] {
        nodes[0].put(DB, id, "{}").await?;
    }
    for (node, size) in nodes.iter().zip([7, 100, 1000]) {
        let listed = all_pages(node, query("page/", "", size)).await?;
        let ids: Vec<_> = listed.iter().map(|d| d.id.clone()).collect();
        let mut expected: Vec<_> = (0..250).map(|number| format!("page/{number}")).collect();
        expected.sort();
        anyhow::ensure!(ids == expected, "page size {size}: {} ids", ids.len());
        anyhow::ensure!(listed.iter().all(|d| !d.json.is_empty() && !d.etag.is_empty()));
        let fifth = all_pages(node, query("", "Fifth", size)).await?;
        anyhow::ensure!(fifth.len() == 50 && fifth.iter().all(|d| d.collection == "Fifth"));
        let unique: BTreeSet<_> = fifth.iter().map(|d| &d.id).collect();
        anyhow::ensure!(unique.len() == 50, "a document came twice");
        let both = all_pages(node, query("page/1", "Fifth", size)).await?;
        let all = both.iter().all(|d| d.id.starts_with("page/1") && d.collection == "Fifth");
        anyhow::ensure!(both.len() == 22 && all, "{} of both", both.len());
        let ids_only =
            document::ListDocumentsRequest { ids_only: true, ..query("page/", "", size) };
        let ids_only = all_pages(node, ids_only).await?;
        anyhow::ensure!(ids_only.len() == 250 && ids_only.iter().all(|d| d.json.is_empty()));
    }
    let status = nodes[0].documents().list_documents(query("", "", 1001)).await;
    anyhow::ensure!(status.is_err_and(|status| status.code() == Code::InvalidArgument));
    Ok(())
}

async fn page_tokens_are_bound_to_caller_and_query(
    cluster: &mut Cluster,
    nodes: &[Caller],
) -> Result<()> {
    let first = nodes[0].documents().list_documents(query("page/", "", 10)).await?.into_inner();
    let token = first.next_page_token;
    anyhow::ensure!(!token.is_empty());
    let next =
        document::ListDocumentsRequest { page_token: token.clone(), ..query("page/", "", 10) };
    // Another node takes it: it is bound to the query, not to a connection.
    nodes[1].documents().list_documents(next.clone()).await?;
    let other = cluster.register("other-reader", Clearance::User, &[(DB, Access::Read)]).await?;
    let other = cluster.nodes[0].caller(Some(&other))?;
    let mut changed = token.clone().into_bytes();
    changed[token.len() / 2] ^= 1;
    let changed = String::from_utf8(changed)?;
    let refused = [
        ("another caller", other.clone(), next.clone()),
        (
            "another prefix",
            nodes[0].clone(),
            document::ListDocumentsRequest { prefix: "page".into(), ..next.clone() },
        ),
        (
            "another collection",
            nodes[0].clone(),
            document::ListDocumentsRequest { collection: "Fifth".into(), ..next.clone() },
        ),
        (
            "a changed token",
            nodes[0].clone(),
            document::ListDocumentsRequest { page_token: changed, ..next.clone() },
        ),
        (
            "a token of junk",
            nodes[0].clone(),
            document::ListDocumentsRequest { page_token: "junk".into(), ..next.clone() },
        ),
        (
            "a huge token",
            nodes[0].clone(),
            document::ListDocumentsRequest { page_token: "a".repeat(100_000), ..next.clone() },
        ),
    ];
    for (what, caller, request) in refused {
        let status = caller.documents().list_documents(request).await.err();
        let status = status.with_context(|| format!("{what} was accepted"))?;
        anyhow::ensure!(status.code() == Code::InvalidArgument, "{what}: {status:?}");
    }
    Ok(())
}

async fn database_names_are_one_key_whatever_their_case(nodes: &[Caller]) -> Result<()> {
    let status = nodes[1].create_database("SALES", 3).await.err().context("a second SALES")?;
    anyhow::ensure!(status.code() == Code::AlreadyExists, "{status:?}");
    nodes[0].put(DB, "case", "{}").await?;
    anyhow::ensure!(nodes[2].get("sAlEs", "case").await? == b"{}");
    Ok(())
}

async fn a_disabled_database_answers_no_document_call(nodes: &[Caller]) -> Result<()> {
    nodes[0].create_database("sleepy", 3).await?;
    nodes[0].put("sleepy", "a", "{}").await?;
    let disable =
        database::DisableDatabaseRequest { name: "sleepy".into(), request_id: request_id() };
    nodes[1].databases().disable_database(disable).await?;
    for node in nodes {
        for status in
            [node.get("sleepy", "a").await.err(), node.put("sleepy", "b", "{}").await.err()]
        {
            let status = status.context("a disabled database answered")?;
            anyhow::ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
            anyhow::ensure!(reason(&status) == "DATABASE_DISABLED", "{status:?}");
        }
    }
    let enable =
        database::EnableDatabaseRequest { name: "sleepy".into(), request_id: request_id() };
    nodes[2].databases().enable_database(enable).await?;
    for node in nodes {
        anyhow::ensure!(node.get("sleepy", "a").await? == b"{}");
    }
    Ok(())
}

async fn a_database_on_one_node_is_served_by_all(nodes: &[Caller]) -> Result<()> {
    let request = database::CreateDatabaseRequest {
        name: "single".into(),
        nodes: vec!["n2".into()],
        request_id: request_id(),
        ..Default::default()
    };
    let record = nodes[0].databases().create_database(request).await?.into_inner().record;
    anyhow::ensure!(record.context("a record")?.nodes == ["n2"]);
    for (number, node) in nodes.iter().enumerate() {
        node.put("single", &format!("from/{number}"), "{}").await?;
    }
    for node in nodes {
        let listed =
            document::ListDocumentsRequest { database: "single".into(), ..Default::default() };
        let listed = node.documents().list_documents(listed).await?.into_inner();
        anyhow::ensure!(listed.documents.len() == 3, "{listed:?}");
    }
    let nowhere = database::CreateDatabaseRequest {
        name: "nowhere".into(),
        nodes: vec!["n9".into()],
        request_id: request_id(),
        ..Default::default()
    };
    let status = nodes[0].databases().create_database(nowhere).await.err().context("n9")?;
    anyhow::ensure!(matches!(status.code(), Code::InvalidArgument | Code::NotFound), "{status:?}");
    Ok(())
}
