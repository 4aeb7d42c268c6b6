"""Tuning with an equal budget, and comparisons with seeds, statistics and sentences."""
