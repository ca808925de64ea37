-- How often the keys of an owner were presented in an hour, by verdict, and from where a secret was used last. See the same file
-- for SQLite.
CREATE TABLE owner_usage (
    hour            BIGINT  NOT NULL,
    realm           TEXT    COLLATE "C" NOT NULL,
    partner         TEXT    COLLATE "C" NOT NULL,
    project         TEXT    COLLATE "C" NOT NULL,
    environment     TEXT    COLLATE "C" NOT NULL,
    verdict         TEXT    COLLATE "C" NOT NULL,
    count           BIGINT  NOT NULL,
    PRIMARY KEY (hour, realm, partner, project, environment, verdict)
);
CREATE INDEX owner_usage_by_partner ON owner_usage (realm, partner, hour);

INSERT INTO owner_usage (hour, realm, partner, project, environment, verdict, count)
SELECT u.hour, o.realm, o.partner, coalesce(o.project, ''), o.environment, u.verdict, sum(u.count)
FROM usage AS u
JOIN (
    SELECT id, realm, partner, project, environment FROM keys
    UNION ALL
    SELECT key_id, realm, partner, project, environment FROM tombstones
) AS o ON o.id = u.key_id
WHERE o.realm IS NOT NULL AND o.partner IS NOT NULL AND o.environment IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6;

ALTER TABLE uses ADD COLUMN address BIGINT;

ALTER TABLE realms ADD COLUMN record_addresses BOOLEAN GENERATED ALWAYS AS
    (coalesce((definition::jsonb ->> 'record_addresses')::boolean, FALSE)) STORED;
