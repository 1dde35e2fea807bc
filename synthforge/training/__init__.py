"""Everything that the fits of generators, encoders and classifiers share."""
