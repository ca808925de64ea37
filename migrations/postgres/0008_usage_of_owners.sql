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
    PRIMARY KEY (realm, hour, partner, project, environment, verdict)
);
CREATE INDEX owner_usage_by_partner ON owner_usage (partner, hour);
CREATE INDEX owner_usage_by_hour ON owner_usage (hour);

INSERT INTO owner_usage (hour, realm, partner, project, environment, verdict, count)
SELECT u.hour, o.realm, o.partner, coalesce(o.project, ''), o.environment, u.verdict, sum(u.count)
FROM usage AS u
JOIN (
    SELECT id, realm, partner, project, environment FROM keys
    UNION ALL
    SELECT key_id, realm, partner, project, environment FROM tombstones
) AS o ON o.id = u.key_id
WHERE o.realm <> '' AND o.environment <> '' AND (o.partner <> '' OR o.partner = '' AND o.realm = 'claviger')
GROUP BY 1, 2, 3, 4, 5, 6;

ALTER TABLE uses ADD COLUMN address BIGINT;
CREATE INDEX uses_with_address ON uses (key_id, secret) WHERE address IS NOT NULL;
