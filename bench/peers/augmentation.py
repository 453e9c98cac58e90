"""The training augmentation in OpenCV and numpy, with the draws and in the order of albumentations 0.5.2.

Usage: augmentation.py [--size 512] [--crop 384] [--images 72] [--batch 36] [--processes 2] [--seed 1] [--noise numpy]
       augmentation.py --check GOLDENS_FOLDER

Every process makes its own uint8 (size, size, 4) images before the clock starts, and augments whole batches as a
DataLoader worker does; the normalised float32 (crop, crop, 4) results stay there and only a checksum comes back.
Prints one JSON line: the rate of all processes with one OpenCV thread each, and that of one process with OpenCV's own
threads. --check holds every operation and the draws to reference cases instead.
"""
import argparse
import json
import multiprocessing
import os
import time

import cv2
import numpy as np

MEAN = np.array((0.485, 0.456, 0.406, 0.485))
STD = np.array((0.229, 0.224, 0.225, 0.229))
BILINEAR = {"borderMode": cv2.BORDER_REFLECT_101}
IMAGES_PER_PROCESS = 8


# Operations: uint8 (h, w, 4) in and out. The input is never written to: it may be a view of the image before the crop.


def random_crop(image, height, width, h_start, w_start):
    if image.shape[0] < height or image.shape[1] < width:
        raise ValueError(f"a crop of {height} x {width} does not fit into {image.shape[0]} x {image.shape[1]}")
    y, x = int((image.shape[0] - height) * h_start), int((image.shape[1] - width) * w_start)
    return image[y : y + height, x : x + width]


def gauss_noise(image, noise):
    """noise: float32 (h, w, 4). Truncates, as the original does."""
    out = image + noise
    return np.clip(out, 0, 255, out=out).astype(np.uint8)


def coarse_dropout(image, holes_x1y1x2y2):
    out = image.copy()
    for x1, y1, x2, y2 in holes_x1y1x2y2:
        out[y1:y2, x1:x2] = 0
    return out


def additive_gaussian_noise(image, noise):
    """noise: float32 (h, w), the same for all channels."""
    rounded = np.rint(noise).astype(np.int16)
    return cv2.add(image, cv2.merge([rounded] * 4), dtype=cv2.CV_8U)


def horizontal_flip(image):
    return cv2.flip(image, 1)


def rotate90(image, factor):
    codes = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
    return cv2.rotate(image, codes[factor - 1]) if factor else image


def warp(image, matrix):
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR, **BILINEAR)


def remap(image, map_x, map_y):
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, **BILINEAR)


def distorted_axis(length, factors):
    """Source coordinates of one axis: six segments, the last one cut at the end of the image."""
    coordinates = np.zeros(length, np.float32)
    step, previous = length // 5, 0
    for i, factor in enumerate(factors):
        start, end, current = i * step, (i + 1) * step, previous + step * factor
        if end > length:
            end, current = length, length
        coordinates[start:end] = np.linspace(previous, current, end - start)
        previous = current
    return coordinates


def grid_distortion(image, stepsx, stepsy):
    height, width = image.shape[:2]
    return remap(image, *np.meshgrid(distorted_axis(width, stepsx), distorted_axis(height, stepsy)))


def shift_scale_rotate(image, angle, scale, dx, dy):
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    matrix[:, 2] += dx * width, dy * height
    return warp(image, matrix)


def elastic_transform(image, jitter, dx, dy):
    """jitter: (3, 2) moves of the three points in pixels; dx, dy: float32 (h, w)."""
    height, width = image.shape[:2]
    x, y, q = height // 2, width // 2, min(height, width) // 3
    points = np.array([[x + q, y + q], [x + q, y - q], [x - q, y - q]], np.float32)
    warped = warp(image, cv2.getAffineTransform(points, points + np.asarray(jitter, np.float32)))
    map_x, map_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return remap(warped, map_x + dx, map_y + dy)


def optical_distortion(image, k):
    height, width = image.shape[:2]
    camera = np.array([[width, 0, width / 2], [0, height, height / 2], [0, 0, 1]], np.float32)
    distortion = np.array([k, k, 0, 0, 0], np.float32)
    return remap(image, *cv2.initUndistortRectifyMap(camera, distortion, None, None, (width, height), cv2.CV_32FC1))


def shear(image, shear_deg):
    """imgaug's shear with scikit-image 0.18's matrix: one angle for both axes."""
    sin, cos = np.sin(np.deg2rad(shear_deg)), np.cos(np.deg2rad(shear_deg))
    linear = np.array([[cos - sin * sin, -sin], [sin * cos, cos]])
    center = (np.array(image.shape[1::-1]) - 1) / 2
    matrix = np.column_stack([linear, center - linear @ center])
    if np.abs(matrix - np.eye(2, 3)).sum() / 9 <= 1e-4:
        return image
    return warp(image, matrix)


def gaussian_blur(image, ksize):
    return cv2.GaussianBlur(image, (ksize, ksize), 0)


