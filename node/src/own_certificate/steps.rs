//! What this node does next about its certificate, after the log and the source.
//!
//! Every step can be repeated, and the state that decides is in the log or durable here, so a node that was killed at any
//! point goes on where it was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rookery_proto::log::v1::{
    ActivateCertificateReplacement, CertificateReplacement, ClusterCommand, Done,
    RenewNodeCertificate, ReplacementNode, ReportCertificateReplacement, RetireNodeCertificates,
    certificate_replacement::Phase, cluster_command::Command,
    report_certificate_replacement::Report,
};
use rustls_pki_types::CertificateDer;

use super::{Error, OwnCertificate};
use crate::{
    certificates::{self, Usage},
    cluster::{self, Registry},
    consensus,
    crypto::SealingPublicKey,
    limits,
    names::{NodeId, Thumbprint},
    tls::TlsIdentity,
};

/// What private keys of a replacement are sealed for.
const PURPOSE: &str = "server certificate key";
/// Longest wait for a command of a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the channels to other nodes to be opened with a new certificate.
const CHANNELS_TIMEOUT: Duration = Duration::from_secs(3);

/// Seals the private key of a new certificate to the node that it is for.
///
/// # Errors
/// The node's key cannot be sealed to.
pub fn seal_key(
    recipient: &SealingPublicKey,
    replacement: &[u8],
    node: NodeId,
    key: &[u8],
) -> Result<Vec<u8>, crate::crypto::Error> {
    recipient.seal(PURPOSE, &context(replacement, node), key)
}

/// A sealed key opens for its node and its replacement alone.
fn context(replacement: &[u8], node: NodeId) -> Vec<u8> {
    [replacement, &node.0.to_be_bytes()].concat()
}

/// Why another identity is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The configured source holds it.
    Source,
    /// The cluster decided so.
    Replacement,
}

impl OwnCertificate {
    pub(super) async fn step(&self) -> Result<(), Error> {
        let registry = self.consensus.registry();
        let me = self.consensus.node_id();
        if !self.consensus.identity().is_member() {
            return self.take_without_a_cluster();
        }
        if registry.node(me).is_none() {
            return Ok(());
        }
        self.heal(&registry, me)?;
        if let Some(running) = registry.replacement().filter(|it| cluster::is_running(it)) {
            self.activate_if_due(&registry, running).await?;
            if let Some(node) = running.nodes.iter().find(|node| node.node_id == me.0) {
                return self.follow(running, node).await;
            }
        }
        self.follow_source(&registry, me).await?;
        self.retire(&registry, me).await?;
        self.forget(&registry, me)
    }

    /// Nobody knows this node yet, so nobody has to be told.
    fn take_without_a_cluster(&self) -> Result<(), Error> {
        let Some(found) = self.candidate.lock().take() else { return Ok(()) };
        self.present(&found, From::Source)
    }

    // ---- replacement ----

    /// Any member may find that the time has come; the leader does.
    async fn activate_if_due(
        &self,
        registry: &Registry,
        running: &CertificateReplacement,
    ) -> Result<(), Error> {
        let due = cluster::swap_reason(registry, running, self.clock.wall()).is_some();
        if !due || !self.consensus.leads_cluster() {
            return Ok(());
        }
        let activate = ActivateCertificateReplacement { id: running.id.clone() };
        self.propose(Command::ActivateCertificateReplacement(activate)).await
    }

    async fn follow(
        &self,
        running: &CertificateReplacement,
        node: &ReplacementNode,
    ) -> Result<(), Error> {
        let installed = self.install(running, node);
        if let Err(error) = &installed {
            self.report_error(running, node, error).await?;
        }
        let target = installed?;
        // While swapping, an error is about the swap and ends with it.
        let stale_error = !node.error.is_empty() && running.phase() != Phase::Swapping;
        if node.installed_unix_ms == 0 || stale_error {
            self.report(running, node, Report::Installed(Done {})).await?;
        }
        if running.phase() != Phase::Swapping || node.swapped_unix_ms != 0 {
            return Ok(());
        }
        let swapped = self.present(&target, From::Replacement);
        if let Err(error) = &swapped {
            self.report_error(running, node, error).await?;
        }
        swapped?;
        // The last report revokes the old certificates, so the channels are to be open with the new one by then.
        self.consensus.channels_renewed(Instant::now() + CHANNELS_TIMEOUT).await;
        self.report(running, node, Report::Swapped(Done {})).await
    }

