"""Selection: choose a subset of a pool that matches the real images as a set."""
