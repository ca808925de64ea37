-- The id that another system has for a key. Of two keys of a realm, at most one has it until it is deleted.

ALTER TABLE keys ADD COLUMN external_id TEXT COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'external_id') STORED;
CREATE UNIQUE INDEX keys_by_external_id ON keys (realm, external_id) WHERE external_id IS NOT NULL;
-- Without it the planner takes a two-hundredth of all keys for those of one id, until enough keys have changed.
ANALYZE keys (external_id);
