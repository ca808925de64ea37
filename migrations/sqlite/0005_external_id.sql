-- The id that another system has for a key. Of two keys of a realm, at most one has it until it is deleted.

-- To add a column, SQLite checks each row with all virtual columns, and the index evaluates the new one. A row whose facts are no
-- JSON must not stop the migration, nor a list of keys. So the two older virtual columns are made again. No row is rewritten.
ALTER TABLE keys DROP COLUMN created_at;
ALTER TABLE keys DROP COLUMN created_revision;
ALTER TABLE keys ADD COLUMN created_at INTEGER
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts) THEN facts ->> '$.created_at' END) VIRTUAL;
ALTER TABLE keys ADD COLUMN created_revision INTEGER
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts) THEN facts ->> '$.created_revision' END) VIRTUAL;
ALTER TABLE keys ADD COLUMN external_id TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts) THEN facts ->> '$.external_id' END) VIRTUAL;
CREATE UNIQUE INDEX keys_by_external_id ON keys (realm, external_id) WHERE external_id IS NOT NULL;
