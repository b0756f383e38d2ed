"""vfio-user, both sides: the messages, the server that serves a model, the client's connection.

Follows QEMU docs/interop/vfio-user.rst.
"""
