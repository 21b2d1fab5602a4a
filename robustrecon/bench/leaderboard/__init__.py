"""The leaderboard: one entry for each model, detector and threat model, from a folder of results."""
