//! The admin socket: gRPC over `<data>/admin.sock`, for whoever owns the node's files.
//!
//! There is no certificate here, so that a node can be bootstrapped and a locked-out administrator recover. What stands in
//! its place: the socket has mode 0600 in a folder of mode 0700, and the kernel's word for the user at the other end
//! (`SO_PEERCRED`) must be this process's own user or root.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::Path,
    sync::Arc,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Binds the socket. A socket that a dead process left behind is replaced; one that answers is another node's.
///
/// # Errors
/// Another node runs on this data folder, or the folder cannot be written.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists and is no socket", path.display()),
            ));
        }
        Ok(_) if StdUnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another node listens on {}", path.display()),
            ));
        }
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Hears of users that were refused; `None`: the kernel did not say which.
pub type Refusals = Arc<dyn Fn(Option<u32>) + Send + Sync>;

/// Serves until `shutdown`; then the socket is removed.
pub async fn serve(
    listener: UnixListener,
    path: &Path,
    router: axum::Router,
    shutdown: CancellationToken,
    refusals: Refusals,
) {
    let Ok(own_user) = fs::symlink_metadata(path).map(|socket| socket.uid()) else {
        tracing::error!(path = %path.display(), "the admin socket vanished");
        return;
    };
    let places = Arc::new(Semaphore::new(limits::LOCAL_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let Ok((stream, _address)) = accepted else {
            sleep(limits::ACCEPT_BACKOFF).await;
            continue;
        };
        if !is_allowed(&stream, own_user) {
            refusals(stream.peer_cred().ok().map(|peer| peer.uid()));
            continue;
        }
        let (router, shutdown) = (router.clone(), shutdown.clone());
        tokio::spawn(async move {
            connection(stream, router, shutdown).await;
            drop(place);
        });
    }
    let _ = fs::remove_file(path); // The next start replaces what is left.
}

/// Whether the process at the other end belongs to the owner of the socket, who is this process's user, or to root.
fn is_allowed(stream: &UnixStream, own_user: u32) -> bool {
    let user = stream.peer_cred().map(|peer| peer.uid());
    let allowed = user.as_ref().is_ok_and(|user| *user == own_user || *user == 0);
    if !allowed {
        tracing::warn!(?user, "refused a user on the admin socket");
    }
    allowed
}

async fn connection(stream: UnixStream, router: axum::Router, shutdown: CancellationToken) {
    let http = auto::Builder::new(TokioExecutor::new()).http2_only();
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    tokio::select! {
        _ended = serving.as_mut() => return,
        () = shutdown.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ended = tokio::time::timeout(limits::SHUTDOWN_GRACE, serving).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_socket_is_closed_to_others_and_replaces_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn only_the_owner_and_root_are_heard() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = one.peer_cred().unwrap().uid();
        assert!(is_allowed(&one, own));
        // Of another owner's socket this process is no owner, unless it is root.
        assert_eq!(is_allowed(&one, own + 1), own == 0);
    }
}
