import pytest
import torch
from PIL import Image

from convrnn_utils import cnn_figures


@pytest.fixture
def pictures():
    """A picture that is black on the left and white on the right, and a white one."""
    halves = Image.new("RGB", (12, 8))
    halves.paste((255, 255, 255), (6, 0, 12, 8))
    return {"halves": halves, "white": Image.new("RGB", (12, 8), (255, 255, 255))}


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_a_response_equals_one_worked_by_hand(pictures):
    edge = cnn_figures.KERNELS["edge: dark left, bright right"]
    response = cnn_figures.kernel_response(pictures["halves"], edge, bias=-1)
    assert response.shape == (6, 10)
    # the kernel's right column (1, 2, 1) lies on white where the edge is under it, else all cancels
    assert response[0].tolist() == [-1, -1, -1, -1, 3, 3, -1, -1, -1, -1]
    assert cnn_figures.kernel_response(pictures["halves"], edge, -1, relu=True).min() == 0


def test_kernels_do_what_their_names_say(pictures):
    white = pictures["white"]
    for name, kernel in cnn_figures.KERNELS.items():
        response = cnn_figures.kernel_response(white, kernel)
        keeps = name in ("leave as it is", "blur", "sharpen")
        assert torch.allclose(response, torch.full_like(response, float(keeps)), atol=1e-5), name


def test_the_sign_of_a_response_can_be_seen():
    pixels = cnn_figures.response_pixels(torch.tensor([[-1.0, 0, 1]]))
    (orange, white, purple) = pixels[0].astype(int)
    assert orange[0] > orange[2] and purple[2] > purple[1] and white.min() > 240
    grey = cnn_figures.response_pixels(torch.tensor([[0.0, 0.5, 1]]))[0]
    assert grey[:, 0].tolist() == [0, 127, 255] and (grey[:, 0] == grey[:, 2]).all()


def test_a_single_strong_place_does_not_make_the_others_pale():
    response = torch.full((20, 20), -1.0)
    response[0, 0] = 50
    assert (cnn_figures.response_pixels(response)[5, 5] == [127, 59, 8]).all()  # PuOr's first


def test_what_is_reached_is_framed():
    reach = torch.zeros(12, 12)
    reach[2:5, 6:11] = 1
    (axis,) = cnn_figures.show_reach({"a": reach, "b": reach}, [2, 2]).axes[:1]
    dashed, solid = (patch.get_bbox().bounds for patch in axis.patches)
    assert solid == (5.5, 1.5, 5, 3)
    assert dashed == pytest.approx((7, 2, 2, 2))  # around column 8 and row 3
    assert all(patch.get_path_effects() for patch in axis.patches)  # a dark edge beside the white


def test_matrices_show_their_numbers():
    table = torch.tensor([[1.0, -2], [0, 3]])
    figure = cnn_figures.show_numbers({"a": table, "b": table.T}, {"a": (0, 1, 2, 1)})
    assert texts(figure) == ["1", "-2", "0", "3", "1", "0", "-2", "3"]
    assert [len(axis.patches) for axis in figure.axes] == [1, 0]


def test_a_product_shows_its_result_and_leaves_out_zeros_of_the_matrix():
    figure = cnn_figures.show_product(
        torch.tensor([[1.0, 0, 2], [0, 1, 0]]), torch.tensor([3.0, 0, 5]), torch.tensor([1.0, -1])
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "1"]
    assert [text.get_text() for text in figure.axes[3].texts] == ["14", "-1"]


def test_probes_draw_a_line_for_each_way_that_was_asked():
    values = [[0.2, 0.5], [0.4, 0.7]]
    scores = {
        "colour": {"pooled": values, "there": values},
        "count": {"pooled": values, "there": None},
    }
    scores |= {name: scores["colour"] for name in "abcd"}
    figure = cnn_figures.show_probes(scores, dict.fromkeys(scores, 0.25), ["pixels", "last"])
    assert [len(axis.containers) for axis in figure.axes] == [2, 1, 2, 2, 2, 2]
    heights = figure.axes[0].containers[0].lines[0].get_ydata()
    assert list(heights) == pytest.approx([30, 60])


# ---------------------------------------------------------------- explorers


def test_a_kernel_chosen_moves_the_numbers_and_changes_the_picture(pictures):
    explorer = cnn_figures.kernel_explorer(pictures)
    (photograph, preset, bias, relu), numbers = explorer.children[0].children, explorer.children[1]
    result = explorer.children[2]
    assert [number.value for number in numbers.children] == [-1, 0, 1, -2, 0, 2, -1, 0, 1]
    assert "The response goes from 0.00 to 4.00" in result.value
    preset.value = "vertical line"
    assert [number.value for number in numbers.children] == [-1, 2, -1] * 3
    assert "from -3.00 to 3.00" in result.value and "Orange: negative" in result.value
    relu.value = True
    assert "from 0.00 to 3.00" in result.value and "Orange" not in result.value
    bias.value = 1
    assert "from 0.00 to 4.00" in result.value
    photograph.value = "white"
    assert "from 1.00 to 1.00" in result.value and 'alt="white"' in result.value


def test_a_number_moved_makes_the_kernel_ones_own(pictures):
    explorer = cnn_figures.kernel_explorer(pictures)
    preset, numbers, result = (
        explorer.children[0].children[1], explorer.children[1].children, explorer.children[2],
    )  # fmt: skip
    before = result.value
    numbers[4].value = 3
    assert preset.value == "your own" and result.value != before
    assert "sum to 3.00" in result.value
    preset.value = "blur"
    assert numbers[4].value == 0.12
    assert all(number.tooltip.startswith("row ") for number in numbers)


def layers(picture):
    """Two layers, of three and two channels."""
    level = picture.getpixel((0, 0))[0] / 255
    first = torch.tensor([[[0, 1.0], [2, 3]], [[5, 0], [0, 0.0]], [[1, 1], [1, 1.0]]]) + level
    return {"first": first, "last": first[:2] * 10}


def test_layer_and_channel_choose_the_map(pictures):
    explorer = cnn_figures.layer_explorer(layers, pictures)
    (photograph, layer, channel), result = explorer.children[0].children, explorer.children[1]
    assert "first, channel 0 of 3: 2 × 2 places, from 0.00 to 3.00" in result.value
    assert "highest in row 2, column 2; 25%" in result.value
    channel.value = 2
    assert "channel 2 of 3" in result.value and "from 1.00 to 1.00" in result.value
    layer.value = "last"
    assert channel.max == 1
    assert "last, channel 1 of 2" in result.value and "from 0.00 to 50.00" in result.value
    photograph.value = "white"
    assert "from 10.00 to 60.00" in result.value
    assert repr(explorer) == "[layer explorer: run this cell to use it]"


def test_a_layer_with_fewer_channels_is_drawn_once(pictures, monkeypatch):
    drawn, draw = [], cnn_figures._side_by_side
    monkeypatch.setattr(
        cnn_figures, "_side_by_side", lambda shown: drawn.append(list(shown)) or draw(shown)
    )
    explorer = cnn_figures.layer_explorer(layers, pictures)
    _, layer, channel = explorer.children[0].children
    channel.value = 2
    drawn.clear()
    layer.value = "last"  # which has no channel 2
    assert len(drawn) == 1 and drawn[0][1].startswith("last, channel 1 of 2")


def test_names_of_photographs_are_never_taken_for_html():
    explorer = cnn_figures.kernel_explorer({"<b>&": Image.new("RGB", (5, 5))})
    assert "<b>" not in explorer.children[2].value
    assert "&lt;b&gt;&amp;" in explorer.children[2].value
