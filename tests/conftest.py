"""What all tests share."""

import torch

# The tests' tensors are small, and pytest runs several workers: more threads would only wait.
torch.set_num_threads(1)
