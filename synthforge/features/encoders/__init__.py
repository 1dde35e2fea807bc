"""Models that turn images into features: the encoder for selection, and the metric encoder for measuring."""
