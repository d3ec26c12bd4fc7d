"""Channel identity: which axes must change together."""
