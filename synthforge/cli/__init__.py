"""The command line: arguments in, one result out."""
