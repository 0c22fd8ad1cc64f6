//! `rookery db`: databases.

use clap::{Args, Subcommand};
use rookery_client::proto::database::v1 as proto;

use super::{
    Column, Result, Row, Session,
    output::{column, time, wide},
};

/// Databases a page.
const PAGE_SIZE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the databases you may read
    List,
    /// Create a database
    Create {
        /// Its name
        name: String,
        /// How many nodes hold it; 3, or every node where there are fewer, unless given
        #[arg(long, conflicts_with = "nodes")]
        replicas: Option<u32>,
        /// The nodes that hold it
        #[arg(long, value_delimiter = ',', value_name = "NODE,…")]
        nodes: Vec<String>,
    },
    /// Show a database
    Show {
        /// Its name
        name: String,
    },
    /// Count the documents of a database and of its collections
    Stats(Stats),
    /// Show the whole record of a database, for Operators
    Record {
        /// Its name
        name: String,
    },
    /// Delete a database, every grant on it, and the key that seals it
    Delete {
        /// Its name
        name: String,
    },
    /// Let a disabled database answer again
    Enable {
        /// Its name
        name: String,
    },
    /// Stop a database from answering
    Disable {
        /// Its name
        name: String,
    },
}

/// What `rookery db stats` takes.
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// The database
    name: String,
    /// One row a collection, all of them, in place of the sums
    #[arg(long)]
    collections: bool,
    /// Read the node's own copy, which may be old
    #[arg(long)]
    stale: bool,
}

const COLUMNS: &[Column] =
    &[column("name"), column("state"), column("access"), column("nodes"), wide("created")];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        let request_id = String::new();
        let record = match self {
            Self::List => return list(session).await,
            Self::Create { name, replicas, nodes } => {
                let replicas = replicas.unwrap_or_default();
                let request = proto::CreateDatabaseRequest { name, replicas, nodes, request_id };
                client.create_database(request).await?.record
            }
            Self::Show { name } => {
                let answer = client.get_database(proto::GetDatabaseRequest { name }).await?;
                return session.out.one("name", &row(answer.database.unwrap_or_default()));
            }
            Self::Stats(stats) => return stats.run(session).await,
            Self::Record { name } => {
                client.get_database_record(proto::GetDatabaseRecordRequest { name }).await?.record
            }
            Self::Delete { name } => {
                session.confirm("This deletes the database and all documents in it", &name)?;
                let request = proto::DeleteDatabaseRequest { name: name.clone(), request_id };
                client.delete_database(request).await?;
                let row = Row::new().with("name", name).with("deleted", true);
                return session.out.one("name", &row);
            }
            Self::Enable { name } => {
                client
                    .enable_database(proto::EnableDatabaseRequest { name, request_id })
                    .await?
                    .record
            }
            Self::Disable { name } => {
                client
                    .disable_database(proto::DisableDatabaseRequest { name, request_id })
                    .await?
                    .record
            }
        };
        session.out.one("name", &record_row(record.unwrap_or_default()))
    }
}

const COLLECTION_COLUMNS: &[Column] = &[column("collection"), column("documents"), column("bytes")];

impl Stats {
    async fn run(self, session: &mut Session) -> Result<()> {
        let request = proto::GetDatabaseStatisticsRequest {
            name: self.name.clone(),
            page_size: if self.collections { PAGE_SIZE } else { 1 },
            page_token: String::new(),
            stale_ok: self.stale,
        };
        if self.collections {
            return collections(session, request).await;
        }
        let counted = session.client()?.get_database_statistics(request).await?;
        let row = Row::new()
            .with("name", self.name)
            .with("documents", counted.documents)
            .with("bytes", counted.bytes)
            .with("applied_index", counted.applied_index)
            .with("node", counted.node);
        session.out.one("name", &row)
    }
}

/// Every collection, page by page; the empty name stands for the documents of none.
async fn collections(
    session: &mut Session,
    mut request: proto::GetDatabaseStatisticsRequest,
) -> Result<()> {
    let client = session.client()?;
    let mut rows = Vec::new();
    loop {
        let page = client.get_database_statistics(request.clone()).await?;
        rows.extend(page.collections.into_iter().map(|it| {
            Row::new()
                .with("collection", it.name)
                .with("documents", it.documents)
                .with("bytes", it.bytes)
        }));
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            break;
        }
        request.page_token = page.next_page_token;
    }
    session.out.list(COLLECTION_COLUMNS, "collection", &rows)
}

async fn list(session: &mut Session) -> Result<()> {
    let client = session.client()?;
    let mut request =
        proto::ListDatabasesRequest { page_size: PAGE_SIZE, page_token: String::new() };
    let mut rows = Vec::new();
    loop {
        let page = client.list_databases(request.clone()).await?;
        rows.extend(page.databases.into_iter().map(row));
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            break;
        }
        request.page_token = page.next_page_token;
    }
    session.out.list(COLUMNS, "name", &rows)
}

fn state_name(number: i32) -> &'static str {
    match proto::DatabaseState::try_from(number) {
        Ok(proto::DatabaseState::Enabled) => "enabled",
        Ok(proto::DatabaseState::Disabled) => "disabled",
        Ok(proto::DatabaseState::Unspecified) | Err(_) => "",
    }
}

pub(super) fn row(database: proto::Database) -> Row {
    Row::new()
        .with("name", database.name)
        .with("state", state_name(database.state))
        .with("access", database.access)
        .with("nodes", database.nodes)
        .with("created", time(database.created_unix_ms))
}

pub(super) fn record_row(record: proto::DatabaseRecord) -> Row {
    Row::new()
        .with("name", record.name)
        .with("id", record.id)
        .with("state", state_name(record.state))
        .with("nodes", record.nodes)
        .with("node_ids", record.node_ids)
        .with("created", time(record.created_unix_ms))
        .with("created_by", record.created_by)
        .with("revision", record.revision)
}
