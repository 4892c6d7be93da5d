"""IPPS (PPXC) with a durable book and fault scripts: `python -m adapters.promptpay.simulator`."""
