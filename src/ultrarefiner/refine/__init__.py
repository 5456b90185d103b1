"""The contribution: coarse mask to prompts, foundation model, and back to a better mask."""
