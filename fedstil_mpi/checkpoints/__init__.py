FOLDER = "checkpoints"
"""Of a run folder."""
