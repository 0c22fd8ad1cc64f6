//! Hears of changed files and of SIGHUP, and has the source looked at.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Looked, OwnCertificate};

/// How long after a change the next one is waited for: certificate and key change one after the other.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the next change is waited for at most.
const SETTLE_TIMES_MAX: usize = 4;
/// How long a source that does not fit may take to become whole before it is complained of.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// How often files are looked at whatever was heard: not every file system tells of changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Watches the source as long as the node runs.
pub async fn watch(own: Arc<OwnCertificate>) {
    let (sender, mut changes) = mpsc::channel(1);
    let files = own.watched();
    let has_files = !files.is_empty();
    let _watcher = match watcher(&files, sender.clone()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "changes of the certificate's files cannot be heard of; they are looked at every minute");
            None
        }
    };
    let mut hangups = signal(SignalKind::hangup()).ok();
    look(&own).await; // What changed while the node was down.
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => drop(hangups.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.recv() => settle(&mut changes).await,
            () = hangup => tracing::info!("SIGHUP: looking at the source of this node's certificate"),
            () = sleep(LOOK_INTERVAL), if has_files => {}
        }
        look(&own).await;
    }
}

/// Waits until nothing changes any more, but not for ever.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    for _ in 0..SETTLE_TIMES_MAX {
        if timeout(SETTLE, changes.recv()).await.is_err() {
            return;
        }
    }
}

async fn look(own: &Arc<OwnCertificate>) {
    if own.look().await.is_ok() {
        own.sound(true);
        return;
    }
    sleep(SECOND_LOOK).await;
    match own.look().await {
        Ok((thumbprint, looked)) => {
            own.sound(true);
            if looked == Looked::Waiting {
                tracing::info!(%thumbprint, "it waits for the end of the replacement");
            }
        }
        Err(error) => {
            if own.sound(false) {
                tracing::error!(
                    %error,
                    "the source of this node's certificate cannot be used; the certificate in force goes on serving"
                );
            }
        }
    }
}

/// Watches the folders of the files, so that a file that another one replaces is seen, and a link that is turned over
/// (`..data` of a Kubernetes volume).
fn watcher(files: &[PathBuf], sender: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let folders: BTreeSet<PathBuf> =
        files.iter().filter_map(|path| path.parent().map(PathBuf::from)).collect();
    let names: BTreeSet<OsString> =
        files.iter().filter_map(|path| path.file_name().map(OsString::from)).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| matters(&event, &names)) {
            let _ = sender.try_send(()); // One that waits is enough.
        }
    })?;
    for folder in folders {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Reading is no change, and other files of the folder change for other reasons.
fn matters(event: &notify::Event, names: &BTreeSet<OsString>) -> bool {
    let written = AccessKind::Close(AccessMode::Write);
    if matches!(event.kind, EventKind::Access(kind) if kind != written) {
        return false;
    }
    event.need_rescan()
        || event
            .paths
            .iter()
            .filter_map(|path| path.file_name())
            .any(|name| names.contains(name) || name.as_encoded_bytes().starts_with(b".."))
}
