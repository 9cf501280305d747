-- How a relay is reached where UDP is blocked: both or neither.
ALTER TABLE relays ADD COLUMN tls_port INTEGER CHECK (tls_port BETWEEN 1 AND 65535);
ALTER TABLE relays ADD COLUMN tls_key BLOB;
