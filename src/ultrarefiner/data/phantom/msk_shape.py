"""Where each tissue of a shoulder scene lies: surfaces by column, and the label map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ultrarefiner.data.phantom.msk_scene import Bone, MskScene
from ultrarefiner.data.phantom.texture import axes_mm, noise

BACKGROUND, TENDON, TEAR, BONE, MUSCLE = range(5)

_STEEPEST = 1.2  # of a surface that thickness is measured across, per mm
_TAPER_MM = 0.25  # least thickness that still counts as tendon
_ROUND = 0.85  # sine at which the head's circle goes on as its tangent
_GAP_MM = 0.6  # least thickness of the deltoid


@dataclass(frozen=True, kw_only=True, eq=False)
class Surfaces:
    """Depths of the interfaces in each column [mm], from the top down.

    Attributes:
        x_mm: lateral position of the columns, towards the tuberosity.
        muscle: upper surface of the deltoid.
        bursa: upper surface of the bursa, lower one of the deltoid.
        top: upper (bursal) surface of the tendon.
        bottom: lower (joint) surface of the tendon.
        bone: surface of the humerus.
        slope: fall of the bone per mm across.
    """

    x_mm: Float[np.ndarray, " W"]
    muscle: Float[np.ndarray, " W"]
    bursa: Float[np.ndarray, " W"]
    top: Float[np.ndarray, " W"]
    bottom: Float[np.ndarray, " W"]
    bone: Float[np.ndarray, " W"]
    slope: Float[np.ndarray, " W"]


def find_surfaces(scene: MskScene, rng: np.random.Generator) -> Surfaces:
    """Return the interfaces of an unmirrored scene.

    Args:
        scene: what is drawn.
        rng: source of their unevenness.
    """
    _, dx_mm = scene.spacing_mm
    bone, tendon, tear = scene.bone, scene.tendon, scene.tear
    x_mm = axes_mm(scene)[1][0]
    smooth = bone_depth_mm(bone, x_mm)
    slope = np.gradient(_blur(smooth, 1.5 / dx_mm), dx_mm)
    rough, wave, fat = (noise(scene, (9.0, length), rng)[0] for length in (1.2, 4.0, 8.0))
    # Thickness is across the surface, depth along the beam.
    across = np.hypot(1.0, np.clip(slope, -_STEEPEST, _STEEPEST))
    bone_mm = smooth + bone.roughness_mm * rough
    along_mm = x_mm - bone.apex_xy_mm[0]
    cartilage = tendon.cartilage_mm * _falls(along_mm - bone.neck_mm, 0.8)
    bottom_mm = np.minimum(smooth - cartilage * across, bone_mm - 0.05)
    past = np.clip((along_mm - bone.neck_mm) / bone.facet_mm + 0.15, 0.0, 1.0)
    thickness = tendon.thickness_mm * (1.0 - past**1.6) * (1.0 + 0.05 * wave)
    sag = tear.sag_mm * np.exp(-(((x_mm - tear.centre_mm) / tear.half_length_mm) ** 2))
    # The bursal side spans the notch that the joint side fills.
    spanned = _blur(smooth - cartilage * across, 1.5 / dx_mm)
    top_mm = np.minimum(spanned - np.maximum(thickness * across - sag, 0.0), bottom_mm)
    fluid = 1.0 + 1.2 * sag
    bursa_mm = top_mm - tendon.bursa_mm * fluid * (1.0 + 0.25 * wave)
    muscle_mm = np.minimum(scene.layers[-1].bottom_mm + 0.4 * fat, bursa_mm - _GAP_MM)
    return Surfaces(
        x_mm=x_mm,
        muscle=muscle_mm,
        bursa=bursa_mm,
        top=top_mm,
        bottom=bottom_mm,
        bone=bone_mm,
        slope=slope,
    )


def bone_depth_mm(bone: Bone, x_mm: Float[np.ndarray, " W"]) -> Float[np.ndarray, " W"]:
    """Return the depth of the humerus at each lateral position, without its roughness [mm]."""
    apex_x_mm, apex_y_mm = bone.apex_xy_mm
    along = x_mm - apex_x_mm
    inside = np.clip(along / bone.radius_mm, -_ROUND, _ROUND)
    beside = np.abs(along / bone.radius_mm - inside) * _ROUND / np.sqrt(1.0 - _ROUND**2)
    head = bone.radius_mm * (1.0 - np.sqrt(1.0 - inside**2) + beside)
    at_neck = bone.radius_mm * (1.0 - np.sqrt(1.0 - (bone.neck_mm / bone.radius_mm) ** 2))
    beyond = along - bone.neck_mm
    facet = at_neck + bone.facet_slope * beyond
    wall = at_neck + bone.facet_slope * bone.facet_mm
    wall = wall + bone.wall_slope * (beyond - bone.facet_mm)
    # A soft maximum rounds the edge between facet and wall.
    tuberosity = np.logaddexp(facet / 0.7, wall / 0.7) * 0.7
    depth = np.where(beyond < 0, head, tuberosity)
    depth = depth + bone.notch_mm * np.exp(-((beyond / 0.9) ** 2))
    return apex_y_mm + _blur(depth, 0.5 / float(x_mm[1] - x_mm[0]))


def height_in_tendon(scene: MskScene, surfaces: Surfaces) -> Float[np.ndarray, "H W"]:
    """Return each pixel's height across the tendon: 0 at the joint, 1 at the bursa."""
    y_mm, _ = axes_mm(scene)
    thickness = np.maximum(surfaces.bottom - surfaces.top, 1e-3)
    height: Float[np.ndarray, "H W"] = (surfaces.bottom - y_mm) / thickness
    return height


