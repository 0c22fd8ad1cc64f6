//! What a visitor may do to a certificate, told before they try: the operation table, and of the rules about certificates
//! those that hold for a target whatever is asked. The calls decide; this only spares people a click.
//!
//! Not told here: that a certificate is the last of a Cluster Admin, which no single certificate shows.

use std::collections::BTreeSet;

use rookery_proto::security::v1::{Clearance, ListServerCertificatesRequest};
use tonic::Status;

use super::Shown;
use crate::studio::{contract::Calls, visit::Frame};

/// Something that is done to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Change name, clearance, grants, note or owner.
    Edit,
    /// Make another one with its rights.
    Clone,
    /// Switch it off.
    Disable,
    /// Switch it on again.
    Enable,
    /// Delete its entry.
    Delete,
    /// Cut its open connections.
    Cut,
}

/// Operations of the table: for certificates up to Operator, and for those above.
type Operations = (&'static str, &'static str);

const DISABLE: Operations = ("disable-certificate", "disable-admin-certificate");

impl Act {
    /// What the visitor needs for it; all of them.
    fn operations(self) -> &'static [Operations] {
        match self {
            Self::Edit => &[("edit-certificate", "edit-admin-certificate")],
            Self::Clone => &[("generate-certificate", "generate-admin-certificate")],
            Self::Disable | Self::Enable => &[DISABLE],
            Self::Delete => &[("delete-certificate", "delete-admin-certificate")],
            Self::Cut => &[("close-connections", "close-connections"), DISABLE],
        }
    }

    /// Why nobody does it to the certificate they call with.
    fn to_oneself(self) -> &'static str {
        match self {
            Self::Disable => "Nobody can disable the certificate they call with (rule B3.own).",
            Self::Enable => "Nobody can enable the certificate they call with (rule B3.own).",
            Self::Delete => "Nobody can delete the certificate they call with (rule B3.own).",
            Self::Cut => {
                "Nobody can cut the connections of the certificate they call with (rule B3.own)."
            }
            Self::Edit | Self::Clone => "",
        }
    }

    /// Why nobody does it to the certificate of a node in the cluster.
    fn to_a_member(self) -> &'static str {
        match self {
            Self::Edit | Self::Disable | Self::Enable | Self::Delete => {
                "This is the certificate of a current node, which would be cut off. Remove the node from the cluster \
                 first (rule B3.member)."
            }
            Self::Cut => {
                "These are connections of a current node, which would be cut off. Remove the node from the cluster \
                 instead (rule B3.member)."
            }
            Self::Clone => "",
        }
    }

    /// Why nobody does it to a certificate of clearance Cluster Node.
    fn to_a_node(self) -> &'static str {
        match self {
            Self::Clone => "Cluster Node certificates are never generated (rule B3.generate-node).",
            Self::Disable => {
                "Cluster Node certificates cannot be disabled. Remove the node, or delete the certificate (rule \
                 B3.disable-node)."
            }
            Self::Cut => {
                "Connections of Cluster Node certificates cannot be cut (rule B3.cut-node)."
            }
            Self::Edit | Self::Enable | Self::Delete => "",
        }
    }
}

/// Whether managing a certificate of this clearance takes a Cluster Admin.
#[must_use]
pub fn is_high(clearance: i32) -> bool {
    [Clearance::ClusterAdmin, Clearance::ClusterNode].map(i32::from).contains(&clearance)
}

/// The name of an operation for certificates of this clearance.
fn named(operations: Operations, clearance: i32) -> &'static str {
    if is_high(clearance) { operations.1 } else { operations.0 }
}

/// Why the visitor may not do this to certificates of this clearance; empty where they may.
#[must_use]
pub fn forbids(frame: &Frame, act: Act, clearance: i32) -> String {
    let needed = act.operations().iter().map(|it| named(*it, clearance));
    let missing = needed.into_iter().find(|it| !frame.may(it));
    missing.map_or_else(String::new, |it| frame.why_not(it).to_owned())
}

impl Shown {
    /// Why the visitor may not do this to it, with the rule; empty where nothing is known against it.
    #[must_use]
    pub fn why_not(&self, act: Act) -> String {
        let of_table = forbids(&self.frame, act, self.it.clearance);
        if !of_table.is_empty() {
            return of_table;
        }
        let is_node = self.it.clearance == i32::from(Clearance::ClusterNode);
        let rules = [
            (self.is_own(), act.to_oneself()),
            (self.is_a_members, act.to_a_member()),
            (is_node, act.to_a_node()),
        ];
        let forbidding = rules.iter().find(|(holds, why)| *holds && !why.is_empty());
        forbidding.map_or_else(String::new, |(_, why)| (*why).to_owned())
    }

