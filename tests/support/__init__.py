"""What the tests share; tests import it as `support`, and no test module imports another."""

from pathlib import Path

TINY = Path(__file__).with_name("tiny.yaml")
"""The config of a run of a few seconds."""
SMALL = f"model.backbone={Path(__file__).with_name('backbone.py')}"
"""With this setting each run of a job is one of a fraction of a second."""
