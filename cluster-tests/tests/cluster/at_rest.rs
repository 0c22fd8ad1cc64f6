//! Nothing that a client stored is readable in any file of any node, and no file opens without its master key.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use cluster_tests::{
    caller::{granted, request_id},
    cluster::Cluster,
    identity::Identity,
    markers,
    node::Node,
};
use rookery_proto::{
    cluster::v1::TriggerSnapshotRequest,
    document::v1 as document,
    security::v1::{Access, Clearance, GenerateCertificateRequest},
};
use sha2::{Digest as _, Sha256};

#[tokio::test]
async fn nothing_that_was_stored_is_readable_on_disk() -> Result<()> {
    let settings = [("raft.snapshot_after_entries", "50"), ("storage.reserve_mib", "16")];
    let mut cluster = Cluster::prepare(3, &settings).await?;
    for node in &mut cluster.nodes {
        // Where programs leave what they need for a moment.
        let temporary = node.folder.join("temporary");
        std::fs::create_dir(&temporary)?;
        node.environment.push(("TMPDIR".to_owned(), temporary.display().to_string()));
        node.start()?;
    }
    cluster.ready().await?;
    let markers = plant(&mut cluster).await?;
    cluster.same_state().await?;
    let none_found = |cluster: &Cluster, when: &str| -> Result<()> {
        for node in &cluster.nodes {
            let found = markers::search(&node.data(), &markers)?;
            anyhow::ensure!(found.files > 3 && found.bytes > 10_000, "{found:?}");
            anyhow::ensure!(found.hits.is_empty(), "{when}, on {}: {:?}", node.name, found.hits);
            let found = markers::search(&node.folder, &markers)?;
            anyhow::ensure!(found.hits.is_empty(), "{when}, in a log: {:?}", found.hits);
        }
        Ok(())
    };
    none_found(&cluster, "while running")?;
    for node in &cluster.nodes {
        only_in_its_folder(node)?;
    }
    for node in &mut cluster.nodes {
        anyhow::ensure!(node.stop().await? == 0);
    }
    none_found(&cluster, "after a stop")?;
    the_search_finds(&cluster.nodes[0].data(), &markers)?;
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    cluster.finish().await
}

/// The search itself works: each marker is found in a control file, in each encoding.
fn the_search_finds(folder: &Path, markers: &[String]) -> Result<()> {
    let control = folder.join("control");
    for marker in markers {
        let base64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let utf16 = |order: fn(u16) -> [u8; 2]| marker.encode_utf16().flat_map(order).collect();
        let contents: [(&str, Vec<u8>); 8] = [
            ("plain", format!("..{marker}..").into_bytes()),
            ("hex", hex::encode(marker).into_bytes()),
            ("HEX", hex::encode_upper(marker).into_bytes()),
            ("base64", base64(marker.clone()).into_bytes()),
            ("base64 behind one byte", base64(format!("x{marker}")).into_bytes()),
            ("base64 behind two bytes", base64(format!("xx{marker}")).into_bytes()),
            ("UTF-16, little endian", utf16(u16::to_le_bytes)),
            ("UTF-16, big endian", utf16(u16::to_be_bytes)),
        ];
        for (encoding, content) in contents {
            std::fs::write(&control, content)?;
            let found = markers::search(folder, std::slice::from_ref(marker))?;
            anyhow::ensure!(found.hits.len() == 1, "{encoding} of {marker}: {:?}", found.hits);
        }
    }
    Ok(std::fs::remove_file(control)?)
}

/// No file is open outside of the node's own folder: nothing is written where nobody looks.
fn only_in_its_folder(node: &Node) -> Result<()> {
    let pid = node.pid().context("a process")?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue }; // Closed meanwhile.
        let file =
            target.is_absolute() && !target.starts_with("/dev") && !target.starts_with("/proc");
        anyhow::ensure!(!file || target.starts_with(&node.folder), "{}", target.display());
    }
    let temporary = std::fs::read_dir(node.folder.join("temporary"))?.count();
    anyhow::ensure!(temporary == 0, "{temporary} temporary files of {}", node.name);
    Ok(())
}

