//! The public certificates of all nodes in one file, for another cluster that is to let them in.

use std::collections::BTreeMap;

use rookery_proto::security::v1::{
    ExportServerCertificatesRequest, ExportServerCertificatesResponse,
};
use tonic::Status;

use crate::{
    authz::ServerOperation,
    certificates,
    edge::{Edge, convert, package, peer_identity::CallContext},
    names::Thumbprint,
};

/// Exports the certificates of all members, and of the answering node where it presents another one by now. Each once;
/// never a key.
///
/// # Errors
/// A password that cannot be used, or a node that is busy.
pub async fn server_certificates(
    edge: &Edge,
    context: &CallContext,
    asked: ExportServerCertificatesRequest,
) -> Result<ExportServerCertificatesResponse, Status> {
    let password = package::password(asked.password)?;
    edge.audited(context, ServerOperation::ExportServerCertificates, "", "").await?;
    let certificates = certificates_of(edge, context);
    let pem = certificates.values().map(|der| certificates::certificate_pem(der)).collect();
    let thumbprints = certificates.values().map(|der| Thumbprint::of(der).to_string()).collect();
    let packing = move || {
        let entries = certificates.iter().map(|(alias, der)| (alias.as_str(), der.as_slice()));
        certificates::collection(entries, &password)
    };
    let pfx = edge.work.run(packing).await?;
    let pfx =
        pfx.map_err(|error| convert::internal("The certificates could not be packed", error))?;
    let file_name =
        format!("{}-servers.pfx", certificates::file_stem(&context.registry.cluster_id));
    Ok(ExportServerCertificatesResponse { pfx, pem, thumbprints, file_name })
}

/// By the name of the node; a node that presents another certificate than the registered one stands there twice.
fn certificates_of(edge: &Edge, context: &CallContext) -> BTreeMap<String, Vec<u8>> {
    let registry = &context.registry;
    let mut found = BTreeMap::new();
    for node in registry.nodes() {
        let thumbprint = Thumbprint::from_bytes(&node.thumbprint).ok();
        if let Some(known) = thumbprint.and_then(|thumbprint| registry.certificate(&thumbprint)) {
            found.insert(node.name.clone(), known.der.to_vec());
        }
    }
    let own = edge.node.identity.load();
    if !found.values().any(|der| der.as_slice() == own.certificate_der().as_ref()) {
        found.insert(format!("{} (presented)", edge.node.name), own.certificate_der().to_vec());
    }
    found
}
