-- The revision of each key's own row, and an index for the rules that apply to a key.

-- The revision of the latest change of the row. For a key whose events retention has deleted, the revision of its issue.
ALTER TABLE keys ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
UPDATE keys SET revision = coalesce((SELECT max(e.revision) FROM events AS e WHERE e.key_id = keys.id), created_revision, 0);

-- The rules that apply to a key have one of eight combinations of these names. So a look-up reads only the rules that it needs,
-- however many there are.
CREATE INDEX revocations_by_owner ON revocations (realm, partner, project, environment, before_revision);
DROP INDEX revocations_by_partner;
