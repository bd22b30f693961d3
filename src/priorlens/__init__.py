"""priorlens: what does not look like the healthy images a diffusion prior was trained on, where, and how surely."""
