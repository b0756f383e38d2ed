"""What the model does for each command."""
