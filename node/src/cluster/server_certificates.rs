//! The nodes' own certificates: a node's next one, and the replacement of all of them.
//!
//! ```text
//! start ─► INSTALLING ──all members confirmed, or immediately, or 3 days left──► SWAPPING ──all members swapped─► FINISHED
//!              └─ abort ─► ABORTED
//! ```
//!
//! From the start on every node is known by its old and its new certificate; the old ones are revoked in the entry that
//! makes the last member swapped, and the new ones in the entry that aborts. "All" are the members at that position of
//! the log that the replacement names: who was removed is not waited for, and who joined meanwhile brought a certificate
//! of its own. A report names its replacement; one for another is without effect.

use std::collections::{BTreeMap, BTreeSet};

use rookery_proto::log::v1::{
    AbortCertificateReplacement, ActivateCertificateReplacement, CertificateRecord,
    CertificateReplacement, NodeRecord, Refusal, RenewNodeCertificate, ReplacementNode,
    ReportCertificateReplacement, RetireNodeCertificates, StartCertificateReplacement,
    certificate_replacement::Phase, report_certificate_replacement::Report,
};

use crate::{
    authz::Clearance,
    certificates::Parsed,
    cluster::{Applying, Outcome, Registry, check, cluster_outcome, done, records},
    limits,
    names::{NodeId, Thumbprint, Timestamp},
    results::{Stop, refusal, refusal_at},
};

/// How long before the end of a certificate in force the others are not waited for any more.
const LAST_DAYS_MS: i64 = 3 * 24 * 3600 * 1000;

/// Why the nodes may swap now; `None`: they may not yet.
///
/// Asked by whoever proposes the activation and by apply, with the entry's time.
#[must_use]
pub fn swap_reason(
    registry: &Registry,
    replacement: &CertificateReplacement,
    at: Timestamp,
) -> Option<&'static str> {
    if replacement.phase() != Phase::Installing || at.0 < replacement.not_before_unix_ms {
        return None;
    }
    if replacement.immediately {
        return Some("immediately, as asked for");
    }
    if waited_for(registry, replacement).all(|node| node.installed_unix_ms != 0) {
        return Some("all nodes confirmed");
    }
    let ends = waited_for(registry, replacement).filter_map(|node| {
        let record = registry.node(NodeId(node.node_id))?;
        let thumbprint = Thumbprint::from_bytes(&record.thumbprint).ok()?;
        registry.certificate(&thumbprint).map(|registered| registered.not_after.0)
    });
    let last_days = ends.min().is_some_and(|end| end.saturating_sub(at.0) <= LAST_DAYS_MS);
    last_days.then_some("a certificate in force ends within 3 days")
}

/// The nodes of a replacement that are members.
fn waited_for<'a>(
    registry: &'a Registry,
    replacement: &'a CertificateReplacement,
) -> impl Iterator<Item = &'a ReplacementNode> {
    replacement.nodes.iter().filter(|node| registry.node(NodeId(node.node_id)).is_some())
}

/// Whether a replacement has not ended.
#[must_use]
pub fn is_running(replacement: &CertificateReplacement) -> bool {
    matches!(replacement.phase(), Phase::Installing | Phase::Swapping)
}

impl Applying<'_, '_> {
    /// A node's next certificate, known besides the one it has.
    pub(super) fn renew_node_certificate(&mut self, renew: &RenewNodeCertificate) -> Outcome {
        let node = self.the_node_itself(renew.node_id)?;
        let parsed = check::certificate("certificate", &renew.certificate)?;
        let node = self.trust(node, &renew.certificate, &parsed)?;
        Ok(cluster_outcome::Outcome::Node(node))
    }

    /// A node presents `keep`, and all others know it.
    pub(super) fn retire_node_certificates(&mut self, retire: &RetireNodeCertificates) -> Outcome {
        let node = self.the_node_itself(retire.node_id)?;
        let keep = check::thumbprint(&retire.keep)?;
        if !self.registry.is_certificate_of(NodeId(node.id), &keep) {
            let message = "this is no certificate of the node";
            return Err(refusal_at("NOT_FOUND", "keep", message).into());
        }
        let next = self.target_of(node.id);
        let node = self.keep_only(node, &keep, next.as_ref())?;
        Ok(cluster_outcome::Outcome::Node(node))
    }

