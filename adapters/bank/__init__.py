"""The bank rail: ISO 20022 files out, status reports, statements and returns in."""
