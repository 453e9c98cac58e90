"""What a user would run instead: Puzzle-CAM on PyTorch and timm, one optimiser step or one batch of predictions at a time.

Prints one JSON line when ready, with figures that tell whether it computes the same as others; then, for every number of steps that
comes on standard input, takes that many and prints the seconds of each.

Usage: network.py (train|infer|curve) (eager|tuned|compiled) --device cpu --backbone NAME --batch B --size S --threads N [--precision fp32] [--trace FILE]
  eager     as the original ran it: float32 and NCHW on the CPU, float16 with loss scaling on CUDA
  tuned     NHWC where it is faster, bfloat16 on the CPU, fused Adam, cuDNN's search
  compiled  torch.compile of the tuned one, on CUDA in --compile-mode; for predictions with weights frozen in
--trace FILE: at the end of the input writes what one more step spends its time on, for chrome://tracing.
curve [--steps 200] [--seed 1] prints the loss of each step from the weights of that seed, on batches in turn.
"""
import argparse
import contextlib
import json
import sys
import time

import numpy
import timm
import torch

CLASSES = 19
BATCHES = 16  # of a curve
MEAN, STD = [0.485, 0.456, 0.406, 0.485], [0.229, 0.224, 0.225, 0.229]


def uniforms(key, seed, shape):
    """[0, 1) in float64, row-major: splitmix64, started from the key's FNV-1a hash."""
    state = 0xCBF29CE484222325
    for byte in key.encode():
        state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    step = 0x9E3779B97F4A7C15
    state ^= (seed * step) & 0xFFFFFFFFFFFFFFFF
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(state) + numpy.arange(1, int(numpy.prod(shape)) + 1, dtype=numpy.uint64) * numpy.uint64(step)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z ^= z >> numpy.uint64(31)
    return ((z >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53).reshape(shape)


def state_tensor(key, like, seed):
    if not like.is_floating_point():
        return torch.zeros_like(like)
    u = uniforms(key, seed, tuple(like.shape))
    if like.dim() >= 2:
        u = (2 * u - 1) * (3 / (like.numel() / like.shape[0])) ** 0.5
    elif key.endswith(".running_mean") or key.endswith(".bias"):
        u = 0.2 * (u - 0.5)
    else:
        u = 0.5 + u
    return torch.from_numpy(u.astype(numpy.float32))


def images_of(batch, size, seed=1):
    u = uniforms("input", seed, (batch, 4, size, size))
    gain = uniforms("input_gain", seed, (batch, 4, 8, 8))
    at = numpy.arange(size) * 8 // size
    mean, std = (numpy.array(v)[None, :, None, None] for v in (MEAN, STD))
    return torch.from_numpy((((u * gain[:, :, at][:, :, :, at]) - mean) / std).astype(numpy.float32))


def targets_of(batch, seed=1):
    return torch.from_numpy((uniforms("target", seed, (batch, CLASSES)) < 0.15).astype(numpy.float32))


class Cnn(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.mfeatures = timm.create_model(backbone, pretrained=False, in_chans=4, num_classes=0, global_pool="")
        self.mclassifier = torch.nn.Conv2d(self.mfeatures.num_features, CLASSES, 1, bias=False)

    def forward(self, x):
        return self.mclassifier(self.mfeatures(x))


class Puzzle(torch.nn.Module):
    def __init__(self, backbone, seed=1):
        super().__init__()
        self.cnn1 = Cnn(backbone)
        with torch.no_grad():
            for key, value in self.state_dict().items():
                value.copy_(state_tensor(key, value, seed))

    def maps(self, x):
        return self.cnn1(x).float()

    def forward(self, x):
        maps = self.maps(x)
        if not self.training:
            return maps.mean((2, 3)), maps
        h, w = x.shape[2] // 2, x.shape[3] // 2
        tiles = torch.cat([x[:, :, :h, :w], x[:, :, :h, w:], x[:, :, h:, :w], x[:, :, h:, w:]])
        a, b, c, d = self.maps(tiles).chunk(4)
        tiled = torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)
        return maps.mean((2, 3)), maps, tiled.mean((2, 3)), tiled


def combo_loss(output, targets):
    logits, maps, tiled_logits, tiled_maps = output
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    return bce(logits, targets) + bce(tiled_logits, targets) + 0.5 * (maps - tiled_maps).abs().mean()


def timm_name(name):
    return {"gluon_seresnext101_32x4d": "seresnext101_32x4d.gluon_in1k"}.get(name, name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "infer", "curve"])
    parser.add_argument("mode", choices=["eager", "tuned", "compiled"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="seresnext50_32x4d")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--nchw", action="store_true")
    parser.add_argument("--compile-mode", default="max-autotune")
    parser.add_argument("--trace")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    o = parser.parse_args()
    begin = time.perf_counter()
    if o.threads:
        torch.set_num_threads(o.threads)
    device = torch.device(o.device)
    cuda = device.type == "cuda"
    precision = o.precision or ("fp16" if cuda else "fp32" if o.mode == "eager" else "bf16")
    torch.backends.cudnn.benchmark = o.mode != "eager"
    model = Puzzle(timm_name(o.backbone), o.seed).to(device)
    images, targets = images_of(o.batch, o.size).to(device), targets_of(o.batch).to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 4, 1, 1) for v in (MEAN, STD))
    pixels = (images * std + mean).mul(255).add(0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous()  # as they are read
    layout = torch.contiguous_format
    if o.mode != "eager" and not o.nchw:
        layout = torch.channels_last
        model = model.to(memory_format=layout)
    images = images.contiguous(memory_format=layout)

    def autocast():
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)

    def wait():
        if cuda:
            torch.cuda.synchronize()

    forward = model
    if o.mode == "compiled":
        if o.what == "infer":
            import torch._inductor.config as inductor

            inductor.freezing = True
        forward = torch.compile(model, mode=o.compile_mode if cuda else None)

    if o.what != "infer":
        model.train()
        adam = torch.optim.Adam(model.parameters(), 3e-4, fused=True if o.mode != "eager" else None)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

        def step(images=images, targets=targets):
            adam.zero_grad()
            with autocast():
                output = forward(images)
            loss = combo_loss(output, targets)
            scaler.scale(loss).backward()
            scaler.step(adam)
            scaler.update()
            return loss.detach()

        if o.what == "curve":
            batches = [
                (images_of(o.batch, o.size, k).to(device).contiguous(memory_format=layout), targets_of(o.batch, k).to(device))
                for k in range(1, BATCHES + 1)
            ]
            print(json.dumps({"losses": [step(*batches[i % BATCHES]).item() for i in range(o.steps)]}))
            return
        check = [step().item() for _ in range(3)]
    else:
        model.eval()

        def step():
            x = pixels.to(device).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std).contiguous(memory_format=layout)
            with torch.no_grad(), autocast():
                logits, maps = forward(x)
            return logits.cpu(), maps.cpu()

        for _ in range(2):
            logits, maps = step()
        check = logits.double().flatten()[:19].tolist() + [maps.double().norm().item()]
    wait()
    print(json.dumps({"ready": True, "precision": precision, "torch": torch.__version__, "start_s": time.perf_counter() - begin, "check": check}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            wait()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)
    if o.trace:
        with torch.profiler.profile() as profile:
            step()
            wait()
        profile.export_chrome_trace(o.trace)


if __name__ == "__main__":
    main()
