"""`python -m muse`, the same as `muse`."""

from muse.apps.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
