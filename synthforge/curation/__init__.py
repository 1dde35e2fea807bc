"""Curation: choose from a pool the subset whose distribution is that of the real images, and measure what is left of
the gap."""
