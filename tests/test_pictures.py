"""Pictures as they come: every encoder gets upright RGB in its range; training leaves out broken
ones and names them."""

import io
import os
import random
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from convrnn_utils import data, files, processes
from convrnn_utils.__main__ import main
from convrnn_utils.data import read_image, readable
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.encoders import IMAGENET_DEVIATION, IMAGENET_MEAN, create_encoder
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import train
from convrnn_utils.widgets import read_upload

EXIF_ORIENTATION = 0x0112


@pytest.fixture
def corners():
    """60 × 40 pixels: the top left quarter white, the bottom right black, else grey."""
    pixels = numpy.full((40, 60), 128, numpy.uint8)
    pixels[:20, :30], pixels[20:, 30:] = 255, 0
    return Image.fromarray(pixels).convert("RGB")


def saved(folder, image, name="picture.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def exif(orientation):
    tags = Image.Exif()
    tags[EXIF_ORIENTATION] = orientation
    return tags


def transparent(corners):
    """The white corner is transparent, over red that must not be seen."""
    image = corners.convert("RGBA")
    hole = Image.new("RGBA", (30, 20), (255, 0, 0, 0))
    image.paste(hole, (0, 0))
    return image


def palette(corners):
    image = corners.quantize(4)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def sixteen(corners):
    grey = numpy.asarray(corners.convert("L")).astype(numpy.uint16)
    return Image.fromarray(grey * 257)


VARIANTS = {
    "plain": lambda folder, image: saved(folder, image),
    "JPEG": lambda folder, image: saved(folder, image, "a.jpg", quality=98),
    "CMYK": lambda folder, image: saved(folder, image.convert("CMYK"), "a.jpg", quality=98),
    "one channel": lambda folder, image: saved(folder, image.convert("L")),
    "grey with alpha": lambda folder, image: saved(folder, image.convert("LA")),
    "one bit": lambda folder, image: saved(folder, image.convert("1")),
    "transparent": lambda folder, image: saved(folder, transparent(image)),
    "palette": lambda folder, image: saved(folder, image.quantize(4)),
    "palette with transparency": lambda folder, image: saved(folder, palette(image)),
    "16 bits": lambda folder, image: saved(folder, sixteen(image)),
    "16 bits, TIFF": lambda folder, image: saved(folder, sixteen(image), "a.tif"),
    "animated": lambda folder, image: saved(
        folder,
        image.quantize(4),
        "a.gif",
        save_all=True,
        append_images=[Image.new("RGB", image.size, "red")] * 3,
    ),
    "animated WebP": lambda folder, image: saved(
        folder,
        image,
        "a.webp",
        save_all=True,
        lossless=True,
        append_images=[Image.new("RGB", image.size, "red")],
    ),
    "upside down": lambda folder, image: saved(
        folder, image.transpose(Image.Transpose.ROTATE_180), "a.jpg", exif=exif(3), quality=98
    ),
    "on its side": lambda folder, image: saved(
        folder, image.transpose(Image.Transpose.ROTATE_90), "a.jpg", exif=exif(6), quality=98
    ),
    "on the other side": lambda folder, image: saved(
        folder, image.transpose(Image.Transpose.ROTATE_270), "a.png", exif=exif(8)
    ),
    "mirrored": lambda folder, image: saved(
        folder, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "a.png", exif=exif(2)
    ),
}
# name: mean and deviation on the scale 0 to 255 that the network was trained with
ENCODERS = {
    "small_cnn": (IMAGENET_MEAN, IMAGENET_DEVIATION),
    "efficientnet_lite0": ((127,) * 3, (128,) * 3),
    "efficientnet_lite2": ((127,) * 3, (128,) * 3),
    "resnet18": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request):
    """An encoder whose network hands out what it is given."""
    encoder = create_encoder(request.param, weights=None)
    encoder.network = torch.nn.Identity()
    return encoder


@pytest.mark.parametrize("write", VARIANTS.values(), ids=VARIANTS)
def test_the_network_is_given_upright_rgb_in_its_range(encoder, corners, tmp_path, write, fault):
    fault("pictures")
    mean, deviation = (torch.tensor(numbers) for numbers in ENCODERS[encoder.name])
    picture = encoder.preprocess(read_image(write(tmp_path, corners)))
    given = encoder(picture.unsqueeze(0))[0].reshape(encoder.size, encoder.size, 3)
    white, black = (255 - mean) / deviation, (0 - mean) / deviation
    assert (given >= black - 1e-4).all() and (given <= white + 1e-4).all()
    tenth, end = encoder.size // 10, encoder.size - encoder.size // 10
    near = 0.03 * (white - black).max()
    assert torch.allclose(given[tenth, tenth], white, atol=near)
    assert torch.allclose(given[end, end], black, atol=near)
    if write is not VARIANTS["one bit"]:
        grey = (128 - mean) / deviation
        assert torch.allclose(given[tenth, end], grey, atol=near)
        assert torch.allclose(given[end, tenth], grey, atol=near)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_so_it_is_where_a_reader_opened_the_file_alone(encoder, corners, mode, fault):
    fault("pictures")
    image = sixteen(corners) if mode == "I;16" else corners.convert(mode)
    picture = encoder.preprocess(image)
    assert picture.shape == (3, encoder.size, encoder.size)
    assert picture[:, 5, 5].tolist() == [255] * 3 and picture[:, -5, -5].tolist() == [0] * 3


def test_one_pixel_is_a_picture(encoder, tmp_path, fault):
    fault("pictures")
    path = saved(tmp_path, Image.new("RGB", (1, 1), (10, 20, 30)))
    picture = encoder.preprocess(read_image(path))
    assert (picture == torch.tensor([10, 20, 30]).view(3, 1, 1)).all()


def png_header(width, height):
    """A PNG that promises so many pixels, and has none."""
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("content", [png_header(30_000, 30_000), b"P6 30000 30000 255\n"])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, content, fault):
    fault("pictures")
    (tmp_path / "bomb.png").write_bytes(content)

    def decoded(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(files, "upright_rgb", decoded)
    with pytest.raises(ValueError, match=r"bomb\.png cannot .* \(900000000 pixels\) exceeds limit"):
        read_image(tmp_path / "bomb.png")


def test_formats_that_need_another_program_are_refused(tmp_path, fault):
    """EPS would be handed to Ghostscript, which is a language that can do anything."""
    fault("pictures")
    saved(tmp_path, Image.new("RGB", (8, 8)), "a.eps")
    with pytest.raises(ValueError, match=r"a\.eps cannot be read as a picture"):
        read_image(tmp_path / "a.eps")


@pytest.mark.parametrize("values", [numpy.float32(0.5), numpy.int32(70_000), numpy.int32(-1)])
def test_values_of_an_unknown_range_are_refused(tmp_path, values, fault):
    fault("pictures")
    saved(tmp_path, Image.fromarray(numpy.full((4, 4), values)), "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot .*save it with 8 bits per colour\.$"):
        read_image(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged EXIF data
def test_random_damage_is_refused_in_words(tmp_path, corners, fault, many):
    """Whatever the bytes: an RGB image, or one sentence that names the file."""
    generator = random.Random(1)
    noise = Image.fromarray(numpy.random.RandomState(0).randint(0, 256, (40, 60, 3), numpy.uint8))
    kinds = ["jpg", "png", "webp", "gif", "bmp", "tif", "ppm"]
    sound = [saved(tmp_path, noise, f"a.{kind}").read_bytes() for kind in kinds]
    sound.append(saved(tmp_path, corners, "exif.jpg", exif=exif(6)).read_bytes())
    path = tmp_path / "damaged"
    refused, tries = 0, many(400, 10_000)
    for number in range(tries):
        fault("pictures")
        damaged = bytearray(sound[number % len(sound)])
        for _ in range(generator.randrange(1, 6)):
            place = int(len(damaged) * generator.random() ** 3)  # mostly in the header
            if generator.random() < 0.8:
                damaged[place] = generator.randrange(256)
            else:
                del damaged[place + 1 : place + generator.randrange(1, 500)]
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except ValueError as error:
            refused += 1
            assert f"{path} cannot be read as a picture: " in str(error)
        else:
            assert image.mode == "RGB" and image.width * image.height < 2e8
    assert refused > tries / 10


# ---------------------------------------------------------------- training without the broken ones

BREAKAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "zero bytes": lambda content: b"",
    "a web page": lambda content: b"<html><body>404</body></html>",
    "zeros": lambda content: bytes(len(content)),
    "only a header": lambda content: content[:200],
    "a bomb": lambda content: png_header(30_000, 30_000),
    "missing": None,
}


def photographs():
    """Real photographs: Flickr8k, where it lies beside the course's other data, or the course's."""
    home = Path(os.environ.get("CONVRNN_FLICKR8K_PICTURES", "/nowhere"))
    found = sorted(home.glob("*.jpg"))
    return found or sorted((data.photos() / "images").glob("*.jpg"))


@pytest.fixture
def album(data_home, many, monkeypatch):
    """Real photographs, each under several names, of which one in a hundred (or 7) is broken."""
    count = many(100, 10_000)
    sources = photographs()
    folder = data_home / "album"
    (folder / "images").mkdir(parents=True)
    generator = random.Random(0)
    broken = set(generator.sample(range(count), max(len(BREAKAGES), count // 100)))
    records = []
    for number in range(count):
        source, path = sources[number % len(sources)], folder / "images" / f"{number:05d}.jpg"
        if number in broken:
            breakage = list(BREAKAGES.values())[sorted(broken).index(number) % len(BREAKAGES)]
            if breakage:
                path.write_bytes(breakage(source.read_bytes()))
        else:
            try:
                os.link(source, path)
            except OSError:  # another disk
                shutil.copy(source, path)
        captions = [f"a photograph of kind {number % 24}", "a picture"]
        records.append({"id": number, "file_name": path.name, "captions": captions})
    files.write_captions(folder, "train", records)
    return folder, broken


@pytest.mark.filterwarnings("ignore:no picture")
def test_training_names_the_broken_pictures_and_goes_on_without_them(
    album, tiny_encoder, tmp_path, fault
):
    folder, broken = album
    fault("pictures", len(broken))
    whole = data.load_split(folder, "train")
    with pytest.warns(UserWarning) as warned:
        split = readable(whole)
    message = str(warned[0].message)
    assert f"{len(broken)} of the {len(whole):,} pictures of album/train are left out" in message
    names = {f"{number:05d}.jpg" for number in broken}
    lines = message.split("\n")[1:]
    assert len(lines) == len(names) and all(any(name in line for line in lines) for name in names)
    assert len(split) == len(whole) - len(broken)
    assert not names & {path.name for path in split.paths}
    captions = dict(zip(whole.ids, whole.captions, strict=True))
    assert all(captions[i] == own for i, own in zip(split.ids, split.captions, strict=True))

    features = data.cached_features(split, tiny_encoder, pooled=True)
    vocabulary = Vocabulary.from_captions([c for own in split.captions for c in own], 1)
    dataset = data.CaptionDataset(split, features, vocabulary)
    model = ConvRNN(8, 8, len(vocabulary), cnn=tiny_encoder)
    history = train(model, dataset, dataset, tmp_path / "run", epochs=1, batch_size=64)
    assert numpy.isfinite(history[0]["training_loss"])

    with pytest.warns(UserWarning, match="left out"):  # found out once, and told each time
        assert len(readable(data.load_split(folder, "train"))) == len(split)
    with pytest.raises((ValueError, OSError), match=r"cannot be read as a picture|no picture"):
        data.cached_features(whole, tiny_encoder)


def test_a_split_without_a_broken_picture_is_as_it_was(small_split):
    assert readable(small_split) is small_split
    assert readable(small_split) is small_split
    small_split.paths[2].write_bytes(b"broken since")
    with pytest.warns(UserWarning, match=r"1 of the 7 pictures.*\n.*2\.png cannot be read"):
        assert len(readable(small_split)) == 6
    for path in small_split.paths:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no picture of noise/train can be read: .*0\.png"):
        readable(small_split)


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
def test_captioning_a_broken_picture_says_what_is_wrong(tmp_path, capsys, breakage, fault):
    fault("pictures")
    path = tmp_path / "mine.jpg"
    if breakage:
        path.write_bytes(breakage(photographs()[0].read_bytes()))
    with pytest.raises(SystemExit):
        main(["caption", str(path)])
    said = capsys.readouterr().err
    assert f"{path} cannot be read as a picture" in said or f"no picture {path}" in said
    if breakage:
        with pytest.raises(ValueError, match=r"mine\.jpg cannot .* choose a JPEG, PNG"):
            read_upload({"name": "mine.jpg", "content": path.read_bytes()})


def test_a_picture_that_could_not_be_read_once_is_tried_again(small_split, monkeypatch):
    opened = Image.open

    def too_many_files(path, *arguments, **options):
        if path == small_split.paths[1]:
            raise OSError(24, "Too many open files")
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", too_many_files)
        with pytest.warns(UserWarning, match="1 of the 7 pictures"):
            assert len(readable(small_split)) == 6
    assert readable(small_split) is small_split


def test_all_processes_leave_out_the_same_pictures(small_split, monkeypatch):
    small_split.paths[1].write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 of the 7 pictures"):
        readable(small_split)
    monkeypatch.setattr(data, "_complaint", lambda path: None)  # it can be read a moment later
    with monkeypatch.context() as patched, pytest.warns(UserWarning, match="1 of the 7 pictures"):
        patched.setattr(processes, "rank", lambda: 1)
        assert len(readable(small_split)) == 6
    assert readable(small_split) is small_split
    with monkeypatch.context() as patched:
        patched.setattr(processes, "rank", lambda: 1)
        assert readable(small_split) is small_split
