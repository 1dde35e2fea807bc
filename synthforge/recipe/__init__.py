"""The recipe and the Config of every stage; nothing heavy is imported here."""
