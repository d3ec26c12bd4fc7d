"""What one command does to one model: inspect, remap, head, fold, profile, diff, check."""
