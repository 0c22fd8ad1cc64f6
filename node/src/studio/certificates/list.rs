//! The list: banner, groups, search, filters, order, pages.

use askama::Template;
use axum::extract::Query;
use rookery_proto::security::v1::{
    CertificateSort, CertificateState, Clearance, ListCertificatesRequest,
    ListServerCertificatesRequest, ListWellKnownAdminsRequest, ServerCertificate, WellKnownAdmin,
};
use serde::Deserialize;

use super::{
    Shown,
    actions::Act,
    due::{self, Due},
    state_class,
};
use crate::studio::{
    answer::{Answer, Refused, page as answer_page},
    visit::{Frame, Visit},
    words,
};

/// Certificates a page.
const PAGE_SIZE: u32 = 50;

/// What is asked for; empty fields ask for nothing.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Asked {
    q: String,
    clearance: String,
    database: String,
    state: String,
    sort: String,
    page: String,
    /// What was just done: one of a few words that this page knows.
    done: String,
}

impl Asked {
    fn request(&self) -> ListCertificatesRequest {
        let (sort, descending) = match self.sort.strip_prefix('-') {
            Some(sort) => (sort, true),
            None => (self.sort.as_str(), false),
        };
        let clearance = match self.clearance.as_str() {
            "user" => Clearance::User,
            "operator" => Clearance::Operator,
            "cluster-admin" => Clearance::ClusterAdmin,
            "cluster-node" => Clearance::ClusterNode,
            _ => Clearance::Unspecified,
        };
        let state = match self.state.as_str() {
            "valid" => CertificateState::Valid,
            "expiring" => CertificateState::Expiring,
            "expired" => CertificateState::Expired,
            "not-yet-valid" => CertificateState::NotYetValid,
            "disabled" => CertificateState::Disabled,
            _ => CertificateState::Unspecified,
        };
        let sort = match sort {
            "expiry" => CertificateSort::Expiry,
            "created" => CertificateSort::Created,
            _ => CertificateSort::Name,
        };
        let words = self.q.trim();
        // Many hexadecimal digits are the beginning of a thumbprint, everything else is part of a name.
        let digits = words.replace([':', ' '], "");
        let is_thumbprint =
            digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        ListCertificatesRequest {
            page_size: PAGE_SIZE,
            page_token: self.page.clone(),
            clearance: clearance.into(),
            database: self.database.trim().to_owned(),
            name_contains: if is_thumbprint { String::new() } else { words.to_owned() },
            thumbprint_prefix: if is_thumbprint { digits } else { String::new() },
            state: state.into(),
            expiring_within_seconds: 0,
            sort: sort.into(),
            descending,
        }
    }

    /// The path of this list with another order or page.
    fn path(&self, sort: &str, page: &str) -> String {
        let pairs = [
            ("q", self.q.as_str()),
            ("clearance", &self.clearance),
            ("database", &self.database),
            ("state", &self.state),
            ("sort", sort),
            ("page", page),
        ];
        format!("/studio/certificates{}", words::query(&pairs))
    }

    /// The path that orders by a column, the other way round where it is ordered by it already.
    fn by(&self, column: &str) -> String {
        let sort = match self.order(column) {
            "ascending" => format!("-{column}"),
            _ => column.to_owned(),
        };
        self.path(&sort, "")
    }

    fn order(&self, column: &str) -> &'static str {
        let (sort, way) = match self.sort.strip_prefix('-') {
            Some(sort) => (sort, "descending"),
            None => (self.sort.as_str(), "ascending"),
        };
        let sort = if sort.is_empty() { "name" } else { sort };
        if sort == column { way } else { "none" }
    }

    fn is_filtered(&self) -> bool {
        [&self.q, &self.clearance, &self.database, &self.state].into_iter().any(|it| !it.is_empty())
    }
}

