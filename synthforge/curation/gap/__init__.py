"""How far two sets of images lie apart."""
