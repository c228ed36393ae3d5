"""Pictures read back pixel by pixel: each shape where it belongs, in the colour of its ink."""

import jax
import numpy as np
from PIL import Image, ImageColor

from jaxrl_engine.core.scene import DISTINCT, Ink, Scene, distinct, make_scene
from jaxrl_engine.runtime.drawing import (
    BACKGROUND,
    CAPTION_PIXELS,
    DISTINCT_COLOURS,
    MARGIN,
    PANEL_PIXELS,
    Film,
    colour,
    draw_film,
    draw_scene,
    save_gif,
    save_maps,
)

SIZE = 500


def scene(**parts) -> Scene:
    return jax.tree.map(
        np.asarray, make_scene((0.0, 0.0, 10.0, 5.0), **{name: np.asarray(part) for name, part in parts.items()})
    )


def seen(image: Image.Image, x: float, y: float) -> str:
    """The colour at a point of the world: 10 wide, 5 high, in the middle of a square with margins."""
    scale = (1 - 2 * MARGIN) * SIZE / 10
    pixel = image.getpixel((round(MARGIN * SIZE + scale * x), round(SIZE / 2 - scale * (y - 2.5))))
    return "#{:02x}{:02x}{:02x}".format(*pixel)


def test_shapes_lie_where_they_belong_and_later_ones_on_top():
    cells = np.zeros((5, 10), np.int8)
    cells[0, 9] = Ink.WALL  # the top row first: the cell from (9, 4) to (10, 5)
    image = draw_scene(
        scene(
            cells=cells, lines=[[1, 1, 4, 1, 0.4]], line_inks=[Ink.BODY],
            discs=[[4, 1, 0.5], [7, 3, 0.5]], disc_inks=[Ink.GOAL, Ink.NOTHING],
        ), SIZE,
    )  # fmt: skip
    assert seen(image, 9.5, 4.5) == colour(Ink.WALL)
    assert seen(image, 9.5, 3.5) == seen(image, 8.5, 4.5) == BACKGROUND
    assert seen(image, 2.5, 1.0) == seen(image, 2.5, 1.15) == colour(Ink.BODY)
    assert seen(image, 2.5, 1.3) == BACKGROUND
    assert seen(image, 4.0, 1.0) == seen(image, 4.0, 1.4) == colour(Ink.GOAL)
    assert seen(image, 7.0, 3.0) == BACKGROUND  # without ink


def test_colours_are_all_different():
    colours = [colour(ink) for ink in range(1, Ink.FIRST + DISTINCT)]
    assert len({ImageColor.getrgb(each) for each in [*colours, BACKGROUND]}) == len(colours) + 1
    assert len(DISTINCT_COLOURS) == DISTINCT


def test_a_film_has_a_panel_for_each_world_and_a_frame_for_each_step(tmp_path):
    places = np.array([[0.0, 5.0, 10.0], [10.0, 5.0, 0.0]])  # two worlds; the disc of one goes right, of the other left
    each = [scene(discs=[[places[b, t], 2.5, 1.0]], disc_inks=[distinct(b)]) for t in range(3) for b in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).reshape(3, 2, *leaves[0].shape), *each)
    save_gif(draw_film(Film(scenes=stacked, captions=(("a", "b"),) * 3)), tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (2 * PANEL_PIXELS, PANEL_PIXELS + CAPTION_PIXELS)
        for frame in range(3):
            film.seek(frame)
            pixels = np.asarray(film.convert("RGB"), np.int64)[:PANEL_PIXELS]
            for world in range(2):
                panel = pixels[:, world * PANEL_PIXELS : (world + 1) * PANEL_PIXELS]
                wanted = np.array(ImageColor.getrgb(colour(distinct(world))))
                columns = np.nonzero((np.abs(panel - wanted).max(axis=2) < 40).any(axis=0))[0]
                middle = (MARGIN + (1 - 2 * MARGIN) * places[world, frame] / 10) * PANEL_PIXELS
                assert abs(columns.mean() - np.clip(middle, 0, PANEL_PIXELS)) < 8


def test_the_darkest_cell_of_a_map_is_its_largest(tmp_path):
    maps = np.zeros((1, 2, 2, 2))
    maps[0, 1] = [[0.0, 4.0], [1.0, 0.0]]
    save_maps(maps, ["agent"], ["never", "often"], "title", tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as image:
        grey = np.asarray(image.convert("L"), np.float64)
    edge = image.width - 2 * PANEL_PIXELS
    top = image.height - PANEL_PIXELS
    quarter = (PANEL_PIXELS - 10) // 4

    def shade(column: int, x: int, y: int) -> float:
        return grey[top + y * quarter, edge + column * PANEL_PIXELS + x * quarter]

    assert shade(1, 3, 1) < shade(1, 1, 3) < shade(1, 1, 1) == shade(1, 3, 3) == 255
    assert shade(0, 1, 3) == 255  # beside the line that crosses out a map without values
