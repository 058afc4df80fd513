"""Somebody's own pictures, Debian's Tux Paint stamps, through the walk-through of docs/training.md at full size."""
