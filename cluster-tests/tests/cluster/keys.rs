//! Keys at rest: rotated under load and across kills, kept in locked memory, recovered on another machine.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, reason, request_id},
    cluster::Cluster,
    machine::not_run,
    node::Node,
    wait::eventually,
    workload::Load,
};
use rookery_proto::{
    database::v1::DeleteDatabaseRequest,
    document::v1 as document,
    security::v1::{
        DataKeyStatus, GetKeyStatusRequest, GetKeyStatusResponse, RotateDataKeyRequest,
        RotateMasterKeyRequest, rotate_data_key_request::Subject,
    },
};

/// Longest time a rotation may take in these tests.
const ROTATION_LIMIT: Duration = Duration::from_secs(60);

async fn status(caller: &Caller) -> Result<GetKeyStatusResponse> {
    Ok(caller.keys().get_key_status(GetKeyStatusRequest {}).await?.into_inner())
}

async fn data_key(caller: &Caller, group: &str) -> Result<DataKeyStatus> {
    let keys = status(caller).await?.data_keys;
    keys.into_iter().find(|key| key.group == group).context("no key of that group")
}

async fn rotate(caller: &Caller, subject: Subject) -> Result<bool> {
    let request = RotateDataKeyRequest { subject: Some(subject) };
    Ok(caller.keys().rotate_data_key(request).await?.into_inner().started)
}

/// Waits until no record of a group names an older key, and the older key is destroyed.
async fn rotated(caller: &Caller, group: &str) -> Result<DataKeyStatus> {
    eventually("the older key is destroyed", ROTATION_LIMIT, || async {
        let key = data_key(caller, group).await?;
        anyhow::ensure!(key.rotation.as_ref().is_none_or(|it| it.phase != "stopped"), "{key:?}");
        anyhow::ensure!(key.older_versions.is_empty(), "{key:?}");
        Ok(key)
    })
    .await
}

