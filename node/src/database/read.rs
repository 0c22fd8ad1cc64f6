//! Reading documents: one by its id, a page of them, or how many there are.

use std::ops::{Bound, ControlFlow};

use rookery_proto::document::v1::Document;

use crate::{
    database::{Error, Size, records},
    limits,
    names::{CollectionName, DocumentId},
    storage::{Read, Space},
};

/// A document, or `None` where none is stored under the id.
///
/// # Errors
/// [`Error::Storage`] where the record does not authenticate, [`Error::Corrupt`] where it cannot be read.
pub fn get(read: &dyn Read, space: Space, id: &DocumentId) -> Result<Option<Document>, Error> {
    let Some(bytes) = read.get(space, &records::document_key(id.as_str()))? else {
        return Ok(None);
    };
    let record = records::decode(&bytes)?;
    Ok(Some(records::document(records::database_of(space), id.as_str().to_owned(), record)))
}

/// The documents of a database, counted.
///
/// # Errors
/// As [`get`].
pub fn size(read: &dyn Read, space: Space) -> Result<Size, Error> {
    records::size(read.get(space, &[records::SIZE])?.as_deref())
}

/// Collections in the byte order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collections {
    /// Name and size of each that has documents; the empty name stands for the documents of none.
    pub sizes: Vec<(String, Size)>,
    /// Where the next page begins: after this name. `None` at the end.
    pub next_after: Option<String>,
}

