//! Create: a name, and how many nodes hold it or which.

use std::collections::BTreeMap;

use askama::Template;
use rookery_proto::database::v1::CreateDatabaseRequest;
use serde::Deserialize;
use tonic::Status;

use super::{name, nodes, path};
use crate::studio::{
    answer::{self, Answer},
    outcome::Wrong,
    posted::Posted,
    visit::{Frame, Visit},
};

/// What the names of the fields of nodes begin with.
const NODE: &str = "node:";

#[derive(Template)]
#[template(path = "databases/create.html")]
struct Page {
    frame: Frame,
    nodes: Vec<String>,
    entered: Entered,
    wrong: Option<Wrong>,
    request_id: String,
}

/// A new database as it was entered.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Entered {
    name: String,
    replicas: String,
    request_id: String,
    /// Every other field, the chosen nodes among them.
    #[serde(flatten)]
    others: BTreeMap<String, String>,
}

impl Entered {
    fn nodes(&self) -> Vec<String> {
        self.others.keys().filter_map(|field| field.strip_prefix(NODE)).map(str::to_owned).collect()
    }

    fn has(&self, node: &str) -> bool {
        self.others.contains_key(&format!("{NODE}{node}"))
    }

    /// Nodes that are named count; their number is for those who name none.
    fn request(&self) -> Result<CreateDatabaseRequest, Status> {
        let nodes = self.nodes();
        let replicas = match (nodes.is_empty(), self.replicas.trim().parse()) {
            (false, _) => 0,
            (true, Ok(replicas)) => replicas,
            (true, Err(_)) => {
                let why = "The number of replicas is not a whole number.";
                return Err(Status::invalid_argument(why));
            }
        };
        let (name, request_id) = (self.name.trim().to_owned(), self.request_id.clone());
        Ok(CreateDatabaseRequest { name, replicas, nodes, request_id })
    }
}

/// `GET /studio/databases/create`.
pub async fn form(visit: Visit) -> Answer {
    let Visit { calls, frame } = visit;
    let nodes: Vec<String> = nodes(&calls, &frame).await.iter().map(name).collect();
    let entered = Entered { replicas: nodes.len().clamp(1, 3).to_string(), ..Entered::default() };
    let request_id = frame.request_id();
    Ok(answer::page(&Page { frame, nodes, entered, wrong: None, request_id }))
}

/// `POST /studio/databases/create`.
pub async fn submit(visit: Visit, Posted(entered): Posted<Entered>) -> Answer {
    let Visit { calls, frame } = visit;
    let made = match entered.request() {
        Ok(request) => calls.databases().create_database(request).await,
        Err(status) => Err(status),
    };
    match made {
        Ok(made) => Ok(answer::see(&path(&made.into_inner().record.unwrap_or_default().name))),
        Err(status) => {
            let nodes = nodes(&calls, &frame).await.iter().map(name).collect();
            let (code, _) = answer::as_http(status.code());
            let wrong = Wrong::of(&frame, &status, &entered.request_id);
            let request_id = wrong.request_id(&frame, &entered.request_id);
            let page = Page { frame, nodes, entered, wrong: Some(wrong), request_id };
            Ok(answer::page_with(code, &page))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_nodes_count_before_a_number_of_replicas() {
        let entered = |replicas: &str, nodes: &[&str]| Entered {
            name: " sales ".to_owned(),
            replicas: replicas.to_owned(),
            request_id: String::new(),
            others: nodes.iter().map(|it| ((*it).to_owned(), "on".to_owned())).collect(),
        };
        let check = |replicas: &str, nodes: &[&str], expected: Option<(u32, &[&str])>| {
            let made = entered(replicas, nodes).request().ok();
            let made = made.as_ref().map(|it| {
                assert_eq!(it.name, "sales");
                (it.replicas, it.nodes.iter().map(String::as_str).collect::<Vec<_>>())
            });
            assert_eq!(made, expected.map(|(count, nodes)| (count, nodes.to_vec())), "{replicas}");
        };
        check("3", &[], Some((3, &[])));
        check("3", &["node:n2", "node:n1", "other"], Some((0, &["n1", "n2"])));
        check("", &["node:n2"], Some((0, &["n2"])));
        check("", &[], None);
        check("-1", &[], None);
        check("many", &[], None);
    }
}
