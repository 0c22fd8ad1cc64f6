//! The two scales of power: clearance over the cluster, access to one database.

use std::{fmt, str::FromStr};

use rookery_proto::security::v1 as wire;

/// A number or word that is no clearance or no access; "unspecified" is one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not known; write one of: {known}")]
pub struct UnknownNumber {
    /// "clearance" or "access".
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// What would have been accepted.
    pub known: &'static str,
}

/// What a certificate may do to the cluster as a whole. Compared by [`Clearance::covers`], not by order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clearance {
    /// Only the databases it was granted.
    User,
    /// Every database, and certificates up to Operator; not the cluster itself.
    Operator,
    /// No restrictions.
    ClusterAdmin,
    /// A node of the cluster; as a client it is a Cluster Admin.
    ClusterNode,
}

impl Clearance {
    /// All clearances, the weakest first.
    pub const ALL: [Self; 4] = [Self::User, Self::Operator, Self::ClusterAdmin, Self::ClusterNode];

    /// How much a clearance may do on the client listener. Cluster Node and Cluster Admin are equal.
    #[must_use]
    pub fn power(self) -> u8 {
        match self {
            Self::User => 0,
            Self::Operator => 1,
            Self::ClusterAdmin | Self::ClusterNode => 2,
        }
    }

    /// Whether this clearance may do all that `other` may do on the client listener.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.power() >= other.power()
    }

    /// The number on the wire and in the log.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::User => 1,
            Self::Operator => 2,
            Self::ClusterAdmin => 3,
            Self::ClusterNode => 4,
        }
    }

    /// The name for people, such as "Cluster Admin".
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Operator => "Operator",
            Self::ClusterAdmin => "Cluster Admin",
            Self::ClusterNode => "Cluster Node",
        }
    }
}

/// What a User certificate may do to one database. Each level holds the levels before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Reads.
    Read,
    /// Reads and writes.
    ReadWrite,
    /// All that can be done within the database.
    Admin,
}

impl Access {
    /// All levels, the weakest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::ReadWrite, Self::Admin];

    /// The number on the wire and in the log.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::ReadWrite => 2,
            Self::Admin => 3,
        }
    }

    /// The name for people, as it stands in `Database.access`.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::ReadWrite => "ReadWrite",
            Self::Admin => "Admin",
        }
    }
}

impl From<Clearance> for wire::Clearance {
    fn from(clearance: Clearance) -> Self {
        match clearance {
            Clearance::User => Self::User,
            Clearance::Operator => Self::Operator,
            Clearance::ClusterAdmin => Self::ClusterAdmin,
            Clearance::ClusterNode => Self::ClusterNode,
        }
    }
}

impl From<Access> for wire::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::ReadWrite => Self::ReadWrite,
            Access::Admin => Self::Admin,
        }
    }
}

macro_rules! scale {
    ($scale:ident, $what:literal, $known:literal) => {
        impl $scale {
            fn unknown(given: impl fmt::Display) -> UnknownNumber {
                let given = given.to_string().chars().take(40).collect();
                UnknownNumber { what: $what, given, known: $known }
            }
        }

        impl TryFrom<u32> for $scale {
            type Error = UnknownNumber;

            fn try_from(number: u32) -> Result<Self, UnknownNumber> {
                let found = Self::ALL.into_iter().find(|one| one.number() == number);
                found.ok_or_else(|| Self::unknown(number))
            }
        }

        impl TryFrom<i32> for $scale {
            type Error = UnknownNumber;

            fn try_from(number: i32) -> Result<Self, UnknownNumber> {
                u32::try_from(number).map_err(|_| Self::unknown(number))?.try_into()
            }
        }

        impl From<$scale> for u32 {
            fn from(one: $scale) -> u32 {
                one.number()
            }
        }

        impl From<$scale> for i32 {
            fn from(one: $scale) -> i32 {
                wire::$scale::from(one) as i32
            }
        }

        impl fmt::Display for $scale {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.title())
            }
        }

        impl FromStr for $scale {
            type Err = UnknownNumber;

            /// Takes the title in any letter case, with or without blanks, `-` and `_`, or a short form.
            fn from_str(text: &str) -> Result<Self, UnknownNumber> {
                if text.len() > 40 {
                    return Err(Self::unknown(text));
                }
                let plain: String = text
                    .chars()
                    .filter(|c| !matches!(c, ' ' | '-' | '_'))
                    .map(|c| c.to_ascii_lowercase())
                    .collect();
                Self::word(&plain).ok_or_else(|| Self::unknown(text))
            }
        }
    };
}
scale!(Clearance, "clearance", "user, operator, cluster-admin, cluster-node");
scale!(Access, "access", "read, read-write, admin");

impl Clearance {
    fn word(plain: &str) -> Option<Self> {
        match plain {
            "user" => Some(Self::User),
            "operator" => Some(Self::Operator),
            "clusteradmin" => Some(Self::ClusterAdmin),
            "clusternode" => Some(Self::ClusterNode),
            _ => None,
        }
    }
}

impl Access {
    fn word(plain: &str) -> Option<Self> {
        match plain {
            "read" | "r" | "ro" => Some(Self::Read),
            "readwrite" | "rw" => Some(Self::ReadWrite),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_agree_with_the_contract_and_come_back() {
        for clearance in Clearance::ALL {
            assert_eq!(i32::from(clearance), i32::try_from(clearance.number()).unwrap());
            assert_eq!(Clearance::try_from(i32::from(clearance)), Ok(clearance));
            assert_eq!(clearance.title().parse(), Ok(clearance));
        }
        for access in Access::ALL {
            assert_eq!(i32::from(access), i32::try_from(access.number()).unwrap());
            assert_eq!(Access::try_from(i32::from(access)), Ok(access));
            assert_eq!(access.title().parse(), Ok(access));
        }
    }

    #[test]
    fn unspecified_and_unknown_numbers_are_refused() {
        for number in [0, -1, 5, i32::MAX, i32::MIN] {
            assert!(Clearance::try_from(number).is_err(), "clearance {number}");
        }
        for number in [0, -1, 4, i32::MAX, i32::MIN] {
            assert!(Access::try_from(number).is_err(), "access {number}");
        }
        for text in ["", "none", "unspecified", "root", "Cluster Admins", &"user ".repeat(20)] {
            assert!(text.parse::<Clearance>().is_err(), "clearance {text:?}");
            assert!(text.parse::<Access>().is_err(), "access {text:?}");
        }
    }

    #[test]
    fn cluster_node_is_cluster_admin_in_power() {
        use Clearance::{ClusterAdmin, ClusterNode, Operator, User};
        assert!(ClusterAdmin.covers(ClusterNode) && ClusterNode.covers(ClusterAdmin));
        assert!(ClusterAdmin.covers(Operator) && !Operator.covers(ClusterAdmin));
        assert!(Operator.covers(User) && !User.covers(Operator));
        assert!(Access::Admin > Access::ReadWrite && Access::ReadWrite > Access::Read);
    }
}
