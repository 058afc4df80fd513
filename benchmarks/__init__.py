"""Speed, measured side by side: each module prints a table and one JSON line."""
