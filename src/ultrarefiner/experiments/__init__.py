"""Studies: manifest or data set, settings and seed in; table with provenance out."""
