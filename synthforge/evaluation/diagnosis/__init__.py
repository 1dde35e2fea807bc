"""`diagnose`: loss decomposition, the accuracy that synthetic images lose split into its causes."""
