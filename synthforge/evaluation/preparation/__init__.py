"""For each draw of the real images: a generator that has seen no others, its pool, and images that curation chose."""
