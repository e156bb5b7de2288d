"""Correlated randomness: what tuples there are (recipes), who makes them, and how a party gets its share."""
