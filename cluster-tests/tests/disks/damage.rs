//! Damaged folders of a stopped node: flipped bits (F14), torn and cut logs (F13, F15), files of another time (F16).
//!
//! Each copy of the folder is started by itself. It refuses with a reason, or everything that was acknowledged is
//! there; never a wrong or missing document, never a silently shorter log, never a panic.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    disks::{
        damage,
        judge::{Specimen, Verdict},
    },
    machine::parameter,
    node::Addresses,
    ports::Ports,
};
use comfy_table::{Table, presets};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Damaged nodes that run at the same time.
const AT_ONCE: usize = 3;

/// What changes a copy of the folder.
type Damage = Box<dyn FnOnce(&Path) -> Result<()> + Send>;

/// A change to a copy of the folder, and how it is told of.
struct Case {
    class: &'static str,
    what: String,
    damage: Damage,
    /// Whether it must be refused: something acknowledged is certainly gone.
    fatal: bool,
}

/// Judges all cases, a few at a time, and prints a table by class. Fails on the first wrong verdicts.
async fn judge_all(specimen: Specimen, cases: Vec<Case>) -> Result<()> {
    let specimen = Arc::new(specimen);
    let cases = Arc::new(Mutex::new(VecDeque::from(cases)));
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let mut ports = Ports::claim()?;
    let mut workers = Vec::new();
    for _ in 0..AT_ONCE {
        let addresses = Addresses::take(&mut ports)?;
        let (specimen, cases, verdicts) = (specimen.clone(), cases.clone(), verdicts.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let Some(case) = cases.lock().pop_front() else { return Ok(()) };
                let Case { class, what, damage, fatal } = case;
                let verdict = specimen.judge(addresses, damage).await.context(what.clone())?;
                verdicts.lock().push((class, what, fatal, verdict));
            }
        }));
    }
    for worker in workers {
        let outcome: Result<()> = worker.await?;
        outcome?;
    }
    let verdicts = std::mem::take(&mut *verdicts.lock());
    report(&verdicts)
}

fn report(verdicts: &[(&'static str, String, bool, Verdict)]) -> Result<()> {
    let mut classes: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (class, what, fatal, verdict) in verdicts {
        let column = match verdict {
            Verdict::Refused(line) => {
                println!("{class}: {what}: {line}");
                0
            }
            Verdict::Withheld(code) => {
                println!("{class}: {what}: {code:?}");
                1
            }
            Verdict::Whole if *fatal => {
                wrong.push(format!("{class}: {what}: it runs, and must not"));
                3
            }
            Verdict::Whole => 2,
            Verdict::Wrong(why) => {
                wrong.push(format!("{class}: {what}: {why}"));
                3
            }
        };
        classes.entry(class).or_default()[column] += 1;
    }
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["file", "refused", "item refused", "whole", "WRONG"]);
    for (class, counts) in classes {
        let counts = counts.iter().map(ToString::to_string);
        table.add_row(std::iter::once(class.to_owned()).chain(counts));
    }
    println!("{table}");
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_refused_or_harmless() -> Result<()> {
    let flips: usize = parameter("FLIPS", 30)?;
    let seed: u64 = parameter("FLIP_SEED", rand::random())?;
    println!("FLIP_SEED={seed} FLIPS={flips}");
    let specimen = Specimen::make().await?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut classes = damage::files(specimen.folder())?;
    // Text that people write; a flipped letter is another configuration.
    classes.remove("configuration");
    for class in ["write-ahead log", "table", "MANIFEST", "keyring", "sentinel", "certificates"] {
        anyhow::ensure!(classes.contains_key(class), "no file of class {class}: {classes:?}");
    }
    let mut cases = vec![untouched()];
    for (class, files) in classes.iter().cycle().take(flips) {
        let file = files[random.random_range(0..files.len())].clone();
        let bits = 8 * std::fs::metadata(specimen.folder().join(&file))?.len();
        let bit = random.random_range(0..bits);
        cases.push(Case {
            class,
            what: format!("bit {bit} of {}", file.display()),
            damage: Box::new(move |folder| damage::flip(&folder.join(file), bit)),
            fatal: false,
        });
    }
    judge_all(specimen, cases).await
}

/// The judge itself: a copy that nobody changed is whole.
fn untouched() -> Case {
    let what = "control".to_owned();
    Case { class: "(untouched)", what, damage: Box::new(|_| Ok(())), fatal: false }
}

/// The newest write-ahead log, from the folder of the node.
fn newest_log(specimen: &Specimen) -> Result<(PathBuf, u64)> {
    let log = damage::newest_log(&specimen.folder().join("data"))?;
    let length = std::fs::metadata(&log)?.len();
    Ok((log.strip_prefix(specimen.folder())?.to_owned(), length))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_notices_what_is_missing_and_what_is_too_much() -> Result<()> {
    let specimen = Specimen::make().await?;
    let addresses = Addresses::take(&mut Ports::claim()?)?;
    let earlier = specimen.earlier().to_owned();
    // Nobody but the clients of a node that stands alone can tell that all of it is of yesterday.
    let older = |folder: &Path| {
        std::fs::remove_dir_all(folder.join("data"))?;
        damage::copy(&earlier, &folder.join("data"))
    };
    let verdict = specimen.judge(addresses, older).await?;
    anyhow::ensure!(matches!(verdict, Verdict::Wrong(_) | Verdict::Refused(_)), "{verdict:?}");
    println!("the whole folder of an earlier time: {verdict:?}");
    let part = |from: &'static str| {
        let earlier = earlier.clone();
        move |folder: &Path| {
            let (from, to) = (earlier.join(from), folder.join("data").join(from));
            std::fs::remove_dir_all(&to)?;
            damage::copy(&from, &to)
        }
    };
    for folder in ["store", "sentinel"] {
        let verdict = specimen.judge(addresses, part(folder)).await?;
        println!("`{folder}` of an earlier time: {verdict:?}");
        let good = match folder {
            "store" => matches!(verdict, Verdict::Refused(_)),
            // An older sentinel asks for less than there is.
            _ => verdict == Verdict::Whole,
        };
        anyhow::ensure!(good, "{folder}: {verdict:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_torn_cut_or_gone_is_refused_or_whole() -> Result<()> {
    let specimen = Specimen::make().await?;
    let (log, length) = newest_log(&specimen)?;
    let mut cases = vec![untouched()];
    let cut = |class, what: String, to: u64, fatal| {
        let log = log.clone();
        let damage = Box::new(move |folder: &Path| damage::cut(&folder.join(log), to));
        Case { class, what, damage, fatal }
    };
    for bytes in [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 200] {
        cases.push(cut("torn", format!("{bytes} bytes short"), length - bytes, false));
    }
    let boundaries = &specimen.log_lengths;
    let (_, earlier) = boundaries.split_last().context("lengths of the log")?;
    for boundary in earlier {
        cases.push(cut("cut between records", format!("at {boundary}"), *boundary, true));
    }
    cases.push(cut("half", format!("at {}", length / 2), length / 2, true));
    cases.push(cut("empty", "at 0".to_owned(), 0, true));
    cases.push(Case {
        class: "gone",
        what: log.display().to_string(),
        damage: Box::new(move |folder| Ok(std::fs::remove_file(folder.join(log))?)),
        fatal: true,
    });
    judge_all(specimen, cases).await
}
