"""Slow, obviously right references that the fast protocols must equal."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from sklearn.metrics import roc_curve


def accepts(scores, threshold):
    """Count by a loop; a score that is not finite is below every threshold."""
    return sum(1 for score in scores if math.isfinite(score) and score >= threshold)


def curve(genuine, impostors):
    """Every operating point (threshold, false accepts, true accepts), highest threshold first."""
    finite = {float(s) for s in [*genuine, *impostors] if math.isfinite(s)}
    thresholds = [math.inf, *sorted(finite, reverse=True)]
    return [(t, accepts(impostors, t), accepts(genuine, t)) for t in thresholds]


def at_most(genuine, impostors, target):
    allowed = [p for p in curve(genuine, impostors) if p[1] / len(impostors) <= target]
    return max(allowed, key=lambda p: (p[2], -p[0]))


def interpolated(genuine, impostors, target):
    """TAR on the line between the points around the target."""
    points = curve(genuine, impostors)
    lower = max(i for i, p in enumerate(points) if p[1] / len(impostors) <= target)
    tar = points[lower][2] / len(genuine)
    if lower + 1 == len(points):
        return tar
    (_, fa0, ta0), (_, fa1, ta1) = points[lower], points[lower + 1]
    share = (target * len(impostors) - fa0) / (fa1 - fa0)
    return (ta0 + share * (ta1 - ta0)) / len(genuine)


def insightface_nearest(genuine, impostors, target):
    """FAR and TAR that the public IJB scripts print, by scikit-learn."""
    labels = np.r_[np.ones(len(genuine), int), np.zeros(len(impostors), int)]
    far, tar, _ = roc_curve(labels, np.r_[genuine, impostors], drop_intermediate=True)
    far, tar = far[::-1], tar[::-1]
    best = min(range(len(far)), key=lambda i: (abs(far[i] - target), i))
    return far[best], tar[best]


def eer(genuine, impostors):
    rates = [
        (Fraction(fa, len(impostors)), 1 - Fraction(ta, len(genuine)))
        for _, fa, ta in curve(genuine, impostors)
    ]
    far, frr = min(rates, key=lambda r: (abs(r[0] - r[1]), r[0] + r[1]))
    return float((far + frr) / 2)


def auc(genuine, impostors):
    """Probability that a genuine score wins, failures last and tied with each other."""
    genuine, impostors = (
        [s if math.isfinite(s) else -math.inf for s in scores] for scores in (genuine, impostors)
    )
    wins = sum(Fraction(2 * int(g > i) + int(g == i), 2) for g in genuine for i in impostors)
    return float(wins / (len(genuine) * len(impostors)))


def fuse(faces, switches):
    """Template id -> float64 feature, or None where no face is usable; `faces` maps to arrays."""
    template_ids, media_ids = faces["template_ids"], faces["media_ids"]
    features, flipped = (faces[n].astype(np.float64) for n in ("features", "features_flip"))
    if switches.flip == "sum":
        features = features + flipped
    elif switches.flip == "concat":
        features = np.hstack([features, flipped])
    result = {}
    for template in sorted(set(template_ids.tolist())):
        media = {}
        for i in np.flatnonzero(template_ids == template):
            norm = np.linalg.norm(features[i])
            if not np.isfinite(norm) or norm == 0:
                continue
            face = features[i] if switches.keep_norm else features[i] / norm
            if switches.detector_score:
                face = face * faces["detector_scores"][i]
            media.setdefault(int(media_ids[i]), []).append(face)
        total = sum((np.mean(of_medium, axis=0) for of_medium in media.values()), 0.0)
        length = np.linalg.norm(total)
        result[template] = total / length if length > 0 else None
    return result


def search(features, gallery, probes):
    """Per probe: (has a mate, mate's score, mate's rank, best other score), by sorting.

    `gallery` and `probes` are lists of (template, subject), `features` maps to vectors or None.
    """
    rows = []
    for template, subject in probes:
        candidates = []
        for enrolled, enrolled_subject in gallery:
            usable = features[template] is not None and features[enrolled] is not None
            score = float(features[template] @ features[enrolled]) if usable else -math.inf
            candidates.append((score, enrolled_subject == subject))
        # Descending score; among equals the others before the mate.
        candidates.sort(key=lambda c: (-c[0], c[1]))
        mates = [score for score, is_mate in candidates if is_mate]
        others = [score for score, is_mate in candidates if not is_mate]
        rank = next((1 + i for i, c in enumerate(candidates) if c[1]), None)
        if not mates or mates[0] == -math.inf:
            rank = None
        best_other = others[0] if others else -math.inf
        rows.append((bool(mates), mates[0] if mates else -math.inf, rank, best_other))
    return rows
