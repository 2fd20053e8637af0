"""What the package costs, always as a ratio to its peers in the same run."""
