-- Times are microseconds since the Unix epoch. Texts are compared byte by byte (COLLATE "C").

-- One row. Every change locks it first, so that changes are serial and revisions have no gaps.
CREATE TABLE authority (
    one            BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    revision       BIGINT NOT NULL,
    -- The latest time that was ever recorded. The clock is never before it.
    clock          BIGINT NOT NULL,
    -- The version of the pepper for new digests.
    pepper         BIGINT NOT NULL,
    -- The key that authenticates page tokens. It protects nothing else.
    seal           BYTEA  NOT NULL
);

-- The canary of each version of the pepper, by which a wrong pepper file is recognized.
CREATE TABLE peppers (
    version        BIGINT NOT NULL PRIMARY KEY,
    canary         BYTEA  NOT NULL
);

-- One row for each change: the audit trail, the change feed and the consistency token.
CREATE TABLE events (
    revision       BIGINT NOT NULL PRIMARY KEY,
    -- A random number, by which a history that was truncated and rewritten is recognized.
    stamp          BIGINT NOT NULL,
    time           BIGINT NOT NULL,
    actor          UUID,
    peer           TEXT   NOT NULL,
    kind           TEXT   COLLATE "C" NOT NULL,
    realm          TEXT   COLLATE "C" NOT NULL,
    partner        TEXT   COLLATE "C",
    project        TEXT   COLLATE "C",
    key_id         UUID,
    detail         TEXT   NOT NULL
);
CREATE INDEX events_by_key ON events (key_id, revision) WHERE key_id IS NOT NULL;
CREATE INDEX events_by_realm ON events (realm, revision);
CREATE INDEX events_by_partner ON events (realm, partner, revision);

CREATE TABLE realms (
    id             TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    -- The realm as JSON. The generated column is a part of it.
    definition     TEXT   NOT NULL,
    prefix         TEXT   COLLATE "C" GENERATED ALWAYS AS (definition::jsonb ->> 'prefix') STORED UNIQUE,
    revision       BIGINT NOT NULL,
    created_at     BIGINT NOT NULL
);

CREATE TABLE partners (
    realm          TEXT   COLLATE "C" NOT NULL REFERENCES realms ON DELETE CASCADE,
    id             TEXT   COLLATE "C" NOT NULL,
    display_name   TEXT   NOT NULL,
    suspended      BOOLEAN NOT NULL,
    revision       BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    PRIMARY KEY (realm, id)
);

-- A deleted project keeps its row, because its id remains reserved for its partner.
CREATE TABLE projects (
    realm          TEXT   COLLATE "C" NOT NULL REFERENCES realms ON DELETE CASCADE,
    id             TEXT   COLLATE "C" NOT NULL,
    partner        TEXT   COLLATE "C" NOT NULL,
    display_name   TEXT   NOT NULL,
    deleted        BOOLEAN NOT NULL,
    revision       BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    PRIMARY KEY (realm, id)
);
CREATE INDEX projects_by_partner ON projects (realm, partner, id);

CREATE TABLE keys (
    id             UUID   NOT NULL PRIMARY KEY,
    -- All facts of the key as JSON. They are one value, because a mirror of a million keys is loaded from it. The generated
    -- columns are parts of this value, so they cannot contradict it.
    facts          TEXT   NOT NULL,
    realm          TEXT   COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'realm') STORED,
    partner        TEXT   COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'partner') STORED,
    project        TEXT   COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'project') STORED,
    environment    TEXT   COLLATE "C" GENERATED ALWAYS AS (facts::jsonb ->> 'environment') STORED,
    scopes         TEXT   COLLATE "C" GENERATED ALWAYS AS (facts::jsonb -> 'access' ->> 'scopes') STORED,
    disabled       BOOLEAN GENERATED ALWAYS AS ((facts::jsonb ->> 'disabled')::boolean) STORED,
    expires_at     BIGINT GENERATED ALWAYS AS ((facts::jsonb ->> 'expires_at')::bigint) STORED,
    revoked_at     BIGINT GENERATED ALWAYS AS ((facts::jsonb -> 'revocation' ->> 'at')::bigint) STORED
);
CREATE INDEX keys_by_partner ON keys (realm, partner, id);
CREATE INDEX keys_by_project ON keys (realm, project, id);
CREATE INDEX keys_by_realm ON keys (realm, id);

-- The slow hash of each secret. Only the recovery from a lost pepper, which computes new digests, will read it.
CREATE TABLE roots (
    key_id         UUID   NOT NULL REFERENCES keys ON DELETE CASCADE,
    created_at     BIGINT NOT NULL,
    root           TEXT   NOT NULL,
    PRIMARY KEY (key_id, created_at)
);
