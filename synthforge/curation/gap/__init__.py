"""The distance of sets of images to the real images."""
