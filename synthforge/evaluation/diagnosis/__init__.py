"""`diagnose`: loss decomposition, the accuracy that synthetic images cost, split into its causes."""
