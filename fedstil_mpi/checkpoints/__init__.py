FOLDER = "checkpoints"
"""Of a run folder."""
START = "start"
"""Of the checkpoints: the model that all clients start from, of which there is one."""
