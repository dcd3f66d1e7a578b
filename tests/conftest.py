"""Two workers on two cores: each keeps to one thread, or they would wait for each other."""

import os

import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
