"""`python -m uspace_drv` is the command `uspace`."""

from uspace_drv.cli import main

if __name__ == "__main__":
    main(prog_name="uspace")
