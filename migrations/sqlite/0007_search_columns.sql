-- What lists of keys are filtered by. Virtual, so that no row is rewritten. A row whose facts are no JSON has none of them.
ALTER TABLE keys ADD COLUMN name TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts) THEN facts ->> '$.name' END) VIRTUAL;
-- The hint of each secret, the newest first, separated by a space.
ALTER TABLE keys ADD COLUMN hint TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts)
        THEN (facts ->> '$.hint') || ' ' || coalesce(facts ->> '$.secrets[0].hint', '') END) VIRTUAL;
ALTER TABLE keys ADD COLUMN created_by TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts) THEN facts ->> '$.created_by' END) VIRTUAL;
-- As JSON without spaces.
ALTER TABLE keys ADD COLUMN labels TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(facts) THEN facts -> '$.labels' END) VIRTUAL;
