"""The peers beside Vitrail: rows, environments, adapters, and how a row is measured. `bench_peers.py` runs them."""
