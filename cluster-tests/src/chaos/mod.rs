//! A cluster in network namespaces, faults by a seeded schedule, clients all the while, and the judgement by the contract.
//!
//! ```text
//!  workloads, canaries, probes ─────────────────────────────┐  (the tests' own address: never cut)
//!                                                           v
//!  namespace n1: rookery ── dials ──> fault proxy ──┐   client port
//!                peer port <── iptables <───────────┼── namespace n2: its proxy … (and the other way round)
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`fault`] | the kinds of faults, and what each one does when, as data |
//! | [`schedule`] | which faults come in which order, from the seed |
//! | [`arena`] | the cluster with its network, its proxies and its clocks; carries an action out |
//! | [`effects`] | which of the changes that faults ask for took place |
//! | [`health`] | who can hear whom at every moment: where the contract promises writes, and where refusals |
//! | [`clocks`] | wall clocks that jump (libfaketime), and the proof that no other clock does |
//! | [`watch`] | canaries and probes: when writes succeed, who serves, when all are ready, who has which state |
//! | [`contract`] | S5 and L1 to L3, judged from what was watched |
//! | [`work`] | the workloads and their checkers: S1 to S4 |
//! | [`report`] | what happened by kind of fault, and whether it was enough |
//! | [`run`] | one run from the first process to the report |
//! | [`failover`] | from the end of a leader to the next acknowledged write |
//!
//! A step of the schedule injects one fault, or two that overlap, heals everything, and waits until all nodes are ready.
//! The cast of a step (who leads) is looked up when it begins, so a seed gives the same faults and choices each time,
//! not the same timing.

pub mod arena;
pub mod clocks;
pub mod contract;
pub mod effects;
pub mod failover;
pub mod fault;
pub mod health;
pub mod report;
pub mod run;
pub mod schedule;
pub mod watch;
pub mod work;
