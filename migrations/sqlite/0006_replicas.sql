-- The columns and tables of servers that share a database, which one of this kind never has: see the same file for PostgreSQL.

ALTER TABLE authority ADD COLUMN lease INTEGER NOT NULL DEFAULT 30000000;
ALTER TABLE authority ADD COLUMN longest_lease INTEGER NOT NULL DEFAULT 30000000;
ALTER TABLE authority ADD COLUMN settled_timeline INTEGER NOT NULL DEFAULT 0;

ALTER TABLE authority ADD COLUMN clock_ahead INTEGER NOT NULL DEFAULT 0;
-- How often an operator has set the time.
ALTER TABLE authority ADD COLUMN clock_setting INTEGER NOT NULL DEFAULT 0;

CREATE TABLE replicas (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    beat INTEGER NOT NULL,
    reported_revision INTEGER NOT NULL,
    reported_stamp INTEGER NOT NULL,
    lease_left INTEGER NOT NULL,
    beat_time INTEGER NOT NULL,
    warning TEXT NOT NULL
) STRICT;

-- Where epochs begin, and what stays taken away at each: see the same file for PostgreSQL.
ALTER TABLE authority ADD COLUMN database_identity TEXT NOT NULL DEFAULT '';

CREATE TABLE forks (
    epoch INTEGER PRIMARY KEY,
    last_revision INTEGER NOT NULL
) STRICT;

CREATE TABLE holds (
    epoch INTEGER NOT NULL,
    held TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    hold TEXT NOT NULL,
    PRIMARY KEY (epoch, held, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_by_name ON holds (held);
