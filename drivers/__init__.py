"""The driver plugins that ship with uspace_drv, one folder each."""
