//! Generate: a form, and once, the package with its key.

use askama::Template;
use axum::{Form, response::Response};
use base64::Engine as _;
use rookery_proto::{
    database::v1::{Database, ListDatabasesRequest},
    security::v1::{Access, Certificate, Clearance, GenerateCertificateRequest, Grant},
};
use serde::Deserialize;
use tonic::Status;

use crate::studio::{
    answer::{self, Answer, Refused},
    contract::Calls,
    visit::{Frame, Visit},
    words,
};

/// Databases in the grid; with more of them, a name is written instead.
const GRID_MAX: u32 = 200;

/// Days that a client certificate lives unless something else is said: five years.
const DAYS: &str = "1825";

/// The fields as they were entered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Entered {
    name: String,
    clearance: String,
    /// `database=access` a line of the grid; empty access is none.
    #[serde(flatten)]
    grants: std::collections::BTreeMap<String, String>,
    days: String,
    password: String,
    note: String,
    owner: String,
    csr: String,
    compat: String,
}

/// What the fields of grants are called.
const GRANT: &str = "grant:";

impl Entered {
    fn request(self) -> Result<GenerateCertificateRequest, Status> {
        let clearance = match self.clearance.as_str() {
            "user" => Clearance::User,
            "operator" => Clearance::Operator,
            "cluster-admin" => Clearance::ClusterAdmin,
            _ => Clearance::Unspecified,
        };
        let days: u64 =
            self.days.trim().parse().map_err(|_| {
                Status::invalid_argument("The number of days is not a whole number.")
            })?;
        let grants = match clearance {
            Clearance::User => self.grants(),
            Clearance::Operator
            | Clearance::ClusterAdmin
            | Clearance::ClusterNode
            | Clearance::Unspecified => Vec::new(),
        };
        Ok(GenerateCertificateRequest {
            name: self.name,
            clearance: clearance.into(),
            grants,
            lifetime_seconds: days.saturating_mul(24 * 3600),
            password: self.password,
            note: self.note,
            owner: self.owner,
            csr: self.csr.into_bytes(),
            pfx_compat: !self.compat.is_empty(),
            ..GenerateCertificateRequest::default()
        })
    }

    fn grants(&self) -> Vec<Grant> {
        let named = self.grants.iter().filter_map(|(field, access)| {
            let database = field.strip_prefix(GRANT)?.to_owned();
            let access = match access.as_str() {
                "read" => Access::Read,
                "read-write" => Access::ReadWrite,
                "admin" => Access::Admin,
                _ => return None,
            };
            Some(Grant { database, access: access.into() })
        });
        named.collect()
    }

    fn has(&self, database: &str, access: &str) -> bool {
        self.grants.get(&format!("{GRANT}{database}")).map_or("", String::as_str) == access
    }
}

#[derive(Template)]
#[template(path = "certificates/generate.html")]
struct FormPage {
    frame: Frame,
    entered: Entered,
    databases: Vec<Database>,
    wrong: Option<(String, String)>,
}

const ACCESSES: [(&str, &str); 4] =
    [("", "none"), ("read", "Read"), ("read-write", "Read/Write"), ("admin", "Admin")];

impl FormPage {
    fn wrong(&self, field: &str) -> Option<&str> {
        self.wrong
            .as_ref()
            .filter(|(wrong, _)| wrong.starts_with(field))
            .map(|(_, why)| why.as_str())
    }
}

#[derive(Template)]
#[template(path = "certificates/generated.html")]
struct Generated {
    frame: Frame,
    certificate: Certificate,
    file_name: String,
    package: String,
    password: String,
}

impl Generated {
    fn expires(&self) -> String {
        words::date(self.certificate.not_after_unix_ms)
    }
}

async fn databases(calls: &Calls, frame: &Frame) -> Result<Vec<Database>, Box<Refused>> {
    let asked = ListDatabasesRequest { page_size: GRID_MAX, page_token: String::new() };
    let listed = calls.databases().list_databases(asked).await.map_err(Refused::on(frame))?;
    Ok(listed.into_inner().databases)
}

/// `GET /studio/certificates/generate`.
pub async fn form(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let entered = Entered { days: DAYS.to_owned(), ..Entered::default() };
    let databases = databases(&calls, &frame).await?;
    Ok(answer::page(&FormPage { frame, entered, databases, wrong: None }))
}

/// `POST /studio/certificates/generate`.
pub async fn submit(visit: Visit, Form(entered): Form<Entered>) -> Answer {
    let Visit { calls, frame } = visit;
    let kept = Entered { password: String::new(), ..entered.clone() };
    let made = match entered.request() {
        Ok(request) => calls.security().generate_certificate(request).await,
        Err(status) => Err(status),
    };
    match made {
        Ok(made) => {
            let made = made.into_inner();
            let package = base64::engine::general_purpose::STANDARD.encode(&made.package);
            let certificate = made.certificate.unwrap_or_default();
            let page = Generated {
                frame,
                certificate,
                file_name: made.file_name,
                package,
                password: made.password,
            };
            Ok(answer::page(&page))
        }
        Err(status) => again(&calls, frame, kept, &status).await,
    }
}

async fn again(calls: &Calls, frame: Frame, entered: Entered, status: &Status) -> Answer {
    let databases = databases(calls, &frame).await?;
    let wrong = Some(answer::field(status));
    let (code, _) = answer::as_http(status.code());
    let page: Response = answer::page_with(code, &FormPage { frame, entered, databases, wrong });
    Ok(page)
}
