"""The way through the house: checkpoint, graph, shares, run, record, table. Each step calls its room."""
