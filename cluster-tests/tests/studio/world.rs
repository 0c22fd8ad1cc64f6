//! Three nodes with something to show, and somebody of every kind to show it to.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    browser::{Browser, Profile, Site},
    caller::{Caller, request_id},
    cluster::{Cluster, HEAL_LIMIT},
    identity::Identity,
    wait::eventually,
};
use rookery_proto::{
    cluster::v1::{GetTopologyRequest, ListJoinTokensRequest, TransferLeaderRequest},
    database::v1::ListDatabasesRequest,
    document::v1::{ListDocumentsRequest, PutDocumentRequest},
    security::v1::{
        Access, Certificate, Clearance, DisableCertificateRequest, ListCertificatesRequest,
        WhoAmIRequest,
    },
};

/// Everybody, the most powerful last: a form of theirs may change what those before them see.
pub const PEOPLE: [&str; 11] = [
    "none",
    "unknown",
    "expired",
    "disabled",
    "no-grants",
    "read",
    "read-write",
    "db-admin",
    "operator",
    "cluster-admin",
    "node",
];

/// How long the certificate lives that is to expire.
const SHORT_LIFE: Duration = Duration::from_secs(6);

/// A cluster and its people.
pub struct World {
    pub cluster: Cluster,
    people: BTreeMap<&'static str, Identity>,
}

impl World {
    /// Three nodes; the databases `sales`, on which three Users have their access, and `other`, on which nobody has.
    pub async fn start() -> Result<Self> {
        let mut cluster = Cluster::start(3).await?;
        let admin = cluster.admin(0)?;
        first_node_leads(&mut cluster).await?;
        for database in ["sales", "other"] {
            admin.create_database(database, 3).await?;
            for (id, json) in DOCUMENTS {
                put(&admin, database, id, "orders", json).await?;
            }
        }
        let people = people(&mut cluster).await?;
        for (name, clearance, grants) in [
            ("target-user", Clearance::User, &[("sales", Access::Read)][..]),
            ("target-operator", Clearance::Operator, &[]),
            ("target-admin", Clearance::ClusterAdmin, &[]),
        ] {
            cluster.register(name, clearance, grants).await?;
        }
        let this = Self { cluster, people };
        this.until_expired().await?;
        Ok(this)
    }

    /// Somebody's certificate; `None` for whoever has none.
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        self.people.get(name)
    }

    /// The Studio of the first node, as somebody gets it.
    pub fn site(&self, name: &str) -> Result<Site> {
        Site::new(&self.cluster.nodes[0], self.identity(name))
    }

    /// The calls of somebody on the first node.
    pub fn caller(&self, name: &str) -> Result<Caller> {
        self.cluster.nodes[0].caller(self.identity(name))
    }

    /// The file of the authority that signed the nodes' certificates.
    pub fn authority(&self) -> PathBuf {
        self.cluster.package.with_file_name("ca.crt")
    }

    /// A browser in somebody's hands.
    pub async fn browser(&self, name: &str) -> Result<Browser> {
        let profile = match self.identity(name) {
            Some(identity) => Profile::with(&self.authority(), identity)?,
            None => Profile::new(&self.authority())?,
        };
        Browser::open(profile).await.with_context(|| format!("the browser of {name}"))
    }

    /// The address of a page on a node.
    pub fn url(&self, node: usize, path: &str) -> String {
        format!("https://{}{path}", self.cluster.nodes[node].addresses.client)
    }

    /// The certificates whose names contain `part`.
    pub async fn certificates(&self, part: &str) -> Result<Vec<Certificate>> {
        let request = ListCertificatesRequest {
            page_size: 1000,
            name_contains: part.to_owned(),
            ..Default::default()
        };
        let found = self.cluster.admin(0)?.security().list_certificates(request).await?;
        Ok(found.into_inner().certificates)
    }

    /// The one certificate of this name.
    pub async fn certificate(&self, name: &str) -> Result<Certificate> {
        let found = self.certificates(name).await?;
        found.into_iter().find(|it| it.name == name).with_context(|| format!("no {name}"))
    }

    /// What must be the same before and after whatever changes nothing: certificates, databases, documents, nodes,
    /// tokens.
    pub async fn state(&self) -> Result<String> {
        let admin = self.cluster.admin(0)?;
        let certificates = self
            .certificates("")
            .await?
            .into_iter()
            .map(|it| (it.thumbprint, it.name, it.clearance, it.grants, it.disabled, it.etag));
        let certificates: Vec<_> = certificates.collect();
        let databases =
            admin.databases().list_databases(ListDatabasesRequest::default()).await?.into_inner();
        let mut documents = Vec::new();
        for database in &databases.databases {
            if database.state != 1 {
                continue;
            }
            let request = ListDocumentsRequest {
                database: database.name.clone(),
                page_size: 1000,
                ..Default::default()
            };
            let found = admin.documents().list_documents(request).await?.into_inner();
            documents.extend(found.documents.into_iter().map(|it| (it.id, it.etag)));
        }
        let topology = admin.cluster().get_topology(GetTopologyRequest {}).await?.into_inner();
        let nodes: Vec<_> = topology.nodes.into_iter().map(|it| (it.id, it.role)).collect();
        let tokens = admin.cluster().list_join_tokens(ListJoinTokensRequest {}).await?.into_inner();
        let tokens: Vec<_> = tokens.tokens.into_iter().map(|it| it.id).collect();
        Ok(format!(
            "{certificates:#?}\n{:#?}\n{documents:?}\n{nodes:?}\n{tokens:?}",
            databases.databases
        ))
    }

    async fn until_expired(&self) -> Result<()> {
        let caller = self.caller("expired")?;
        eventually("the certificate expires", 3 * SHORT_LIFE, async || {
            let who = caller.security().who_am_i(WhoAmIRequest {}).await?.into_inner();
            anyhow::ensure!(who.state == "expired", "it is {}", who.state);
            Ok(())
        })
        .await
    }
}

