-- What happens to keys after they were issued: ended by the many, imported, used, deleted.

-- The earliest time to which the clock was ever set back against the word of the store. Up to it ids are in the order of issue.
ALTER TABLE authority ADD COLUMN set_back_to INTEGER;

ALTER TABLE keys ADD COLUMN created_at INTEGER GENERATED ALWAYS AS (facts ->> '$.created_at') VIRTUAL;
ALTER TABLE keys ADD COLUMN created_revision INTEGER GENERATED ALWAYS AS (facts ->> '$.created_revision') VIRTUAL;

-- Each ends for ever all keys that it names and that were issued before a revision. An empty word names all.
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

-- The keyed digest of each imported text, while its key is there, and of one whose key was revoked also when it is deleted, as
-- long as its tombstone is kept: no text is imported twice, and none comes back to life.
CREATE TABLE imports (
    mac             BLOB    NOT NULL PRIMARY KEY,
    key_id          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX imports_by_key ON imports (key_id);

-- What was answered to the requests of the last day that must not be done twice.
CREATE TABLE requests (
    actor           BLOB    NOT NULL,
    id              BLOB    NOT NULL,
    time            INTEGER NOT NULL,
    -- A keyed digest of the request, which may hold texts of keys.
    fingerprint     BLOB    NOT NULL,
    revision        INTEGER NOT NULL,
    -- What came of it, as JSON.
    result          TEXT    NOT NULL,
    PRIMARY KEY (actor, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (time);

-- Whose the keys were that were deleted.
CREATE TABLE tombstones (
    key_id          BLOB    NOT NULL PRIMARY KEY,
    realm           TEXT    NOT NULL,
    partner         TEXT    NOT NULL,
    project         TEXT,
    environment     TEXT    NOT NULL,
    deleted_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_time ON tombstones (deleted_at);

-- How often a key was presented in an hour, with which verdict. Hours are counted since the Unix epoch. Outlives the key.
CREATE TABLE usage (
    key_id          BLOB    NOT NULL,
    hour            INTEGER NOT NULL,
    verdict         TEXT    NOT NULL,
    count           INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour, verdict)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_hour ON usage (hour);

-- When each secret of a key, known by the time at which it was made, was last presented. Outlives the secret.
CREATE TABLE uses (
    key_id          BLOB    NOT NULL,
    secret          INTEGER NOT NULL,
    last_used_at    INTEGER NOT NULL,
    PRIMARY KEY (key_id, secret)
) STRICT, WITHOUT ROWID;