    /// The new identity, durable in the data folder.
    fn install(
        &self,
        running: &CertificateReplacement,
        node: &ReplacementNode,
    ) -> Result<Arc<TlsIdentity>, Error> {
        let unfit = |why: &dyn std::fmt::Display| Error::Unfit(why.to_string());
        let target = Thumbprint::from_bytes(&node.thumbprint).map_err(|e| unfit(&e))?;
        let mut kept = self.kept.lock();
        if let Some(identity) = kept.find(&target) {
            return Ok(identity);
        }
        let context = context(&running.id, NodeId(node.node_id));
        let key = self.sealing.open(PURPOSE, &context, &node.sealed_key)?;
        let chain = node.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let identity = TlsIdentity::new(chain, key)?;
        if identity.thumbprint() != target {
            return Err(Error::Unfit("the new certificate is not the announced one".to_owned()));
        }
        let identity = Arc::new(identity);
        kept.add(identity.clone())?;
        self.current.set_others(kept.others());
        tracing::info!(thumbprint = %target, "installed the new certificate of a replacement");
        Ok(identity)
    }

    /// Says why this node cannot go on, unless it did already.
    async fn report_error(
        &self,
        running: &CertificateReplacement,
        node: &ReplacementNode,
        error: &Error,
    ) -> Result<(), Error> {
        let why: String = error.to_string().chars().take(limits::NODE_ERROR_CHARS_MAX).collect();
        if node.error == why {
            return Ok(());
        }
        self.report(running, node, Report::Error(why)).await
    }

    async fn report(
        &self,
        running: &CertificateReplacement,
        node: &ReplacementNode,
        report: Report,
    ) -> Result<(), Error> {
        let report = ReportCertificateReplacement {
            id: running.id.clone(),
            node_id: node.node_id,
            report: Some(report),
        };
        self.propose(Command::ReportCertificateReplacement(report)).await
    }

    // ---- the source ----

    /// Presents what the source holds, as soon as the others know it.
    async fn follow_source(&self, registry: &Registry, me: NodeId) -> Result<(), Error> {
        let Some(found) = self.candidate.lock().clone() else { return Ok(()) };
        let thumbprint = found.thumbprint();
        if !registry.is_certificate_of(me, &thumbprint) {
            let certificate = found.certificate_der().to_vec();
            let renew = RenewNodeCertificate { node_id: me.0, certificate };
            self.renew(renew, thumbprint, registry.revision).await?;
        }
        if !self.consensus.registry().is_certificate_of(me, &thumbprint) {
            return Err(Error::Waits); // Decided, and not applied here yet.
        }
        // Who does not answer asks for the old certificate when it is back.
        let index = self.consensus.registry().revision;
        let _all = self.consensus.known_to_all(index).await;
        self.present(&found, From::Source)?;
        let mut candidate = self.candidate.lock();
        if candidate.as_ref().is_some_and(|it| it.thumbprint() == thumbprint) {
            *candidate = None;
        }
        Ok(())
    }

    /// Makes a certificate known; one that was refused is not proposed again before the registry is another one.
    async fn renew(
        &self,
        renew: RenewNodeCertificate,
        thumbprint: Thumbprint,
        revision: u64,
    ) -> Result<(), Error> {
        if let Some((refused, at, why)) = &*self.refused.lock()
            && (*refused, *at) == (thumbprint, revision)
        {
            return Err(Error::Refused(why.clone()));
        }
        let renewed = self.propose(Command::RenewNodeCertificate(renew)).await;
        *self.refused.lock() = match &renewed {
            Err(Error::Refused(why)) => Some((thumbprint, revision, why.clone())),
            Ok(()) | Err(_) => None,
        };
        renewed
    }