/// So many records that sealing them again takes a while.
async fn fill(admin: &Caller, database: &str, batches: usize) -> Result<()> {
    for batch in 0..batches {
        let writes = (0..100)
            .map(|number| document::Write {
                id: format!("fill/{batch}/{number}"),
                precondition: None,
                operation: Some(document::write::Operation::Put(document::PutWrite {
                    collection: "fill".into(),
                    json: format!("{{\"filler\":\"{}\"}}", "x".repeat(400)).into_bytes(),
                })),
            })
            .collect();
        let database = database.to_owned();
        let batch = document::BatchWriteRequest { database, writes, request_id: request_id() };
        admin.documents().batch_write(batch).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rotation_under_load_survives_kills_and_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &[("raft.snapshot_after_entries", "200")]).await?;
    let everywhere = cluster.everywhere(Some(&cluster.administrator))?;
    everywhere[0].create_database("sales", 3).await?;
    eventually("every node holds the database", ROTATION_LIMIT, || async {
        for caller in &everywhere {
            data_key(caller, "sales").await?;
        }
        Ok(())
    })
    .await?;
    fill(&everywhere[0], "sales", 40).await?;
    let load = Load::start(&everywhere, "sales", 3);
    load.progress(50, ROTATION_LIMIT).await?;
    let mut before = Vec::new();
    for caller in &everywhere {
        before.push(data_key(caller, "sales").await?.version);
        assert!(rotate(caller, Subject::Database("sales".into())).await?);
    }
    // Each node is killed somewhere else in the middle of its walk.
    let mut in_the_middle = 0;
    for (i, caller) in everywhere.iter().enumerate() {
        let wanted = [1, 700, 1_500][i];
        let seen = eventually("some records are sealed again", ROTATION_LIMIT, || async {
            let key = data_key(caller, "sales").await?;
            let resealed = key.rotation.as_ref().map_or(0, |it| it.resealed);
            anyhow::ensure!(resealed >= wanted || key.older_versions.is_empty(), "{key:?}");
            Ok(key)
        })
        .await?;
        cluster.nodes[i].kill()?;
        load.progress(20, ROTATION_LIMIT).await?;
        cluster.nodes[i].start()?;
        cluster.ready().await?;
        let went_on = cluster.nodes[i].logged("a rotation of a data key goes on");
        assert!(went_on || seen.older_versions.is_empty(), "{seen:?}");
        in_the_middle += usize::from(went_on);
    }
    assert!(in_the_middle > 0, "no kill came in the middle of a rotation");
    for (caller, before) in everywhere.iter().zip(before) {
        let key = rotated(caller, "sales").await?;
        assert!(key.version > before, "{key:?}, before {before}");
        assert!(rotate(caller, Subject::Cluster(true)).await?);
    }
    for caller in &everywhere {
        rotated(caller, "cluster").await?;
    }
    load.progress(50, ROTATION_LIMIT).await?;
    let written = load.finish().await?;
    cluster.same_state().await?;
    for node in &mut cluster.nodes {
        assert_eq!(node.stop().await?, 0);
        let arguments = ["recover", "verify-store", "--data", "data", "--master-key", "master.key"];
        let output = node.run(&arguments).await?;
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.ready().await?;
    for caller in &everywhere {
        written.check(caller, "sales").await?;
    }
    cluster.finish().await
}

fn private(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// Appends to a node's configuration file, or takes something out of it.
fn configure(node: &Node, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(node.configuration())?;
    anyhow::ensure!(text.contains(from), "{from} does not stand in {text}");
    private(&node.configuration(), text.replace(from, to).as_bytes())
}

#[tokio::test]
async fn the_master_key_is_rotated_and_the_former_one_not_needed_any_more() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.expect_in_logs("the master key was rotated");
    cluster.expect_in_logs("is sealed by the next master key");
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    admin.put("sales", "a", "{}").await?;
    let master = async || status(&admin).await?.master_key.context("no master key");
    let rotate = async || admin.keys().rotate_master_key(RotateMasterKeyRequest {}).await;
    let refused = async || rotate().await.map_err(|status| reason(&status)).unwrap_err();
    let former = master().await?;
    assert!(former.source.contains("master.key") && !former.from_next, "{former:?}");
    assert_eq!(refused().await, "NO_NEXT_MASTER_KEY");
    // The configuration changes while the node runs; the key comes later than its name.
    let (old, new) = ("master_key_file = \"master.key\"\n", "master_key_file = \"next.key\"\n");
    let both = format!("{old}[encryption.next]\n{new}");
    configure(&cluster.nodes[0], old, &both)?;
    assert_eq!(refused().await, "MASTER_KEY_SOURCE");
    private(&cluster.nodes[0].folder.join("next.key"), &rand::random::<[u8; 32]>())?;
    let done = rotate().await?.into_inner();
    assert_eq!(done.former_id, former.id);
    assert!(done.id != former.id && done.advice.contains("not needed"), "{done:?}");
    assert_eq!(refused().await, "SAME_MASTER_KEY");
    // A crash before the configuration was put right; then another, with the former key gone.
    for former_key in [true, false] {
        let file = cluster.nodes[0].folder.join("master.key");
        if !former_key {
            fs::remove_file(&file)?;
        }
        cluster.nodes[0].kill()?;
        cluster.nodes[0].forget_log()?;
        cluster.nodes[0].start()?;
        cluster.ready().await?;
        let now = master().await?;
        assert!(now.id == done.id && now.from_next && !now.advice.is_empty(), "{now:?}");
        assert!(cluster.nodes[0].logged("is sealed by the next master key"));
        assert_eq!(file.exists(), former_key, "a key was made");
        assert_eq!(admin.get("sales", "a").await?, b"{}");
    }
    configure(&cluster.nodes[0], &both, new)?;
    assert_eq!(cluster.nodes[0].stop().await?, 0);
    cluster.nodes[0].forget_log()?;
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    let now = master().await?;
    assert!(now.id == done.id && !now.from_next && now.advice.is_empty(), "{now:?}");
    assert!(!cluster.nodes[0].logged("is sealed by the next master key"));
    cluster.finish().await
}

#[tokio::test]
async fn a_deleted_database_is_shredded_though_the_node_is_killed_meanwhile() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    for round in 0..4_u32 {
        let name = format!("database{round}");
        admin.create_database(&name, 1).await?;
        admin.put(&name, "a", "{}").await?;
        let group_id = data_key(&admin, &name).await?.group_id;
        // What an attacker copies before the deletion.
        let keyring = fs::read(cluster.nodes[0].data().join("keyring"))?;
        let request = DeleteDatabaseRequest { name, request_id: request_id() };
        admin.databases().delete_database(request).await?;
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 4)).await;
        cluster.nodes[0].kill()?;
        cluster.nodes[0].start()?;
        cluster.ready().await?;
        eventually("its key is destroyed", ROTATION_LIMIT, async || {
            let keys = status(&admin).await?.data_keys;
            anyhow::ensure!(keys.iter().all(|key| key.group_id != group_id), "{keys:?}");
            Ok(())
        })
        .await?;
        if round < 3 {
            continue;
        }
        assert_eq!(cluster.nodes[0].stop().await?, 0);
        let now = fs::read(cluster.nodes[0].data().join("keyring"))?;
        private(&cluster.nodes[0].data().join("keyring"), &keyring)?;
        let older = cluster.nodes[0].run(&["start", "--config", "rookery.toml"]).await?;
        assert!(older.code != 0 && older.stderr.contains("is an older copy"), "{}", older.stderr);
        private(&cluster.nodes[0].data().join("keyring"), &now)?;
        cluster.expect_in_logs("is an older copy");
        cluster.nodes[0].start()?;
        cluster.ready().await?;
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_recovery_export_opens_the_folder_under_another_master_key() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.expect_in_logs("a recovery export was made");
    let admin = cluster.admin(0)?;
    admin.create_database("before", 1).await?;
    let folder = cluster.nodes[0].folder.clone();
    let export = async |node: &Node, more: &[&str]| {
        let arguments = ["recovery-export", "-o", "json", "--out"];
        node.run(&[arguments.as_slice(), more].concat()).await
    };
    let made = export(&cluster.nodes[0], &["export"]).await?;
    anyhow::ensure!(made.code == 0, "{}", made.stderr);
    let row: serde_json::Value = serde_json::from_str(&made.stdout)?;
    let recovery_key = row["recovery_key"].as_str().context("no recovery key")?.to_owned();
    let mode = fs::metadata(folder.join("export"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = export(&cluster.nodes[0], &["again"]).await?;
    assert!(again.code != 0 && again.stderr.contains("made before"), "{}", again.stderr);
    assert!(!folder.join("again").exists());
    let over = export(&cluster.nodes[0], &["export", "--force"]).await?;
    assert!(over.code != 0, "the file was overwritten");
    let forced = export(&cluster.nodes[0], &["forced", "--force"]).await?;
    anyhow::ensure!(forced.code == 0, "{}", forced.stderr);
    let all = rookery_proto::audit::v1::ListRecordsRequest { page_size: 200, ..Default::default() };
    let records = admin.audit().list_records(all).await?.into_inner().records;
    let exports = records.iter().filter(|it| format!("{it:?}").contains("export-recovery")).count();
    assert_eq!(exports, 2, "each export that was made, and no other, is in the audit log");
    // A database that is younger than the export is opened by it too.
    admin.create_database("after", 1).await?;
    admin.put("after", "a", "{}").await?;
    private(&folder.join("recovery.key"), recovery_key.as_bytes())?;
    let key = folder.join("recovery.key").display().to_string();
    cluster.nodes[0].environment.push(("ROOKERY_RECOVERY_KEY_FILE".into(), key));
    let verify = ["recover", "verify-store", "--data", "data", "--recovery", "export"];
    let running = cluster.nodes[0].run(&verify).await?;
    assert!(running.code == 9 && running.stderr.contains("in use"), "{}", running.stderr);
    assert_eq!(cluster.nodes[0].stop().await?, 0);
    let sound = cluster.nodes[0].run(&verify).await?;
    assert_eq!(sound.code, 0, "{}", sound.stderr);
    // Another machine has another master key; what this one has is lost.
    private(&folder.join("other.key"), &rand::random::<[u8; 32]>())?;
    fs::remove_file(folder.join("master.key"))?;
    let reseal = ["recover", "reseal", "--data", "data", "--recovery", "export"];
    let reseal = [reseal.as_slice(), &["--new-master-key", "other.key"]].concat();
    let resealed = cluster.nodes[0].run(&reseal).await?;
    assert_eq!(resealed.code, 0, "{}", resealed.stderr);
    let stale = cluster.nodes[0].run(&verify).await?;
    assert!(stale.code == 9 && stale.stderr.contains("sealed by master key"), "{}", stale.stderr);
    fs::rename(folder.join("other.key"), folder.join("master.key"))?;
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    assert_eq!(admin.get("after", "a").await?, b"{}");
    let recovery = status(&admin).await?.recovery.context("no export is told of")?;
    assert!(!recovery.current, "{recovery:?}");
    cluster.finish().await
}

#[tokio::test]
async fn verify_store_finds_a_flipped_byte_and_tells_no_content() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    fill(&admin, "sales", 5).await?;
    assert_eq!(cluster.nodes[0].stop().await?, 0);
    let verify = ["recover", "verify-store", "--data", "data", "--master-key", "master.key"];
    let sound = cluster.nodes[0].run(&verify).await?;
    assert_eq!(sound.code, 0, "{}", sound.stderr);
    assert!(sound.stdout.contains("state"), "{}", sound.stdout);
    let store = cluster.nodes[0].data().join("store");
    let mut tables = 0;
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let good = fs::read(&path)?;
        if path.extension().is_none_or(|extension| extension != "sst") {
            continue;
        }
        tables += 1;
        let mut bad = good.clone();
        let middle = (4_096 + good.len()) / 2;
        bad[middle] ^= 1;
        fs::write(&path, bad)?;
        let found = cluster.nodes[0].run(&verify).await?;
        assert_eq!(found.code, 9, "{}: {}", path.display(), found.stderr);
        assert!(!found.stderr.contains("fill"), "{}", found.stderr);
        fs::write(&path, good)?;
    }
    assert!(tables > 0, "there is no table to be damaged");
    for (path, part) in [("sealing", "sealing"), ("sentinel/slot0", ""), ("keyring", "keyring")] {
        let path = cluster.nodes[0].data().join(path);
        let good = fs::read(&path)?;
        let mut bad = good.clone();
        *bad.last_mut().context("an empty file")? ^= 1;
        fs::write(&path, bad)?;
        let found = cluster.nodes[0].run(&verify).await?;
        // One torn slot of the sentinel is what a power cut leaves.
        assert_eq!(found.code, if part.is_empty() { 0 } else { 9 }, "{}", found.stderr);
        assert!(found.stderr.contains(part), "{}", found.stderr);
        fs::write(&path, good)?;
    }
    cluster.nodes[0].start()?;
    cluster.ready().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_passphrase_opens_a_node_and_a_wrong_one_does_not() -> Result<()> {
    let mut cluster = Cluster::prepare(1, &[]).await?;
    cluster.expect_in_logs("passphrase is wrong");
    cluster.expect_in_logs("is gone, and without it");
    let node = &mut cluster.nodes[0];
    let words = "master_passphrase_file = \"passphrase\"\n";
    configure(node, "master_key_file = \"master.key\"\n", words)?;
    fs::remove_file(node.folder.join("master.key"))?;
    private(&node.folder.join("passphrase"), b"a passphrase for a test\n")?;
    node.start()?;
    cluster.ready().await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 1).await?;
    admin.put("sales", "a", "{}").await?;
    let node = &mut cluster.nodes[0];
    node.kill()?;
    let start = ["start", "--config", "rookery.toml"];
    private(&node.folder.join("passphrase"), b"another passphrase\n")?;
    let wrong = node.run(&start).await?;
    assert!(wrong.code != 0 && wrong.stderr.contains("passphrase is wrong"), "{}", wrong.stderr);
    private(&node.folder.join("passphrase"), b"a passphrase for a test\n")?;
    let kdf = node.data().join("master.kdf");
    fs::rename(&kdf, node.folder.join("kept"))?;
    let without = node.run(&start).await?;
    assert!(without.code != 0 && without.stderr.contains("is gone"), "{}", without.stderr);
    assert!(!kdf.exists(), "another salt was made");
    fs::rename(node.folder.join("kept"), &kdf)?;
    node.start()?;
    cluster.ready().await?;
    assert_eq!(admin.get("sales", "a").await?, b"{}");
    assert_eq!(cluster.nodes[0].stop().await?, 0);
    reseals_that_are_cut_short_keep_the_salt_in_use(&cluster.nodes[0]).await?;
    cluster.finish().await
}

