"""What tests of several kinds share: real servers and ways to look at them."""
