"""How good a model is: pictures drawn for captions, scored, and written down with their intervals."""
