-- Times are microseconds since the Unix epoch. Texts are compared byte by byte.

-- One row. Every change locks it first, so that changes are serial and revisions have no gaps.
CREATE TABLE authority (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision       INTEGER NOT NULL,
    -- The latest time that was ever recorded. The clock is never before it.
    clock          INTEGER NOT NULL,
    -- The version of the pepper for new digests.
    pepper         INTEGER NOT NULL,
    -- The key that authenticates page tokens. It protects nothing else.
    seal           BLOB    NOT NULL
) STRICT;

-- The canary of each version of the pepper, by which a wrong pepper file is recognized.
CREATE TABLE peppers (
    version        INTEGER NOT NULL PRIMARY KEY,
    canary         BLOB    NOT NULL
) STRICT;

-- One row for each change: the audit trail, the change feed and the consistency token.
CREATE TABLE events (
    revision       INTEGER NOT NULL PRIMARY KEY,
    -- A random number, by which a history that was truncated and rewritten is recognized.
    stamp          INTEGER NOT NULL,
    time           INTEGER NOT NULL,
    actor          BLOB,
    peer           TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    realm          TEXT    NOT NULL,
    partner        TEXT,
    project        TEXT,
    key_id         BLOB,
    detail         TEXT    NOT NULL
) STRICT;
CREATE INDEX events_by_key ON events (key_id, revision) WHERE key_id IS NOT NULL;
CREATE INDEX events_by_realm ON events (realm, revision);
CREATE INDEX events_by_partner ON events (realm, partner, revision);

CREATE TABLE realms (
    id             TEXT    NOT NULL PRIMARY KEY,
    -- The realm as JSON. The generated column is a part of it.
    definition     TEXT    NOT NULL,
    prefix         TEXT    GENERATED ALWAYS AS (definition ->> '$.prefix') STORED UNIQUE,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE partners (
    realm          TEXT    NOT NULL REFERENCES realms ON DELETE CASCADE,
    id             TEXT    NOT NULL,
    display_name   TEXT    NOT NULL,
    suspended      INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (realm, id)
) STRICT, WITHOUT ROWID;

-- A deleted project keeps its row, because its id remains reserved for its partner.
CREATE TABLE projects (
    realm          TEXT    NOT NULL REFERENCES realms ON DELETE CASCADE,
    id             TEXT    NOT NULL,
    partner        TEXT    NOT NULL,
    display_name   TEXT    NOT NULL,
    deleted        INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (realm, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX projects_by_partner ON projects (realm, partner, id);

CREATE TABLE keys (
    id             BLOB    NOT NULL PRIMARY KEY,
    -- All facts of the key as JSON. They are one value, because a mirror of a million keys is loaded from it. The generated
    -- columns are parts of this value, so they cannot contradict it.
    facts          TEXT    NOT NULL,
    realm          TEXT    GENERATED ALWAYS AS (facts ->> '$.realm') STORED,
    partner        TEXT    GENERATED ALWAYS AS (facts ->> '$.partner') STORED,
    project        TEXT    GENERATED ALWAYS AS (facts ->> '$.project') STORED,
    environment    TEXT    GENERATED ALWAYS AS (facts ->> '$.environment') STORED,
    scopes         TEXT    GENERATED ALWAYS AS (facts ->> '$.access.scopes') STORED,
    disabled       INTEGER GENERATED ALWAYS AS (facts ->> '$.disabled') STORED,
    expires_at     INTEGER GENERATED ALWAYS AS (facts ->> '$.expires_at') STORED,
    revoked_at     INTEGER GENERATED ALWAYS AS (facts ->> '$.revocation.at') STORED
) STRICT;
CREATE INDEX keys_by_partner ON keys (realm, partner, id);
CREATE INDEX keys_by_project ON keys (realm, project, id);
CREATE INDEX keys_by_realm ON keys (realm, id);

-- The slow hash of each secret. Only the recovery from a lost pepper, which computes new digests, will read it.
CREATE TABLE roots (
    key_id         BLOB    NOT NULL REFERENCES keys ON DELETE CASCADE,
    created_at     INTEGER NOT NULL,
    root           TEXT    NOT NULL,
    PRIMARY KEY (key_id, created_at)
) STRICT, WITHOUT ROWID;
