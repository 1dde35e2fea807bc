"""Models that turn images into features: what drives selection (the encoder) and what measures it (the metric encoder)."""
