"""PCI on Linux: addresses and ids, configuration space, what sysfs shows, and binding."""
