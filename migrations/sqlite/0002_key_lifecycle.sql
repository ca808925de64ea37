-- The life of keys after their issue: bulk revocation, import, usage, deletion.

-- The earliest time to which the clock was ever set back although the store had a later time. Up to this time, ids are in the
-- order of issue.
ALTER TABLE authority ADD COLUMN set_back_to INTEGER;

ALTER TABLE keys ADD COLUMN created_at INTEGER GENERATED ALWAYS AS (facts ->> '$.created_at') VIRTUAL;
ALTER TABLE keys ADD COLUMN created_revision INTEGER GENERATED ALWAYS AS (facts ->> '$.created_revision') VIRTUAL;

-- The bulk revocations. Each one revokes all keys of the named partner, project and environment that were issued before a
-- revision, which cannot be undone. An empty name matches all.
CREATE TABLE revocations (
    revision        INTEGER NOT NULL PRIMARY KEY,
    realm           TEXT    NOT NULL REFERENCES realms ON DELETE CASCADE,
    partner         TEXT    NOT NULL,
    project         TEXT    NOT NULL,
    environment     TEXT    NOT NULL,
    before_revision INTEGER NOT NULL,
    time            INTEGER NOT NULL,
    reason          TEXT    NOT NULL
) STRICT;
CREATE INDEX revocations_by_partner ON revocations (realm, partner);

-- The keyed digest of each imported API key. A row exists as long as its key. If the key was revoked and then deleted, the row
-- remains as long as the tombstone. So no API key is imported twice, and a revoked one cannot be imported again.
CREATE TABLE imports (
    mac             BLOB    NOT NULL PRIMARY KEY,
    key_id          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX imports_by_key ON imports (key_id);

-- The answers of the last day to requests that must not be executed twice.
CREATE TABLE requests (
    actor           BLOB    NOT NULL,
    id              BLOB    NOT NULL,
    time            INTEGER NOT NULL,
    -- A keyed digest of the request, because a request may contain API keys.
    fingerprint     BLOB    NOT NULL,
    revision        INTEGER NOT NULL,
    -- The result, as JSON.
    result          TEXT    NOT NULL,
    PRIMARY KEY (actor, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (time);

-- The owners of deleted keys.
CREATE TABLE tombstones (
    key_id          BLOB    NOT NULL PRIMARY KEY,
    realm           TEXT    NOT NULL,
    partner         TEXT    NOT NULL,
    project         TEXT,
    environment     TEXT    NOT NULL,
    deleted_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_time ON tombstones (deleted_at);

-- How often a key was presented in an hour, by verdict. Hours are counted since the Unix epoch. The rows outlive the key.
CREATE TABLE usage (
    key_id          BLOB    NOT NULL,
    hour            INTEGER NOT NULL,
    verdict         TEXT    NOT NULL,
    count           INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour, verdict)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_hour ON usage (hour);

-- The time at which each secret of a key was last presented. Its time of creation identifies a secret. The rows outlive the
-- secret.
CREATE TABLE uses (
    key_id          BLOB    NOT NULL,
    secret          INTEGER NOT NULL,
    last_used_at    INTEGER NOT NULL,
    PRIMARY KEY (key_id, secret)
) STRICT, WITHOUT ROWID;