    /// Has the certificates revoked that this node does not present any more, once all others know the one it does.
    async fn retire(&self, registry: &Registry, me: NodeId) -> Result<(), Error> {
        let Some(record) = registry.node(me) else { return Ok(()) };
        let current = self.current.load().thumbprint();
        let settled =
            record.thumbprint == current.as_bytes() && record.other_thumbprints.is_empty();
        if settled || !registry.is_certificate_of(me, &current) || self.candidate.lock().is_some() {
            return Ok(());
        }
        if !self.consensus.known_to_all(record.revision).await {
            return Ok(()); // It is tried again; until then both are known.
        }
        self.consensus.channels_renewed(Instant::now() + CHANNELS_TIMEOUT).await;
        let retire = RetireNodeCertificates { node_id: me.0, keep: current.as_bytes().to_vec() };
        self.propose(Command::RetireNodeCertificates(retire)).await?;
        tracing::info!(thumbprint = %current, "the certificates before this one are retired");
        Ok(())
    }

    /// Whether a certificate can be this node's at this moment.
    pub(super) fn fit(&self, found: &TlsIdentity) -> Result<(), Error> {
        let unfit = |why: certificates::Refused| Error::Unfit(format!("the certificate {why}"));
        let parsed = certificates::parse(found.certificate_der()).map_err(unfit)?;
        let now = self.clock.wall();
        certificates::check_registrable(&parsed, Usage::Node, now).map_err(unfit)?;
        if parsed.not_before > now {
            return Err(Error::Unfit(
                "the certificate is not valid yet; it is taken when its first moment has come"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    // ---- both ----

    /// Presents a certificate that the cluster knows, where it does not know the presented one any more.
    fn heal(&self, registry: &Registry, me: NodeId) -> Result<(), Error> {
        let current = self.current.load().thumbprint();
        if !self.consensus.is_fresh() || registry.is_certificate_of(me, &current) {
            return Ok(());
        }
        let Some(record) = registry.node(me) else { return Ok(()) };
        let Some(known) = self.kept.lock().first_of(record) else { return Ok(()) };
        tracing::warn!(%current, "the cluster does not know this certificate as this node's any more");
        self.present(&known, From::Replacement)
    }

    /// Shows an identity from the next handshake on; durable first.
    fn present(&self, identity: &Arc<TlsIdentity>, from: From) -> Result<(), Error> {
        let thumbprint = identity.thumbprint();
        let mut kept = self.kept.lock();
        let noted = from == From::Replacement || kept.source() == Some(thumbprint);
        if noted
            && self.current.load().thumbprint() == thumbprint
            && kept.current().is_some_and(|current| current.thumbprint() == thumbprint)
        {
            return Ok(());
        }
        kept.add(identity.clone())?;
        match from {
            From::Source => kept.present_from_source(thumbprint)?,
            From::Replacement => kept.present(thumbprint)?,
        }
        self.current.replace(TlsIdentity::clone(identity));
        self.current.set_others(kept.others());
        tracing::info!(%thumbprint, "new handshakes show this certificate from now on");
        Ok(())
    }

    /// Forgets the keys of certificates that the cluster has retired.
    fn forget(&self, registry: &Registry, me: NodeId) -> Result<(), Error> {
        if !self.consensus.is_fresh() {
            return Ok(());
        }
        let mut kept = self.kept.lock();
        if kept.keep_only(|thumbprint| registry.is_certificate_of(me, thumbprint))? {
            self.current.set_others(kept.others());
        }
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<(), Error> {
        let command = ClusterCommand { command: Some(command) };
        let deadline = Instant::now() + STEP_TIMEOUT;
        match self.consensus.propose_as_member(command, deadline).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_unavailable() => Err(Error::Waits),
            Err(error @ consensus::Error::Refused(_)) => Err(Error::Refused(error.to_string())),
            Err(error) => Err(Error::Cluster(error.to_string())),
        }
    }
}
