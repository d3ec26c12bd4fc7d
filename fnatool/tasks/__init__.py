"""The four tasks: what a model is for (`description`), what it learns from (losses), what its outputs mean (`decode`), how good it is."""
