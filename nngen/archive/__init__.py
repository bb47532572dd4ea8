"""Everything that was found, in one SQLite file."""
