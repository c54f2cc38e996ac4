"""Engines for searches: each module drives one kind, and imports it only when it is used."""
