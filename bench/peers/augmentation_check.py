"""Holds the operations and draws of augmentation.py to reference cases: `augmentation.py --check GOLDENS_FOLDER`.

Prints what differs to standard error and one JSON line to standard output; the exit status is 1 if anything differs.
"""
import inspect
import json
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path

import augmentation as peer
import cv2
import numpy as np
from safetensors.numpy import load_file

DRAWS = 40000
CROP = 384


def run(image, op, parameters):
    operation = peer.OPERATIONS[op][0]
    wanted = inspect.signature(operation).parameters
    return operation(image, **{name: value for name, value in parameters.items() if name in wanted})


def run_case(case, tensors):
    image = tensors[case["input"]]
    if case["op"] == "chain":
        for step in case["params"]["steps"]:
            image = run(image, step["op"], step["params"])
        return image
    fields = {name: tensors[key] for name, key in case.get("tensors", {}).items()}
    return run(image, case["op"], {**case["params"], **fields})


def distance(a, b):
    difference = np.abs(a.astype(int) - b.astype(int))
    return {"mean": float(difference.mean()), "p99": float(np.percentile(difference, 99)), "max": int(difference.max())}


def within(actual, **limits):
    return all(actual[name] <= limit for name, limit in limits.items())


def case_problem(case, tensors):
    """None where the case holds. OpenCV 4 interpolates in fixed point as `out` does, OpenCV 5 in floating point."""
    actual, out = run_case(case, tensors), tensors[case["out"]]
    fixed = distance(actual, out)
    if case["compare"] == "exact":
        return f"not equal: {fixed}" if fixed["max"] else None
    if cv2.__version__.startswith("4.") and within(fixed, mean=0.001, max=8):
        return None
    exact = distance(actual, tensors[case["out_float"]])
    if within(exact, max=1, mean=0.01) and within(fixed, mean=0.3, p99=2, max=8):
        return None
    return f"against out_float {exact}, against out {fixed}"


def check_cases(folder):
    tensors = load_file(folder / "cases.safetensors")
    for case in json.loads((folder / "cases.json").read_text())["cases"]:
        yield case["name"], case_problem(case, tensors)
    for axis in "xy":
        field = peer.smooth(2 * tensors[f"elastic_1.u_{axis}"] - 1)
        error = float(np.abs(field - tensors[f"elastic_1.d{axis}"]).max())
        yield f"elastic_1.d{axis}", None if error < 1e-5 else f"off by {error} pixels"


def check_tables(folder):
    tables = load_file(folder / "luts.safetensors")
    gamma = [peer.gamma_table(percent / 100) for percent in tables["gamma_percent"].tolist()]
    yield "gamma tables", None if np.array_equal(gamma, tables["gamma"]) else "differ"
    pairs = tables["brightness_contrast_alpha_beta"].tolist()
    contrast = [peer.contrast_table(alpha, beta) for alpha, beta in pairs]
    yield "contrast tables", None if np.array_equal(contrast, tables["brightness_contrast"]) else "differ"
    for size, masks in json.loads((folder / "motion_kernels.json").read_text()).items():
        wrong = [line for line, mask in masks.items() if kernel_mask(int(size), line) != mask]
        yield f"motion kernels {size}", f"differ: {wrong}" if wrong else None


def kernel_mask(size, line):
    xs, ys, xe, ye = map(int, line)
    return sum(1 << n for n, cell in enumerate(peer.motion_kernel(size, (xs, ys), (xe, ye)).ravel().tolist()) if cell)


