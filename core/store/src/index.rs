//! The index of shared files, as opaque records: what is in them is the library's business.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::{Store, StoreError};

const INDEX: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("index");
const SHARES: TableDefinition<'_, (), &[u8]> = TableDefinition::new("shares");

pub(crate) fn create_tables(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(INDEX).map_err(StoreError::write)?;
    transaction.open_table(SHARES).map_err(StoreError::write)?;
    Ok(())
}

impl Store {
    /// Hands every index entry's bytes to `each`, in the order of their keys.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn for_each_index_entry(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::read)?;
        let table = transaction.open_table(INDEX).map_err(StoreError::read)?;
        for entry in table.iter().map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            each(key.value(), value.value());
        }
        Ok(())
    }

    /// Adds index entries, pairs of a key and a value, each in the place of the one with the same key.
    ///
    /// # Errors
    /// If the database can't be written; then none of them is added.
    pub fn put_index_entries<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(INDEX).map_err(StoreError::write)?;
            for (key, value) in entries {
                table.insert(key.as_ref(), value.as_ref()).map_err(StoreError::write)?;
            }
            Ok(())
        })
    }

    /// Forgets index entries; unknown keys are no error.
    ///
    /// # Errors
    /// If the database can't be written; then none is forgotten.
    pub fn remove_index_entries<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(INDEX).map_err(StoreError::write)?;
            for key in keys {
                table.remove(key.as_ref()).map_err(StoreError::write)?;
            }
            Ok(())
        })
    }

    /// The record of what the user has shared, if there is any.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn shares(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::read)?;
        let table = transaction.open_table(SHARES).map_err(StoreError::read)?;
        Ok(table.get(()).map_err(StoreError::read)?.map(|value| value.value().to_vec()))
    }

    /// Replaces the record of what the user has shared.
    ///
    /// # Errors
    /// If the database can't be written; then the old one stands.
    pub fn put_shares(&self, record: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(SHARES).map_err(StoreError::write)?;
            table.insert((), record).map_err(StoreError::write)?;
            Ok(())
        })
    }
}
