"""What both sides run on the wire: streams, functions, signing. It knows neither rails nor ledger."""
