//! Tests of whole clusters: real processes, real certificates, only public interfaces.
//!
//! This library is the harness. It starts the `rookery` binary that was built beside it, speaks to it as anybody could
//! (gRPC, TLS, the command line, signals) and looks at the files it leaves. Nothing here links the server.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`binary`] | finds the `rookery` binary and runs its commands |
//! | [`ports`] | listening ports that no other test on this machine takes |
//! | [`node`] | one node: its process, its signals, its log, its folder |
//! | [`cluster`] | several nodes that know each other; waits with deadlines; the final look at every log |
//! | [`identity`] | certificates of people, programs and impostors |
//! | [`authenticator`] | the codes of a second factor |
//! | [`connection`] | a TLS connection or gRPC channel with a chosen certificate to one chosen node |
//! | [`browser`] | headless Chromium with a certificate, and the same pages over HTTPS without it |
//! | [`caller`] | the typed calls of one identity on one node, and what a status decided |
//! | [`contract`] | every RPC of the contract, and a way to call it without its types |
//! | [`workload`] | writers that remember what was acknowledged, and the proof that it is still there |
//! | [`disks`] | file systems that lose power, fail, fill up or stand still; damaged folders |
//! | [`machine`] | what the machine that tests run on can do, and what is said where it cannot |
//! | [`markers`] | planted words, and the search for them in every file of a folder |
//! | [`golden`] | texts that a reader reviews once and a test compares afterwards |
//! | [`fault_proxy`] | a proxy that breaks links on request, with Toxiproxy's interface |
//! | [`probes`] | calls on open connections while a right is taken away |
//! | [`lines`] | the ways in which a client reaches a node again and again, and what each request was told |
//! | [`authorization_history`] | the exact checker: could a permission with these versions have decided so? |
//! | [`net`] | network namespaces, one a node, and what befalls the packets between them |
//! | [`chaos`] | a cluster in such a network, faults by a seeded schedule, and the judgement of it |
//! | [`history`] | recorded operations on documents, and the checkers of linearizability |
//! | [`workloads`] | clients that fill such histories, and administrators for histories of decisions |
//! | [`pages`] | the pages of a node, as a browser without a screen asks for them |
//! | [`wait`] | conditions with deadlines |

pub mod authenticator;
pub mod authorization_history;
pub mod binary;
pub mod browser;
pub mod caller;
pub mod chaos;
pub mod cluster;
pub mod connection;
pub mod containers;
pub mod contract;
pub mod disks;
pub mod fault_proxy;
pub mod golden;
pub mod history;
pub mod identity;
pub mod lines;
pub mod logs;
pub mod machine;
pub mod markers;
pub mod net;
pub mod node;
pub mod pages;
pub mod ports;
pub mod probes;
pub mod wait;
pub mod workload;
pub mod workloads;
