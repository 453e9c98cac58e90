"""State dicts of the Python original's model, made and checked by timm: models.py make|check FOLDER BACKBONE"""

import sys
from pathlib import Path

import timm
import torch

TIMM_NAMES = {"gluon_seresnext101_32x4d": "seresnext101_32x4d"}


class Cnn(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        name = TIMM_NAMES.get(backbone, backbone)
        self.mfeatures = timm.create_model(name, pretrained=False, in_chans=4, num_classes=0, global_pool="")
        self.mclassifier = torch.nn.Conv2d(self.mfeatures.num_features, 19, 1, bias=False)

    def forward(self, x):
        return self.mclassifier(self.mfeatures(x))


class Siamese(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.cnn1 = Cnn(backbone)

    def forward(self, x):
        maps = self.cnn1(x)
        return maps.mean((2, 3)), maps


def randomise(model):
    """Every tensor gets values that no initialisation gives, running statistics too."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.int64:
            tensor.fill_(7)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.5 / max(1, tensor[0].numel())) ** 0.5)


def images():
    return torch.linspace(-2, 2, 2 * 4 * 128 * 128).sin().mul(1.3).view(2, 4, 128, 128)


def make(folder, backbone):
    model = Siamese(backbone).eval()
    randomise(model)
    torch.save(model.state_dict(), folder / "zip.pt")
    torch.save(model.state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.DataParallel(model).state_dict(), folder / "parallel.pt")
    with torch.no_grad():
        logits, maps = model(images())
    for name, tensor in {"images": images(), "logits": logits, "maps": maps}.items():
        (folder / f"{name}.f32").write_bytes(tensor.contiguous().numpy().tobytes())


def check(folder, backbone):
    model = Siamese(backbone)
    model.load_state_dict(torch.load(folder / "back.pt", weights_only=True), strict=True)
    original = torch.load(folder / "zip.pt", weights_only=True)
    back = model.state_dict()
    assert list(back) == list(original), "other names or another order"
    for name, tensor in original.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    print("equal")


{"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
