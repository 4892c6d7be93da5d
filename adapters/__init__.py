"""One package per rail, a runtime that they share, and a test kit that certifies them."""
