//! The table of imported texts, by their digests: none is imported twice, and none whose key was revoked comes back.

use std::collections::HashMap;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{Change, Error, Snapshot, execute, on};
use crate::domain::ids::KeyId;
use crate::domain::key::Digest;

/// How many digests are looked up by one statement: SQLite takes 32,766 parameters, and a short list is planned faster.
const AT_ONCE: usize = 500;

impl Snapshot {
    /// The keys of those of these digests that were imported, under the digests themselves.
    pub async fn find_imports(
        &mut self,
        digests: &[Digest],
    ) -> Result<HashMap<[u8; 32], KeyId>, Error> {
        let mut found = HashMap::new();
        for some in digests.chunks(AT_ONCE) {
            let rows: Vec<(Vec<u8>, Uuid)> = on!(self.session, |conn| async {
                let mut query = QueryBuilder::new("SELECT mac, key_id FROM imports WHERE mac IN (");
                let mut macs = query.separated(", ");
                for digest in some {
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
    /// Sets the texts of a key free, so that they can be imported again.
    pub async fn delete_imports(&mut self, id: KeyId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM imports WHERE key_id = $1").bind(id.as_uuid())
        )?;
        Ok(())
    }

    /// Notes that this text was imported as this key.
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
