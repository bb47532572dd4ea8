"""Analysis of archived trials: leaderboard, effects, success rates, cost, closed loops, and the report."""