/// The salt that the keyring is sealed by still has the name of the next one, as after a crash in a change of the
/// passphrase; then another change is cut short before it has written the keyring.
async fn reseals_that_are_cut_short_keep_the_salt_in_use(node: &Node) -> Result<()> {
    fs::rename(node.data().join("master.kdf"), node.data().join("master.kdf.next"))?;
    let in_the_way = node.data().join("keyring.new");
    fs::create_dir(&in_the_way)?;
    private(&node.folder.join("next"), b"the next passphrase\n")?;
    let with = ["--data", "data", "--passphrase-file", "passphrase"];
    let reseal = ["recover", "reseal", "--new-passphrase-file", "next"];
    let cut = node.run(&[&reseal[..], &with[..]].concat()).await?;
    anyhow::ensure!(cut.code == 9 && cut.stderr.contains("cannot be replaced"), "{cut:?}");
    fs::remove_dir(in_the_way)?;
    let sound = node.run(&[&["recover", "verify-store"][..], &with[..]].concat()).await?;
    anyhow::ensure!(sound.code == 0, "the passphrase in use opens nothing any more: {sound:?}");
    let resealed = node.run(&[&reseal[..], &with[..]].concat()).await?;
    anyhow::ensure!(resealed.code == 0, "{resealed:?}");
    let with = ["recover", "verify-store", "--data", "data", "--passphrase-file", "next"];
    let sound = node.run(&with).await?;
    anyhow::ensure!(sound.code == 0, "{sound:?}");
    Ok(())
}

