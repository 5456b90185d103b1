"""When to keep the coarse mask: an acceptance rule with a guarantee, learned on spare patients."""