    /// Switching it off, or on again where it is off.
    #[must_use]
    pub fn switch(&self) -> Act {
        if self.it.disabled { Act::Enable } else { Act::Disable }
    }

    /// The same in a word.
    #[must_use]
    pub fn switch_words(&self) -> &'static str {
        if self.it.disabled { "Enable" } else { "Disable" }
    }

    /// Whether the visitor calls with a certificate of this entry.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let own = self.frame.who().thumbprint.as_str();
        self.thumbprints().any(|it| it == own)
    }

    /// Whether the visitor may change the name and nothing else.
    #[must_use]
    pub fn is_own_of_an_operator(&self) -> bool {
        self.is_own() && self.frame.who().clearance == i32::from(Clearance::Operator)
    }

    /// Told whether one of these is in the entry: thumbprints that nodes present.
    #[must_use]
    pub fn among(mut self, members: &BTreeSet<String>) -> Self {
        let is_a_members = self.thumbprints().any(|it| members.contains(it));
        self.is_a_members = is_a_members;
        self
    }

    /// Told whether a node presents it.
    pub async fn asked_of_nodes(self, calls: &Calls) -> Result<Self, Status> {
        // Whoever may not see the nodes' certificates reaches none, and a node's has this clearance.
        let concerns = self.it.clearance == i32::from(Clearance::ClusterNode);
        if !concerns || !self.frame.may("view-server-certificate-replacement") {
            return Ok(self);
        }
        let asked = ListServerCertificatesRequest {};
        let told = calls.server_certificates().list_server_certificates(asked).await?;
        let members = told.into_inner().certificates.into_iter().map(|it| it.thumbprint).collect();
        Ok(self.among(&members))
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::security::v1::{Certificate, SecondaryCertificate, WhoAmIResponse};

    use super::*;

    const ALL: [Act; 6] = [Act::Edit, Act::Clone, Act::Disable, Act::Enable, Act::Delete, Act::Cut];

    /// The rule at the end of each reason, by action; a dot where there is none.
    fn rules(c: &Shown) -> String {
        let rule = |act: Act| {
            let why = c.why_not(act);
            let named = why.rsplit_once("(rule ").and_then(|(_, it)| it.strip_suffix(")."));
            assert_eq!(named.is_none(), why.is_empty(), "{why}");
            named.unwrap_or(".").to_owned()
        };
        ALL.map(rule).join(" ")
    }

    #[test]
    fn what_the_rules_refuse_is_told_for_each_target() {
        let operations: Vec<&str> =
            ALL.iter().flat_map(|act| act.operations()).flat_map(|it| [it.0, it.1]).collect();
        let own = WhoAmIResponse { thumbprint: "own".to_owned(), ..Default::default() };
        let frame = Frame::for_visitor(own.clone(), &operations);
        let check =
            |frame: &Frame, thumbprints: [&str; 2], clearance: Clearance, expected: &str| {
                let [primary, secondary] = thumbprints.map(str::to_owned);
                let secondary =
                    SecondaryCertificate { thumbprint: secondary, ..Default::default() };
                let it = Certificate {
                    thumbprint: primary,
                    clearance: clearance.into(),
                    secondaries: vec![secondary],
                    ..Certificate::default()
                };
                let c = Shown::new(it, frame).among(&BTreeSet::from(["n1".to_owned()]));
                assert_eq!(rules(&c), expected, "{thumbprints:?} {clearance:?}");
            };
        // The columns are edit, clone, disable, enable, delete, cut.
        check(&frame, ["a", "b"], Clearance::User, ". . . . . .");
        check(&frame, ["a", "b"], Clearance::ClusterAdmin, ". . . . . .");
        check(&frame, ["own", "b"], Clearance::ClusterAdmin, ". . B3.own B3.own B3.own B3.own");
        check(&frame, ["a", "own"], Clearance::Operator, ". . B3.own B3.own B3.own B3.own");
        check(
            &frame,
            ["a", "b"],
            Clearance::ClusterNode,
            ". B3.generate-node B3.disable-node . . B3.cut-node",
        );
        check(
            &frame,
            ["n1", "b"],
            Clearance::ClusterNode,
            "B3.member B3.generate-node B3.member B3.member B3.member B3.member",
        );
        // The table comes first, by the clearance of the target.
        let ordinary: Vec<&str> =
            operations.iter().copied().filter(|it| !it.contains("admin")).collect();
        let operator = Frame::for_visitor(own, &ordinary);
        check(&operator, ["a", "b"], Clearance::Operator, ". . . . . .");
        let unknown = "This node does not know the operation.";
        let it = Certificate { clearance: Clearance::ClusterAdmin.into(), ..Default::default() };
        let c = Shown::new(it, &operator);
        assert!(ALL.iter().all(|act| c.why_not(*act) == unknown));
    }
}
