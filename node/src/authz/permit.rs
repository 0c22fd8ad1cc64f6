//! The proof that a decision was made: what the layers below demand before they act.

use crate::{
    authz::{DatabaseOperation, ServerOperation},
    names::{DatabaseId, Thumbprint},
};

/// In whose name something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The holder of a certificate.
    Certificate(Thumbprint),
    /// Nobody that is known: only what everyone may do.
    Anonymous,
    /// The node itself, and why.
    Internal(&'static str),
}

impl Author {
    /// The thumbprint, where a certificate is the author.
    #[must_use]
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        match self {
            Self::Certificate(thumbprint) => Some(*thumbprint),
            Self::Anonymous | Self::Internal(_) => None,
        }
    }
}

/// Leave to do one operation on the cluster or the server. Made by [`super::decide_server`] only.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    operation: ServerOperation,
    author: Author,
    revision: u64,
}

impl Permit {
    pub(super) fn new(operation: ServerOperation, author: Author, revision: u64) -> Self {
        Self { operation, author, revision }
    }

    /// Leave for the node itself, without any decision: `reason` says why that is right and stands in the log.
    pub fn internal(operation: ServerOperation, reason: &'static str) -> Self {
        Self::new(operation, Author::Internal(reason), 0)
    }

    /// What may be done.
    #[must_use]
    pub fn operation(&self) -> ServerOperation {
        self.operation
    }

    /// In whose name.
    #[must_use]
    pub fn author(&self) -> Author {
        self.author
    }

    /// The registry revision that the decision was made on; 0 for the node itself.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// Leave to do one operation on one database. Made by [`super::decide_database`] only.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct DatabasePermit {
    operation: DatabaseOperation,
    database: DatabaseId,
    author: Author,
    revision: u64,
}

impl DatabasePermit {
    pub(super) fn new(
        operation: DatabaseOperation,
        database: DatabaseId,
        author: Author,
        revision: u64,
    ) -> Self {
        Self { operation, database, author, revision }
    }

    /// Leave for the node itself, without any decision: `reason` says why that is right and stands in the log.
    pub fn internal(
        operation: DatabaseOperation,
        database: DatabaseId,
        reason: &'static str,
    ) -> Self {
        Self::new(operation, database, Author::Internal(reason), 0)
    }

    /// What may be done.
    #[must_use]
    pub fn operation(&self) -> DatabaseOperation {
        self.operation
    }

    /// To which database.
    #[must_use]
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// In whose name.
    #[must_use]
    pub fn author(&self) -> Author {
        self.author
    }

    /// The registry revision that the decision was made on; 0 for the node itself.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