def values_of(name, p):
    """The drawn values of one operation, under the names of sampling.json."""
    if name == "RandomCrop":
        y, x = int(128 * p["h_start"]), int(128 * p["w_start"])
        return {"crop.h_start": [p["h_start"]], "crop.y1_512_to_384": [y], "crop.x1_512_to_384": [x]}
    if name == "CoarseDropout":
        holes = p["holes_x1y1x2y2"]
        return {f"coarse_dropout.{axis}1_384": [hole[i] for hole in holes] for i, axis in enumerate("xy")}
    if name == "GridDistortion":
        return {"grid.step": [*p["stepsx"], *p["stepsy"]]}
    if name == "MotionBlur":
        length = int(peer.motion_kernel(**p).sum())
        return {"motion_blur.ksize": [p["ksize"]], f"motion_blur.length_k{p['ksize']}": [length]}
    if name == "RandomGamma":
        return {"gamma.percent": [round(100 * p["gamma"])]}
    prefix = {
        "GaussNoise": "gauss_noise",
        "IAAAdditiveGaussianNoise": "iaa_noise",
        "RandomRotate90": "rot90",
        "ShiftScaleRotate": "ssr",
        "OpticalDistortion": "optical",
        "IAAAffine": "iaa_affine",
        "GaussianBlur": "gaussian_blur",
        "MedianBlur": "median_blur",
        "RandomBrightnessContrast": "brightness_contrast",
    }.get(name)
    return {f"{prefix}.{key}": [value] for key, value in p.items()} if prefix else {}


def draw_all():
    rng = np.random.default_rng(1)
    counts, optional, values = Counter(), Counter(), defaultdict(list)
    stage_of = {name: i for i, (_, odds) in enumerate(peer.STAGES) for name in odds}
    for _ in range(DRAWS):
        operations = list(peer.sample(rng, CROP))
        counts.update(name for name, _ in operations)
        optional[str(sum(stage_of[name] not in (0, 3) for name, _ in operations))] += 1
        for name, parameters in operations:
            for key, drawn in values_of(name, parameters).items():
                values[key].extend(drawn)
    return counts, optional, values


def count_problem(count, p):
    limit = 5 * math.sqrt(p * (1 - p) / DRAWS)
    return None if abs(count / DRAWS - p) <= limit else f"drawn at {count / DRAWS}, not {p}"


def value_problem(drawn, facts):
    drawn = np.array(drawn, float)
    if abs(drawn.mean() - facts["mean"]) > 5 * math.sqrt(facts["variance"] / len(drawn)):
        return f"mean {drawn.mean()}, not {facts['mean']}"
    if len(drawn) >= 20000 and abs(drawn.var() / facts["variance"] - 1) > 0.05:
        return f"variance {drawn.var()}, not {facts['variance']}"
    if drawn.min() < facts["min"] or drawn.max() > facts["max"]:
        return f"{drawn.min()} to {drawn.max()}, not {facts['min']} to {facts['max']}"
    return None


def check_draws(facts):
    counts, optional, values = draw_all()
    for name, fact in facts["frequency"].items():
        yield f"frequency of {name}", count_problem(counts[name], fact["probability"])
    for number, fact in facts["number_of_optional_ops"].items():
        yield f"{number} optional operations", count_problem(optional[number], fact["probability"])
    for name, fact in facts["parameters"].items():
        if name != "elastic.seed":  # the fields are drawn themselves, not one of 10001 seeds of them
            yield name, value_problem(values[name], fact)


def noise_problem(facts, noise):
    shape = (512, 512, 4)
    name = facts["op"]
    rng, drawn = np.random.default_rng(2), {key: facts[key] for key in ("var", "scale") if key in facts}
    fields = peer.FIELDS[name](rng, shape, noise, **drawn)
    out = peer.OPERATIONS[name][0](np.full(shape, facts["input_value"], np.uint8), **fields)[..., 0].astype(float)
    if abs(out.mean() - facts["mean"]) > 5 * math.sqrt(facts["variance"] / out.size):
        return f"mean {out.mean()}, not {facts['mean']}"
    for value, p in ((0, facts["p_zero"]), (255, facts["p_255"])):
        if abs((out == value).mean() - p) > 5 * math.sqrt(p * (1 - p) / out.size):
            return f"{value} at {(out == value).mean()}, not {p}"
    return None


def check_noise(facts):
    for noise in ("numpy", "opencv"):
        for case in facts["pixel_noise"]:
            label = f"{case['op']} {case.get('var', case.get('scale'))} on {case['input_value']}, {noise}"
            yield label, noise_problem(case, noise)


def check(goldens):
    folder = Path(goldens)
    facts = json.loads((folder / "sampling.json").read_text())
    results = [*check_cases(folder), *check_tables(folder), *check_draws(facts), *check_noise(facts)]
    differing = [name for name, problem in results if problem]
    for name, problem in results:
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
    print(json.dumps({"checks": len(results), "differing": differing, "opencv": cv2.__version__}))
    return 1 if differing else 0
