"""The main job on real input, by one command: a file of payments in, a proof out."""
