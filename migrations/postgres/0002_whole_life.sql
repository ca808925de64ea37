-- What happens to keys after they were issued: ended by the many, imported, used, deleted.

-- The earliest time to which the clock was ever set back against the word of the store. Up to it ids are in the order of issue.
ALTER TABLE authority ADD COLUMN set_back_to BIGINT;

ALTER TABLE keys
    ADD COLUMN created_at BIGINT GENERATED ALWAYS AS ((facts::jsonb ->> 'created_at')::bigint) STORED,
    ADD COLUMN created_revision BIGINT GENERATED ALWAYS AS ((facts::jsonb ->> 'created_revision')::bigint) STORED;

-- Each ends for ever all keys that it names and that were issued before a revision. An empty word names all.
CREATE TABLE revocations (
    revision        BIGINT  NOT NULL PRIMARY KEY,
    realm           TEXT    COLLATE "C" NOT NULL REFERENCES realms ON DELETE CASCADE,
    partner         TEXT    COLLATE "C" NOT NULL,
    project         TEXT    COLLATE "C" NOT NULL,
    environment     TEXT    COLLATE "C" NOT NULL,
    before_revision BIGINT  NOT NULL,
    time            BIGINT  NOT NULL,
    reason          TEXT    NOT NULL
);
CREATE INDEX revocations_by_partner ON revocations (realm, partner);

-- The keyed digest of each imported text, while its key is there, and of one whose key was revoked also when it is deleted, as
-- long as its tombstone is kept: no text is imported twice, and none comes back to life.
CREATE TABLE imports (
    mac             BYTEA   NOT NULL PRIMARY KEY,
    key_id          UUID    NOT NULL
);
CREATE INDEX imports_by_key ON imports (key_id);

-- What was answered to the requests of the last day that must not be done twice.
CREATE TABLE requests (
    actor           UUID    NOT NULL,
    id              UUID    NOT NULL,
    time            BIGINT  NOT NULL,
    -- A keyed digest of the request, which may hold texts of keys.
    fingerprint     BYTEA   NOT NULL,
    revision        BIGINT  NOT NULL,
    -- What came of it, as JSON.
    result          TEXT    NOT NULL,
    PRIMARY KEY (actor, id)
);
CREATE INDEX requests_by_time ON requests (time);

-- Whose the keys were that were deleted.
CREATE TABLE tombstones (
    key_id          UUID    NOT NULL PRIMARY KEY,
    realm           TEXT    COLLATE "C" NOT NULL,
    partner         TEXT    COLLATE "C" NOT NULL,
    project         TEXT    COLLATE "C",
    environment     TEXT    COLLATE "C" NOT NULL,
    deleted_at      BIGINT  NOT NULL
);
CREATE INDEX tombstones_by_time ON tombstones (deleted_at);

-- How often a key was presented in an hour, with which verdict. Hours are counted since the Unix epoch. Outlives the key.
CREATE TABLE usage (
    key_id          UUID    NOT NULL,
    hour            BIGINT  NOT NULL,
    verdict         TEXT    COLLATE "C" NOT NULL,
    count           BIGINT  NOT NULL,
    PRIMARY KEY (key_id, hour, verdict)
);
CREATE INDEX usage_by_hour ON usage (hour);

-- When each secret of a key, known by the time at which it was made, was last presented. Outlives the secret.
CREATE TABLE uses (
    key_id          UUID    NOT NULL,
    secret          BIGINT  NOT NULL,
    last_used_at    BIGINT  NOT NULL,
    PRIMARY KEY (key_id, secret)
);
