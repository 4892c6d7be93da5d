-- Sessions of the console that have ended need not be kept; who signed in is in the journal.
INSERT INTO fleet.retention VALUES ('sessions', 'console_sessions', 'hash', 't.expires_at < $1', '1 day');
