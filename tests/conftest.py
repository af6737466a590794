"""Shared test settings. This folder is on the path (pyproject.toml): ``from tiny import tiny_model`` works."""

import torch
from hypothesis import settings

# tiny models lose more to threads than they gain
torch.set_num_threads(1)

# examples on a busy machine take as long as they take; runs are the same every time
settings.register_profile("laconic", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("laconic")
