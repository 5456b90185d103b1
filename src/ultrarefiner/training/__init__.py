"""Training: recipes, short Lightning modules, and what they leave behind. Loads Lightning."""
