"""What clients are told: events page by page, as a stream, and by webhook."""