    pub(super) fn start_replacement(&mut self, start: &StartCertificateReplacement) -> Outcome {
        if let Some(last) = self.registry.replacement() {
            if last.id == start.id {
                return Ok(outcome(last)); // Asked again by who did not hear the answer.
            }
            if is_running(last) && !start.supersede {
                let message = "a replacement of the server certificates is under way; wait for it, abort it, or start \
                               this one with --supersede";
                return Err(refusal("REPLACEMENT_RUNNING", message).into());
            }
        }
        let certificates = self.one_for_each_member(start)?;
        let not_before = certificates.values().map(|parsed| parsed.not_before.0).max();
        for (id, parsed) in &certificates {
            self.may_be_trusted(NodeId(*id), parsed)?;
        }
        let mut nodes = start.nodes.clone();
        for node in &mut nodes {
            let (Some(parsed), Some(leaf)) = (certificates.get(&node.node_id), node.chain.first())
            else {
                continue;
            };
            node.thumbprint = parsed.thumbprint.as_bytes().to_vec();
            node.known_before =
                self.registry.is_certificate_of(NodeId(node.node_id), &parsed.thumbprint);
            let record = records::require(self.state, &node.node_id.to_be_bytes())?;
            self.trust(record, leaf, parsed)?;
        }
        let mut replacement = CertificateReplacement {
            id: start.id.clone(),
            nodes,
            immediately: start.immediately,
            forced: start.forced,
            started_unix_ms: self.entry.at.0,
            started_by: self.author(),
            not_before_unix_ms: not_before.unwrap_or_default(),
            ..CertificateReplacement::default()
        };
        replacement.set_phase(Phase::Installing);
        self.go_on(replacement)
    }

    /// The new certificates by node id: exactly the current members.
    fn one_for_each_member(
        &self,
        start: &StartCertificateReplacement,
    ) -> Result<BTreeMap<u64, Parsed>, Stop> {
        let mut certificates = BTreeMap::new();
        for (place, node) in start.nodes.iter().enumerate() {
            let field = format!("nodes[{place}]");
            let leaf = node.chain.first().map(Vec::as_slice).unwrap_or_default();
            let parsed = check::certificate(format!("{field}.chain"), leaf)?;
            if parsed.not_after < self.entry.at {
                return Err(check::invalid(format!("{field}.chain"), "has expired").into());
            }
            certificates.insert(node.node_id, parsed);
        }
        let members: BTreeSet<u64> = self.registry.nodes().map(|node| node.id).collect();
        if members.iter().ne(certificates.keys()) {
            let message = "the nodes of the cluster changed meanwhile; start the replacement again";
            return Err(refusal("CONCURRENCY", message).into());
        }
        Ok(certificates)
    }

    pub(super) fn report_replacement(&mut self, report: &ReportCertificateReplacement) -> Outcome {
        self.the_node_itself(report.node_id)?;
        let Some(mut replacement) = self.running(&report.id) else { return Ok(done()) };
        let at = self.entry.at.0;
        let found = replacement.nodes.iter_mut().find(|node| node.node_id == report.node_id);
        let Some(node) = found else { return Ok(done()) };
        match &report.report {
            Some(Report::Error(why)) => {
                node.error.clone_from(why);
                node.error_unix_ms = at;
            }
            Some(Report::Installed(_)) => installed(node, at),
            Some(Report::Swapped(_)) => {
                installed(node, at);
                if node.swapped_unix_ms == 0 {
                    node.swapped_unix_ms = at;
                }
                self.present(report.node_id, &node.thumbprint)?;
            }
            None => return Err(check::invalid("report", "there is none").into()),
        }
        self.go_on(replacement)
    }

    pub(super) fn activate_replacement(
        &mut self,
        activate: &ActivateCertificateReplacement,
    ) -> Outcome {
        match self.running(&activate.id) {
            Some(replacement) => self.go_on(replacement),
            None => Ok(done()),
        }
    }

    pub(super) fn abort_replacement(&mut self, abort: &AbortCertificateReplacement) -> Outcome {
        let Some(mut replacement) = self.running(&abort.id) else {
            let message = "no such replacement of the server certificates is under way";
            return Err(refusal("NOT_FOUND", message).into());
        };
        if replacement.phase() == Phase::Swapping {
            let message = "nodes were told to present their new certificates already, so the replacement goes on to \
                           its end; start another one with --supersede to go back";
            return Err(refusal("REPLACEMENT_SWAPPING", message).into());
        }
        for node in std::mem::take(&mut replacement.nodes) {
            self.distrust(&node)?;
            replacement.nodes.push(ReplacementNode { sealed_key: Vec::new(), ..node });
        }
        replacement.ended_unix_ms = self.entry.at.0;
        replacement.set_phase(Phase::Aborted);
        self.store_replacement(replacement)
    }

    /// What follows when members go: nobody waits for them.
    pub(super) fn replacement_without_removed(&mut self) -> Result<(), Stop> {
        match self.registry.replacement().filter(|it| is_running(it)) {
            Some(running) => {
                let replacement = CertificateReplacement::clone(running);
                self.go_on(replacement).map(drop)
            }
            None => Ok(()),
        }
    }

