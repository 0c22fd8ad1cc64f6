//! What a certificate may do to its database, and the changes of that.

use rand::{RngExt as _, rngs::StdRng};
use rookery_proto::{
    database::v1::{CreateDatabaseRequest, DeleteDatabaseRequest},
    security::v1::{
        Access, Clearance, DeleteCertificateRequest, DisableCertificateRequest,
        EditCertificateRequest, EnableCertificateRequest, UploadCertificateRequest,
    },
};
use tonic::Status;

use super::requester::Way;
use crate::{
    caller::{Caller, granted, request_id},
    identity::Identity,
};

/// What a certificate may do to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    pub registered: bool,
    pub disabled: bool,
    pub operator: bool,
    /// Whether the database is there.
    pub database: bool,
    /// The grant on it; it goes with the database.
    pub access: Option<Access>,
}

impl Rights {
    /// Of a certificate that nobody knows.
    pub const NONE: Self =
        Self { registered: false, disabled: false, operator: false, database: true, access: None };

    /// Whether a request is to be allowed.
    pub fn allow(self, way: Way) -> bool {
        let reads = self.operator || self.access.is_some();
        let writes = self.operator || self.access == Some(Access::ReadWrite);
        let is_let_in = self.registered && !self.disabled;
        is_let_in
            && match way {
                Way::Stream => true,
                Way::Write => writes,
                Way::Read | Way::StaleRead | Way::New | Way::Http1 => reads,
            }
    }

    /// Whether some request was allowed before that is not any more.
    pub fn is_less_than(self, before: Self) -> bool {
        super::ways().into_iter().any(|way| before.allow(way) && !self.allow(way))
    }
}

/// One change, as it is asked for: sent again it is the same.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Register(UploadCertificateRequest),
    Edit(EditCertificateRequest),
    Delete(DeleteCertificateRequest),
    Disable(DisableCertificateRequest),
    Enable(EnableCertificateRequest),
    CreateDatabase(CreateDatabaseRequest),
    DeleteDatabase(DeleteDatabaseRequest),
}

/// Whose rights change.
pub(crate) struct Subject<'a> {
    pub identity: &'a Identity,
    pub database: &'a str,
    /// Whether its administrator deletes and makes the database too.
    pub makes_database: bool,
}

impl Subject<'_> {
    /// A random change of what `now` allows, and what is allowed after it.
    pub fn change(&self, dice: &mut StdRng, now: Rights) -> (Change, Rights) {
        if self.makes_database {
            return self.change_of_database(dice, now);
        }
        if !now.registered {
            let access = some_access(dice);
            return (self.register(access), Rights { registered: true, access, ..Rights::NONE });
        }
        if now.disabled {
            return (self.enable(), Rights { disabled: false, ..now });
        }
        match (dice.random_range(0..10), now.operator, now.access) {
            (0 | 1, ..) => (self.delete(), Rights::NONE),
            (2, ..) => (self.disable(), Rights { disabled: true, ..now }),
            // An Operator reaches every database and has no grants.
            (_, true, _) => {
                (self.edit(Clearance::User, None), Rights { operator: false, access: None, ..now })
            }
            (3, false, _) => (
                self.edit(Clearance::Operator, None),
                Rights { operator: true, access: None, ..now },
            ),
            (_, false, None) => {
                let access = Some(Access::ReadWrite);
                (self.edit(Clearance::Unspecified, access), Rights { access, ..now })
            }
            (4..7, false, Some(Access::ReadWrite)) => {
                let access = Some(Access::Read);
                (self.edit(Clearance::Unspecified, access), Rights { access, ..now })
            }
            (_, false, Some(_)) => {
                (self.edit(Clearance::Unspecified, None), Rights { access: None, ..now })
            }
        }
    }

    fn change_of_database(&self, dice: &mut StdRng, now: Rights) -> (Change, Rights) {
        if !now.registered {
            return (self.register(None), Rights { registered: true, ..now });
        }
        let name = self.database.to_owned();
        if !now.database {
            let request = CreateDatabaseRequest {
                name,
                replicas: 2,
                nodes: Vec::new(),
                request_id: request_id(),
            };
            // Nobody has a grant on what was just made, whoever had one on what stood there before.
            let rights = Rights { database: true, access: None, ..now };
            return (Change::CreateDatabase(request), rights);
        }
        match (dice.random_range(0..10), now.access) {
            (0..3, Some(_)) => {
                (self.edit(Clearance::Unspecified, None), Rights { access: None, ..now })
            }
            (2.., None) => {
                let access = Some(Access::ReadWrite);
                (self.edit(Clearance::Unspecified, access), Rights { access, ..now })
            }
            _ => {
                let request = DeleteDatabaseRequest { name, request_id: request_id() };
                let rights = Rights { database: false, access: None, ..now };
                (Change::DeleteDatabase(request), rights)
            }
        }
    }

    pub fn register(&self, access: Option<Access>) -> Change {
        let grants: Vec<_> = access.iter().map(|access| (self.database, *access)).collect();
        Change::Register(UploadCertificateRequest {
            name: self.identity.name.clone(),
            clearance: Clearance::User.into(),
            grants: granted(&grants),
            certificate: self.identity.leaf().to_vec(),
            request_id: request_id(),
            ..Default::default()
        })
    }

    fn edit(&self, clearance: Clearance, access: Option<Access>) -> Change {
        let grants: Vec<_> = access.iter().map(|access| (self.database, *access)).collect();
        Change::Edit(EditCertificateRequest {
            thumbprint: self.identity.thumbprint(),
            clearance: clearance.into(),
            grants: granted(&grants),
            set_grants: true,
            request_id: request_id(),
            ..Default::default()
        })
    }

    fn delete(&self) -> Change {
        let thumbprint = self.identity.thumbprint();
        Change::Delete(DeleteCertificateRequest { thumbprint, request_id: request_id() })
    }

    fn disable(&self) -> Change {
        Change::Disable(DisableCertificateRequest {
            thumbprint: self.identity.thumbprint(),
            request_id: request_id(),
            ..Default::default()
        })
    }

    fn enable(&self) -> Change {
        Change::Enable(EnableCertificateRequest {
            thumbprint: self.identity.thumbprint(),
            request_id: request_id(),
            ..Default::default()
        })
    }
}

fn some_access(dice: &mut StdRng) -> Option<Access> {
    match dice.random_range(0..5) {
        0 => None,
        1 => Some(Access::Read),
        _ => Some(Access::ReadWrite),
    }
}

impl Change {
    /// Asks one node for it.
    pub async fn ask(&self, admin: &Caller) -> Result<(), Status> {
        let (mut security, mut databases) = (admin.security(), admin.databases());
        match self.clone() {
            Self::Register(request) => security.upload_certificate(request).await.map(drop),
            Self::Edit(request) => security.edit_certificate(request).await.map(drop),
            Self::Delete(request) => security.delete_certificate(request).await.map(drop),
            Self::Disable(request) => security.disable_certificate(request).await.map(drop),
            Self::Enable(request) => security.enable_certificate(request).await.map(drop),
            Self::CreateDatabase(request) => databases.create_database(request).await.map(drop),
            Self::DeleteDatabase(request) => databases.delete_database(request).await.map(drop),
        }
    }
}