def motion_kernel(ksize, start_xy, end_xy):
    return cv2.line(np.zeros((ksize, ksize), np.uint8), tuple(start_xy), tuple(end_xy), 1)


def motion_blur(image, ksize, start_xy, end_xy):
    kernel = motion_kernel(ksize, start_xy, end_xy).astype(np.float32)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def median_blur(image, ksize):
    return cv2.medianBlur(image, ksize)


def gamma_table(gamma):
    return (255 * (np.arange(256) * (1 / 255)) ** gamma).astype(np.uint8)


def random_gamma(image, gamma):
    return cv2.LUT(image, gamma_table(gamma))


def contrast_table(alpha, beta):
    table = np.arange(256, dtype=np.float32) * np.float32(alpha) + np.float32(beta * 255)
    return np.clip(table, 0, 255).astype(np.uint8)


def brightness_contrast(image, alpha, beta):
    return cv2.LUT(image, contrast_table(alpha, beta))


# Fields of one value a pixel, drawn when an operation is applied.


def normal_field(rng, shape, sigma, noise):
    if noise == "numpy":
        field = rng.standard_normal(shape, dtype=np.float32)
        return np.multiply(field, np.float32(sigma), out=field)
    return cv2.randn(np.empty(shape, np.float32), 0, sigma)


def smooth(field):
    """A Gaussian of sigma 50 cut at 4 sigma, as scipy's gaussian_filter in a quarter of its time."""
    return cv2.GaussianBlur(field, (401, 401), 50, borderType=cv2.BORDER_REFLECT)


def displacement(rng, shape):
    return smooth(2 * rng.random(shape, dtype=np.float32) - 1)


def gauss_noise_fields(rng, shape, noise, var):
    return {"noise": normal_field(rng, shape, var**0.5, noise)}


def additive_noise_fields(rng, shape, noise, scale):
    return {"noise": normal_field(rng, shape[:2], scale, noise)}


def elastic_fields(rng, shape, noise, jitter):
    return {"jitter": jitter, "dx": displacement(rng, shape[:2]), "dy": displacement(rng, shape[:2])}


FIELDS = {
    "GaussNoise": gauss_noise_fields,
    "IAAAdditiveGaussianNoise": additive_noise_fields,
    "ElasticTransform": elastic_fields,
}


# Draws: the parameters of every operation for images of size x size (after the crop).


def draw_holes(rng, size):
    corners = rng.integers(0, size - 32, (8, 2), endpoint=True).tolist()
    return {"holes_x1y1x2y2": [(x, y, x + 32, y + 32) for x, y in corners]}


def draw_shift_scale_rotate(rng, size):
    dx, dy = rng.uniform(-0.05, 0.05, 2)
    return {"angle": rng.uniform(-30, 30), "scale": rng.uniform(0.9, 1.1), "dx": dx, "dy": dy}


def draw_line(rng, size):
    ksize = int(rng.choice((3, 5)))
    xs, ys, xe, ye = rng.integers(0, ksize, 4).tolist()
    if xs == xe:
        ye = (ys + int(rng.integers(1, ksize))) % ksize
    return {"ksize": ksize, "start_xy": (xs, ys), "end_xy": (xe, ye)}


OPERATIONS = {
    "RandomCrop": (
        random_crop,
        lambda rng, size: {"height": size, "width": size, "h_start": rng.random(), "w_start": rng.random()},
    ),
    "GaussNoise": (gauss_noise, lambda rng, size: {"var": rng.uniform(5, 30)}),
    "CoarseDropout": (coarse_dropout, draw_holes),
    "IAAAdditiveGaussianNoise": (additive_gaussian_noise, lambda rng, size: {"scale": rng.uniform(5.1, 12.75)}),
    "HorizontalFlip": (horizontal_flip, lambda rng, size: {}),
    "RandomRotate90": (rotate90, lambda rng, size: {"factor": int(rng.integers(4))}),
    "GridDistortion": (
        grid_distortion,
        lambda rng, size: {"stepsx": rng.uniform(0.7, 1.3, 6), "stepsy": rng.uniform(0.7, 1.3, 6)},
    ),
    "ShiftScaleRotate": (shift_scale_rotate, draw_shift_scale_rotate),
    "ElasticTransform": (elastic_transform, lambda rng, size: {"jitter": rng.uniform(-50, 50, (3, 2))}),
    "OpticalDistortion": (optical_distortion, lambda rng, size: {"k": rng.uniform(-0.05, 0.05)}),
    "IAAAffine": (shear, lambda rng, size: {"shear_deg": rng.uniform(-5, 5)}),
    "GaussianBlur": (gaussian_blur, lambda rng, size: {"ksize": (3, 5, 5)[rng.integers(3)]}),
    "MotionBlur": (motion_blur, draw_line),
    "MedianBlur": (median_blur, lambda rng, size: {"ksize": (3, 5, 7)[rng.integers(3)]}),
    "RandomGamma": (random_gamma, lambda rng, size: {"gamma": int(rng.integers(80, 120, endpoint=True)) / 100}),
    "RandomBrightnessContrast": (
        brightness_contrast,
        lambda rng, size: {"alpha": 1 + rng.uniform(-0.2, 0.2), "beta": rng.uniform(-0.2, 0.2)},
    ),
}

