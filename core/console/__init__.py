"""The console: pages for the people on call, over the same use cases as the API."""