#[derive(Template)]
#[template(path = "certificates/list.html")]
struct List {
    frame: Frame,
    asked: Asked,
    certificates: Vec<Shown>,
    next: String,
    servers: Vec<Server>,
    well_known: Vec<WellKnown>,
    due: Vec<Due>,
}

/// What the nodes' own certificates are shown by.
const SEE_SERVERS: &str = "view-server-certificate-replacement";

struct Server {
    it: ServerCertificate,
    now: i64,
}

impl Server {
    fn class(&self) -> &'static str {
        state_class(&self.it.state)
    }

    fn expires(&self) -> String {
        format!(
            "{} · {}",
            words::date(self.it.not_after_unix_ms),
            words::relative(self.it.not_after_unix_ms, self.now)
        )
    }

    fn from(&self) -> String {
        words::date(self.it.not_before_unix_ms)
    }

    fn short(&self) -> &str {
        words::short(&self.it.thumbprint)
    }
}

/// A Cluster Admin by the configuration of nodes.
struct WellKnown {
    it: WellKnownAdmin,
    now: i64,
}

impl WellKnown {
    fn short(&self) -> &str {
        words::short(&self.it.thumbprint)
    }

    fn nodes(&self) -> String {
        self.it.nodes.join(", ")
    }

    fn last_used(&self) -> String {
        match self.it.last_used_unix_ms {
            0 => words::NONE.to_owned(),
            at => format!("{} at {}", words::relative(at, self.now), self.it.last_used_node),
        }
    }
}

const CLEARANCES: [(&str, &str); 5] = [
    ("", "any"),
    ("user", "User"),
    ("operator", "Operator"),
    ("cluster-admin", "Cluster Admin"),
    ("cluster-node", "Cluster Node"),
];

const STATES: [(&str, &str); 6] = [
    ("", "any"),
    ("valid", "valid"),
    ("expiring", "expiring"),
    ("expired", "expired"),
    ("not-yet-valid", "not yet valid"),
    ("disabled", "disabled"),
];

/// `GET /studio/certificates`.
pub async fn page(visit: Visit, Query(asked): Query<Asked>) -> Answer {
    let Visit { calls, frame } = visit;
    let refused = Refused::on(&frame);
    let found =
        calls.security().list_certificates(asked.request()).await.map_err(&refused)?.into_inner();
    let servers = match frame.may(SEE_SERVERS) {
        true => {
            let asked = ListServerCertificatesRequest {};
            calls
                .server_certificates()
                .list_server_certificates(asked)
                .await
                .map_err(&refused)?
                .into_inner()
                .certificates
        }
        false => Vec::new(),
    };
    let asked_for = ListWellKnownAdminsRequest {};
    let well_known =
        calls.trust().list_well_known_admins(asked_for).await.map_err(&refused)?.into_inner();
    let due = due::all(&calls, &frame).await.map_err(&refused)?;
    drop(refused);
    let next = match found.next_page_token.as_str() {
        "" => String::new(),
        token => asked.path(&asked.sort, token),
    };
    let now = frame.now();
    let members = servers.iter().map(|it| it.thumbprint.clone()).collect();
    let certificates = found.certificates.into_iter();
    Ok(answer_page(&List {
        certificates: certificates.map(|it| Shown::new(it, &frame).among(&members)).collect(),
        well_known: well_known.admins.into_iter().map(|it| WellKnown { it, now }).collect(),
        servers: servers.into_iter().map(|it| Server { it, now }).collect(),
        next,
        due,
        asked,
        frame,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_turns_the_order_round_that_there_is() {
        let check = |sort: &str, column: &str, expected: &str| {
            let asked = Asked { sort: sort.to_owned(), ..Asked::default() };
            assert_eq!(asked.by(column), format!("/studio/certificates?sort={expected}"), "{sort}");
        };
        check("", "name", "-name");
        check("name", "name", "-name");
        check("-name", "name", "name");
        check("", "expiry", "expiry");
        check("expiry", "expiry", "-expiry");
        check("-expiry", "name", "name");
    }
}
