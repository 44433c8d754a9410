"""The features of a drawn face: marks, eyes, brows, nose, mouth, and what hides them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sample_painter.geometry import Floats, mirrored
from sample_painter.painter import Painter, mixed, scaled, sides

Near = Callable[..., Floats]


def draw_marks(p: Painter) -> None:
    """Draw moles, freckles, and the folds of age and of a smile."""
    who = p.who
    spots = [(x * who.head_width / 0.66, y, r, 0.42) for x, y, r in who.marks]
    if who.freckles:
        rng = np.random.default_rng(who.texture)
        places = rng.normal((0.0, 0.24), (0.26, 0.10), size=(int(34 * who.freckles), 2))
        spots += [(x, y, float(rng.uniform(0.006, 0.012)), 0.72) for x, y in places.tolist()]
    for x, y, radius, shade in spots:
        p.oval(p.face(np.array([(x, y)]))[0], (radius, radius), scaled(p.skin, shade))
    dark = scaled(p.skin, 0.86 - 0.22 * who.age)
    mouth = who.eye_height + who.mouth_drop
    fold = np.array(
        [
            (who.nose_width + 0.03, mouth - 0.24),
            (who.nose_width + 0.09, mouth - 0.13),
            (who.mouth_width + 0.05 + 0.02 * p.how.smile, mouth - 0.02),
        ]
    )
    if who.age + max(p.how.smile, 0) > 0.25:
        for side in sides(fold):
            p.line(p.face(side), dark, 0.012 + 0.01 * who.age)
    if who.age > 0.35:
        for y in (-0.44, -0.36):
            p.line(p.face(np.array([(-0.28, y), (0.0, y - 0.02), (0.28, y)])), dark, 0.012)


def draw_eyes(p: Painter) -> None:
    """Draw both eyes, from the white to the lids, and the brows above them."""
    who, how = p.who, p.how
    e, y, length = who.eye_distance, who.eye_height, who.eye_length
    squint = 1 - 0.25 * max(how.smile, 0.0)
    opening = who.eye_opening * how.eye_open * squint
    lid = opening + 0.05
    for sign in (-1.0, 1.0):

        def at(*points: tuple[float, float], sign: float = sign) -> Floats:
            flat = np.array(points) * [1.0, 1.0]
            flat[:, 1] += y - who.eye_tilt * flat[:, 0] / length
            flat[:, 0] = sign * (flat[:, 0] + e)
            return p.face(flat, -0.02)

        upper = [
            (-0.55 * length, -0.75 * opening),
            (0.05, -1.1 * opening),
            (0.65 * length, -0.6 * opening),
        ]
        lower = [
            (0.55 * length, 0.55 * opening),
            (0.0, 0.8 * opening),
            (-0.55 * length, 0.5 * opening),
        ]
        inner, outer = (-length, 0.015), (length, -0.005)
        p.fill(at(inner, *upper, outer, *lower), (226.0, 222.0, 218.0))
        gaze_x, gaze_y = sign * 0.035 * how.gaze[0], 0.012 * how.gaze[1] - 0.1 * opening
        iris = at((gaze_x, gaze_y))[0]
        for radius, colour in (
            (who.iris, scaled(who.iris_colour, 0.5)),
            (0.84 * who.iris, who.iris_colour),
            (0.42 * who.iris, (12.0, 10.0, 12.0)),
        ):
            p.oval(iris, (radius, radius), colour)
        p.oval(
            iris + np.array([0.3 * who.iris, -0.35 * who.iris, 0.0]),
            (0.014, 0.014),
            (250.0, 250.0, 250.0),
        )
        shade = scaled(p.skin, 0.86 - 0.25 * how.make_up)
        p.fill(
            at(
                inner,
                *upper,
                outer,
                (0.7 * length, -lid - 0.01),
                (0.05, -lid - 0.045),
                (-0.6 * length, -lid - 0.01),
            ),
            shade,
        )
        p.fill(
            at(outer, *lower, inner, (-0.6 * length, lid), (0.0, lid + 0.035), (0.6 * length, lid)),
            scaled(p.skin, 0.95),
        )
        lash = mixed((20.0, 14.0, 12.0), scaled(p.skin, 0.4), 0.25)
        p.line(at(inner, *upper, outer), lash, 0.020 + 0.012 * how.make_up)
        p.line(at(outer, *lower, inner), scaled(p.skin, 0.62), 0.010)
        if who.lid > 0.02:
            crease = [(x, v - who.lid - 0.01) for x, v in upper]
            p.line(
                at((-0.9 * length, -who.lid), *crease, (length, -who.lid)),
                scaled(p.skin, 0.66),
                0.010,
            )
        _brow(p, at)


def _brow(p: Painter, at: Near) -> None:
    who = p.who
    lift = who.brow_gap + 0.03 * p.how.brow_raise
    half, thick = who.brow_length, who.brow_thickness
    top, bottom = [], []
    for t in (-1.0, -0.4, 0.3, 1.0):
        rise = -lift - who.brow_arch * (0.75 - 0.6 * (t - 0.35) ** 2) - who.brow_tilt * t
        width = thick * (1.0 if t < 0.5 else 0.25)
        top.append((t * half + 0.02, rise - 0.5 * width))
        bottom.append((t * half + 0.02, rise + 0.5 * width))
    colour = mixed(scaled(p.skin, 0.7), scaled(who.hair, 0.75), who.brow_density)
    p.fill(at(*top, *bottom[::-1]), colour)


def draw_nose(p: Painter) -> None:
    """Draw the lines of the nose; its body is in the light alone."""
    who = p.who
    tip = who.eye_height + who.nose_length
    dark, soft = scaled(p.skin, 0.34), scaled(p.skin, 0.66)
    wing = np.array(
        [
            (0.92 * who.nose_width, tip - 0.035),
            (1.02 * who.nose_width, tip + 0.015),
            (0.80 * who.nose_width, tip + 0.052),
        ]
    )
    for side in sides(wing):
        p.line(p.face(side, 0.06), soft, 0.016)
    under = np.array([(0.62 * who.nose_width, tip + 0.052), (0.0, tip + 0.072)])
    base = np.concatenate([under, under[:1] * [-1, 1]])
    p.line(p.face(base, 0.5 * who.nose_depth), soft, 0.012)
    for sign in (-1.0, 1.0):
        nostril = np.array([(sign * 0.45 * who.nose_width, tip + 0.045)])
        p.oval(
            p.face(nostril, 0.5 * who.nose_depth)[0], (1.25 * who.nostril, 0.7 * who.nostril), dark
        )


def mouth_corners(p: Painter) -> Floats:
    """Both corners (2, 2) of the mouth in the frontal view, left one first."""
    who, smile = p.who, p.how.smile
    half = who.mouth_width * (1 + 0.18 * smile - 0.12 * p.how.mouth_open)
    height = who.eye_height + who.mouth_drop - 0.055 * smile + 0.045 * p.how.mouth_open
    return np.array([(-half, height), (half, height)])


def draw_mouth(p: Painter) -> None:
    """Draw lips, and teeth where the mouth is open."""
    who, how = p.who, p.how
    corners = mouth_corners(p)
    half, y = corners[1]
    middle = who.eye_height + who.mouth_drop
    gape = 0.11 * how.mouth_open + 0.03 * max(0.0, how.smile - 0.4)
    red = 0.75 * who.lip_redness + 0.3 * how.make_up
    lip = mixed(scaled(p.skin, 0.80), (176.0, 62.0, 66.0), min(0.85, 0.15 + 0.7 * red))
    upper, lower = who.upper_lip, who.lower_lip

    def lips(*points: tuple[float, float]) -> Floats:
        return p.face(np.array(points), 0.05)

    p.fill(
        lips(
            (-half, y),
            (-0.45 * half, middle - upper),
            (-0.14 * half, middle - upper - who.lip_bow),
            (0.0, middle - upper),
            (0.14 * half, middle - upper - who.lip_bow),
            (0.45 * half, middle - upper),
            (half, y),
            (0.5 * half, middle + 0.2 * gape),
            (-0.5 * half, middle + 0.2 * gape),
        ),
        scaled(lip, 0.86),
    )
    p.fill(
        lips(
            (-half, y),
            (-0.5 * half, middle + 0.6 * gape),
            (0.5 * half, middle + 0.6 * gape),
            (half, y),
            (0.5 * half, middle + gape + 0.85 * lower),
            (0.0, middle + gape + lower),
            (-0.5 * half, middle + gape + 0.85 * lower),
        ),
        lip,
    )
    if gape > 0.02:
        p.fill(
            lips(
                (-0.9 * half, y + 0.01),
                (-0.4 * half, middle - 0.005),
                (0.4 * half, middle - 0.005),
                (0.9 * half, y + 0.01),
                (0.45 * half, middle + gape),
                (-0.45 * half, middle + gape),
            ),
            (58.0, 18.0, 20.0),
        )
        teeth = min(0.035, 0.6 * gape) * min(1.0, 0.3 + max(how.smile, 0.0))
        p.fill(
            lips(
                (-0.7 * half, middle),
                (0.7 * half, middle),
                (0.55 * half, middle + teeth),
                (-0.55 * half, middle + teeth),
            ),
            (228.0, 222.0, 208.0),
        )
    else:
        p.line(
            lips((-half, y), (-0.4 * half, middle), (0.4 * half, middle), (half, y)),
            scaled(lip, 0.45),
            0.014,
        )


def draw_beard(p: Painter) -> None:
    """Draw beard and moustache; stubble is a tone of the skin."""
    who = p.who
    colour = scaled(who.hair, 0.8)
    mouth = who.eye_height + who.mouth_drop
    jaw, w = who.jaw * who.head_width, who.head_width
    if who.beard:
        low = mouth + 0.10 + 0.10 * (1 - who.beard)
        half = [
            (0.0, low),
            (0.24, low),
            (0.31, mouth - 0.04),
            (0.98 * w, 0.02),
            (0.97 * w, 0.28),
            (0.98 * jaw, 0.60),
            (0.75 * jaw, who.chin - 0.08),
            (0.6 * who.chin_width, who.chin + 0.10 * who.beard),
            (0.0, who.chin + 0.13 * who.beard),
        ]
        p.fill(p.face(mirrored(np.array(half))), mixed(p.skin, colour, 0.55 + 0.4 * who.beard))
    if who.moustache:
        droop = 0.06 * who.moustache
        half = [
            (0.0, mouth - 0.13),
            (0.14, mouth - 0.12),
            (0.26, mouth + droop - 0.03),
            (0.16, mouth - 0.055),
            (0.0, mouth - 0.065),
        ]
        p.fill(
            p.face(mirrored(np.array(half)), 0.06),
            mixed(p.skin, colour, 0.5 + 0.45 * who.moustache),
        )


def draw_glasses(p: Painter) -> None:
    """Draw the glasses of the conditions that have them."""
    who, how = p.who, p.how
    if not how.glasses:
        return
    rng = np.random.default_rng(how.tousle)
    frame = scaled((60.0, 44.0, 36.0), float(rng.uniform(0.3, 2.4)))
    e, y = who.eye_distance, who.eye_height + 0.015
    wide, tall = 0.17 + 0.05 * how.glasses, 0.10 + 0.08 * how.glasses
    round_ = 0.70 + 0.25 * float(rng.random())
    corner = [
        (1, 0),
        (round_, round_),
        (0, 1),
        (-round_, round_),
        (-1, 0),
        (-round_, -round_),
        (0, -1),
        (round_, -round_),
    ]
    rim = np.array(corner) * [wide, tall]
    for sign in (-1.0, 1.0):
        lens = p.face(rim + np.array([sign * e, y]), 0.10)
        if how.dark_glasses:
            p.fill(lens, (34.0, 30.0, 34.0))
        p.line(lens, frame, 0.022, closed=True)
        temple = np.array(
            [(sign * (e + wide), y - 0.03, 0.62), (sign * who.head_width, y - 0.04, 0.05)]
        )
        p.line(temple, frame, 0.022)
    p.line(
        p.face(np.array([(wide - e, y - 0.02), (0.0, y - 0.045), (e - wide, y - 0.02)]), 0.2),
        frame,
        0.022,
    )


def draw_covers(p: Painter) -> None:
    """Draw the face mask and the bar of the conditions that have them."""
    who, how = p.who, p.how
    rng = np.random.default_rng(how.tousle + 1)
    if how.mask:
        shade = (150.0, 196.0, 214.0) if rng.random() < 0.6 else (44.0, 44.0, 50.0)
        top = who.eye_height + 0.55 * who.nose_length
        w = who.head_width
        half = [
            (0.0, top - 0.04),
            (0.12, top),
            (0.6 * w, top + 0.10),
            (0.96 * w, top + 0.14),
            (0.92 * w, 0.62),
            (0.6 * w, 0.90),
            (0.0, who.chin + 0.04),
        ]
        p.fill(p.face(mirrored(np.array(half)), 0.10), shade)
        for y in (0.45, 0.60):
            p.line(
                p.face(np.array([(-0.8 * w, y - 0.03), (0.0, y + 0.02), (0.8 * w, y - 0.03)]), 0.1),
                scaled(shade, 0.8),
                0.014,
            )
    if how.bar:
        y, tilt = rng.uniform(-0.7, 0.9), rng.uniform(-0.5, 0.5)
        bar = np.array(
            [(-3.0, y - tilt), (3.0, y + tilt), (3.0, y + tilt + 0.26), (-3.0, y - tilt + 0.26)]
        )
        p.fill(bar, (float(rng.uniform(20, 220)), 90.0, 70.0), smooth=False)
