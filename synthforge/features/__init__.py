"""Images as features: encoders, the cache of what they gave, neighbours."""
