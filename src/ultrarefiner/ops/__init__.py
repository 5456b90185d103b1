"""Pure tensor and mask functions: frames, distances, moments, components, evidence."""
