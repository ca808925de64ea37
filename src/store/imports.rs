//! The table of imported API keys, by their digests.
//!
//! No API key is imported twice, and an API key whose key was revoked cannot be imported again.

use std::collections::HashMap;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{Change, Error, Snapshot, execute, on};
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
                query.build_query_as().fetch_all(&mut *conn).await
            })?;
            let known = rows
                .into_iter()
                .filter_map(|(mac, id)| Some((mac.try_into().ok()?, KeyId::from(id))));
            found.extend(known);
        }
        Ok(found)
    }
}

impl Change {
    /// Deletes the digests of a key's imported API keys, so that these can be imported again.
    pub async fn delete_imports(&mut self, id: KeyId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM imports WHERE key_id = $1").bind(id.as_uuid())
        )?;
        Ok(())
    }

    /// Stores the digest of an API key that is imported as this key.
    pub async fn insert_import(&mut self, digest: &Digest, id: KeyId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("INSERT INTO imports (mac, key_id) VALUES ($1, $2)")
                .bind(digest.mac.to_vec())
                .bind(id.as_uuid())
        )?;
        Ok(())
    }
}
