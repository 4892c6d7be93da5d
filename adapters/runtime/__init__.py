"""What every adapter shares: port, worker, permits, errors, HTTP."""
