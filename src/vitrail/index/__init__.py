"""Vectors under outside ids, searched by inner product or cosine: exact, approximate, remote; one protocol, filters inside the search."""
