"""Emoji in eight openly licensed styles: the data, captions and scenes of the model that ships."""
