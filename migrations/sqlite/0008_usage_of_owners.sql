-- How often the keys of an owner were presented in an hour, by verdict: the sums of `usage`, kept beside it. An empty partner
-- owns the keys of operators, and an empty project stands for keys of the partner as a whole. The rows outlive keys, partners and
-- realms.
CREATE TABLE owner_usage (
    hour            INTEGER NOT NULL,
    realm           TEXT    NOT NULL,
    partner         TEXT    NOT NULL,
    project         TEXT    NOT NULL,
    environment     TEXT    NOT NULL,
    verdict         TEXT    NOT NULL,
    count           INTEGER NOT NULL,
    PRIMARY KEY (realm, hour, partner, project, environment, verdict)
) STRICT, WITHOUT ROWID;
CREATE INDEX owner_usage_by_partner ON owner_usage (partner, hour);
CREATE INDEX owner_usage_by_hour ON owner_usage (hour);

-- The keys whose owner is known. Only the realm of the authority has keys that belong to no partner.
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

-- From where a secret was used last, if the realm records it: the number of an IPv4 address, or the first 64 bits of an IPv6
-- address.
ALTER TABLE uses ADD COLUMN address INTEGER;
CREATE INDEX uses_with_address ON uses (key_id, secret) WHERE address IS NOT NULL;
