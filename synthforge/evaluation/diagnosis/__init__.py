"""`diagnose`: the parts of the accuracy that synthetic images lose."""
