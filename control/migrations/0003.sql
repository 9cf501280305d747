-- Whom a kick put out, so that a device that was off line learns of it. Byte 3 of a record is the
-- member number; a number goes to another device only when its kicks are no longer kept.
ALTER TABLE kicks ADD COLUMN device BLOB;
UPDATE kicks SET device = (SELECT device FROM members
    WHERE members.session = kicks.session
    AND printf('%02X', members.member) = hex(substr(kicks.record, 3, 1)));
CREATE INDEX kicks_by_device ON kicks (device, session);
