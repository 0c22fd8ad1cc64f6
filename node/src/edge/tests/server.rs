//! A whole node: started, bootstrapped over its admin socket, spoken to, stopped, and started again.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rookery_proto::{
    admin::v1::{self as admin, admin_service_client::AdminServiceClient},
    document::v1 as document,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{Client, connect};
use crate::{
    certificates,
    config::Config,
    edge::{listener, server},
    tls::{TlsIdentity, testing::identity},
};

/// What a node needs on disk and on the network.
struct Site {
    folder: tempfile::TempDir,
    config: Config,
    node: TlsIdentity,
}

fn free_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn write_private(path: &Path, content: &[u8]) -> PathBuf {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let node = identity("n1.example");
        let mut config = Config::default();
        config.node.name = "n1".into();
        config.node.data = at("data");
        config.listen.client = free_address();
        config.listen.peer = free_address();
        config.listen.ops = free_address();
        config.advertise.client = config.listen.client.to_string();
        config.advertise.peer = config.listen.peer.to_string();
        let certificate = certificates::certificate_pem(node.certificate_der());
        let key = certificates::pem("PRIVATE KEY", node.expose_key_der());
        config.tls.certificate = write_private(&at("node.crt"), certificate.as_bytes());
        config.tls.key = write_private(&at("node.key"), key.expose().as_bytes());
        let mut master = [0_u8; 32];
        getrandom::fill(&mut master).unwrap();
        config.encryption.master_key_file = Some(write_private(&at("master.key"), &master));
        Self { folder, config, node }
    }

    async fn run(&self) -> Run {
        let stop = CancellationToken::new();
        let (config, stopped) = (self.config.clone(), stop.clone());
        let task = tokio::spawn(async move {
            server::run(config, async move { stopped.cancelled().await }).await
        });
        let socket = self.config.admin_socket();
        let began = Instant::now();
        while UnixStream::connect(&socket).await.is_err() {
            assert!(!task.is_finished(), "{:?}", task.await);
            assert!(began.elapsed() < Duration::from_secs(20), "no admin socket");
            sleep(Duration::from_millis(20)).await;
        }
        Run { stop, task }
    }

    async fn admin(&self) -> AdminServiceClient<Channel> {
        let socket = self.config.admin_socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://admin.sock");
        AdminServiceClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }

    async fn connect(&self, who: &TlsIdentity) -> Client {
        connect(self.config.listen.client, &self.node, Some(who), &[b"h2"]).await
    }

    async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.config.listen.ops).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    async fn ready(&self) {
        let began = Instant::now();
        while !self.page("/readyz").await.starts_with("HTTP/1.1 200") {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", self.page("/readyz").await);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

struct Run {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Run {
    async fn stopped(self) {
        let began = Instant::now();
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

async fn get(client: &Client) -> Result<Vec<u8>, tonic::Status> {
    let request =
        document::GetDocumentRequest { database: "sales".into(), id: "1".into(), stale_ok: false };
    let response = client.documents().get_document(request).await?.into_inner();
    Ok(response.document.unwrap().json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_bootstrapped_serves_stops_and_remembers() {
    let site = Site::new();
    let root = identity("root");
    let run = site.run().await;
    let mode = fs::metadata(site.config.admin_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(site.page("/livez").await.contains("alive"));
    assert!(site.page("/readyz").await.contains("passive"));

    let mut admin = site.admin().await;
    let state = admin.get_node_state(admin::GetNodeStateRequest {}).await.unwrap().into_inner();
    assert_eq!((state.state.as_str(), state.node_name.as_str()), ("passive", "n1"));
    assert!(!state.reason.is_empty());
    let itself = admin::BootstrapRequest {
        admin_certificate: site.node.certificate_der().to_vec(),
        admin_name: "root".into(),
    };
    assert_eq!(admin.bootstrap(itself).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let bootstrap = admin::BootstrapRequest {
        admin_certificate: root.certificate_der().to_vec(),
        admin_name: "root".into(),
    };
    let formed = admin.bootstrap(bootstrap.clone()).await.unwrap().into_inner();
    assert_eq!((formed.node_id, formed.admin_thumbprint), (1, root.thumbprint().to_string()));
    assert!(admin.bootstrap(bootstrap).await.is_err(), "only once");

    site.ready().await;
    let client = site.connect(&root).await;
    let create = rookery_proto::database::v1::CreateDatabaseRequest {
        name: "sales".into(),
        ..Default::default()
    };
    client.databases().create_database(create).await.unwrap();
    let put = document::PutDocumentRequest {
        database: "sales".into(),
        id: "1".into(),
        json: b"{\"total\": 42}".to_vec(),
        ..Default::default()
    };
    client.documents().put_document(put).await.unwrap();
    assert_eq!(get(&client).await.unwrap(), b"{\"total\": 42}");
    assert!(site.page("/metrics").await.contains("rookery_leader{group=\"database 1\"} 1"));

    let second = server::run(site.config.clone(), std::future::pending()).await;
    assert!(format!("{:#}", second.unwrap_err()).contains("cannot listen on"));
    run.stopped().await;
    assert!(!site.config.admin_socket().exists());

    let run = site.run().await;
    site.ready().await;
    assert_eq!(get(&site.connect(&root).await).await.unwrap(), b"{\"total\": 42}");
    run.stopped().await;
    drop(site.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_without_what_it_needs() {
    let refused = async |change: &dyn Fn(&mut Site), expected: &str| {
        let mut site = Site::new();
        change(&mut site);
        let error = server::run(site.config.clone(), std::future::pending()).await.unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    };
    let open_key = |site: &mut Site| {
        fs::set_permissions(&site.config.tls.key, fs::Permissions::from_mode(0o644)).unwrap();
    };
    refused(&open_key, "node.key").await;
    let short_master = |site: &mut Site| {
        let path = site.config.encryption.master_key_file.clone().unwrap();
        write_private(&path, &[7; 31]);
    };
    refused(&short_master, "master").await;
    let open_data = |site: &mut Site| {
        fs::create_dir(&site.config.node.data).unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&site.config.node.data, open).unwrap();
    };
    refused(&open_data, "0700").await;
    let taken = listener::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap();
    let taken_port = |site: &mut Site| site.config.listen.peer = address;
    refused(&taken_port, "listen.peer").await;
}
