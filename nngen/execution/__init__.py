"""Data sets, the isolated worker and the engine that runs it."""
