"""The controller's control plane: start and stop, admin commands, events, recovery."""
