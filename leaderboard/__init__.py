"""The leaderboard: run folders in, a static site, a terminal table and plain sentences out. Never imports torch."""
