//! Who may do what: the one table of operations, and the decision that every request passes.
//!
//! ```text
//! certificate presented? -> registered? -> enabled? -> begun? -> not expired? -> second factor? -> the operation's rule
//! ```
//!
//! The answer is a [`Permit`] or a [`DatabasePermit`], which the next layer demands and nobody else can make, or a
//! [`Denied`] that names the rule, what it requires, and what the caller has.
//!
//! **Invariant:** pure. No clock, no IO, no tokio: a decision depends on the caller's registration, the operation
//! and the time that is handed in, so every node decides alike at one registry revision.
//!
//! **Invariant:** an access level cannot be required without a database: [`ServerOperation`] has no rule that speaks
//! of access, and [`DatabaseOperation`] is decided only together with a database.
//!
//! **Invariant:** where a certificate has a second factor, no permit is made without a live session, except for the
//! operations that `second_factor::demand` names. [`Caller`] carries what is missing, so that nobody has to ask again.
//!
//! **Invariant:** a clearance or an access is always written out; number 0 of the wire is refused.
//!
//! Who may change which certificate depends on the certificate as well: [`certificates_rules`]. The operation of
//! every RPC stands in [`RPCS`]. The whole matrix is printed in `matrix.golden.txt`.

pub mod certificates_rules;
mod clearance;
mod denied;
mod explain;
mod operation;
mod permit;
mod policy;
mod registration;
mod rpc;
mod second_factor;

#[cfg(test)]
mod matrix;

pub use clearance::{Access, Clearance, UnknownNumber};
pub use denied::{Denied, DeniedReason};
pub use explain::{Explanation, Remedy, explain_database, explain_server};
pub use operation::{DatabaseOperation, DatabaseRule, ServerOperation, ServerRule};
pub use permit::{Author, DatabasePermit, Permit};
pub use policy::{
    SKEW_MS, State, decide_database, decide_missing_database, decide_server, reaches, state,
};
pub use registration::{Caller, Registration};
pub use rpc::{RPCS, RpcRule};
pub use second_factor::{Gap, SecondFactor, Session};
