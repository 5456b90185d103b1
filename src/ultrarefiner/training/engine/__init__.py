"""The machine behind every phase: one trainer, stopped and resumed to the bit, on any hardware."""
