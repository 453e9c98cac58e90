"""Reads batches of a dump with h5py and a torch DataLoader, in random order.

Usage: loader.py FILE.hdf5 [--batch 36] [--workers 2] [--images N]

float32 images become uint8 by floor(255 x), as the original does; uint8 ones are read as they are. Every worker opens
the file once. A few warm-up batches start the workers before the clock runs; a file that was just written is still in
the page cache. N may exceed the number of images: the order then goes through them again. Prints one JSON line.
"""
import argparse
import json
import time

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

SEED = 1


class Dump(Dataset):
    """uint8 (h, w, 4) tensors of an HDF5 file."""

    def __init__(self, path):
        self.path = path
        self.file = None
        with h5py.File(path, "r") as file:
            self.ids = list(file)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        image = self.file[self.ids[index]][()]
        if image.dtype != np.uint8:
            image = (255 * image).astype(np.uint8)
        return torch.from_numpy(image)


class RandomOrder(Sampler):
    """`count` indices: one permutation after another, all from one seed."""

    def __init__(self, length, count):
        self.length = length
        self.count = count
        self.generator = torch.Generator().manual_seed(SEED)

    def __len__(self):
        return self.count

    def __iter__(self):
        passes = -(-self.count // self.length)
        order = torch.cat([torch.randperm(self.length, generator=self.generator) for _ in range(passes)])
        return iter(order[: self.count].tolist())


def read(loader):
    return sum(len(batch) for batch in loader)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--batch", type=int, default=36)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    dump = Dump(options.file)
    order = RandomOrder(len(dump), options.batch * 2 * max(1, options.workers))
    loader = DataLoader(
        dump,
        batch_size=options.batch,
        sampler=order,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    read(loader)
    order.count = options.images or len(dump)
    start = time.perf_counter()
    images = read(loader)
    seconds = time.perf_counter() - start
    print(json.dumps({"images": images, "seconds": seconds, "images_per_second": images / seconds}))


main()
