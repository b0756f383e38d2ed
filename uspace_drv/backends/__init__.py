"""The backends: each opens a device its own way and fills the port; none knows another."""
