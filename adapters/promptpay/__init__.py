"""PromptPay through IPPS (PPXC)."""
