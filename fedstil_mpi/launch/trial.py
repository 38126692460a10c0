"""Whether torch can compute on the GPU that a rank was given; NVML lists also those that it cannot."""


def gpu_problem() -> str | None:
    """Why torch cannot add two numbers on the one GPU in CUDA_VISIBLE_DEVICES; None where it can.

    Imports torch and opens the GPU: call when the rank is placed. A torch without CUDA, an old driver and a card that is
    too old, full, or taken by another process are found here.
    """
    import torch

    try:
        torch.ones(1, device="cuda").add(1).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None
