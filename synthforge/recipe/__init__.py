"""The recipe: settings of all stages, and reading them from YAML. Imports nothing heavy."""
