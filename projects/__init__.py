"""Projects that use the `muse` package; the package never imports them."""
