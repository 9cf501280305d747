-- When control was last at work: what it did not see while it was away was not absent.
ALTER TABLE pool ADD COLUMN alive INTEGER NOT NULL DEFAULT 0;
UPDATE pool SET alive = (SELECT coalesce(max(seen), 0) FROM devices);

CREATE INDEX members_owning ON members (device, session) WHERE role = 'owner' AND gone IS NULL;