    /// The names of the other members, and by which certificates they are known once `leaving` is no member any more:
    /// its removal may be what ends a replacement, and with it the old certificates.
    pub(super) fn known_without(&self, leaving: NodeId) -> Vec<(String, Vec<Vec<u8>>)> {
        let running = self.registry.replacement().filter(|it| it.phase() == Phase::Swapping);
        let ending = running.filter(|running| {
            let mut others =
                waited_for(self.registry, running).filter(|it| it.node_id != leaving.0);
            others.all(|node| node.swapped_unix_ms != 0)
        });
        let known = |node: &NodeRecord| {
            let nodes = ending.map(|ending| ending.nodes.as_slice()).unwrap_or_default();
            match nodes.iter().find(|it| it.node_id == node.id) {
                Some(new) => vec![new.thumbprint.clone()],
                None => std::iter::once(&node.thumbprint)
                    .chain(&node.other_thumbprints)
                    .cloned()
                    .collect(),
            }
        };
        let others = self.registry.nodes().filter(|node| node.id != leaving.0);
        others.map(|node| (node.name.clone(), known(node))).collect()
    }

    /// Takes the next steps, if their conditions hold at this position of the log, and stores the replacement.
    fn go_on(&mut self, mut replacement: CertificateReplacement) -> Outcome {
        if let Some(reason) = swap_reason(self.registry, &replacement, self.entry.at) {
            replacement.swap_reason = reason.to_owned();
            replacement.swap_unix_ms = self.entry.at.0;
            replacement.set_phase(Phase::Swapping);
        }
        let all = waited_for(self.registry, &replacement).all(|node| node.swapped_unix_ms != 0);
        if replacement.phase() == Phase::Swapping && all {
            self.finish_replacement(&mut replacement)?;
        }
        self.store_replacement(replacement)
    }

    /// Every member presents its new certificate: the old ones are revoked.
    fn finish_replacement(&mut self, replacement: &mut CertificateReplacement) -> Result<(), Stop> {
        for node in &mut replacement.nodes {
            node.sealed_key = Vec::new();
            node.error = String::new();
            if self.registry.node(NodeId(node.node_id)).is_none() {
                continue;
            }
            let record = records::require(self.state, &node.node_id.to_be_bytes())?;
            let keep = check::thumbprint(&node.thumbprint)?;
            self.keep_only(record, &keep, None)?;
        }
        replacement.ended_unix_ms = self.entry.at.0;
        replacement.set_phase(Phase::Finished);
        Ok(())
    }

    fn running(&self, id: &[u8]) -> Option<CertificateReplacement> {
        let running = self.registry.replacement().filter(|it| is_running(it) && it.id == id)?;
        Some(CertificateReplacement::clone(running))
    }

    /// The new certificate of a node in the replacement under way.
    fn target_of(&self, node: u64) -> Option<Thumbprint> {
        let running = self.registry.replacement().filter(|it| is_running(it))?;
        let node = running.nodes.iter().find(|it| it.node_id == node)?;
        Thumbprint::from_bytes(&node.thumbprint).ok()
    }

    /// Whether a certificate may become a node's: it is nobody else's identity.
    fn may_be_trusted(&self, id: NodeId, parsed: &Parsed) -> Result<(), Refusal> {
        let registered = self.registry.certificate(&parsed.thumbprint);
        if registered.is_some_and(|it| it.clearance != Clearance::ClusterNode) {
            let message =
                "this certificate is registered as that of a client; a node needs one of its own";
            return Err(refusal_at("ALREADY_EXISTS", "certificate", message));
        }
        if registered.is_some_and(|it| it.disabled) {
            let message = "this certificate was disabled";
            return Err(refusal_at("ALREADY_EXISTS", "certificate", message));
        }
        self.not_well_known(&parsed.thumbprint)?;
        let details = self.registry.certificate_details(&parsed.thumbprint);
        if details.is_some_and(|it| it.is_secondary() || !it.entry.secondaries.is_empty()) {
            let message = "it stands in an entry of several certificates; delete that entry first";
            return Err(refusal_at("ALREADY_EXISTS", "certificate", message));
        }
        let known = self.registry.node(id).map_or(0, |node| node.other_thumbprints.len());
        if known >= limits::NODE_CERTIFICATES_MAX
            && !self.registry.is_certificate_of(id, &parsed.thumbprint)
        {
            let message = format!("node {id} has {known} certificates besides the one in force");
            return Err(refusal("LIMIT_EXCEEDED", message));
        }
        Ok(())
    }

