"""The least that a backbone can cost: multiplications, and bytes of what must be written and read, for one image.

Usage: floors.py [SIZE ...]   (192 384 512): a table for each size, then what this machine does of both by PyTorch.

Operations: 2 a multiplication; training has three times the forward pass's, for each of the two views. Bytes, in 16-bit activations: a
convolution's output and what becomes of it by norm and activation are each written and read once forward; backward both are read again,
and their gradients written and read. Weights: cast, read forward and backward, and Adam's passes over four float32 arrays.
"""
import sys
import time

import torch

import network

BACKBONES = ["resnet18", "seresnext50_32x4d", "gluon_seresnext101_32x4d", "cspresnext50", "regnety_064"]


def count(model, size):
    """(multiplications, values of all convolutions' outputs) of one image."""
    seen = [0, 0]

    def hook(layer, _, output):
        if output.shape[-1] * output.shape[-2] == 1:
            return  # of an excitation
        kernel = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        seen[0] += output.numel() * kernel
        seen[1] += output.numel()

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 4, size, size))
    for h in hooks:
        h.remove()
    return seen


def timed(call):
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def main():
    sizes = [int(s) for s in sys.argv[1:]] or [192, 384, 512]
    print("backbone                    weights  size  GFLOP forward  GFLOP training step  MB forward  MB training step")
    for name in BACKBONES:
        model = network.Puzzle(network.timm_name(name))
        weights = sum(p.numel() for p in model.parameters())
        for size in sizes:
            multiplications, values = count(model, size)
            forward, step = 2 * multiplications / 1e9, 2 * 3 * 2 * multiplications / 1e9
            print(f"{name:26} {weights / 1e6:7.1f}M {size:5} {forward:14.1f} {step:20.1f} {values * 4 * 2 / 1e6:11.0f} {2 * values * 12 * 2 / 1e6:17.0f}")
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(2048, 2048).to(dtype)
        print(f"matrix product of 2048², {dtype}: {2 * 2048**3 / timed(lambda: a @ a) / 1e9:.0f} GFLOP/s")
    big = torch.zeros(2**28, dtype=torch.uint8)
    other = torch.empty_like(big)
    print(f"copy of 256 MB: {2 * big.numel() / timed(lambda: other.copy_(big)) / 1e9:.1f} GB/s read and written")


if __name__ == "__main__":
    main()
