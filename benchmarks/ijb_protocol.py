"""From features in memory to the TAR table, at the size of IJB-C, against the usual slow way.

Makes seeded synthetic features and pairs of IJB-C's counts, evaluates them with evalkit, then with
the method of the public scripts (a loop over templates, gathers of 100,000 pairs in float64,
scikit-learn's ``roc_curve``) in the same process, and checks that the figures agree::

    python benchmarks/ijb_protocol.py            # full size: minutes, because of the slow way
    python benchmarks/ijb_protocol.py --scale 0.02
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve
from threadpoolctl import threadpool_limits

from evalkit.protocols.fusion import FusionSwitches, fuse_templates
from evalkit.protocols.roc import FAR_TARGETS, OperatingPoint
from evalkit.protocols.templates import score_pairs, verification_points

FACES, GALLERY, PROBES, GENUINE, IMPOSTORS = 469_375, 3_531, 19_593, 19_557, 15_638_932
DIMS = 512
REQUIRED_RATIO = 20
PEAK_LIMIT_GB = 3
SCORE_TOLERANCE = 1e-6
SWAPPED_GENUINE = 1
"""float32 scores may order two scores 1e-7 apart the other way round."""


@dataclass(frozen=True, slots=True)
class Case:
    """Faces and pairs in memory, as the loader hands them over."""

    features: npt.NDArray[np.float32]
    template_ids: npt.NDArray[np.int32]
    media_ids: npt.NDArray[np.int32]
    detector_scores: npt.NDArray[np.float32]
    pairs: npt.NDArray[np.int32]
    genuine: npt.NDArray[np.bool_]


def make_case(scale: float, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    faces, gallery, probes, mated, impostors = (
        max(2, round(count * scale)) for count in (FACES, GALLERY, PROBES, GENUINE, IMPOSTORS)
    )
    count = gallery + probes
    subject = np.r_[np.arange(gallery), rng.integers(0, gallery, probes)]
    ids = np.sort(rng.choice(3 * count, count, replace=False)).astype(np.int32)
    share = rng.lognormal(0, 1.2, count)
    extra = rng.choice(count, faces - count, p=share / share.sum())
    template = np.sort(np.r_[np.arange(count), extra])
    first = gallery + rng.permutation(probes)[:mated]
    false = np.stack(
        [rng.integers(0, gallery, impostors), gallery + rng.integers(0, probes, impostors)]
    )
    same = subject[false[0]] == subject[false[1]]
    false[0, same] = (false[0, same] + 1) % gallery
    pairs = np.concatenate([np.stack([subject[first], first]), false], axis=1).T
    order = rng.permutation(len(pairs))
    return Case(
        features=make_features(rng, subject, template),
        template_ids=ids[template],
        media_ids=rng.integers(0, 5 * count, faces, dtype=np.int32) // 4,
        detector_scores=rng.uniform(0.4, 1, faces).astype(np.float32),
        pairs=ids[pairs[order]],
        genuine=order < mated,
    )


def make_features(
    rng: np.random.Generator, subject: npt.NDArray[np.int64], template: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Add a subject's direction, its template's own (so that errors remain) and a face's noise."""
    centres = rng.standard_normal((subject.max() + 1, DIMS), dtype=np.float32)
    quality = rng.uniform(0.2, 1.4, (subject.size, 1)).astype(np.float32)
    base = quality * centres[subject] + rng.standard_normal((subject.size, DIMS), np.float32)
    features = np.empty((template.size, DIMS), np.float32)
    for start in range(0, template.size, 8192):
        block = features[start : start + 8192]
        rng.standard_normal(dtype=np.float32, out=block)
        block += base[template[start : start + 8192]]
    return features


def slow_templates(case: Case) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    features = case.features * case.detector_scores[:, None]
    ids = np.unique(case.template_ids)
    templates = np.zeros((ids.size, DIMS))
    for row, template in enumerate(ids):
        (of_template,) = np.where(case.template_ids == template)
        faces, media = features[of_template], case.media_ids[of_template]
        means = [np.mean(faces[media == medium], axis=0) for medium in np.unique(media)]
        templates[row] = np.sum(means, axis=0)
    return ids, templates / np.sqrt(np.sum(templates**2, axis=1, keepdims=True))


