"""QP as a process of its own, with a durable book."""
