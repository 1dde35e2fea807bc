"""For each draw of the real images: its generator, its pool, and the images that curation chose."""
