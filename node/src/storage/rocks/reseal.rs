//! Sealing the records of a group again with its newest key, while everybody else reads and writes.
//!
//! 1. `rotate_key` makes the key while no write is under way, so every write after it is sealed with the new one.
//! 2. `reseal_step` walks the tables and takes a few records at a time: opens and seals them aside, and writes them while
//!    no other write is under way, and only those that still are what was opened. No write is lost, none is undone.
//! 3. `older_records` counts what still names an older key, over all tables and generations.
//! 4. `destroy_older_keys`: when there is none, everybody is gone who began to read before, and what was written is
//!    synced, the older keys leave the keyring.
//!
//! A crash at any point leaves records of both keys and both keys; a walk from the beginning passes over what is done.

use std::{sync::Arc, time::Duration};

use rocksdb::{BoundColumnFamily, WriteBatch, WriteOptions};

use super::{
    Inner, Rocks, TABLES, column_family, engine, generation_of, place, readers::Reading,
    total_order,
};
use crate::{
    crypto::sealed_key_version,
    limits,
    names::GroupId,
    storage::{Error, Result, Space, Table},
};

/// Longest wait for writes under way, which is some syncs of a busy disk; while this waits, new ones wait as well.
const GATE_WAIT: Duration = Duration::from_millis(50);

/// Where a walk over the records of a group stands.
#[derive(Debug, Clone, Default)]
pub struct Walk {
    table: usize,
    /// The last key that was seen, as it stands on disk.
    after: Vec<u8>,
}

/// What one step of a walk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Records were looked at, and so many sealed again.
    Walked {
        /// Records that were sealed again.
        resealed: usize,
    },
    /// Writes were under way all the time; the walk stands where it stood.
    Busy,
    /// Every record was looked at.
    Finished,
}

/// What a look at all records of a group found of its older keys.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// So many records name one.
    By(u64),
    /// None does, for anybody who begins to read now.
    ByNone(Unused),
}

/// That no record names an older key of a group, except for readers who began before this was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Unused {
    group: GroupId,
    /// The number of the first reader who cannot come upon such a record.
    line: u64,
}

/// A record that names an older key, and the same one under the newest.
struct Resealed {
    key: Vec<u8>,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Rocks {
    /// Makes a new data key for a group; every write after this is sealed with it.
    ///
    /// # Errors
    /// [`Error::NoKey`]; [`Error::Folder`] where the keyring cannot be written.
    pub fn rotate_key(&self, group: GroupId) -> Result<()> {
        let _alone = self.inner.gate.write();
        Ok(self.inner.keyring.rotate(group)?)
    }

    /// Seals the next few records of a group that name an older key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a record does not authenticate; it stays as it is. [`Error::NoKey`] where the group was
    /// deleted meanwhile. [`Error::Engine`], final.
    pub fn reseal_step(&self, group: GroupId, walk: &mut Walk) -> Result<Step> {
        let Some(table) = TABLES.get(walk.table).copied() else { return Ok(Step::Finished) };
        let handle = column_family(&self.inner.database, table.name())?;
        let (found, at, ended) = self.inner.older_from(&handle, table, group, walk)?;
        let resealed = found.len();
        if !found.is_empty() && !self.inner.put_unchanged(&handle, &found)? {
            return Ok(Step::Busy);
        }
        *walk = if ended { Walk { table: walk.table + 1, after: Vec::new() } } else { at };
        Ok(Step::Walked { resealed })
    }

    /// Counts the records of a group that name an older key than its newest. Looks at all of them, and opens none.
    /// To be called by whoever calls [`Rocks::reseal_step`], and not at the same time.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a record names no key at all; [`Error::NoKey`], [`Error::Engine`].
    pub fn older_records(&self, group: GroupId) -> Result<Named> {
        let newest = self.inner.newest(group)?;
        let line = self.inner.readers.next();
        let mut older = 0;
        for table in TABLES {
            let handle = column_family(&self.inner.database, table.name())?;
            let mut records = self.inner.database.raw_iterator_cf_opt(&handle, total_order());
            records.seek(group.0.to_be_bytes());
            while let Some((key, sealed)) = records.item() {
                let Some(generation) = generation_of(key, group) else { break };
                let space = Space { table, group, generation };
                older += u64::from(version_of(space, sealed)? != newest);
                records.next();
            }
            records.status().map_err(|error| engine(&error))?;
        }
        Ok(if older == 0 { Named::ByNone(Unused { group, line }) } else { Named::By(older) })
    }

    /// Destroys the older keys of a group, unless readers are left who began before none was needed: then says how many.
    ///
    /// # Errors
    /// [`Error::Engine`], final; [`Error::Folder`] where the keyring cannot be written.
    pub fn destroy_older_keys(&self, unused: &Unused) -> Result<usize> {
        let readers = self.inner.readers.before(unused.line);
        if readers == 0 {
            // A power cut must not bring back what an older key sealed.
            self.inner.database.flush_wal(true).map_err(|error| self.inner.fail(&error))?;
            self.inner.keyring.destroy_older(unused.group)?;
        }
        Ok(readers)
    }

    /// The groups that have more keys than one: a rotation of theirs is not at its end.
    #[must_use]
    pub fn rotating(&self) -> Vec<GroupId> {
        let keys = self.inner.keyring.keys();
        keys.groups().filter(|group| keys.versions(*group).count() > 1).collect()
    }
}

fn version_of(space: Space, sealed: &[u8]) -> Result<u32> {
    sealed_key_version(sealed)
        .map_err(|_| Error::Corrupt { space, why: "the record names no key version" })
}

impl Inner {
    fn newest(&self, group: GroupId) -> Result<u32> {
        self.keyring.keys().versions(group).last().ok_or(Error::NoKey(group))
    }

