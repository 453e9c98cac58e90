"""Dumps a folder of RGBY PNGs to one HDF5 file with PIL, scikit-image and h5py, in one process.

Usage: dump.py IMAGES_FOLDER OUTPUT.hdf5 [--dtype uint8|float32] [--size 512]

One contiguous (size, size, 4) dataset an id: float32 in [0, 1] as the original stores it, or uint8 = floor(255 x).
Prints one JSON line; the time is without imports, the peak memory is that of the whole process.
"""
import argparse
import json
import resource
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from skimage.transform import resize

CHANNELS = ("red", "green", "blue", "yellow")


def ids_of(folder):
    names = {path.name for path in folder.glob("*.png")}
    for image_id in sorted({name.rsplit("_", 1)[0] for name in names}):
        missing = [channel for channel in CHANNELS if f"{image_id}_{channel}.png" not in names]
        if missing:
            print(f"{image_id} skipped: no {', '.join(missing)}", file=sys.stderr)
        else:
            yield image_id


def read_channel(path):
    with Image.open(path) as image:
        return np.asarray(image)


def read_image(folder, image_id):
    """float32 (h, w, 4) in [0, 1]."""
    image = np.stack([read_channel(folder / f"{image_id}_{channel}.png") for channel in CHANNELS], axis=-1)
    return np.divide(image, np.float32(65535 if image.max() > 255 else 255), dtype=np.float32)


def dump(folder, output, dtype, size):
    images = 0
    with h5py.File(output, "w") as file:
        for image_id in ids_of(folder):
            image = resize(read_image(folder, image_id), (size, size), anti_aliasing=True)
            file.create_dataset(image_id, data=(255 * image).astype(np.uint8) if dtype == "uint8" else image)
            images += 1
    return images


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", choices=("uint8", "float32"), default="float32")
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    start, cpu_start = time.perf_counter(), time.process_time()
    images = dump(options.folder, options.output, options.dtype, options.size)
    result = {
        "images": images,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


main()