# (probability of the stage, its operations and their odds), in order.
STAGES = (
    (1, {"RandomCrop": 1}),
    (0.5, {"GaussNoise": 1, "CoarseDropout": 1, "IAAAdditiveGaussianNoise": 1}),
    (0.5, {"HorizontalFlip": 1}),
    (1, {"RandomRotate90": 1}),
    (
        0.5,
        {
            "GridDistortion": 0.15,
            "ShiftScaleRotate": 0.75,
            "ElasticTransform": 0.15,
            "OpticalDistortion": 0.1,
            "IAAAffine": 0.5,
        },
    ),
    (0.5, {"GaussianBlur": 1, "MotionBlur": 1, "MedianBlur": 1}),
    (0.25, {"RandomGamma": 1, "RandomBrightnessContrast": 1}),
)
# Per stage: its probability, its operations, and where in [0, 1) each but the last of them ends.
CHOICES = [(p, list(odds), np.cumsum(list(odds.values()))[:-1] / sum(odds.values())) for p, odds in STAGES]


def sample(rng, size):
    """The operations of one image and their parameters, in order."""
    for probability, names, ends in CHOICES:
        if rng.random() < probability:
            name = names[np.searchsorted(ends, rng.random(), side="right")]
            yield name, OPERATIONS[name][1](rng, size)


def augment(image, rng, crop, noise):
    for name, parameters in sample(rng, crop):
        if name in FIELDS:
            parameters = FIELDS[name](rng, image.shape, noise, **parameters)
        image = OPERATIONS[name][0](image, **parameters)
    return image


NORMALISED = ((np.arange(256)[:, None] / 255 - MEAN) / STD).astype(np.float32)[None]


def normalise(image):
    """(x / 255 - mean) / std as float32: one table of 256 values a channel."""
    return cv2.LUT(image, NORMALISED)


def random_image(rng, size):
    """Smoothed noise over the whole range, uint8 (size, size, 4)."""
    field = cv2.GaussianBlur(rng.random((size, size, 4), dtype=np.float32), (0, 0), 4)
    return cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)


class Worker:
    """What one process holds: the options and its images."""

    def __init__(self, options):
        rng = np.random.default_rng(options.seed)
        self.options = options
        self.images = [random_image(rng, options.size) for _ in range(IMAGES_PER_PROCESS)]

    def augment_batch(self, indices):
        """The checksum of a batch. Image i has its own generator: it draws the same in whichever process."""
        checksum = 0.0
        for i in indices:
            rng = np.random.default_rng((self.options.seed, i))
            image = normalise(augment(self.images[i % len(self.images)], rng, self.options.crop, self.options.noise))
            checksum += float(image[::16, ::16].sum())
        return checksum


def start_worker(options, ready):
    global worker
    cv2.setNumThreads(1)
    worker = Worker(options)
    cv2.setRNGSeed(os.getpid())
    worker.augment_batch(range(options.images, options.images + IMAGES_PER_PROCESS))
    ready.wait()


def augment_batch(indices):
    return worker.augment_batch(indices)


def timed_pool(options):
    """Seconds of all processes and the checksum; the processes have started and warmed up before the clock runs."""
    ready = multiprocessing.Barrier(options.processes + 1)
    starts = range(0, options.images, options.batch)
    batches = [range(i, min(i + options.batch, options.images)) for i in starts]
    with multiprocessing.Pool(options.processes, start_worker, (options, ready)) as pool:
        ready.wait()
        start = time.perf_counter()
        checksum = sum(pool.map(augment_batch, batches, chunksize=1))
        return time.perf_counter() - start, checksum


def timed_alone(options):
    alone = Worker(options)
    alone.augment_batch(range(options.images, options.images + IMAGES_PER_PROCESS))
    start = time.perf_counter()
    alone.augment_batch(range(options.images))
    return time.perf_counter() - start


def benchmark(options):
    seconds, checksum = timed_pool(options)
    return {
        "images": options.images,
        "seconds": seconds,
        "images_per_second": options.images / seconds,
        "processes": options.processes,
        "one_process_images_per_second": options.images / timed_alone(options),
        "checksum": round(checksum, 3),
        "opencv": cv2.__version__,
    }


def main():
    parser = argparse.ArgumentParser()
    for name, default in (("size", 512), ("crop", 384), ("images", 72), ("batch", 36), ("processes", 2), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noise", choices=("numpy", "opencv"), default="numpy", help="opencv: cv2.randn, the faster")
    parser.add_argument("--check", metavar="GOLDENS_FOLDER")
    options = parser.parse_args()
    if options.check:
        from augmentation_check import check

        raise SystemExit(check(options.check))
    print(json.dumps(benchmark(options)))


if __name__ == "__main__":
    main()
