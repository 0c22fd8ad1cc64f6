//! A refusal: which rule, what it requires, what the caller has, and what to do about it.

use crate::names::Timestamp;

/// Why a call was denied; each one is a stable code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeniedReason {
    /// No certificate was presented.
    CertificateRequired,
    /// The certificate is not registered.
    CertificateUnknown,
    /// The certificate's last day has passed.
    CertificateExpired,
    /// The certificate's first day has not come.
    CertificateNotYetValid,
    /// An administrator switched the certificate off.
    CertificateDisabled,
    /// The clearance does not reach.
    ClearanceTooLow,
    /// No grant on the database, or too weak a one.
    DatabaseAccessDenied,
    /// Only a node that is a member at this moment is heard.
    NotAMember,
    /// Open only while a server is being set up.
    SetupOver,
    /// The clearance does not reach the certificate that was to be managed.
    ManageForbidden,
    /// It would leave the cluster without a Cluster Admin.
    LastClusterAdmin,
    /// Nobody may do this to the certificate they call with.
    OwnCertificate,
    /// The certificate has a second factor, and the call belongs to no live session.
    SecondFactorRequired,
    /// The clearance demands a second factor, and the certificate has none.
    SecondFactorNotEnrolled,
}

impl DeniedReason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::CertificateRequired,
        Self::CertificateUnknown,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateDisabled,
        Self::ClearanceTooLow,
        Self::DatabaseAccessDenied,
        Self::NotAMember,
        Self::SetupOver,
        Self::ManageForbidden,
        Self::LastClusterAdmin,
        Self::OwnCertificate,
        Self::SecondFactorRequired,
        Self::SecondFactorNotEnrolled,
    ];

    /// The stable code, as in `ErrorInfo.reason`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CertificateRequired => "CERTIFICATE_REQUIRED",
            Self::CertificateUnknown => "CERTIFICATE_UNKNOWN",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::CertificateNotYetValid => "CERTIFICATE_NOT_YET_VALID",
            Self::CertificateDisabled => "CERTIFICATE_DISABLED",
            Self::ClearanceTooLow => "CLEARANCE_TOO_LOW",
            Self::DatabaseAccessDenied => "DATABASE_ACCESS_DENIED",
            Self::NotAMember => "NOT_A_MEMBER",
            Self::SetupOver => "SETUP_OVER",
            Self::ManageForbidden => "MANAGE_FORBIDDEN",
            Self::LastClusterAdmin => "LAST_CLUSTER_ADMIN",
            Self::OwnCertificate => "OWN_CERTIFICATE",
            Self::SecondFactorRequired => "SECOND_FACTOR_REQUIRED",
            Self::SecondFactorNotEnrolled => "SECOND_FACTOR_NOT_ENROLLED",
        }
    }

    /// The RPC that mends it, where there is one.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::SecondFactorRequired => Some("rookery.security.v1.SecondFactorService/LogIn"),
            Self::SecondFactorNotEnrolled => Some("rookery.security.v1.SecondFactorService/Enrol"),
            Self::CertificateRequired
            | Self::CertificateUnknown
            | Self::CertificateExpired
            | Self::CertificateNotYetValid
            | Self::CertificateDisabled
            | Self::ClearanceTooLow
            | Self::DatabaseAccessDenied
            | Self::NotAMember
            | Self::SetupOver
            | Self::ManageForbidden
            | Self::LastClusterAdmin
            | Self::OwnCertificate => None,
        }
    }

    /// Whether the certificate itself was refused (UNAUTHENTICATED), not what it asked for (PERMISSION_DENIED).
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        match self {
            Self::CertificateRequired
            | Self::CertificateUnknown
            | Self::CertificateExpired
            | Self::CertificateNotYetValid
            | Self::CertificateDisabled => true,
            Self::ClearanceTooLow
            | Self::DatabaseAccessDenied
            | Self::NotAMember
            | Self::SetupOver
            | Self::ManageForbidden
            | Self::LastClusterAdmin
            | Self::OwnCertificate
            | Self::SecondFactorRequired
            | Self::SecondFactorNotEnrolled => false,
        }
    }
}

/// A denied call, ready to be told to the caller. It never says whether a database exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// The stable reason.
    pub reason: DeniedReason,
    /// The stable name of the operation.
    pub operation: &'static str,
    /// What the rule requires, such as "Operator clearance".
    pub required: String,
    /// What the caller has, such as "User clearance".
    pub have: String,
    /// The rule's id, such as "B1.16a".
    pub rule: &'static str,
    /// What happened, why, and what to do.
    pub message: String,
    /// The registry revision that the decision was made on; 0 where the log position says it.
    pub revision: u64,
}

/// A moment as people read it, to the minute and in UTC.
pub(super) fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(
        |_| format!("{at} ms after 1970"),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_upper_snake_and_unique() {
        let codes: BTreeSet<_> = DeniedReason::ALL.iter().map(DeniedReason::code).collect();
        assert_eq!(codes.len(), DeniedReason::ALL.len());
        for code in codes {
            assert!(code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{code}");
        }
    }

    #[test]
    fn only_certificate_reasons_are_unauthenticated() {
        for reason in DeniedReason::ALL {
            let expected = reason.code().starts_with("CERTIFICATE_");
            assert_eq!(reason.is_unauthenticated(), expected, "{}", reason.code());
        }
    }

    #[test]
    fn moments_never_fail() {
        assert_eq!(moment(Timestamp(0)), "1970-01-01 00:00 UTC");
        assert!(moment(Timestamp(i64::MAX)).contains("1970"));
        assert!(moment(Timestamp(i64::MIN)).contains("1970"));
    }
}
