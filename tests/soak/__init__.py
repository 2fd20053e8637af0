"""Long runs of random work against promises; the same seed makes the same plan."""
