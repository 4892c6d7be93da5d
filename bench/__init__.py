"""Speed against peers and limits, in the same run: `./dev bench [ledger|stream|loop|latency|memory]`."""
