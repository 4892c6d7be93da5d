"""Pure rules: accounts, transfers, holds, intents, verdicts. No I/O."""
