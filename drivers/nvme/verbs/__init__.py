"""What the command line offers, and Python as well."""
