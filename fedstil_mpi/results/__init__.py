RESULTS_FILE = "results.h5"
CONFIG_FILE = "config.yaml"
"""Of a run folder."""
MODELS = ("local", "served")
"""Which of a client's models is evaluated: the one it has trained, or what it holds after the exchange that follows."""
TASK_FREE = ("local_task_free", "served_task_free")
"""Searched with a client's newest model, as if nobody knew a query's task; where tasks have models of their own."""
