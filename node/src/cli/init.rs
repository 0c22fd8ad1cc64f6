//! `rookery init`: keys, certificates and configuration of a new cluster, or of one more node.
//!
//! ```text
//! out/ca/         ca.crt ca.key                    keep ca.key away from the nodes
//! out/<node>/     rookery.toml node.crt node.key ca.crt master.key cluster.toml      one folder a node
//! out/admin/      context.toml admin.crt admin.key admin.pfx ca.crt admin.zip        the first Cluster Admin
//! ```
//!
//! `admin.zip` is written last: where it exists everything else does, and `--if-missing` does nothing.

pub(super) mod pki;

use std::path::{Path, PathBuf};

use clap::Args;

use super::{
    Column, Failed, Result, Row, Session,
    contexts::{private_folder, write_private},
    output::column,
};
use crate::{
    config::{Administrator, Formation, Member, host_and_port},
    limits,
    names::{CertificateName, NodeName, Thumbprint},
};
use pki::Made;

/// Port of the ops listener where none is given.
const OPS_PORT: u16 = 7445;

/// `rookery init`
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The nodes of the new cluster: NAME=HOST:CLIENTPORT:PEERPORT[:OPSPORT], …
    #[arg(long, value_delimiter = ',', value_name = "NAME=HOST:PORT:PORT", value_parser = short_node)]
    nodes: Vec<NewNode>,
    /// One node of the new cluster: NAME=CLIENT,PEER[,OPS], each with its port; repeatable
    #[arg(long, value_name = "NAME=HOST:PORT,HOST:PORT", value_parser = long_node)]
    node: Vec<NewNode>,
    /// One more node, which will join a cluster that exists
    #[arg(long, conflicts_with_all = ["nodes", "node"], requires_all = ["client", "peer"])]
    name: Option<String>,
    /// host:port of the client listener of that node
    #[arg(long, requires = "name")]
    client: Option<String>,
    /// host:port of the peer listener of that node
    #[arg(long, requires = "name")]
    peer: Option<String>,
    /// Folder with ca.crt and ca.key that sign the certificates; made anew where not given
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the first Cluster Admin is called
    #[arg(long, default_value = "admin")]
    admin: String,
    /// One more host name or address for the certificates of all nodes; repeatable
    #[arg(long, value_name = "HOST")]
    san: Vec<String>,
    /// Address that the listeners bind
    #[arg(long, default_value = "0.0.0.0")]
    listen: std::net::IpAddr,
    /// Data folder in the configuration; relative to the file
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Do nothing where everything is there already
    #[arg(long)]
    if_missing: bool,
}

/// A node to be made.
#[derive(Debug, Clone)]
pub(super) struct NewNode {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) ops_port: u16,
}

/// What is made, and where.
pub(super) struct Plan<'a> {
    pub(super) nodes: &'a [NewNode],
    pub(super) out: &'a Path,
    pub(super) admin: &'a str,
    pub(super) ca: Option<&'a Path>,
    pub(super) san: &'a [String],
    pub(super) listen: std::net::IpAddr,
    pub(super) data: &'a Path,
}

const COLUMNS: &[Column] = &[
    column("name"),
    column("client_address"),
    column("peer_address"),
    column("thumbprint"),
    column("folder"),
];

