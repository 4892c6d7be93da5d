"""Who may ask, for what: keys, tenants, people, and acting for a user."""
