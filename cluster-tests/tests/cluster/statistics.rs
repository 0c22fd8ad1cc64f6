//! Counts of databases and collections: the same through every node, equal to a recount, and there after a restart.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, request_id},
    cluster::Cluster,
    wait::eventually,
};
use rookery_proto::{
    database::v1::{self as database, GetDatabaseStatisticsRequest as Request},
    document::v1::{self as document, write::Operation},
    security::v1::{Access, Clearance},
};
use tonic::Code;

const DB: &str = "counted";

/// Documents and bytes of a collection.
type Sizes = BTreeMap<String, (u64, u64)>;

#[tokio::test]
async fn databases_are_counted_alike_through_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database(DB, 3).await?;
    let nodes = cluster.everywhere(Some(&cluster.administrator))?;
    an_empty_database_counts_nothing(&nodes).await.context("empty")?;
    counts_follow_every_kind_of_write(&nodes).await.context("writes")?;
    collections_come_in_pages(&mut cluster, &nodes).await.context("pages")?;
    a_database_elsewhere_is_counted_where_it_is(&nodes).await.context("placement")?;
    a_disabled_database_is_not_counted(&nodes).await.context("disabled")?;
    cluster.same_state().await?;
    cluster.finish().await
}

fn request(name: &str) -> Request {
    Request { name: name.into(), ..Default::default() }
}

/// All pages of a count, and the last answer's sums.
async fn counted(node: &Caller, request: Request) -> Result<(Sizes, (u64, u64), String)> {
    let mut sizes = Sizes::new();
    let mut request = request;
    loop {
        let answer = node.databases().get_database_statistics(request.clone()).await?.into_inner();
        anyhow::ensure!(answer.applied_index > 0);
        for it in answer.collections {
            let before = sizes.insert(it.name.clone(), (it.documents, it.bytes));
            anyhow::ensure!(before.is_none(), "{} came twice", it.name);
        }
        if answer.next_page_token.is_empty() {
            return Ok((sizes, (answer.documents, answer.bytes), answer.node));
        }
        request.page_token = answer.next_page_token;
    }
}

/// The same, from the documents themselves.
async fn recounted(node: &Caller, database: &str) -> Result<Sizes> {
    let mut sizes = Sizes::new();
    let mut request =
        document::ListDocumentsRequest { database: database.into(), ..Default::default() };
    loop {
        let page = node.documents().list_documents(request.clone()).await?.into_inner();
        for it in page.documents {
            let size = sizes.entry(it.collection).or_default();
            *size = (size.0 + 1, size.1 + it.json.len() as u64);
        }
        if page.next_page_token.is_empty() {
            return Ok(sizes);
        }
        request.page_token = page.next_page_token;
    }
}

/// Every node counts what is there, at once and without asking the leader.
async fn check(nodes: &[Caller], database: &str) -> Result<Sizes> {
    let expected = recounted(&nodes[0], database).await?;
    let sum = expected.values().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    for (number, node) in nodes.iter().enumerate() {
        let (sizes, all, _) = counted(node, request(database)).await?;
        anyhow::ensure!(sizes == expected, "n{}: {sizes:?}, not {expected:?}", number + 1);
        anyhow::ensure!(all == sum, "n{}: {all:?}, not {sum:?}", number + 1);
        eventually("the node's own copy", Duration::from_secs(5), async || {
            let stale = Request { stale_ok: true, ..request(database) };
            let (sizes, all, _) = counted(node, stale).await?;
            anyhow::ensure!(sizes == expected && all == sum, "{sizes:?}");
            Ok(())
        })
        .await?;
    }
    Ok(expected)
}

async fn an_empty_database_counts_nothing(nodes: &[Caller]) -> Result<()> {
    anyhow::ensure!(check(nodes, DB).await?.is_empty());
    Ok(())
}

fn put(id: &str, collection: &str, json: &str) -> document::Write {
    let put = document::PutWrite { collection: collection.into(), json: json.into() };
    document::Write { id: id.into(), precondition: None, operation: Some(Operation::Put(put)) }
}

async fn batch(node: &Caller, writes: Vec<document::Write>) -> Result<(), tonic::Status> {
    let request =
        document::BatchWriteRequest { database: DB.into(), writes, request_id: request_id() };
    node.documents().batch_write(request).await.map(drop)
}

