"""Each draw of the real images has a generator that has seen no others, a pool of it, and images that curation chose."""
