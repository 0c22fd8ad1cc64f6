//! `rookery cert effective`: what a certificate may do, why, and what would let it; or who may do something.

use clap::{ArgGroup, Args};
use rookery_client::{Client, proto::security::v1 as proto};

use super::{
    Column, Result, Row, Session, clearance_name,
    output::{Format, column, time, wide},
};
use crate::names::Thumbprint;

/// Rows a page.
const PAGE_SIZE: u32 = 500;

/// What a certificate may do, by which rule, and what would let it
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("question").multiple(false))]
pub(super) struct Effective {
    /// SHA-256 thumbprint; the caller itself where none is given
    #[arg(group = "question")]
    thumbprint: Option<Thumbprint>,
    /// Only this operation, such as put-document
    #[arg(long)]
    operation: Option<String>,
    /// Operations on this database too
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Which certificates may do this operation
    #[arg(long, value_name = "OPERATION", group = "question", conflicts_with = "operation")]
    who_may: Option<String>,
    /// Only what is denied
    #[arg(long, conflicts_with = "who_may")]
    denied: bool,
}

const EXPLANATIONS: &[Column] = &[
    column("scope"),
    column("operation"),
    column("allowed"),
    column("rule"),
    column("required"),
    column("have"),
    column("remedies"),
    wide("reason"),
    wide("note"),
    wide("summary"),
];
const ENTITLED: &[Column] =
    &[column("name"), column("clearance"), column("have"), column("expires"), column("thumbprint")];

impl Effective {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        if let Some(operation) = self.who_may {
            return who_may(session, &client, operation, self.database.unwrap_or_default()).await;
        }
        let one = self.operation.is_some();
        let request = proto::ExplainRequest {
            thumbprint: self.thumbprint.map_or_else(String::new, |it| it.to_string()),
            operation: self.operation.unwrap_or_default(),
            database: self.database.unwrap_or_default(),
        };
        let answer = client.explain(request).await?;
        let rows: Vec<Row> = answer
            .explanations
            .iter()
            .filter(|told| !self.denied || !told.allowed)
            .map(|told| row(&answer, told))
            .collect();
        match (one, rows.as_slice()) {
            (true, [row]) => session.out.one("operation", row),
            (true | false, rows) => {
                if matches!(session.out.format, Format::Table | Format::Wide) {
                    super::message(&headline(&answer));
                }
                session.out.list(EXPLANATIONS, "operation", rows)
            }
        }
    }
}

fn headline(answer: &proto::ExplainResponse) -> String {
    let name = if answer.name.is_empty() { "not registered" } else { &answer.name };
    format!("{name} ({}), {}", answer.thumbprint, answer.state)
}

fn row(answer: &proto::ExplainResponse, told: &proto::Explanation) -> Row {
    let told = told.clone();
    Row::new()
        .with("name", answer.name.clone())
        .with("thumbprint", answer.thumbprint.clone())
        .with("clearance", clearance_name(answer.clearance))
        .with("state", answer.state.clone())
        .with("scope", told.scope)
        .with("operation", told.operation)
        .with("summary", told.summary)
        .with("allowed", told.allowed)
        .with("rule", told.rule)
        .with("required", told.required)
        .with("have", told.have)
        .with("reason", told.reason)
        .with("remedies", told.remedies)
        .with("note", told.note)
}

async fn who_may(
    session: &mut Session,
    client: &Client,
    operation: String,
    database: String,
) -> Result<()> {
    let mut request = proto::WhoMayRequest {
        operation,
        database,
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut rows = Vec::new();
    loop {
        let page = client.who_may(request.clone()).await?;
        rows.extend(page.certificates.into_iter().map(|entitled| {
            Row::new()
                .with("name", entitled.name)
                .with("clearance", clearance_name(entitled.clearance))
                .with("have", entitled.have)
                .with("expires", time(entitled.not_after_unix_ms))
                .with("thumbprint", entitled.thumbprint)
        }));
        if page.next_page_token.is_empty() {
            return session.out.list(ENTITLED, "thumbprint", &rows);
        }
        request.page_token = page.next_page_token;
    }
}
