//! The table of imported API keys, by their digests.
//!
//! No API key is imported twice, and an API key whose key was revoked cannot be imported again.

use std::collections::HashMap;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::keys::push_ids;
use super::{Change, Error, INSERTS_AT_ONCE, Snapshot, keeps_insert, on};
use crate::domain::ids::KeyId;
use crate::domain::key::Digest;

/// The maximum number of digests in one statement. SQLite accepts 32,766 parameters, but a short list is planned faster.
const DIGESTS_AT_ONCE: usize = 500;

impl Snapshot {
    /// Returns the keys of the digests that were imported, by digest.
    pub async fn find_imports(
        &mut self,
        digests: &[Digest],
    ) -> Result<HashMap<[u8; 32], KeyId>, Error> {
        let mut found = HashMap::new();
        for chunk in digests.chunks(DIGESTS_AT_ONCE) {
            let rows: Vec<(Vec<u8>, Uuid)> = on!(self.session, |conn| async {
                let mut query = QueryBuilder::new("SELECT mac, key_id FROM imports WHERE mac IN (");
                let mut macs = query.separated(", ");
                for digest in chunk {
                    macs.push_bind(digest.mac.to_vec());
                }
                query.push(")");
                // Each number of digests is a different statement.
                let statement = query.build_query_as().persistent(false);
                statement.fetch_all(&mut *conn).await
            })?;
            found.extend(digests_of(rows));
        }
        Ok(found)
    }

    /// Returns the digests of the imported API keys of these keys.
    pub async fn imports_of(&mut self, keys: &[KeyId]) -> Result<Vec<([u8; 32], KeyId)>, Error> {
        let mut found = Vec::new();
        for chunk in keys.chunks(DIGESTS_AT_ONCE) {
            let rows: Vec<(Vec<u8>, Uuid)> = on!(self.session, |conn| async {
                let mut query =
                    QueryBuilder::new("SELECT mac, key_id FROM imports WHERE key_id IN (");
                push_ids(&mut query, chunk);
                let statement = query.build_query_as().persistent(false);
                statement.fetch_all(&mut *conn).await
            })?;
            found.extend(digests_of(rows));
        }
        Ok(found)
    }
}

/// The digests in these rows. A digest of another length is none that a lookup could find.
fn digests_of(rows: Vec<(Vec<u8>, Uuid)>) -> impl Iterator<Item = ([u8; 32], KeyId)> {
    rows.into_iter()
        .filter_map(|(mac, id)| Some((mac.try_into().ok()?, KeyId::from(id))))
}

impl Change {
    /// Deletes the digests of the imported API keys of these keys, so that they can be imported again.
    pub async fn delete_imports(&mut self, ids: &[KeyId]) -> Result<(), Error> {
        for chunk in ids.chunks(DIGESTS_AT_ONCE) {
            on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new("DELETE FROM imports WHERE key_id IN (");
                push_ids(&mut query, chunk);
                let statement = query.build().persistent(chunk.len() == 1);
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// Stores the digests of API keys, each with the key as which it is imported.
    pub async fn insert_imports(&mut self, imports: &[(Digest, KeyId)]) -> Result<(), Error> {
        for chunk in imports.chunks(INSERTS_AT_ONCE) {
            on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new("INSERT INTO imports (mac, key_id) ");
                query.push_values(chunk, |mut row, (digest, id)| {
                    row.push_bind(digest.mac.to_vec()).push_bind(id.as_uuid());
                });
                let statement = query.build().persistent(keeps_insert(chunk.len()));
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        Ok(())
    }
}