/// Pages do not offer the leadership to who has it, so it is always the same node's.
async fn first_node_leads(cluster: &mut Cluster) -> Result<()> {
    let group = "cluster".to_owned();
    let request = TransferLeaderRequest { group: group.clone(), node_id: 1 };
    if cluster.leader(&group).await? != 0 {
        cluster.admin(0)?.cluster().transfer_leader(request).await?;
    }
    eventually("the first node leads", HEAL_LIMIT, async || {
        anyhow::ensure!(cluster.leader(&group).await? == 0, "another node leads");
        Ok(())
    })
    .await
}

/// Documents of each database.
const DOCUMENTS: [(&str, &str); 3] = [
    ("orders/1", r#"{"customer":"Heron & Sons","total":120.5,"paid":true}"#),
    ("orders/2", r#"{"customer":"Crane","total":7,"lines":[{"item":"rope","count":3}]}"#),
    ("orders/3", r#"{"customer":"Rook","total":18014398509481985,"note":"by night"}"#),
];

/// Stores a document in a collection.
pub async fn put(
    admin: &Caller,
    database: &str,
    id: &str,
    collection: &str,
    json: &str,
) -> Result<String> {
    let request = PutDocumentRequest {
        database: database.to_owned(),
        id: id.to_owned(),
        collection: collection.to_owned(),
        json: json.as_bytes().to_vec(),
        precondition: None,
        request_id: request_id(),
    };
    Ok(admin.documents().put_document(request).await?.into_inner().etag)
}

async fn people(cluster: &mut Cluster) -> Result<BTreeMap<&'static str, Identity>> {
    let mut people = BTreeMap::new();
    people.insert("node", cluster.nodes[0].identity.clone());
    people.insert("cluster-admin", cluster.administrator.clone());
    // With the clearance of an administrator, so that only their state can refuse them.
    let expired = Identity::expiring("expired", SHORT_LIFE)?;
    cluster.admin(0)?.register(&expired, Clearance::ClusterAdmin, &[]).await?;
    people.insert("expired", expired);
    let disabled = cluster.register("disabled", Clearance::ClusterAdmin, &[]).await?;
    let request = DisableCertificateRequest {
        thumbprint: disabled.thumbprint(),
        request_id: request_id(),
        ..Default::default()
    };
    cluster.admin(0)?.security().disable_certificate(request).await?;
    people.insert("disabled", disabled);
    people.insert("operator", cluster.register("operator", Clearance::Operator, &[]).await?);
    for (name, access) in
        [("db-admin", Access::Admin), ("read-write", Access::ReadWrite), ("read", Access::Read)]
    {
        people.insert(name, cluster.register(name, Clearance::User, &[("sales", access)]).await?);
    }
    people.insert("no-grants", cluster.register("no-grants", Clearance::User, &[]).await?);
    people.insert("unknown", Identity::new("unknown")?);
    Ok(people)
}
