-- What lists of keys are filtered by. See the same file for SQLite. One statement, so that the table is rewritten once.
ALTER TABLE keys
    ADD COLUMN name TEXT COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'name') STORED,
    ADD COLUMN hint TEXT COLLATE "C" GENERATED ALWAYS AS
        ((facts::jsonb ->> 'hint') || ' ' || coalesce(facts::jsonb #>> '{secrets,0,hint}', '')) STORED,
    ADD COLUMN created_by TEXT COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'created_by') STORED,
    -- `json` keeps the text as it is, and `jsonb` does not.
    ADD COLUMN labels TEXT COLLATE "C" GENERATED ALWAYS AS (facts::json ->> 'labels') STORED;