#[tokio::test]
async fn keys_are_in_locked_memory_that_nobody_else_reads() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let pid = cluster.nodes[0].pid().context("it does not run")?;
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let limits = of("limits")?;
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).context("core")?;
    assert!(core.split_whitespace().skip(4).take(2).all(|limit| limit == "0"), "{core}");
    let memory = status(&cluster.admin(0)?).await?.memory.context("nothing of memory")?;
    assert!(memory.core_dumps_off && memory.dumpable_off && memory.held_bytes > 0, "{memory:?}");
    // Not dumped and not forked always; locked as far as the limit allows.
    let smaps = of("smaps")?;
    let flags = smaps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    let has = |flags: &str, flag: &str| flags.split_whitespace().any(|it| it == flag);
    let secret: Vec<_> = flags.filter(|flags| has(flags, "dd") && has(flags, "dc")).collect();
    assert!(secret.len() >= 2, "the keyring and a page of slots: {}", secret.len());
    let locked = secret.iter().filter(|flags| has(flags, "lo")).count();
    assert!(memory.locked_bytes < memory.held_bytes || locked == secret.len(), "{memory:?}");
    assert!(cluster.nodes[0].logged("of keys are locked into memory"));
    cluster.finish().await
}

/// Whether an ordinary user may read the memory map of a process.
fn readable_by_nobody(pid: u32) -> Result<bool> {
    let script = format!("head -c 1 /proc/{pid}/maps >/dev/null 2>&1");
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script];
    Ok(Command::new("setpriv").args(as_nobody).status()?.success())
}

