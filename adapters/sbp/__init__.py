"""SBP, the Russian system of faster payments, through QP: payouts by phone and bank, QR links, refunds."""