impl Init {
    pub(super) fn run(self, session: &mut Session) -> Result<()> {
        let mut nodes = self.nodes.clone();
        nodes.extend(self.node.iter().cloned());
        let single = self.single()?;
        let all = match &single {
            Some(node) => std::slice::from_ref(node),
            None => nodes.as_slice(),
        };
        if all.is_empty() {
            return Err(Failed::usage("name the nodes with --nodes, or one with --name"));
        }
        let plan = Plan {
            nodes: all,
            out: &self.out,
            admin: &self.admin,
            ca: self.ca.as_deref(),
            san: &self.san,
            listen: self.listen,
            data: &self.data,
        };
        let marker = match &single {
            Some(node) => self.out.join(&node.name).join("rookery.toml"),
            None => plan.package(),
        };
        if self.if_missing && marker.exists() {
            super::message(&format!("{} is complete; nothing was done", self.out.display()));
            let rows = plan.nodes.iter().map(|n| plan.written(n)).collect::<Result<Vec<_>>>()?;
            return session.out.list(COLUMNS, "name", &rows);
        }
        if !self.if_missing {
            plan.check_empty(single.is_none())?;
        }
        let rows = if single.is_some() { plan.join_later()? } else { plan.cluster()? };
        session.out.list(COLUMNS, "name", &rows)
    }

    fn single(&self) -> Result<Option<NewNode>> {
        let (Some(name), Some(client), Some(peer)) = (&self.name, &self.client, &self.peer) else {
            return Ok(None);
        };
        if self.ca.is_none() {
            super::message(
                "warning: without --ca the node gets a CA of its own, which packages must carry",
            );
        }
        new_node(name, client, peer, OPS_PORT).map(Some).map_err(Failed::usage)
    }
}