/// Stores words of every kind that a client can store, often enough to fill files, and gives them back.
async fn plant(cluster: &mut Cluster) -> Result<Vec<String>> {
    let unique = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let word = |kind: &str| format!("marked{kind}{unique}");
    let admin = cluster.admin(0)?;
    let database = word("database");
    admin.create_database(&database, 3).await?;
    for round in 0..20 {
        let writes = (0..20)
            .map(|number| {
                let json = format!(
                    "{{\"{}\":\"{} {}\"}}",
                    word("field"),
                    word("value"),
                    "filler ".repeat(60)
                );
                let put =
                    document::PutWrite { collection: word("collection"), json: json.into_bytes() };
                document::Write {
                    id: format!("{}/{round}/{number}", word("id")),
                    precondition: None,
                    operation: Some(document::write::Operation::Put(put)),
                }
            })
            .collect();
        let request_id = request_id();
        let batch = document::BatchWriteRequest { database: database.clone(), writes, request_id };
        admin.documents().batch_write(batch).await?;
    }
    for number in 0..60 {
        let name = format!("{} {number}", word("certificate"));
        cluster.register(&name, Clearance::User, &[(&database, Access::Read)]).await?;
    }
    // What looks most like a secret to whoever reads it.
    let connection =
        format!("{{\"url\":\"https://{0}:{0}@db.example/{0};Password={0}\"}}", word("connection"));
    admin.put(&database, &word("id"), &connection).await?;
    let generate = GenerateCertificateRequest {
        name: word("generated"),
        note: word("note"),
        clearance: Clearance::User.into(),
        grants: granted(&[(&database, Access::Read)]),
        password: word("password"),
        request_id: request_id(),
        ..Default::default()
    };
    let generated = admin.security().generate_certificate(generate).await?.into_inner();
    let identity = Identity::from_package("generated", &generated.package)?;
    let key = identity.key_pem();
    let key_line = key.lines().nth(1).context("a key has lines")?.to_owned();
    for group in ["cluster", database.as_str()] {
        for caller in cluster.everywhere(Some(&cluster.administrator))? {
            let request = TriggerSnapshotRequest { group: group.to_owned() };
            caller.cluster().trigger_snapshot(request).await?;
        }
    }
    let token = cluster.join_token(60).await?;
    let mut markers: Vec<_> =
        ["value", "id", "field", "collection", "database", "certificate", "generated", "password"]
            .into_iter()
            .chain(["connection", "note"])
            .map(word)
            .collect();
    markers.push(key_line);
    // The end of a token is part of its secret or of the pin; the log keeps neither in the clear.
    markers.push(token[token.len() - 20..].to_owned());
    Ok(markers)
}

#[tokio::test]
async fn without_its_master_key_a_node_refuses_and_changes_nothing() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.expect_in_logs("master key");
    cluster.expect_in_logs("key id");
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    admin.put("sales", "a", "{}").await?;
    let node = &mut cluster.nodes[0];
    anyhow::ensure!(node.stop().await? == 0);
    let key_file = node.folder.join("master.key");
    let key = std::fs::read(&key_file)?;
    let before = digests(&node.data())?;
    for (what, content) in [
        ("another key", Some(vec![0x5a; 32])),
        ("a short key", Some(vec![0x5a; 31])),
        ("an empty file", Some(Vec::new())),
        ("no file", None),
    ] {
        match content {
            Some(content) => std::fs::write(&key_file, content)?,
            None => std::fs::remove_file(&key_file)?,
        }
        let output = node.run(&["start", "--config", "rookery.toml"]).await?;
        anyhow::ensure!(output.code != 0, "it started with {what}");
        let told = output.stderr.to_lowercase();
        anyhow::ensure!(told.contains("master"), "{what}: {told}");
        anyhow::ensure!(digests(&node.data())? == before, "{what}: the data folder changed");
        anyhow::ensure!(content_is_not_new(&key_file, what)?, "{what}: a key was made silently");
    }
    std::fs::write(&key_file, key)?;
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let output = node.run(&["start", "--config", "rookery.toml"]).await?;
    anyhow::ensure!(output.code != 0, "it started with a key that everybody can read");
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    node.start()?;
    cluster.ready().await?;
    anyhow::ensure!(cluster.admin(0)?.get("sales", "a").await? == b"{}");
    cluster.finish().await
}

fn content_is_not_new(key_file: &Path, what: &str) -> Result<bool> {
    Ok(match what {
        "no file" => !key_file.exists(),
        "an empty file" => std::fs::read(key_file)?.is_empty(),
        _ => true,
    })
}

/// SHA-256 of each regular file of a data folder; lock files and sockets are no data.
fn digests(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !path.to_string_lossy().to_lowercase().ends_with("lock") {
                let digest = hex::encode(Sha256::digest(std::fs::read(&path)?));
                digests.insert(path.display().to_string(), digest);
            }
        }
    }
    Ok(digests)
}
