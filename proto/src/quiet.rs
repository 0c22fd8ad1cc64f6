//! `Debug` of the messages that hold a password, a key or a token: the name of the message and nothing in it, so that
//! no log line, error or failed test can print one by accident.

use std::fmt;

use crate::{admin::v1 as admin, cluster::v1 as cluster, security::v1 as security};

macro_rules! quiet {
    ($($area:ident::$message:ident),* $(,)?) => {
        $(impl fmt::Debug for $area::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        })*
    };
}

quiet!(
    admin::JoinClusterRequest,
    cluster::CreateJoinTokenResponse,
    cluster::JoinRequest,
    security::CloneCertificateRequest,
    security::CloneCertificateResponse,
    security::ConfirmResponse,
    security::EnrolResponse,
    security::ExportServerCertificatesRequest,
    security::GenerateCertificateRequest,
    security::GenerateCertificateResponse,
    security::InspectCertificateRequest,
    security::LogInResponse,
    security::NewServerCertificate,
    security::UploadCertificateRequest,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_a_password_prints_its_name_alone() {
        let password = "correct horse".to_owned();
        let request = security::InspectCertificateRequest { certificate: vec![7; 3], password };
        assert_eq!(format!("{request:?}"), "InspectCertificateRequest { .. }");
        let content = security::NewServerCertificate {
            node: "n1".to_owned(),
            content: b"-----BEGIN PRIVATE KEY-----".to_vec(),
            password: "correct horse".to_owned(),
        };
        // Messages around it print it as it prints itself.
        let around = security::ReplaceServerCertificatesRequest {
            certificates: vec![content],
            ..Default::default()
        };
        let printed = format!("{around:#?}");
        assert!(!printed.contains("horse") && !printed.contains("45, 45"), "{printed}");
    }
}
