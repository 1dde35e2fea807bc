"""Models that make images: the interface, and the kinds."""
