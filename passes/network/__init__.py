"""What a network consists of: blocks and stages, costs, resolution, knobs; all of it is the analysis."""
