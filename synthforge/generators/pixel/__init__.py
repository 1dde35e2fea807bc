"""A small class-conditional diffusion model for 8 to 64 px, as a diffusers pipeline, and fitting it."""