def tear_mask(
    scene: MskScene, surfaces: Surfaces, height: Float[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """Return the tear, a part of the tendon, as pixels of the unmirrored frame."""
    tear = scene.tear
    mask = tendon_mask(surfaces, height)
    rows, columns = np.nonzero(mask)
    above = height[rows, columns] - tear.centre_height
    along_mm = surfaces.x_mm[columns] - tear.centre_mm - tear.lean_mm * above
    u, v = along_mm / tear.half_length_mm, above / tear.half_height
    angle = np.arctan2(v, u)
    radius = np.ones_like(angle)
    for order, (cosine, sine) in enumerate(tear.lobes, start=2):
        radius += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
    mask[rows, columns] = np.hypot(u, v) <= np.maximum(radius, 0.4)
    return mask


def tendon_mask(surfaces: Surfaces, height: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the tendon with its tear."""
    thick = surfaces.bottom - surfaces.top > _TAPER_MM
    inside: Bool[np.ndarray, "H W"] = (height >= 0.0) & (height <= 1.0) & thick
    return inside


def label_map(scene: MskScene, surfaces: Surfaces) -> UInt8[np.ndarray, "H W"]:
    """Return the class of every pixel of the unmirrored frame."""
    y_mm, _ = axes_mm(scene)
    height = height_in_tendon(scene, surfaces)
    classes = np.full(scene.shape_hw, BACKGROUND, np.uint8)
    classes[(y_mm >= surfaces.muscle) & (y_mm < surfaces.bursa)] = MUSCLE
    classes[tendon_mask(surfaces, height)] = TENDON
    classes[tear_mask(scene, surfaces, height)] = TEAR
    classes[y_mm >= surfaces.bone] = BONE
    return classes


def _falls(along_mm: Float[np.ndarray, " W"], width_mm: float) -> Float[np.ndarray, " W"]:
    """From 1 to 0 about zero."""
    return 0.5 * (1.0 - np.tanh(along_mm / width_mm))


def _blur(curve: Float[np.ndarray, " W"], sigma_px: float) -> Float[np.ndarray, " W"]:
    """Smooth a curve, going on straight beyond its ends."""
    reach = int(4 * sigma_px) + 1
    left, right = curve[1] - curve[0], curve[-1] - curve[-2]
    before, after = np.arange(-reach, 0), np.arange(1, reach + 1)
    longer = np.concatenate([curve[0] + left * before, curve, curve[-1] + right * after])
    blurred: Float[np.ndarray, " W"] = cv2.GaussianBlur(longer[None], (0, 0), sigmaX=sigma_px)[0]
    return blurred[reach:-reach]
