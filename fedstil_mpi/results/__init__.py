RESULTS_FILE = "results.h5"
"""Of a run folder."""
