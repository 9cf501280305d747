-- Sessions are u64 stored as the i64 of the same bits; keys and hashes are blobs; times are
-- seconds since 1970.
CREATE TABLE pool (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         INTEGER NOT NULL,
    version    INTEGER NOT NULL,  -- grows when another process changes the relays
    map_serial INTEGER NOT NULL,
    map        TEXT               -- the signed map in JSON
) STRICT;
INSERT INTO pool VALUES (1, 1, 0, 0, NULL);

CREATE TABLE signing_keys (
    id   INTEGER PRIMARY KEY CHECK (id BETWEEN 0 AND 255),
    seed BLOB    NOT NULL,
    made INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
    device     BLOB    PRIMARY KEY,
    registered INTEGER NOT NULL,
    seen       INTEGER NOT NULL   -- when it last had a stream
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    hash   BLOB    NOT NULL UNIQUE,
    device BLOB    NOT NULL REFERENCES devices ON DELETE CASCADE
) STRICT;
CREATE INDEX tokens_by_device ON tokens (device, id);

CREATE TABLE parties (
    session INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL,
    subnet  INTEGER NOT NULL,     -- the /24's network address as u32
    prefix  BLOB    NOT NULL,     -- the /64's network address
    epoch   INTEGER NOT NULL,
    creator BLOB    NOT NULL,
    request BLOB    NOT NULL,
    made    INTEGER NOT NULL,
    UNIQUE (creator, request)
) STRICT;

-- One row per number: its device, or the last device it had.
CREATE TABLE members (
    session    INTEGER NOT NULL REFERENCES parties ON DELETE CASCADE,
    member     INTEGER NOT NULL CHECK (member BETWEEN 1 AND 250),
    generation INTEGER NOT NULL,
    device     BLOB    NOT NULL,
    tunnel     BLOB    NOT NULL,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    joined     INTEGER NOT NULL,
    gone       INTEGER,           -- when it left or was kicked
    entry      TEXT,              -- the directory entry in JSON
    PRIMARY KEY (session, member),
    UNIQUE (session, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_device ON members (device, session);

CREATE TABLE party_relays (
    session  INTEGER NOT NULL REFERENCES parties ON DELETE CASCADE,
    position INTEGER NOT NULL,
    relay    INTEGER NOT NULL,
    PRIMARY KEY (session, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX party_relays_by_relay ON party_relays (relay);

-- A closed invite stays for 30 days without its sealed secret, so that a late comer learns why.
CREATE TABLE invites (
    hash      BLOB    PRIMARY KEY,
    session   INTEGER NOT NULL,
    sealed    BLOB,
    expires   INTEGER NOT NULL,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    closed    INTEGER,            -- when it was used up, expired or voided
    void      INTEGER NOT NULL DEFAULT 0,
    CHECK ((sealed IS NULL) = (closed IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX invites_by_session ON invites (session) WHERE closed IS NULL;
CREATE INDEX tombstones_by_age ON invites (session, closed) WHERE closed IS NOT NULL;
CREATE INDEX invites_by_expiry ON invites (expires) WHERE closed IS NULL;

CREATE TABLE kicks (
    session INTEGER NOT NULL REFERENCES parties ON DELETE CASCADE,
    epoch   INTEGER NOT NULL,
    record  BLOB    NOT NULL,
    made    INTEGER NOT NULL,
    PRIMARY KEY (session, epoch)
) STRICT, WITHOUT ROWID;

-- A copy opens only beside its epoch's record, so it never outlives that.
CREATE TABLE epoch_copies (
    session INTEGER NOT NULL,
    member  INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    copy    TEXT    NOT NULL,     -- in JSON
    PRIMARY KEY (session, member, epoch),
    FOREIGN KEY (session, epoch) REFERENCES kicks ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX epoch_copies_by_kick ON epoch_copies (session, epoch);

CREATE TABLE revocations (
    cursor       INTEGER PRIMARY KEY AUTOINCREMENT,
    session      INTEGER NOT NULL,
    member       INTEGER NOT NULL,
    generation   INTEGER NOT NULL,
    forget_after INTEGER NOT NULL
) STRICT;

CREATE TABLE relays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 65535),
    name        TEXT    NOT NULL,
    identity    BLOB    NOT NULL UNIQUE,
    key         BLOB    NOT NULL,
    ipv4        TEXT,
    ipv6        TEXT,
    certificate BLOB    NOT NULL,
    enrolled    INTEGER NOT NULL,
    seen        INTEGER NOT NULL
) STRICT;

-- Spent by one identity, which may ask again until the token expires.
CREATE TABLE enrolment_tokens (
    hash     BLOB    PRIMARY KEY,
    expires  INTEGER NOT NULL,
    identity BLOB
) STRICT, WITHOUT ROWID;
