"""How much synthetic images improve a classifier: arms, trainer, statistics."""
