"""What is wrong with a model, all of it, by looking only."""
