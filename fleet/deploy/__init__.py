"""What a deployment runs before its processes: its secrets, its schema, its first tenant and its rails' keys."""
