#![allow(clippy::unwrap_used)]
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::*;

const PORT: u16 = 7000;

/// Ends with its test.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in the place that listens; `ping` is the only client it needs.
fn heard(network: &Network, from: usize, to: usize) -> bool {
    let launcher = network.launcher(from);
    let target = network.address(to).to_string();
    let script =
        format!("exec 3<>/dev/tcp/{target}/{PORT} && echo hello >&3 && read -t 1 line <&3");
    let status = Command::new(&launcher[0])
        .args(&launcher[1..])
        .args(["timeout", "2", "bash", "-c", &script])
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn echo(network: &Network, place: usize) -> Echo {
    let launcher = network.launcher(place);
    let program = "import socketserver as s\n\
        class H(s.StreamRequestHandler):\n    def handle(self): self.wfile.write(self.rfile.readline())\n\
        s.ThreadingTCPServer.allow_reuse_address = True\n\
        s.ThreadingTCPServer(('0.0.0.0', 7000), H).serve_forever()";
    let child = Command::new(&launcher[0])
        .args(&launcher[1..])
        .args(["python3", "-c", program])
        .spawn()
        .unwrap();
    Echo(child)
}

fn reached_by_the_test(network: &Network, place: usize) -> bool {
    let address = SocketAddr::new(network.address(place), PORT);
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut back = [0; 3];
    stream.write_all(b"hi\n").is_ok() && stream.read_exact(&mut back).is_ok()
}

#[test]
fn places_hear_each_other_but_for_what_is_cut_and_the_test_hears_all() {
    if let Err(why) = available() {
        crate::machine::not_run("network namespaces", &format!("{why:#}"));
        return;
    }
    let network = Network::new(2).unwrap();
    let _echoes = [echo(&network, 0), echo(&network, 1)];
    let mut tries = 0;
    while !(reached_by_the_test(&network, 0) && reached_by_the_test(&network, 1)) {
        std::thread::sleep(Duration::from_millis(50));
        tries += 1;
        assert!(tries < 200, "the places never answered");
    }
    assert!(heard(&network, 0, 1) && heard(&network, 1, 0), "before");
    network.impair(0, 1, Fate::Drop).unwrap();
    // TCP needs both directions; the other pair of directions is not there with two places.
    assert!(!heard(&network, 0, 1) && !heard(&network, 1, 0), "cut one way");
    assert!(reached_by_the_test(&network, 1), "clients are not cut");
    network.mend(0, 1).unwrap();
    assert!(heard(&network, 0, 1), "mended");
    network.impair(1, 0, Fate::Reset).unwrap();
    assert!(!heard(&network, 1, 0), "reset");
    network.heal().unwrap();
    assert!(heard(&network, 1, 0), "healed");
}

#[test]
fn a_network_whose_run_was_killed_is_removed_by_the_next() {
    if let Err(why) = available() {
        crate::machine::not_run("network namespaces", &format!("{why:#}"));
        return;
    }
    let network = Network::new(1).unwrap();
    let (namespace, bridge) = (network.namespace_file(0), network.block.bridge());
    let launcher = network.launcher(0);
    let mut child =
        Command::new(&launcher[0]).args(&launcher[1..]).args(["sleep", "60"]).spawn().unwrap();
    assert!(namespace.exists());
    // As kill -9 leaves it: nothing is removed, and the lock is free.
    let Network { block, .. } = &network;
    block.unlock_for_tests();
    std::mem::forget(network);
    block::remove_leftovers();
    assert!(!namespace.exists(), "the namespace is still there");
    assert!(!std::path::Path::new("/sys/class/net").join(bridge).exists());
    let ended = child.wait().unwrap();
    assert!(!ended.success(), "its process was ended");
}
