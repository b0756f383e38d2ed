"""What the specification says, as tables: registers, commands, data structures, status."""
