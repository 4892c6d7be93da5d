"""Wallets: their states, balances, histories and statements."""
