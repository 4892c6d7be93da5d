"""What a person on call finds, understands and puts right, and the journal of it."""