impl Plan<'_> {
    fn package(&self) -> PathBuf {
        self.out.join("admin/admin.zip")
    }

    /// Refuses to write over keys.
    fn check_empty(&self, new_cluster: bool) -> Result<()> {
        let keys = self.nodes.iter().map(|node| self.out.join(&node.name).join("node.key"));
        let package = new_cluster.then(|| self.package());
        match keys.chain(package).find(|path| path.exists()) {
            None => Ok(()),
            Some(path) => Err(Failed::conflict(format!(
                "{} exists already; choose another --out, or keep what is there with --if-missing",
                path.display()
            ))),
        }
    }

    /// Everything for a new cluster.
    pub(super) fn cluster(&self) -> Result<Vec<Row>> {
        CertificateName::parse(self.admin).map_err(|e| Failed::usage(e.to_string()))?;
        if self.nodes.len() > limits::NODES_MAX {
            return Err(Failed::usage(format!("at most {} nodes", limits::NODES_MAX)));
        }
        let ca = self.authority()?;
        let admin = pki::client(self.admin, &ca)?;
        let mut made = Vec::new();
        for node in self.nodes {
            made.push(pki::node(&node.name, &self.hosts(node), &ca)?);
        }
        let formation = self.formation(&made, &admin);
        let text = formation.to_toml();
        // What is wrong with the addresses is said here and not by the node that starts later.
        Formation::parse(&text, self.out).map_err(Failed::usage)?;
        for (node, made) in self.nodes.iter().zip(&made) {
            let folder = self.write_node(node, made, &ca, true)?;
            write_private(&folder.join("cluster.toml"), text.as_bytes())?;
        }
        self.write_administrator(&admin, &ca, &formation)?;
        self.nodes.iter().map(|node| self.written(node)).collect()
    }

    /// Everything for one node that will join.
    fn join_later(&self) -> Result<Vec<Row>> {
        let ca = self.authority()?;
        let mut rows = Vec::new();
        for node in self.nodes {
            let made = pki::node(&node.name, &self.hosts(node), &ca)?;
            self.write_node(node, &made, &ca, false)?;
            rows.push(self.written(node)?);
        }
        Ok(rows)
    }

    /// The CA that was given, or a new one.
    fn authority(&self) -> Result<Made> {
        if let Some(folder) = self.ca {
            return pki::load(&folder.join("ca.crt"), &folder.join("ca.key"));
        }
        let folder = self.out.join("ca");
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        if certificate.exists() && key.exists() {
            // A run that did not finish; its CA is as good as a new one.
            return pki::load(&certificate, &key);
        }
        let ca = pki::authority()?;
        private_folder(&folder)?;
        write_private(&key, ca.key_pem.expose().as_bytes())?;
        write_private(&certificate, ca.certificate_pem().as_bytes())?;
        Ok(ca)
    }

    /// Names the node's certificate is good for: its addresses, its name, this machine, and what was asked for.
    fn hosts(&self, node: &NewNode) -> Vec<String> {
        let mut hosts: Vec<String> = [&node.client, &node.peer]
            .into_iter()
            .filter_map(|address| Some(host_and_port(address).ok()?.0.to_owned()))
            .collect();
        hosts.push(node.name.clone());
        hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        hosts.extend(self.san.iter().cloned());
        let mut seen = std::collections::BTreeSet::new();
        hosts.retain(|host| seen.insert(host.to_ascii_lowercase()));
        hosts
    }

    fn formation(&self, made: &[Made], admin: &Made) -> Formation {
        let member = |(id, (node, made)): (u64, (&NewNode, &Made))| Member {
            id,
            name: node.name.clone(),
            client_address: node.client.clone(),
            peer_address: node.peer.clone(),
            thumbprint: Thumbprint::of(&made.der),
            certificate: made.der.clone(),
        };
        Formation {
            cluster_id: uuid::Uuid::now_v7().to_string(),
            nodes: (1..).zip(self.nodes.iter().zip(made)).map(member).collect(),
            administrators: vec![Administrator {
                name: self.admin.to_owned(),
                certificate: admin.der.clone(),
            }],
        }
    }

    fn write_node(&self, node: &NewNode, made: &Made, ca: &Made, forms: bool) -> Result<PathBuf> {
        let folder = self.out.join(&node.name);
        private_folder(&folder)?;
        write_private(&folder.join("ca.crt"), ca.certificate_pem().as_bytes())?;
        write_private(&folder.join("node.crt"), made.certificate_pem().as_bytes())?;
        write_private(&folder.join("node.key"), made.key_pem.expose().as_bytes())?;
        let master_key = folder.join("master.key");
        // A master key that stands already may have sealed data.
        if !master_key.exists() {
            let mut key = zeroize::Zeroizing::new([0_u8; 32]);
            getrandom::fill(key.as_mut_slice())
                .map_err(|e| Failed::unexpected(format!("no randomness: {e}")))?;
            write_private(&master_key, key.as_slice())?;
        }
        write_private(&folder.join("rookery.toml"), self.configuration(node, forms)?.as_bytes())?;
        Ok(folder)
    }

    fn configuration(&self, node: &NewNode, forms: bool) -> Result<String> {
        let port =
            |address: &str| host_and_port(address).map(|(_, port)| port).map_err(Failed::usage);
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let listen = |port: u16| quoted(&std::net::SocketAddr::new(self.listen, port).to_string());
        let mut text = format!(
            "[node]\nname = {}\ndata = {}\n\n[listen]\nclient = {}\npeer = {}\nops = \"127.0.0.1:{}\"\n\n\
             [advertise]\nclient = {}\npeer = {}\n\n[tls]\ncertificate = \"node.crt\"\nkey = \"node.key\"\n\
             ca = \"ca.crt\"\n\n[encryption]\nmaster_key_file = \"master.key\"\n",
            quoted(&node.name),
            quoted(&self.data.to_string_lossy()),
            listen(port(&node.client)?),
            listen(port(&node.peer)?),
            node.ops_port,
            quoted(&node.client),
            quoted(&node.peer),
        );
        if forms {
            text.push_str("\n[formation]\nfile = \"cluster.toml\"\n");
        }
        Ok(text)
    }

    fn write_administrator(&self, admin: &Made, ca: &Made, formation: &Formation) -> Result<()> {
        let nodes = &formation.nodes;
        let addresses: Vec<String> = nodes.iter().map(|n| n.client_address.clone()).collect();
        let thumbprints: Vec<Thumbprint> = nodes.iter().map(|n| n.thumbprint).collect();
        let about = pki::About {
            ca_pem: &ca.certificate_pem(),
            addresses: &addresses,
            nodes: &thumbprints,
            cluster_id: &formation.cluster_id,
        };
        let package = pki::package(self.admin, admin, &about)?;
        let folder = self.out.join("admin");
        private_folder(&folder)?;
        for (name, content) in rookery_client::context::package_files(&package.zip)? {
            write_private(&folder.join(name), &content)?;
        }
        // A file and not a line of output: this may run where output is kept (containers, CI).
        let password = folder.join("password.txt");
        write_private(&password, format!("{}\n", package.password.expose()).as_bytes())?;
        write_private(&self.package(), &package.zip)?;
        super::message(&format!(
            "The package of the first Cluster Admin is {}; the password of its PFX is in {}.",
            self.package().display(),
            password.display()
        ));
        Ok(())
    }

    /// The row of a node whose folder is complete.
    fn written(&self, node: &NewNode) -> Result<Row> {
        let folder = self.out.join(&node.name);
        let path = folder.join("node.crt");
        let der = pki::certificate(&path)?;
        Ok(Row::new()
            .with("name", node.name.clone())
            .with("client_address", node.client.clone())
            .with("peer_address", node.peer.clone())
            .with("thumbprint", Thumbprint::of(&der).to_string())
            .with("folder", folder.display().to_string()))
    }
}

