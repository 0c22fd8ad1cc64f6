//! Where a list of documents is: what is asked for, and the links that lead on and back.
//!
//! A page token leads forward only. The way back is in the link itself: the tokens of the pages before, the last ones of
//! them, so that nothing is kept between requests. A token grants nothing; it is bound to its caller and query.

use rookery_proto::document::v1::ListDocumentsRequest;
use serde::Deserialize;

use crate::studio::words;

/// Documents a page.
const PAGE_SIZE: u32 = 50;
/// Pages back that a link remembers.
const BACK_MAX: usize = 16;
/// Bytes of the tokens of the pages before: a link has to fit into a request.
const BACK_BYTES_MAX: usize = 8 * 1024;
/// Stands for the first page, which has no token. No token has a dot in it.
const FIRST: &str = ".";

/// What is asked for.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The database.
    pub db: String,
    /// What ids begin with.
    pub prefix: String,
    /// The collection; empty: all.
    pub collection: String,
    /// Names of fields, with commas between them; empty: those that occur most.
    pub columns: String,
    /// The token of the page; empty: the first.
    pub page: String,
    /// The tokens of the pages before it, the nearest last, with commas between them.
    pub back: String,
    /// For an export: what was shown.
    pub rows: String,
    /// The database that the form with the filters was of; empty: no form.
    pub of: String,
}

impl Asked {
    /// What the form asks for: filters and columns are of one database, so another one begins without them.
    #[must_use]
    pub fn of_one_database(self) -> Self {
        match self.of.is_empty() || self.of.eq_ignore_ascii_case(&self.db) {
            true => self,
            false => Self { db: self.db, ..Self::default() },
        }
    }

    /// A path with this query, at another page.
    fn at(&self, path: &str, page: &str, back: &str, rows: &str) -> String {
        let pairs = [
            ("db", self.db.as_str()),
            ("prefix", &self.prefix),
            ("collection", &self.collection),
            ("columns", &self.columns),
            ("page", page),
            ("back", back),
            ("rows", rows),
        ];
        format!("{path}{}", words::query(&pairs))
    }

    /// The first page of a collection; empty: of all documents.
    #[must_use]
    pub fn of_collection(&self, collection: &str) -> String {
        let asked = Self { collection: collection.to_owned(), ..self.clone() };
        asked.first()
    }

    /// The first page.
    #[must_use]
    pub fn first(&self) -> String {
        self.at("/studio/documents", "", "", "")
    }

    /// The first page of the database without filters and chosen columns.
    #[must_use]
    pub fn unfiltered(&self) -> String {
        Self { db: self.db.clone(), ..Self::default() }.first()
    }

    /// The page after this one; empty at the end.
    #[must_use]
    pub fn next(&self, token: &str) -> String {
        if token.is_empty() {
            return String::new();
        }
        let here = if self.page.is_empty() { FIRST } else { &self.page };
        let mut back: Vec<&str> = self.before().collect();
        back.push(here);
        let skipped = back.len().saturating_sub(BACK_MAX);
        let mut back: Vec<&str> = back.into_iter().skip(skipped).collect();
        while back.iter().map(|it| it.len() + 1).sum::<usize>() > BACK_BYTES_MAX {
            back.remove(0);
        }
        self.at("/studio/documents", token, &back.join(","), "")
    }

    /// The page before this one; empty where it is the first, or where the link remembers none.
    #[must_use]
    pub fn previous(&self) -> String {
        let mut back: Vec<&str> = self.before().collect();
        match back.pop() {
            Some(FIRST) => self.first(),
            Some(token) => self.at("/studio/documents", token, &back.join(","), ""),
            None => String::new(),
        }
    }

    fn before(&self) -> impl Iterator<Item = &str> {
        self.back.split(',').filter(|it| !it.is_empty())
    }

    /// The export of this page, if it still holds what was shown.
    #[must_use]
    pub fn export(&self, rows: &str) -> String {
        self.at("/studio/documents/export", &self.page, "", rows)
    }

