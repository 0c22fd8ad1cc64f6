//! What the visitor may do to one database, asked before a page shows its buttons.

use std::collections::BTreeMap;

use rookery_proto::security::v1::ExplainRequest;

use super::{answer::Refused, contract::Calls, visit::Frame};

/// The operations on one database, as the visitor's certificate may do them.
pub struct Rights(BTreeMap<String, Option<String>>);

impl Rights {
    /// Asks for the rights on a database. To somebody without access one that does not exist is like any other.
    pub async fn on(calls: &Calls, frame: &Frame, database: &str) -> Result<Self, Box<Refused>> {
        let asked = ExplainRequest { database: database.to_owned(), ..ExplainRequest::default() };
        let told = calls.trust().explain(asked).await.map_err(Refused::before_change(frame))?;
        let of_database =
            told.into_inner().explanations.into_iter().filter(|it| it.scope == "database");
        Ok(Self::of(of_database.map(|it| {
            let why = format!("Needs {}; you have {} (rule {}).", it.required, it.have, it.rule);
            (it.operation, (!it.allowed).then_some(why))
        })))
    }

    /// No rights, where no database is chosen.
    #[must_use]
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// From operations and why each is not allowed.
    fn of(rights: impl Iterator<Item = (String, Option<String>)>) -> Self {
        Self(rights.collect())
    }

    /// Whether an operation is allowed. An unknown one is allowed to nobody.
    #[must_use]
    pub fn may(&self, operation: &str) -> bool {
        matches!(self.0.get(operation), Some(None))
    }

    /// The rule that forbids an operation; empty where it is allowed.
    #[must_use]
    pub fn why_not(&self, operation: &str) -> &str {
        match self.0.get(operation) {
            Some(Some(why)) => why,
            Some(None) => "",
            None => "This node does not know the operation.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_told_is_not_allowed() {
        let why = "Needs ReadWrite access to the database; you have Read access (rule B2.4a).";
        let told = [("read-document", None), ("put-document", Some(why.to_owned()))];
        let rights = Rights::of(told.map(|(name, why)| (name.to_owned(), why)).into_iter());
        for (operation, may, why_not) in [
            ("read-document", true, ""),
            ("put-document", false, why),
            ("delete-document", false, "This node does not know the operation."),
        ] {
            assert_eq!((rights.may(operation), rights.why_not(operation)), (may, why_not));
        }
        assert!(!Rights::none().may("read-document"));
    }
}