def slow_scores(case: Case) -> npt.NDArray[np.float64]:
    ids, templates = slow_templates(case)
    row = np.zeros(ids.max() + 1, int)
    row[ids] = np.arange(ids.size)
    scores = np.zeros(len(case.pairs))
    for start in range(0, len(case.pairs), 100_000):
        part = slice(start, start + 100_000)
        first, second = (templates[row[case.pairs[part, side]]] for side in (0, 1))
        scores[part] = np.sum(first * second, axis=-1)
    return scores


def slow_tars(
    scores: npt.NDArray[np.floating], genuine: npt.NDArray[np.bool_]
) -> dict[str, list[float]]:
    far, tar, _ = roc_curve(genuine, scores)
    far, tar = far[::-1], tar[::-1]
    return {
        "at_most": [float(tar[far <= target].max()) for target in FAR_TARGETS],
        "insightface_nearest": [float(tar[np.argmin(abs(far - t))]) for t in FAR_TARGETS],
    }


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def print_table(points: tuple[OperatingPoint, ...], slow: list[float]) -> None:
    print("   target       FAR achieved   false accepts      TAR    slow TAR   threshold")
    for p, other in zip(points, slow, strict=True):
        flag = "  (too few)" if p.too_few else ""
        print(
            f"{p.target:9.0e} {p.far:18.6e} {p.false_accepts:15,d} {p.tar:8.6f} {other:11.6f}"
            f" {p.threshold:11.6f}{flag}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of IJB-C's counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="BLAS threads of both ways")
    args = parser.parse_args()
    with threadpool_limits(args.threads):
        return compare(make_case(args.scale, args.seed), full_size=args.scale >= 1)


def compare(case: Case, *, full_size: bool) -> int:
    size = f"{len(case.features):,} faces x {DIMS}, {len(case.pairs):,} pairs"
    print(f"{size}; peak while making them {peak_gb():.2f} GB", flush=True)
    start = time.perf_counter()
    templates = fuse_templates(
        case.features,
        case.template_ids,
        case.media_ids,
        detector_scores=case.detector_scores,
        switches=FusionSwitches(flip="none"),
    )
    fast_scores = score_pairs(templates, case.pairs)
    points = verification_points(fast_scores, case.genuine)
    fast_seconds, fast_peak = time.perf_counter() - start, peak_gb()
    print(f"fast: {fast_seconds:.2f} s, peak {fast_peak:.2f} GB with the input", flush=True)

    start = time.perf_counter()
    scores = slow_scores(case)
    slow = slow_tars(scores, case.genuine)
    slow_seconds = time.perf_counter() - start
    ratio = slow_seconds / fast_seconds
    print(f"slow: {slow_seconds:.2f} s")
    print_table(points, slow["at_most"])

    again = slow_tars(fast_scores, case.genuine)
    nearest = verification_points(fast_scores, case.genuine, rule="insightface_nearest")
    own = {"at_most": points, "insightface_nearest": nearest}
    tars = {rule: [point.tar for point in points] for rule, points in own.items()}
    tolerance = (SWAPPED_GENUINE + 0.5) / np.count_nonzero(case.genuine)
    checks = {
        "scores": bool(np.abs(fast_scores - scores).max() <= SCORE_TOLERANCE),
        "figures of equal scores, both rules, exactly": tars == again,
        "figures of each way's own scores": all(
            np.abs(np.subtract(tars[rule], slow[rule])).max() <= tolerance for rule in own
        ),
    }
    if full_size:
        checks[f"at least {REQUIRED_RATIO} times as fast"] = ratio >= REQUIRED_RATIO
        checks[f"peak under {PEAK_LIMIT_GB} GB"] = fast_peak < PEAK_LIMIT_GB
    for name, passed in checks.items():
        print(f"{'ok  ' if passed else 'FAIL'} {name}")
    print(f"ratio {ratio:.1f}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
