"""The whole system under one seed: shipping rules and use cases over simulated stores, streams, clocks, providers."""
