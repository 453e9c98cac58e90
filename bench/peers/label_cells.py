"""Cells from HPA-Cell-Segmentation's probability maps with scikit-image and SciPy; for label_cells.mjs.

usage: label_cells.py NUCLEI_PNG CELL_PNG SCALE REPEATS -> one JSON line {"ms": ..., "cells": ...}"""
import json
import sys
import time

import numpy as np
from PIL import Image
from scipy import ndimage as ndi
from skimage import filters, measure, morphology, segmentation


def fill_labels(labels):
    edge = segmentation.find_boundaries(labels, connectivity=1, mode="thick")
    inside = np.where(edge, 0, labels) > 0
    return measure.label(ndi.binary_fill_holes(inside), connectivity=1)


def without_small(labels, least):
    counts = np.bincount(labels.ravel())
    labels = labels.copy()
    labels[counts[labels] < least] = 0
    return labels


def label_cells(nuclei, cells, scale):
    size = lambda v: max(1, int(round(v)))
    borders = (nuclei[..., 1] + cells[..., 1]) / 255.0
    cores = np.where(1 - borders > 0.05, nuclei[..., 2] / 255.0, 0) > 0.4 - 0.25
    cores = morphology.remove_small_objects(cores, max_size=size(500 * scale) - 1)
    region = nuclei[..., 2] / 255.0 > 0.4
    region = morphology.remove_small_holes(region, max_size=size(1000 * scale) - 1)
    region = morphology.remove_small_objects(region, max_size=size(8 * scale) - 1)
    seeds = measure.label(cores, connectivity=1)
    nucleus = segmentation.watershed(np.zeros(seeds.shape), seeds, mask=region, watershed_line=True)
    nucleus = measure.label(without_small(nucleus, size(2500 * scale)))
    interior = cells[..., 2] / 255.0
    foreground = interior > max(0.22, filters.threshold_otsu(interior) * 0.5)
    depth = -cells[..., 2].astype(np.int32)
    found = segmentation.watershed(depth, nucleus, mask=foreground)
    found = without_small(found, size(5500 * scale))
    found = ndi.grey_closing(found, footprint=morphology.disk(size(6 * np.sqrt(scale))))
    found = fill_labels(found)
    region = (found > 0) | (cells[..., 1] / 255.0 > 0.05)
    found = fill_labels(segmentation.watershed(depth, found, mask=region))
    found = measure.label(without_small(measure.label(found > 0), size(5500 * scale)) > 0)
    part = measure.label((found > 0) & (nucleus > 0))
    part = without_small(part, size(2500 * scale))
    return np.where(part > 0, found, 0), found


def main():
    nuclei, cells = (np.asarray(Image.open(path)) for path in sys.argv[1:3])
    scale, repeats = float(sys.argv[3]), int(sys.argv[4])
    _, found = label_cells(nuclei, cells, scale)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        label_cells(nuclei, cells, scale)
        times.append((time.perf_counter() - start) * 1000)
    print(json.dumps({"ms": min(times), "cells": int(found.max())}))


main()
