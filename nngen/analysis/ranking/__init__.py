"""Rankings: rows and columns of the leaderboard, noise between seeds and on few images, limits of short trainings."""
