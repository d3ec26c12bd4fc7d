"""Spaces: lists of values for knobs, their members, costs and presets."""
