-- The life of keys after their issue: bulk revocation, import, usage, deletion.

-- The earliest time to which the clock was ever set back although the store had a later time. Up to this time, ids are in the
-- order of issue.
ALTER TABLE authority ADD COLUMN set_back_to BIGINT;

ALTER TABLE keys
    ADD COLUMN created_at BIGINT GENERATED ALWAYS AS ((facts::jsonb ->> 'created_at')::bigint) STORED,
    ADD COLUMN created_revision BIGINT GENERATED ALWAYS AS ((facts::jsonb ->> 'created_revision')::bigint) STORED;

-- The bulk revocations. Each one revokes all keys of the named partner, project and environment that were issued before a
-- revision, which cannot be undone. An empty name matches all.
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

-- The keyed digest of each imported API key. A row exists as long as its key. If the key was revoked and then deleted, the row
-- remains as long as the tombstone. So no API key is imported twice, and a revoked one cannot be imported again.
CREATE TABLE imports (
    mac             BYTEA   NOT NULL PRIMARY KEY,
    key_id          UUID    NOT NULL
);
CREATE INDEX imports_by_key ON imports (key_id);

-- The answers of the last day to requests that must not be executed twice.
CREATE TABLE requests (
    actor           UUID    NOT NULL,
    id              UUID    NOT NULL,
    time            BIGINT  NOT NULL,
    -- A keyed digest of the request, because a request may contain API keys.
    fingerprint     BYTEA   NOT NULL,
    revision        BIGINT  NOT NULL,
    -- The result, as JSON.
    result          TEXT    NOT NULL,
    PRIMARY KEY (actor, id)
);
CREATE INDEX requests_by_time ON requests (time);

-- The owners of deleted keys.
CREATE TABLE tombstones (
    key_id          UUID    NOT NULL PRIMARY KEY,
    realm           TEXT    COLLATE "C" NOT NULL,
    partner         TEXT    COLLATE "C" NOT NULL,
    project         TEXT    COLLATE "C",
    environment     TEXT    COLLATE "C" NOT NULL,
    deleted_at      BIGINT  NOT NULL
);
CREATE INDEX tombstones_by_time ON tombstones (deleted_at);

-- How often a key was presented in an hour, by verdict. Hours are counted since the Unix epoch. The rows outlive the key.
CREATE TABLE usage (
    key_id          UUID    NOT NULL,
    hour            BIGINT  NOT NULL,
    verdict         TEXT    COLLATE "C" NOT NULL,
    count           BIGINT  NOT NULL,
    PRIMARY KEY (key_id, hour, verdict)
);
CREATE INDEX usage_by_hour ON usage (hour);

-- The time at which each secret of a key was last presented. Its time of creation identifies a secret. The rows outlive the
-- secret.
CREATE TABLE uses (
    key_id          UUID    NOT NULL,
    secret          BIGINT  NOT NULL,
    last_used_at    BIGINT  NOT NULL,
    PRIMARY KEY (key_id, secret)
);