    /// The form for a new document.
    #[must_use]
    pub fn create(&self) -> String {
        let pairs = [("db", self.db.as_str()), ("collection", &self.collection)];
        format!("/studio/documents/create{}", words::query(&pairs))
    }

    /// Whether anything is filtered.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        [&self.prefix, &self.collection, &self.columns].into_iter().any(|it| !it.is_empty())
    }

    /// The call for this page.
    #[must_use]
    pub fn request(&self) -> ListDocumentsRequest {
        ListDocumentsRequest {
            database: self.db.clone(),
            prefix: self.prefix.clone(),
            collection: self.collection.clone(),
            page_size: PAGE_SIZE,
            page_token: self.page.clone(),
            stale_ok: false,
            ids_only: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(page: &str, back: &str) -> Asked {
        let (page, back) = (page.to_owned(), back.to_owned());
        Asked { db: "sales".to_owned(), prefix: "a&b".to_owned(), page, back, ..Asked::default() }
    }

    #[test]
    fn links_lead_forward_and_back_again() {
        const HERE: &str = "/studio/documents?db=sales&prefix=a%26b";
        for (page, back, next, expected_next, expected_previous) in [
            ("", "", "t1", "&page=t1&back=.", ""),
            ("t1", ".", "t2", "&page=t2&back=.%2Ct1", HERE),
            ("t2", ".,t1", "", "", "&page=t1&back=."),
            // A link that somebody passed on without its way back.
            ("t2", "", "t3", "&page=t3&back=t2", ""),
            ("t2", ",,", "t3", "&page=t3&back=t2", ""),
        ] {
            let asked = asked(page, back);
            let full =
                |it: &str| if it.starts_with('&') { format!("{HERE}{it}") } else { it.to_owned() };
            assert_eq!(asked.next(next), full(expected_next), "{page} {back}");
            assert_eq!(asked.previous(), full(expected_previous), "{page} {back}");
        }
    }

    #[test]
    fn another_database_begins_without_the_filters_of_the_last_one() {
        for (of, kept) in [("", true), ("sales", true), ("SALES", true), ("stock", false)] {
            let (collection, columns) = ("C".to_owned(), "name".to_owned());
            let asked = Asked { collection, columns, of: of.to_owned(), ..asked("t1", ".") };
            let asked = asked.of_one_database();
            assert_eq!((asked.db.as_str(), asked.is_filtered()), ("sales", kept), "{of}");
            assert_eq!(asked.page.is_empty(), !kept, "{of}");
        }
    }

    #[test]
    fn the_way_back_is_bounded() {
        let many: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
        let next = asked("here", &many.join(",")).next("after");
        assert!(
            next.ends_with(&format!(
                "&back={}",
                [&many[25..], &["here".to_owned()]].concat().join("%2C")
            )),
            "{next}"
        );
        let long = vec!["x".repeat(2_000); 8].join(",");
        assert!(asked("here", &long).next("after").len() < BACK_BYTES_MAX + 200);
    }

    #[test]
    fn what_is_asked_for_stays_in_every_link_and_nothing_else() {
        let asked = Asked {
            columns: "name,address.city".to_owned(),
            collection: "Ö \"<".to_owned(),
            rows: "r".to_owned(),
            ..asked("t1", ".")
        };
        let query = "db=sales&prefix=a%26b&collection=%C3%96%20%22%3C&columns=name%2Caddress.city";
        assert_eq!(asked.first(), format!("/studio/documents?{query}"));
        assert_eq!(
            asked.export("abc"),
            format!("/studio/documents/export?{query}&page=t1&rows=abc")
        );
        let other = query.replace("%C3%96%20%22%3C", "X");
        assert_eq!(asked.of_collection("X"), format!("/studio/documents?{other}"));
        assert_eq!(asked.create(), "/studio/documents/create?db=sales&collection=%C3%96%20%22%3C");
    }
}