async fn counts_follow_every_kind_of_write(nodes: &[Caller]) -> Result<()> {
    batch(&nodes[0], vec![put("a", "Orders", "{}"), put("b", "", "{ }"), put("c", "X", "{}")])
        .await?;
    // Longer; to another collection; a delete; and one that is refused as a whole.
    batch(&nodes[1], vec![put("a", "Orders", "{\"n\":1}"), put("c", "Orders", "{}")]).await?;
    nodes[2].put(DB, "b", "{  }").await?;
    let delete = document::Write {
        id: "c".into(),
        precondition: None,
        operation: Some(Operation::Delete(document::DeleteWrite {})),
    };
    batch(&nodes[0], vec![delete, put("é", "Ölfässer", "{}")]).await?;
    let condition = document::precondition::Condition::MustNotExist(true);
    let refused = document::Write {
        precondition: Some(document::Precondition { condition: Some(condition) }),
        ..put("a", "Y", "{}")
    };
    let status = batch(&nodes[1], vec![put("new", "Y", "{}"), refused]).await.err();
    anyhow::ensure!(status.is_some_and(|status| status.code() == Code::Aborted));
    let sizes = check(nodes, DB).await?;
    let expected = [("", (1, 4)), ("Orders", (1, 7)), ("Ölfässer", (1, 2))];
    anyhow::ensure!(sizes == expected.map(|(name, size)| (name.to_owned(), size)).into());
    Ok(())
}

async fn collections_come_in_pages(cluster: &mut Cluster, nodes: &[Caller]) -> Result<()> {
    let many = (0..25).map(|n| put(&format!("many/{n}"), &format!("C{n}"), "{}")).collect();
    batch(&nodes[0], many).await?;
    let whole = check(nodes, DB).await?;
    for page_size in [1, 7, 28] {
        let (sizes, ..) = counted(&nodes[1], Request { page_size, ..request(DB) }).await?;
        anyhow::ensure!(sizes == whole, "{page_size}: {sizes:?}");
    }
    let first = Request { page_size: 3, ..request(DB) };
    let first = nodes[0].databases().get_database_statistics(first).await?.into_inner();
    let next = Request { page_token: first.next_page_token, ..request(DB) };
    let other = cluster.register("other", Clearance::User, &[(DB, Access::Read)]).await?;
    let other = cluster.nodes[0].caller(Some(&other))?;
    anyhow::ensure!(counted(&other, request(DB)).await?.0 == whole, "Read access is enough");
    for (what, caller, request) in [
        ("the token of another caller", &other, next),
        ("a page too large", &nodes[0], Request { page_size: 1001, ..request(DB) }),
        ("junk", &nodes[0], Request { page_token: "junk".into(), ..request(DB) }),
        ("no name", &nodes[0], request("")),
    ] {
        let status = caller.databases().get_database_statistics(request).await.err();
        let status = status.with_context(|| format!("{what} was taken"))?;
        anyhow::ensure!(status.code() == Code::InvalidArgument, "{what}: {status:?}");
    }
    Ok(())
}

async fn a_database_elsewhere_is_counted_where_it_is(nodes: &[Caller]) -> Result<()> {
    let create = database::CreateDatabaseRequest {
        name: "elsewhere".into(),
        nodes: vec!["n2".into()],
        request_id: request_id(),
        ..Default::default()
    };
    nodes[0].databases().create_database(create).await?;
    nodes[2].put("elsewhere", "a", "{}").await?;
    check(nodes, "elsewhere").await?;
    for node in nodes {
        let (_, _, answered) = counted(node, request("elsewhere")).await?;
        anyhow::ensure!(answered == "n2", "{answered}");
    }
    Ok(())
}

async fn a_disabled_database_is_not_counted(nodes: &[Caller]) -> Result<()> {
    let disable =
        database::DisableDatabaseRequest { name: "elsewhere".into(), request_id: request_id() };
    nodes[0].databases().disable_database(disable).await?;
    for node in nodes {
        let status = node.databases().get_database_statistics(request("elsewhere")).await.err();
        let status = status.context("a disabled database was counted")?;
        anyhow::ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    }
    Ok(())
}