/// Parses `n1=host:7443:7444` or `n1=host:7443:7444:7445`.
fn short_node(text: &str) -> std::result::Result<NewNode, String> {
    const FORM: &str = "write NAME=HOST:CLIENTPORT:PEERPORT, such as n1=10.0.0.1:7443:7444";
    let (name, rest) = text.split_once('=').ok_or(FORM)?;
    let (host, ports) = match rest.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((v6, ports)) => (format!("[{v6}]"), ports),
        None => rest.split_once(':').map(|(h, p)| (h.to_owned(), p)).ok_or(FORM)?,
    };
    let ports: Vec<&str> = ports.split(':').collect();
    let (client, peer, ops) = match ports[..] {
        [client, peer] => (client, peer, None),
        [client, peer, ops] => (client, peer, Some(ops)),
        _ => return Err(FORM.to_owned()),
    };
    let ops = ops.map_or(Ok(OPS_PORT), |ops| ops.parse().map_err(|_| FORM.to_owned()))?;
    new_node(name, &format!("{host}:{client}"), &format!("{host}:{peer}"), ops)
}

/// Parses `n1=host:7443,host:7444` or with the ops address behind.
fn long_node(text: &str) -> std::result::Result<NewNode, String> {
    const FORM: &str = "write NAME=HOST:PORT,HOST:PORT: the client address, then the peer address";
    let (name, rest) = text.split_once('=').ok_or(FORM)?;
    let parts: Vec<&str> = rest.split(',').collect();
    let (client, peer, ops) = match parts[..] {
        [client, peer] => (client, peer, OPS_PORT),
        [client, peer, ops] => {
            (client, peer, host_and_port(ops).map_err(|why| format!("the ops address {why}"))?.1)
        }
        _ => return Err(FORM.to_owned()),
    };
    new_node(name, client, peer, ops)
}

