"""Training steps and predictions beside PyTorch and timm on a machine without Node, say one with a GPU: builds the C++ core against the
PyTorch that is installed, and prints a table. `test` runs the native tests first, of which some need a GPU; `curve` compares loss curves
as bench/curve.mjs does.

Usage: python3 bench/without_node.py [test] [train] [infer] [curve] [--device cuda] [--backbone NAME] [--batch B] [--crop 384] [--size 512]
       [--steps 10] [--rounds 5] [--threads N] [--build FOLDER] [--modes eager,tuned,compiled] [--compile-mode max-autotune] [--seeds 1,2] [--trace FOLDER]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
NETWORK = ROOT / "bench" / "peers" / "network.py"
PASS = 16  # steps over all batches of a curve: single losses jump from batch to batch
ALLOWED = 0.05  # of the first loss, or of the norm of the maps: another arithmetic, not another computation


class Stepper:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self.next()
        self.check = self.ready["check"]

    def next(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"{self.name} ended without an answer")

    def seconds(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return statistics.median(self.next()["seconds"])


def build(folder, target):
    options = ["-DCELLCAM_BENCH=ON", "-DCELLCAM_TESTS=ON", f"-DCELLCAM_LIBTORCH={Path(torch.__file__).parent}"]
    jobs = str(min(16, os.cpu_count() or 2))
    for command in (["cmake", "-S", ROOT, "-B", folder, *options], ["cmake", "--build", folder, "--target", target, "-j", jobs]):
        subprocess.run(command, check=True, stdout=sys.stderr)
    return Path(folder) / target


def peer_precision(own):
    """That of tuned peers: of products of integers they have none."""
    return "fp32" if own == "int16" else own


def measure(what, bench, o):
    size = o.crop if what == "train" else o.size
    common = ["--device", o.device, "--backbone", o.backbone, "--batch", str(o.batch), "--size", str(size), "--threads", str(o.threads)]
    trace = ["--trace", Path(o.trace) / f"{what}.json"] if o.trace else []
    steppers = [Stepper("cellcam", [bench, what, *common, *trace])]
    for mode in o.modes.split(","):
        precision = [] if mode == "eager" else ["--precision", peer_precision(steppers[0].ready["precision"])]
        compiled = ["--compile-mode", o.compile_mode] if mode == "compiled" else []
        peer = Stepper(mode, [sys.executable, NETWORK, what, mode, *common, *precision, *compiled])
        index = 0 if what == "train" else -1
        ours, theirs = steppers[0].check[index], peer.check[index]
        if abs(ours - theirs) > ALLOWED * abs(theirs):
            sys.exit(f"void: cellcam and {mode} do not compute the same: {steppers[0].check} and {peer.check}")
        steppers.append(peer)
    for stepper in steppers:
        stepper.seconds(3)
    seconds = {stepper.name: [] for stepper in steppers}
    for turn in range(o.rounds):
        for stepper in steppers[turn % len(steppers) :] + steppers[: turn % len(steppers)]:
            seconds[stepper.name].append(stepper.seconds(o.steps))
    for name, times in seconds.items():
        each = [theirs / ours for ours, theirs in zip(seconds["cellcam"], times)]
        ratio = "" if name == "cellcam" else f"{statistics.median(each):6.2f} times as fast ({min(each):.2f} to {max(each):.2f})"
        step = statistics.median(times)
        print(f"{what:6} {o.backbone} {o.batch} x {size}  {name:9} {1e3 * step:8.1f} ms {o.batch / step:9.1f} images/s {ratio}", flush=True)
    for stepper in steppers:
        stepper.process.stdin.close()


def curve(bench, o):
    common = ["--device", o.device, "--backbone", o.backbone, "--batch", "4", "--size", "128", "--threads", str(o.threads), "--steps", "200"]

    def run(command, seed):
        lines = subprocess.run([*command, *common, "--seed", seed], check=True, stdout=subprocess.PIPE, text=True).stdout.strip().split("\n")
        printed = json.loads(lines[-1])
        values = printed["losses"]
        return seed, [sum(values[i : i + PASS]) / PASS for i in range(len(values) - PASS + 1)], printed.get("precision")

    def distance(a, b):
        return sum(abs(x - y) for x, y in zip(a[1], b[1])) / len(a[1])

    seeds = o.seeds.split(",")
    own = [run([bench, "curve"], seed) for seed in seeds]
    ways = {"eager": [], "tuned": ["--precision", peer_precision(own[0][2])]}
    peers = [run([sys.executable, NETWORK, "curve", way, *options], seed) for seed in seeds for way, options in ways.items()]
    apart = statistics.mean(distance(a, b) for a in own for b in peers if a[0] == b[0])
    spread = statistics.mean(distance(a, b) for i, a in enumerate(peers) for b in peers[:i] if a[0] != b[0])
    print(f"curve  {o.backbone}  mean distance to PyTorch's {apart:.4f}, of its seeds {o.seeds} {spread:.4f}", flush=True)
    if not apart <= spread:
        raise RuntimeError("the curve lies further from PyTorch's than its seeds do")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["train", "infer"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", default="seresnext50_32x4d")
    parser.add_argument("--batch", type=int, default=36)
    parser.add_argument("--crop", type=int, default=384)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--build", default=str(ROOT / "build-bench"))
    parser.add_argument("--modes", default="eager,tuned,compiled")
    parser.add_argument("--compile-mode", default="max-autotune")
    parser.add_argument("--seeds", default="1,2", help="of curve")
    parser.add_argument("--trace", help="an existing folder, for what ours spends its time on")
    o = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name() if o.device != 'cpu' else 'CPU'}", flush=True)
    if "test" in o.what:
        subprocess.run([build(o.build, "cellcam_tests")], check=True)
    bench = build(o.build, "cellcam_bench")
    for what in o.what:
        if what == "curve":
            curve(bench, o)
        elif what != "test":
            measure(what, bench, o)


if __name__ == "__main__":
    main()
