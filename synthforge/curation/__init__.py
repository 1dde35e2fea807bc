"""Curation: choose the subset of a pool whose distribution matches the real images, and measure the gap that is
left."""