/// A page of collections with their sizes: those after the name `after`, at most `limits::PAGE_SIZE_MAX`.
///
/// # Errors
/// As [`get`].
pub fn collections(
    read: &dyn Read,
    space: Space,
    after: Option<&CollectionName>,
    page_size: usize,
) -> Result<Collections, Error> {
    let from = match after {
        // The name itself with a zero byte behind it is the first key after it.
        Some(after) => [records::collection_size_key(after.as_str()).as_slice(), &[0]].concat(),
        None => records::collection_size_key(""),
    };
    let to = [records::COLLECTION_SIZE + 1];
    let most = page_or_default(page_size);
    let mut found = Vec::new();
    read.scan(space, &from, Bound::Excluded(&to), &mut |key, value| {
        found.push((key.get(1..).unwrap_or_default().to_vec(), value));
        if found.len() <= most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let more = found.len() > most;
    found.truncate(most);
    let sizes = found
        .into_iter()
        .map(|(name, record)| Ok((text(&name)?, Size::decode(&record)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let next_after = sizes.last().filter(|_| more).map(|(name, _)| name.clone());
    Ok(Collections { sizes, next_after })
}

/// Which documents a page is cut from.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only ids that start with this; empty: all.
    pub prefix: String,
    /// Only documents of this collection.
    pub collection: Option<CollectionName>,
    /// Only ids after this one in byte order.
    pub after: Option<DocumentId>,
    /// Most documents of the page; 0: `limits::PAGE_SIZE_DEFAULT`; cut to `limits::PAGE_SIZE_MAX`.
    pub page_size: usize,
    /// Leave `json` empty.
    pub ids_only: bool,
}

impl ListQuery {
    fn page_size(&self) -> usize {
        page_or_default(self.page_size)
    }
}

fn page_or_default(asked: usize) -> usize {
    match asked {
        0 => limits::PAGE_SIZE_DEFAULT,
        size => size.min(limits::PAGE_SIZE_MAX),
    }
}

/// Documents in the byte order of their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Where the next page begins: after this id. `None` at the end.
    pub next_after: Option<String>,
}

/// A page of documents. `read` should be a consistent view; what is deleted between two reads of another is left out.
///
/// A page ends at its size, or before the document that would take it over `limits::PAGE_BYTES_MAX` bytes of ids and
/// JSON, whether the JSON is left out or not; it always makes progress.
///
/// # Errors
/// As [`get`].
pub fn list(read: &dyn Read, space: Space, query: &ListQuery) -> Result<Page, Error> {
    let mut page = Filling { page: Page::default(), bytes: 0, query };
    match &query.collection {
        None => list_all(read, space, query, &mut page)?,
        Some(collection) => list_collection(read, space, query, collection, &mut page)?,
    }
    Ok(page.page)
}

fn list_all(
    read: &dyn Read,
    space: Space,
    query: &ListQuery,
    page: &mut Filling<'_>,
) -> Result<(), Error> {
    let mut failed = None;
    let range = Range::new(&[records::DOCUMENT], query);
    read.scan(space, &range.from, range.to(), &mut |key, value| match add_document(
        key, &value, space, page,
    ) {
        Ok(flow) => flow,
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

fn add_document(
    key: &[u8],
    value: &[u8],
    space: Space,
    page: &mut Filling<'_>,
) -> Result<ControlFlow<()>, Error> {
    let id = text(key.get(1..).unwrap_or_default())?;
    let record = records::decode(value)?;
    Ok(page.add(records::document(records::database_of(space), id, record)))
}

/// The index says which ids to look at, the documents say whether they still belong.
fn list_collection(
    read: &dyn Read,
    space: Space,
    query: &ListQuery,
    collection: &CollectionName,
    page: &mut Filling<'_>,
) -> Result<(), Error> {
    let prefix = records::collection_prefix(collection.as_str());
    let range = Range::new(&prefix, query);
    let wanted = query.page_size() + 1;
    let mut ids = Vec::with_capacity(wanted);
    read.scan(space, &range.from, range.to(), &mut |key, _| {
        ids.push(key.get(prefix.len()..).unwrap_or_default().to_vec());
        if ids.len() < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let more = ids.len() == wanted;
    let mut last = None;
    for id in ids {
        let id = text(&id)?;
        last = Some(id.clone());
        let Some(bytes) = read.get(space, &records::document_key(&id))? else { continue };
        let record = records::decode(&bytes)?;
        if record.collection == collection.as_str()
            && page.add(records::document(records::database_of(space), id, record)).is_break()
        {
            return Ok(());
        }
    }
    // Some of the ids were left out, and there may be more behind them.
    page.page.next_after = last.filter(|_| more);
    Ok(())
}

fn text(id: &[u8]) -> Result<String, Error> {
    String::from_utf8(id.to_vec()).map_err(|_| Error::corrupt("key", "it is not UTF-8"))
}

/// A page under way.
struct Filling<'q> {
    page: Page,
    bytes: usize,
    query: &'q ListQuery,
}

impl Filling<'_> {
    /// Takes one more document, or ends the page before it.
    fn add(&mut self, mut document: Document) -> ControlFlow<()> {
        let bytes = document.id.len() + document.collection.len() + document.json.len();
        if self.query.ids_only {
            document.json = Vec::new(); // It counts all the same: it had to be read.
        }
        let full = self.page.documents.len() == self.query.page_size()
            || self.bytes + bytes > limits::PAGE_BYTES_MAX;
        if let Some(last) = self.page.documents.last().filter(|_| full) {
            self.page.next_after = Some(last.id.clone());
            return ControlFlow::Break(());
        }
        self.bytes += bytes;
        self.page.documents.push(document);
        ControlFlow::Continue(())
    }
}

/// The keys that a query may touch, whatever its `after` says.
struct Range {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Range {
    fn new(table: &[u8], query: &ListQuery) -> Self {
        let prefix = [table, query.prefix.as_bytes()].concat();
        let to = records::after_prefix(&prefix);
        let after = query.after.as_ref().map(|after| {
            // The id itself with a zero byte behind it is the first key after it.
            [table, after.as_str().as_bytes(), &[0]].concat()
        });
        let from = after.into_iter().chain([prefix]).max().unwrap_or_default();
        Self { from, to }
    }

    fn to(&self) -> Bound<&[u8]> {
        self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }
}
