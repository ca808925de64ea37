-- Whether keys or events may have hints that show a part of the SHA-256 of an API key, as earlier versions made them: 1 until a start
-- has replaced them all.
ALTER TABLE authority ADD COLUMN hash_hints INTEGER NOT NULL DEFAULT 1;