#[tokio::test]
async fn a_user_cannot_attach_to_a_node_of_their_own() -> Result<()> {
    // Who this is: the owner of a file that was just made.
    let own = tempfile::NamedTempFile::new()?;
    let uid = std::os::unix::fs::MetadataExt::uid(&own.as_file().metadata()?);
    if uid != 0 || Command::new("setpriv").arg("--version").output().is_err() {
        not_run("attaching as the node's own user", "needs root and setpriv");
        return Ok(());
    }
    let cluster = Cluster::prepare(1, &[]).await?;
    let folder = cluster.nodes[0].folder.clone();
    let everybody_enters = format!(
        "d={}; while [ $d != /tmp ] && [ $d != / ]; do chmod o+x $d; d=$(dirname $d); done; \
         chown -R 65534:65534 {}",
        folder.display(),
        folder.display()
    );
    anyhow::ensure!(Command::new("sh").args(["-c", &everybody_enters]).status()?.success());
    let binary = cluster_tests::binary::path()?;
    // A copy, because the build's folder is closed to others.
    let copy = folder.join("rookery");
    fs::copy(&binary, &copy)?;
    let configuration = cluster.nodes[0].configuration();
    let mut control = as_nobody(Command::new("sleep").arg("60"))?;
    let mut start = Command::new(&copy);
    start.arg("start").arg("--config").arg(&configuration).current_dir(&folder);
    let log = fs::File::create(folder.join("log.txt"))?;
    start.stdout(log.try_clone()?).stderr(log);
    let mut node = as_nobody(&mut start)?;
    let admin = cluster.admin(0)?;
    let ended = eventually("the node serves", ROTATION_LIMIT, async || {
        cluster_tests::cluster::local_status(&admin).await.map(drop)
    })
    .await;
    let readable = (readable_by_nobody(control.id()), readable_by_nobody(node.id()));
    for child in [&mut control, &mut node] {
        child.kill()?;
        child.wait()?;
    }
    ended.with_context(|| cluster_tests::logs::tail(&folder.join("log.txt"), 20))?;
    assert!(readable.0?, "a process of the same user is readable otherwise");
    assert!(!readable.1?, "the memory map of the node was read by its own user");
    cluster.finish().await
}

/// Starts a command as an ordinary user.
fn as_nobody(command: &mut Command) -> Result<std::process::Child> {
    use std::os::unix::process::CommandExt as _;
    Ok(command.uid(65534).gid(65534).spawn()?)
}