fn new_node(
    name: &str,
    client: &str,
    peer: &str,
    ops_port: u16,
) -> std::result::Result<NewNode, String> {
    NodeName::parse(name).map_err(|e| e.to_string())?;
    if matches!(name.to_ascii_lowercase().as_str(), "ca" | "admin") {
        return Err(format!("the node name {name} is the name of a folder that init writes"));
    }
    for (what, address) in [("client", client), ("peer", peer)] {
        host_and_port(address).map_err(|why| format!("the {what} address {address} {why}"))?;
    }
    let [name, client, peer] = [name, client, peer].map(str::to_owned);
    Ok(NewNode { name, client, peer, ops_port })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::config::{self, Overrides};

    fn plan<'a>(nodes: &'a [NewNode], out: &'a Path) -> Plan<'a> {
        Plan {
            nodes,
            out,
            admin: "admin",
            ca: None,
            san: &[],
            listen: std::net::Ipv4Addr::LOCALHOST.into(),
            data: Path::new("data"),
        }
    }

    #[test]
    fn a_cluster_that_was_made_can_be_started_and_called() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("pki");
        let nodes = ["n1=localhost:7101:7201:7301", "n2=localhost:7102:7202", "n3=[::1]:7103:7203"]
            .map(|text| short_node(text).unwrap());
        let rows = plan(&nodes, &out).cluster().unwrap();
        assert_eq!(rows.len(), 3);
        for name in ["n1", "n2", "n3"] {
            let path = out.join(name).join("rookery.toml");
            let config = config::load(&path, &Overrides::default()).unwrap().config;
            config.check_files(&path).unwrap();
            let formation = Formation::load(config.formation.file.as_deref().unwrap()).unwrap();
            assert_eq!(formation.nodes.len(), 3);
            assert_eq!(formation.administrators[0].name, "admin");
            let me = formation.nodes.iter().find(|n| n.name == name).unwrap();
            assert_eq!(me.certificate, pki::certificate(&out.join(name).join("node.crt")).unwrap());
            assert_eq!(std::fs::read(out.join(name).join("master.key")).unwrap().len(), 32);
        }
        let package = std::fs::read(out.join("admin/admin.zip")).unwrap();
        let context = rookery_client::Context::from_package(&package).unwrap();
        assert_eq!(context.addresses, ["localhost:7101", "localhost:7102", "[::1]:7103"]);
        assert_eq!(
            rookery_client::Context::load(&out.join("admin/context.toml")).unwrap().thumbprint(),
            context.thumbprint()
        );
        rookery_client::Client::new(&context).unwrap();
        assert!(plan(&nodes, &out).check_empty(true).is_err());
    }

    #[test]
    fn one_more_node_uses_the_ca_and_forms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let nodes = [short_node("n1=localhost:7101:7201").unwrap()];
        plan(&nodes, out).cluster().unwrap();
        let later = [new_node("n4", "localhost:7104", "localhost:7204", 7445).unwrap()];
        let ca = out.join("ca");
        let plan = Plan { ca: Some(&ca), ..plan(&later, out) };
        plan.check_empty(false).unwrap();
        plan.join_later().unwrap();
        let path = out.join("n4/rookery.toml");
        let config = config::load(&path, &Overrides::default()).unwrap().config;
        config.check_files(&path).unwrap();
        assert_eq!(config.formation.file, None);
        assert_eq!(
            std::fs::read(out.join("n4/ca.crt")).unwrap(),
            std::fs::read(out.join("n1/ca.crt")).unwrap()
        );
    }

    #[test]
    fn nodes_are_parsed_or_refused() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let parsed = if text.contains(',') { long_node(text) } else { short_node(text) };
            assert_eq!(
                parsed.ok().map(|n| (n.client, n.peer)),
                expected.map(|(c, p)| (c.to_owned(), p.to_owned())),
                "{text}"
            );
        };
        check("n1=host:1:2", Some(("host:1", "host:2")));
        check("n1=host:1:2:3", Some(("host:1", "host:2")));
        check("n1=[::1]:1:2", Some(("[::1]:1", "[::1]:2")));
        check("n1=a:1,b:2", Some(("a:1", "b:2")));
        check("n1=a:1,b:2,c:3", Some(("a:1", "b:2")));
        for bad in [
            "n1",
            "n1=host",
            "n1=host:1",
            "n1=host:1:x",
            "n 1=host:1:2",
            "ca=h:1:2",
            "admin=h:1:2",
            "n1=:1:2",
            "n1=host:0:2",
            "n1=host:1:2:3:4",
            "n1=a:1,b",
            "n1=a:1,b:2,c:3,d:4",
        ] {
            check(bad, None);
        }
    }
}
