"""Models of torch as seeds."""
