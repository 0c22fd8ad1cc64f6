//! The demonstration: three nodes, everybody's decisions on each of them, a leader killed with -9, a revocation on open
//! connections, and a search of the disks. Ends with 0 only if all of it held.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is there to be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use cluster_tests::{
    binary,
    caller::{Caller, Decision, granted, put_request, request_id},
    cluster::{Cluster, FAILOVER_LIMIT, HEAL_LIMIT},
    identity::Identity,
    markers,
    probes::{self, Call, Target},
    workload::{Load, read_all},
};
use rookery_proto::{
    cluster::v1::CreateJoinTokenRequest,
    database::v1::{EnableDatabaseRequest, GetDatabaseRequest},
    document::v1 as document,
    security::v1::{Access, Clearance, GenerateCertificateRequest, ListCertificatesRequest},
};
use serde_json::value::RawValue;
use tonic::Status;

/// The database that Users are granted, and the one they are not.
const GRANTED: &str = "halcyon-sales";
const OTHER: &str = "bittern-archive";
const GENERATED_DOCUMENTS: usize = 1000;
/// Writes a batch, and most bytes of documents in it.
const BATCH: usize = 200;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Starts three nodes and shows what Rookery promises.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// End after the last step instead of staying up for you to try
    #[arg(long)]
    once: bool,
    /// Documents to load, one a line: {"id": …, "collection": …, "document": {…}}
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = Instant::now();
    match demo(&arguments).await {
        Ok(()) => {
            println!("\nAll of it held, in {:.1} s.", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nIt did NOT hold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints steps as they end, each with the time it took.
struct Steps {
    number: usize,
    last: Instant,
}

impl Steps {
    fn done(&mut self, what: &str) {
        self.number += 1;
        println!("{:>3}. {what}  [{:.1} s]", self.number, self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }

    fn detail(&self, what: &str) {
        println!("     {what}");
    }
}

async fn demo(arguments: &Arguments) -> Result<()> {
    let mut steps = Steps { number: 0, last: Instant::now() };
    let mut cluster = Cluster::start(3).await?;
    steps.done(
        "three nodes serve; PKI, configuration and first administrator made by `rookery init`",
    );
    for node in &cluster.nodes {
        let pid = node.pid().unwrap_or_default();
        steps.detail(&format!("{} on {}, process {pid}", node.name, node.addresses.client));
    }
    load_documents(&mut cluster, arguments, &mut steps).await?;
    let people = people(&cluster).await?;
    steps.done("certificates generated for everybody; each package works on every node at once");
    decisions(&cluster, &people, &mut steps).await?;
    failover(&mut cluster, &mut steps).await?;
    revocation(&cluster, &people, &mut steps).await?;
    search_the_disks(&cluster, &people, &mut steps)?;
    if !arguments.once {
        stay(&mut cluster, &people).await?;
    }
    cluster.finish().await?;
    steps.done("all nodes stopped cleanly, and no log holds a warning or an error");
    Ok(())
}

// ---- documents ----

/// A document to load, its JSON verbatim.
struct Line {
    id: String,
    collection: String,
    json: String,
}

#[derive(serde::Deserialize)]
struct FileLine<'a> {
    id: String,
    #[serde(default)]
    collection: String,
    #[serde(borrow)]
    document: &'a RawValue,
}

fn documents_of(arguments: &Arguments) -> Result<Vec<Line>> {
    let Some(path) = &arguments.data else { return Ok(generated()) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let line: FileLine<'_> =
                serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
            let json = line.document.get().to_owned();
            Ok(Line { id: line.id, collection: line.collection, json })
        })
        .collect()
}

fn generated() -> Vec<Line> {
    (0..GENERATED_DOCUMENTS)
        .map(|number| Line {
            id: format!("orders/{number:05}"),
            collection: "Orders".into(),
            json: format!(
                "{{ \"number\":{number}, \"total\" : {number}.50, \"id\":12345678901234567890{number} }}"
            ),
        })
        .collect()
}

/// What must not be found on any disk, beside names of databases and certificates.
fn planted() -> Line {
    Line {
        id: "planted-id-curlew".into(),
        collection: "planted-collection-godwit".into(),
        json: "{\"planted-field-dunlin\":\"planted-value-avocet\"}".into(),
    }
}

async fn load_documents(
    cluster: &mut Cluster,
    arguments: &Arguments,
    steps: &mut Steps,
) -> Result<()> {
    let admin = cluster.admin(0)?;
    for database in [GRANTED, OTHER] {
        admin.create_database(database, 3).await?;
    }
    steps.done("two databases created, each a Raft group of its own on all three nodes");
    let mut lines = documents_of(arguments)?;
    lines.push(planted());
    let started = Instant::now();
    for (number, batch) in batches(&lines).into_iter().enumerate() {
        let writes = batch.iter().map(write).collect();
        let node = cluster.admin(number % 3)?;
        let request_id = request_id();
        let batch = document::BatchWriteRequest { database: GRANTED.into(), writes, request_id };
        node.documents().batch_write(batch).await.context("loading a batch")?;
    }
    let took = started.elapsed();
    put(&admin, OTHER, &planted()).await?;
    let expected: BTreeMap<_, _> = lines.into_iter().map(|line| (line.id, line.json)).collect();
    for (at, node) in cluster.everywhere(Some(&cluster.administrator))?.iter().enumerate() {
        let stored = read_all(node, GRANTED, "").await?;
        anyhow::ensure!(stored == expected, "n{} gives back other documents", at + 1);
    }
    let count = expected.len();
    let rate = count as f64 / took.as_secs_f64();
    steps.done(&format!(
        "{count} documents loaded through all nodes ({rate:.0} a second), and read back from each, byte for byte"
    ));
    Ok(())
}

fn batches(lines: &[Line]) -> Vec<&[Line]> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, line) in lines.iter().enumerate() {
        if at - start == BATCH || bytes + line.json.len() > BATCH_BYTES {
            batches.push(&lines[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += line.json.len();
    }
    batches.push(&lines[start..]);
    batches
}

fn write(line: &Line) -> document::Write {
    let put = document::PutWrite {
        collection: line.collection.clone(),
        json: line.json.clone().into_bytes(),
    };
    let operation = Some(document::write::Operation::Put(put));
    document::Write { id: line.id.clone(), precondition: None, operation }
}

async fn put(caller: &Caller, database: &str, line: &Line) -> Result<(), Status> {
    let request = document::PutDocumentRequest {
        collection: line.collection.clone(),
        ..put_request(database, &line.id, &line.json)
    };
    caller.documents().put_document(request).await.map(drop)
}

// ---- decisions ----

/// Clearance, and access to [`GRANTED`].
type Rights = (Clearance, Option<Access>);

/// Who acts, in the order of the table: what they are called there, and their rights, if registered.
const PEOPLE: [(&str, Option<Rights>); 7] = [
    ("Cluster Admin", Some((Clearance::ClusterAdmin, None))),
    ("Operator", Some((Clearance::Operator, None))),
    ("database Admin", Some((Clearance::User, Some(Access::Admin)))),
    ("ReadWrite", Some((Clearance::User, Some(Access::ReadWrite)))),
    ("Read", Some((Clearance::User, Some(Access::Read)))),
    ("no grants", Some((Clearance::User, None))),
    ("unregistered", None),
];

/// The name under which somebody's certificate is registered: a word to search the disks for.
fn certificate_name(person: &str) -> String {
    format!("planted-{}-whimbrel", person.to_lowercase().replace(' ', "-"))
}

async fn people(cluster: &Cluster) -> Result<BTreeMap<&'static str, Identity>> {
    let admin = cluster.admin(0)?;
    let mut people = BTreeMap::new();
    for (person, rights) in PEOPLE {
        let name = certificate_name(person);
        let identity = match rights {
            None => Identity::new(&name)?,
            Some((clearance, access)) => {
                let grants: Vec<_> = access.map(|access| (GRANTED, access)).into_iter().collect();
                let request = GenerateCertificateRequest {
                    name: name.clone(),
                    clearance: clearance.into(),
                    grants: granted(&grants),
                    request_id: request_id(),
                    ..Default::default()
                };
                let made = admin.security().generate_certificate(request).await?.into_inner();
                let path = cluster.folder().join(format!("{name}.zip"));
                std::fs::write(path, &made.package)?;
                Identity::from_package(&name, &made.package)?
            }
        };
        people.insert(person, identity);
    }
    Ok(people)
}

/// An operation of the table, and who may do it, in the order of [`PEOPLE`].
struct Operation {
    name: &'static str,
    database: Option<&'static str>,
    allowed: [bool; 7],
}

const fn operation(
    name: &'static str,
    database: Option<&'static str>,
    allowed: [u8; 7],
) -> Operation {
    let mut flags = [false; 7];
    let mut at = 0;
    while at < 7 {
        flags[at] = allowed[at] == 1;
        at += 1;
    }
    Operation { name, database, allowed: flags }
}

const OPERATIONS: [Operation; 12] = [
    operation("read a document", Some(GRANTED), [1, 1, 1, 1, 1, 0, 0]),
    operation("write a document", Some(GRANTED), [1, 1, 1, 1, 0, 0, 0]),
    operation("list documents", Some(GRANTED), [1, 1, 1, 1, 1, 0, 0]),
    operation("show the database", Some(GRANTED), [1, 1, 1, 1, 1, 0, 0]),
    operation("enable the database", Some(GRANTED), [1, 1, 0, 0, 0, 0, 0]),
    operation("read a document", Some(OTHER), [1, 1, 0, 0, 0, 0, 0]),
    operation("write a document", Some(OTHER), [1, 1, 0, 0, 0, 0, 0]),
    operation("list documents", Some(OTHER), [1, 1, 0, 0, 0, 0, 0]),
    operation("show the database", Some(OTHER), [1, 1, 0, 0, 0, 0, 0]),
    operation("list certificates", None, [1, 1, 0, 0, 0, 0, 0]),
    operation("make a Cluster Admin", None, [1, 0, 0, 0, 0, 0, 0]),
    operation("make a join token", None, [1, 0, 0, 0, 0, 0, 0]),
];

impl Operation {
    async fn attempt(&self, caller: &Caller) -> Result<(), Status> {
        let database = self.database.unwrap_or_default().to_owned();
        match self.name {
            "read a document" => caller.get(&database, &planted().id).await.map(drop),
            "write a document" => {
                caller.put(&database, "written-by-the-demo", "{}").await.map(drop)
            }
            "list documents" => {
                let request =
                    document::ListDocumentsRequest { database, page_size: 1, ..Default::default() };
                caller.documents().list_documents(request).await.map(drop)
            }
            "show the database" => {
                let request = GetDatabaseRequest { name: database };
                caller.databases().get_database(request).await.map(drop)
            }
            "enable the database" => {
                let request = EnableDatabaseRequest { name: database, request_id: request_id() };
                caller.databases().enable_database(request).await.map(drop)
            }
            "list certificates" => {
                let request = ListCertificatesRequest::default();
                caller.security().list_certificates(request).await.map(drop)
            }
            "make a Cluster Admin" => {
                let identity = Identity::new("made-by-the-demo")
                    .map_err(|error| Status::internal(error.to_string()))?;
                caller.register(&identity, Clearance::ClusterAdmin, &[]).await
            }
            "make a join token" => {
                let request =
                    CreateJoinTokenRequest { lifetime_seconds: 60, request_id: request_id() };
                caller.cluster().create_join_token(request).await.map(drop)
            }
            name => Err(Status::internal(format!("the demo cannot {name}"))),
        }
    }
}

async fn decisions(
    cluster: &Cluster,
    people: &BTreeMap<&'static str, Identity>,
    steps: &mut Steps,
) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
    let mut header = vec!["".to_owned(), "database".to_owned()];
    header.extend(PEOPLE.iter().map(|(person, _)| (*person).to_owned()));
    table.set_header(header);
    let mut callers: BTreeMap<&str, Vec<Caller>> = BTreeMap::new();
    for (person, identity) in people {
        callers.insert(person, cluster.everywhere(Some(identity))?);
    }
    let (mut made, mut problems) = (0, Vec::new());
    for operation in &OPERATIONS {
        let database = operation.database.unwrap_or("-").to_owned();
        let mut row = vec![operation.name.to_owned(), database];
        for ((person, _), expected) in PEOPLE.iter().zip(operation.allowed) {
            let mut seen = BTreeSet::new();
            for caller in &callers[person] {
                let decision = Decision::of(&operation.attempt(caller).await);
                made += 1;
                seen.insert(decision.to_string());
                if decision.allows() != expected || matches!(decision, Decision::None(_)) {
                    problems.push(format!("{person}, {}: {decision}", operation.name));
                }
            }
            if seen.len() > 1 {
                problems.push(format!("{person}, {}: the nodes differ: {seen:?}", operation.name));
            }
            row.push(
                seen.into_iter().map(|decision| symbol(&decision)).collect::<Vec<_>>().join("/"),
            );
        }
        table.add_row(row);
    }
    steps.done(&format!("{made} decisions made by three nodes; equal on all, and as specified:"));
    println!("\n{table}\n");
    steps.detail("✓ allowed   – denied   ? certificate not registered");
    anyhow::ensure!(problems.is_empty(), "decisions differ:\n{}", problems.join("\n"));
    Ok(())
}

fn symbol(decision: &str) -> String {
    match decision.split([' ', ':']).next() {
        Some("allow") => "✓".into(),
        Some("deny") => "–".into(),
        Some("who?") => "?".into(),
        _ => decision.to_owned(),
    }
}

// ---- failover ----

async fn failover(cluster: &mut Cluster, steps: &mut Steps) -> Result<()> {
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    let load = Load::start(&everywhere, GRANTED, 6);
    load.progress(100, HEAL_LIMIT).await?;
    let leader = cluster.leader(GRANTED).await?;
    let name = cluster.nodes[leader].name.clone();
    let before = load.acknowledged();
    cluster.nodes[leader].kill()?;
    load.progress(100, HEAL_LIMIT).await.context("writing on without the leader")?;
    steps.done(&format!(
        "{name}, leader of {GRANTED}, killed with -9 under load after {before} writes; writing went on"
    ));
    cluster.nodes[leader].start()?;
    cluster.ready_within(HEAL_LIMIT).await?;
    load.progress(100, HEAL_LIMIT).await?;
    let written = load.finish().await?;
    steps.done(&format!("{name} restarted under load and serves again"));
    for caller in &everywhere {
        written.check(caller, GRANTED).await?;
    }
    steps.done(&format!(
        "all {} acknowledged writes are there, on each node; the longest pause was {:.2} s",
        written.documents.len(),
        written.longest_gap.as_secs_f64()
    ));
    anyhow::ensure!(
        written.longest_gap < FAILOVER_LIMIT,
        "a pause of {:?} is longer than {FAILOVER_LIMIT:?}",
        written.longest_gap
    );
    let states = cluster.same_state().await?;
    steps.done("the state hashes are equal on all nodes:");
    for (group, (index, hash)) in states {
        let hash = hash.get(..16).unwrap_or(&hash).to_owned();
        steps.detail(&format!("{group:<16} at log index {index:>5}   {hash}…"));
    }
    Ok(())
}

// ---- revocation ----

async fn revocation(
    cluster: &Cluster,
    people: &BTreeMap<&'static str, Identity>,
    steps: &mut Steps,
) -> Result<()> {
    let victim = &people["ReadWrite"];
    let planted = planted();
    let target = Target { database: GRANTED, id: &planted.id };
    let calls = [Call::Read, Call::StaleRead, Call::Write];
    let admin = cluster.admin(1)?;
    let thumbprint = victim.thumbprint();
    let revoke = admin.revoke(&thumbprint);
    let seen =
        probes::through(cluster, victim, target, &calls, &["CERTIFICATE_UNKNOWN"], revoke).await?;
    steps.done(
        "a ReadWrite certificate deleted while it read and wrote on open connections to all nodes",
    );
    steps.detail(&format!(
        "acknowledged after {:.0} ms; {} calls were served before, 0 of {} that started after",
        seen.took.as_secs_f64() * 1000.0,
        seen.before,
        seen.after
    ));
    Ok(())
}

// ---- disks ----

fn search_the_disks(
    cluster: &Cluster,
    people: &BTreeMap<&'static str, Identity>,
    steps: &mut Steps,
) -> Result<()> {
    let planted = planted();
    let mut markers = vec![
        planted.id,
        planted.collection,
        "planted-field-dunlin".into(),
        "planted-value-avocet".into(),
        GRANTED.to_owned(),
        OTHER.to_owned(),
        "orders/00".into(),
    ];
    markers.extend(PEOPLE.iter().map(|(person, _)| certificate_name(person)));
    // The private keys of generated certificates left the cluster with their packages.
    markers
        .extend(people.values().filter_map(|who| Some(who.key_pem().lines().nth(1)?.to_owned())));
    let control = cluster.folder().join("control");
    std::fs::create_dir_all(&control)?;
    std::fs::write(control.join("file"), markers.join("\n"))?;
    let found = markers::search(&control, &markers)?;
    anyhow::ensure!(
        found.hits.len() == markers.len(),
        "the search missed {} words in the control file",
        markers.len() - found.hits.len()
    );
    let (mut files, mut bytes, mut hits) = (0, 0, Vec::new());
    for node in &cluster.nodes {
        let found = markers::search(&node.data(), &markers)?;
        anyhow::ensure!(found.files > 0, "{} has an empty data folder", node.name);
        files += found.files;
        bytes += found.bytes;
        hits.extend(found.hits);
    }
    anyhow::ensure!(hits.is_empty(), "found on disk: {hits:?}");
    steps.done(&format!(
        "{} planted words (ids, values, field, collection, database and certificate names, keys) searched in {files} \
         data files, {:.1} MB: none found; in a control file: all",
        markers.len(),
        bytes as f64 / 1e6
    ));
    Ok(())
}

// ---- afterwards ----

async fn stay(cluster: &mut Cluster, people: &BTreeMap<&'static str, Identity>) -> Result<()> {
    let rookery = binary::path()?;
    let rookery = rookery.display();
    let admin = cluster.package.display().to_string();
    let reader = cluster.folder().join(format!("{}.zip", people["Read"].name));
    let reader = reader.display();
    let n1 = &cluster.nodes[0];
    println!(
        "\nThe cluster stays up until Ctrl-C. Everything of it is in {}. Try, in another terminal:\n",
        cluster.folder().display()
    );
    for (comment, command) in [
        ("who the administrator is", format!("{rookery} --context-file {admin} whoami")),
        ("every group on every node", format!("{rookery} --context-file {admin} cluster status")),
        (
            "a document",
            format!("{rookery} --context-file {admin} doc get {GRANTED} planted-id-curlew"),
        ),
        (
            "the same as a reader",
            format!("{rookery} --context-file {reader} doc get {GRANTED} planted-id-curlew"),
        ),
        (
            "what a reader may not",
            format!("{rookery} --context-file {reader} doc put {GRANTED} x '{{}}'"),
        ),
        ("everybody who is registered", format!("{rookery} --context-file {admin} cert list")),
        ("kill a node", format!("kill -9 {}", n1.pid().unwrap_or_default())),
        ("start it again", format!("{rookery} start --config {}", n1.configuration().display())),
    ] {
        println!("  # {comment}\n  {command}");
    }
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
    // Nodes of the same terminal have had the signal as well.
    for node in &mut cluster.nodes {
        let _ = node.ended(Duration::from_secs(1)).await;
    }
    // What people tried may have left warnings; the demonstration itself is over.
    cluster.expect_in_logs("");
    Ok(())
}
