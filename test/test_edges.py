# SPDX-License-Identifier: Apache-2.0
"""No points between surfaces: exact planes and steps, blurred as networks blur them, enlarged to the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ros import DepthProcess, bench, depth_of

from depth_anything_ros.demo.families import HELD_OUT_SEED
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.geometry import between_surfaces, edges, enlarge

GRID, IMAGE, FOCAL = (96, 128), (240, 320), 100.0  # grid pixels
TOLERANCE = 0.02  # the node's default
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


@pytest.fixture(params=["arrays", "tensors"])
def kind(request, monkeypatch):
    """What the work is done on: NumPy arrays, as on any CPU, or tensors, as on other devices."""
    if request.param == "tensors":
        monkeypatch.setattr(edges, "to_array", lambda values: values)


def pixels(shape=GRID):
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (u - (shape[1] - 1) / 2) / FOCAL, (v - (shape[0] - 1) / 2) / FOCAL


def blurred(depth, sigma):
    """Inverse depth through a Gaussian of `sigma` grid pixels, as a network leaves edges."""
    reach = np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2)
    kernel = np.exp(-(reach**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(1 / depth, len(reach) // 2, mode="edge")
    rows = np.apply_along_axis(np.convolve, 1, padded, kernel, "valid")
    return 1 / np.apply_along_axis(np.convolve, 0, rows, kernel, "valid")


def run(depth, tolerance=TOLERANCE, device="cpu"):
    return enlarge(torch.from_numpy(depth).float().to(device), IMAGE, False, tolerance).cpu().numpy()


def room(height=0.4, wall=6.0, side=1.5):
    """A floor at grazing angles, a wall, and a side wall: planes that meet."""
    x, y = pixels()
    with np.errstate(divide="ignore"):
        floor = np.where(y > 0, height / y, np.inf)
        left = np.where(x < 0, -side / x, np.inf)
    return np.minimum(np.minimum(floor, left), wall)


@pytest.mark.parametrize("device", DEVICES)
def test_slanted_planes_and_their_corners_stay_whole(kind, device):
    depth = room()
    assert np.isfinite(run(depth, device=device)).mean() > 0.999  # but a pixel where a corner meets the image's border
    steep = np.abs(np.diff(depth[60:], axis=0) / depth[61:]).max()
    assert steep > 2 * TOLERANCE  # a threshold of depth's own gradient would have cut the floor up


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_nothing_hangs_between_a_box_and_the_wall_behind_it(kind, sigma, device):
    depth = np.full(GRID, 4.0)
    depth[20:70, 30:80] = 1.5
    out = run(blurred(depth, sigma), device=device)
    kept = np.isfinite(out)
    off = np.minimum(np.abs(out[kept] - 1.5) / 1.5, np.abs(out[kept] - 4) / 4)
    assert (off > 1.1 * TOLERANCE).mean() < 0.005 and off.max() < 0.1 and kept.mean() > 0.85
    bilinear = run(blurred(depth, sigma), tolerance=1e9)
    in_air = np.minimum(np.abs(bilinear - 1.5) / 1.5, np.abs(bilinear - 4) / 4)
    assert in_air.max() > 0.3 and (in_air > 1.1 * TOLERANCE).mean() > 0.02  # the negative control: what it is otherwise


def test_a_sharp_edge_loses_nothing_and_is_not_smeared(kind):
    depth = np.full(GRID, 5.0)
    depth[:, 60:] = 1.0
    out = run(depth)
    assert set(np.unique(out)) == {1.0, 5.0}


@pytest.mark.parametrize("width, sigma", [(2, 0.0), (4, 0.5), (6, 1.0), (12, 2.0)])
def test_something_thin_stays(kind, width, sigma):
    depth = np.full(GRID, 5.0)
    depth[:, 60 : 60 + width] = 1.2
    out = run(blurred(depth, sigma) if sigma else depth)
    middle = int((60 + width / 2) * IMAGE[1] / GRID[1])
    np.testing.assert_allclose(out[:, middle - 1], 1.2, rtol=0.05)


def test_the_mask_is_the_same_whichever_way_the_image_is_turned(kind):
    torch.manual_seed(0)
    depth = torch.from_numpy(blurred(room(), 1.0)).float() * (1 + 0.01 * torch.randn(GRID))
    mask = between_surfaces(depth, TOLERANCE)
    assert 0.05 < mask.float().mean() < 0.9
    for turns in (1, 2, 3):
        assert torch.equal(between_surfaces(torch.rot90(depth, turns), TOLERANCE), torch.rot90(mask, turns))
    assert torch.equal(between_surfaces(1000 * depth, TOLERANCE), mask)  # no metres in it


@pytest.mark.parametrize("align_corners", [False, True])
def test_surfaces_are_enlarged_as_torch_does(kind, align_corners):
    depth = torch.from_numpy(room(wall=3.0)).float()
    expected = F.interpolate(depth[None, None], size=IMAGE, mode="bilinear", align_corners=align_corners)[0, 0]
    out = enlarge(depth, IMAGE, align_corners, TOLERANCE)
    assert torch.equal(depth, torch.from_numpy(room(wall=3.0)).float())  # what came in is as it was
    assert (out == expected).float().mean() > 0.9
    assert np.nanmax(((out - expected).abs() / expected).numpy()) < 0.1


def test_the_node_publishes_no_points_between_surfaces_and_the_parameter_turns_it_off(tmp_path):
    shot = photographed_scene(HELD_OUT_SEED + 3, "room", 640, 480)
    with DepthProcess(tmp_path, model="demo", device="cpu") as node, bench() as it:
        it.wait_reading()
        masked = depth_of(it.expect("depth/image", it.send(shot.rgb)))
        assert it.set_parameters(edges__tolerance=0.0) == (True, "")
        it.spin(1)
        plain = depth_of(it.expect("depth/image", it.send(shot.rgb)))
        assert np.isfinite(plain).mean() > 0.99 and 0.8 < np.isfinite(masked).mean() < 0.99
        both = np.isfinite(masked) & np.isfinite(plain)
        assert np.median(np.abs(masked[both] / plain[both] - 1)) == 0
        assert not it.set_parameters(edges__tolerance=-1.0)[0]
        assert "Traceback" not in node.log
