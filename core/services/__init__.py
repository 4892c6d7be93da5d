"""One use case per module; the ports they need are declared here."""
