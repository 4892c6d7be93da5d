"""Payment codes as people scan them: Thai QR, bank slips, bill barcodes, SBP links. Pure: read, proven, written."""
