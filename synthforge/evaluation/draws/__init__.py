"""What is made for each draw of the real images: a generator that has seen no more, its pool, and what curation chooses of it."""
