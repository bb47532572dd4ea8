"""What the archive means: leaderboard, families, coverage, the report."""