    /// Makes a node known by one more certificate.
    fn trust(&mut self, node: NodeRecord, der: &[u8], parsed: &Parsed) -> Result<NodeRecord, Stop> {
        let id = NodeId(node.id);
        self.may_be_trusted(id, parsed)?;
        if self.registry.is_certificate_of(id, &parsed.thumbprint) {
            return Ok(node);
        }
        if self.registry.member(&parsed.thumbprint).is_none() {
            let record = self.node_certificate(&node, der, parsed);
            self.store_certificate(record)?;
        }
        let mut node = NodeRecord { revision: self.entry.index, ..node };
        node.other_thumbprints.push(parsed.thumbprint.as_bytes().to_vec());
        self.store_node(node.clone())?;
        Ok(node)
    }

    /// Notes which of its certificates a node presents.
    fn present(&mut self, id: u64, thumbprint: &[u8]) -> Result<(), Stop> {
        let mut node: NodeRecord = records::require(self.state, &id.to_be_bytes())?;
        if node.thumbprint == thumbprint {
            return Ok(());
        }
        node.other_thumbprints.retain(|other| other != thumbprint);
        let before = std::mem::replace(&mut node.thumbprint, thumbprint.to_vec());
        node.other_thumbprints.push(before);
        node.revision = self.entry.index;
        self.store_node(node)?;
        Ok(())
    }

    /// A node has `keep`, and perhaps the next one, and no other certificate any more.
    fn keep_only(
        &mut self,
        node: NodeRecord,
        keep: &Thumbprint,
        next: Option<&Thumbprint>,
    ) -> Result<NodeRecord, Stop> {
        let had: Vec<Vec<u8>> =
            std::iter::once(&node.thumbprint).chain(&node.other_thumbprints).cloned().collect();
        let next = next.filter(|next| *next != keep && had.iter().any(|it| it == next.as_bytes()));
        let kept = NodeRecord {
            thumbprint: keep.as_bytes().to_vec(),
            other_thumbprints: next.iter().map(|next| next.as_bytes().to_vec()).collect(),
            revision: self.entry.index,
            ..node.clone()
        };
        if kept.thumbprint == node.thumbprint && kept.other_thumbprints == node.other_thumbprints {
            return Ok(node);
        }
        self.store_node(kept.clone())?;
        for thumbprint in &had {
            self.forget_unless_a_members(thumbprint)?;
        }
        Ok(kept)
    }

    /// Takes the new certificate of an aborted replacement from a node again, unless it is the one in force or was the
    /// node's before.
    fn distrust(&mut self, node: &ReplacementNode) -> Result<(), Stop> {
        if node.known_before || self.registry.node(NodeId(node.node_id)).is_none() {
            return Ok(());
        }
        let mut record: NodeRecord = records::require(self.state, &node.node_id.to_be_bytes())?;
        let before = record.other_thumbprints.len();
        record.other_thumbprints.retain(|other| *other != node.thumbprint);
        if record.other_thumbprints.len() != before {
            record.revision = self.entry.index;
            self.store_node(record)?;
        }
        self.forget_unless_a_members(&node.thumbprint)
    }

    /// Revokes a node certificate that no member has any more, and binds one that others share to one of these.
    pub(super) fn forget_unless_a_members(&mut self, thumbprint: &[u8]) -> Result<(), Stop> {
        let thumbprint = check::thumbprint(thumbprint)?;
        let Some(registered) = self.registry.certificate(&thumbprint) else { return Ok(()) };
        let Some(holder) = self.registry.member(&thumbprint).map(|node| node.id) else {
            return Ok(self.forget_certificate(&thumbprint)?);
        };
        if registered.node != Some(NodeId(holder)) {
            let record: CertificateRecord = records::require(self.state, thumbprint.as_bytes())?;
            self.store_certificate(CertificateRecord { node_id: holder, ..record })?;
        }
        Ok(())
    }

    fn store_replacement(&mut self, replacement: CertificateReplacement) -> Outcome {
        self.changed = true;
        records::put(self.state, &replacement)?;
        self.registry.set_replacement(replacement.clone());
        Ok(cluster_outcome::Outcome::CertificateReplacement(without_keys(replacement)))
    }
}

fn installed(node: &mut ReplacementNode, at: i64) {
    if node.installed_unix_ms == 0 {
        node.installed_unix_ms = at;
    }
    node.error = String::new();
    node.error_unix_ms = 0;
}

/// For replies, which are kept: they need no sealed keys.
fn without_keys(mut replacement: CertificateReplacement) -> CertificateReplacement {
    replacement.nodes.iter_mut().for_each(|node| node.sealed_key = Vec::new());
    replacement
}

fn outcome(replacement: &CertificateReplacement) -> cluster_outcome::Outcome {
    cluster_outcome::Outcome::CertificateReplacement(without_keys(replacement.clone()))
}
