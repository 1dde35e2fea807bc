"""What shards are worth to a classifier: arms, trainer, statistics."""
