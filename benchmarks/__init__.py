"""Speed and memory, each script printing a table and one JSON line."""