    /// Some records of a table that name an older key, sealed again; how far that went, and whether to the end.
    fn older_from(
        &self,
        handle: &Arc<BoundColumnFamily<'_>>,
        table: Table,
        group: GroupId,
        walk: &Walk,
    ) -> Result<(Vec<Resealed>, Walk, bool)> {
        let _reading = Reading::begin(&self.readers);
        let newest = self.newest(group)?;
        let (mut found, mut bytes, mut looks) = (Vec::new(), 0, 0);
        let mut after = walk.after.clone();
        let mut records = self.database.raw_iterator_cf_opt(handle, total_order());
        if after.is_empty() {
            records.seek(group.0.to_be_bytes());
        } else {
            // The smallest key after it.
            records.seek([after.as_slice(), &[0]].concat());
        }
        while let Some((key, sealed)) = records.item() {
            let Some(generation) = generation_of(key, group) else { break };
            let space = Space { table, group, generation };
            if version_of(space, sealed)? != newest {
                let content = zeroize::Zeroizing::new(self.open(space, key, sealed)?);
                let new = self.keyring.keys().seal(&place(space, key), &content)?;
                bytes += new.len();
                found.push(Resealed { key: key.to_vec(), old: sealed.to_vec(), new });
            }
            looks += 1;
            after = key.to_vec();
            if found.len() >= limits::RESEAL_RECORDS_MAX
                || bytes >= limits::RESEAL_BYTES_MAX
                || looks >= limits::RESEAL_LOOKS_MAX
            {
                return Ok((found, Walk { table: walk.table, after }, false));
            }
            records.next();
        }
        records.status().map_err(|error| engine(&error))?;
        Ok((found, Walk { table: walk.table, after }, true))
    }

    /// Writes the records that still are what was opened, while nobody else writes; false where that was not to be had.
    fn put_unchanged(
        &self,
        handle: &Arc<BoundColumnFamily<'_>>,
        records: &[Resealed],
    ) -> Result<bool> {
        let Some(_alone) = self.gate.try_write_for(GATE_WAIT) else { return Ok(false) };
        self.check_working()?;
        let mut batch = WriteBatch::default();
        for record in records {
            let stands = self.database.get_pinned_cf(handle, &record.key);
            if stands.map_err(|error| engine(&error))?.as_deref() == Some(record.old.as_slice()) {
                batch.put_cf(handle, &record.key, &record.new);
            }
        }
        self.room.make_room(batch.size_in_bytes())?;
        let written = self.database.write_opt(batch, &WriteOptions::default());
        written.map_err(|error| self.fail(&error))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
