"""Probabilities for every cell of a set of fields: h5py, timm, scikit-image, as the original goes about it.

Usage: oof.py eager|tuned --hdf5 FILE --masks FOLDER --weights FILE.safetensors --output FILE.csv --backbone NAME --classes K --batch B --threads N [--device cpu] [--precision fp32]
Masks are <id>.png of the HDF5 images' size. Prints one JSON line: images, and the seconds from the end of the first batch on.
"""
import argparse
import csv
import json
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import network
from cam_intersection import intersect


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["eager", "tuned"])
    for name in ["hdf5", "masks", "weights", "output", "backbone"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="by default fp16 on CUDA, fp32 on the CPU")
    o = parser.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    device = torch.device(o.device)
    precision = o.precision or ("fp16" if device.type == "cuda" else "fp32")
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    torch.backends.cudnn.benchmark = o.mode == "tuned"
    network.CLASSES = o.classes
    model = network.Puzzle(network.timm_name(o.backbone))
    model.load_state_dict(load_file(o.weights))
    model.eval()
    layout = torch.channels_last if o.mode == "tuned" else torch.contiguous_format
    model = model.to(device, memory_format=layout)
    mean, std = (torch.tensor(v, device=device).view(1, 4, 1, 1) for v in (network.MEAN, network.STD))
    start, counted = None, 0
    with h5py.File(o.hdf5, "r") as file, open(o.output, "w", newline="") as output:
        rows = csv.writer(output)
        ids = sorted(file)
        for first in range(0, len(ids), o.batch):
            batch = ids[first : first + o.batch]
            pixels = torch.from_numpy(np.stack([file[i][()] for i in batch])).to(device).permute(0, 3, 1, 2)
            images = pixels.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=layout)
            with torch.no_grad(), torch.autocast(device.type, half, enabled=precision != "fp32"):
                logits, maps = model(images)
            logits, maps = logits.cpu(), maps.cpu()
            for k, image_id in enumerate(batch):
                cells = np.asarray(Image.open(Path(o.masks) / f"{image_id}.png")).astype(np.uint16)
                found, centers = intersect(logits[k].numpy(), maps[k].numpy(), cells)
                for cell, confidences in zip(np.unique(cells)[1:], found):
                    rows.writerow([image_id, *cells.shape[::-1], cell, centers.get(cell), *confidences])
            if start is None:
                start = time.perf_counter()
            else:
                counted += len(batch)
    print(json.dumps({"images": counted, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
