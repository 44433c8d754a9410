"""The rules of pair verification, once more: plain loops over folds and thresholds."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize


def distances(embeddings, flipped=None):
    """Squared distances and XNorm as the public scripts compute them, in float64."""
    copies = [np.array(a, np.float64) for a in (embeddings, flipped) if a is not None]
    total, count = 0.0, 0
    for copy in copies:
        for row in copy:
            total += np.linalg.norm(row)
            count += 1
    unit = normalize(copies[0] if len(copies) == 1 else copies[0] + copies[1])
    return np.sum(np.square(np.subtract(unit[0::2], unit[1::2])), 1), total / count


def folds(pairs):
    return list(KFold(10, shuffle=False).split(np.arange(pairs)))


def accuracy_at(threshold, dist, same):
    true_accepts, false_accepts = accepts_at(threshold, dist, same)
    true_rejects = np.sum(np.logical_not(same)) - false_accepts
    return float(true_accepts + true_rejects) / dist.size


def accepts_at(threshold, dist, same):
    called = np.less(dist, threshold)
    true_accepts = np.sum(np.logical_and(called, same))
    return true_accepts, np.sum(np.logical_and(called, np.logical_not(same)))


def cross_validate(dist, same, thresholds_of):
    """Held-out accuracies, and the first of the best thresholds, for given candidates."""
    accuracies, chosen = [], []
    for train, test in folds(dist.size):
        thresholds = thresholds_of(dist[train])
        trained = [accuracy_at(t, dist[train], same[train]) for t in thresholds]
        chosen.append(thresholds[int(np.argmax(trained))])
        accuracies.append(accuracy_at(chosen[-1], dist[test], same[test]))
    return np.array(accuracies), np.array(chosen)


def grid(_):
    return np.arange(0, 4, 0.01)


def midpoints(dist):
    """Accept nothing, every midpoint, accept everything."""
    distinct = np.unique(dist[np.isfinite(dist)])
    middles = np.append(distinct[:-1] + np.diff(distinct) / 2, 4.0)
    return np.concatenate([[0.0], middles])


def val(dist, same, target):
    """Validation and false accept rate of each fold, and its threshold."""
    thresholds = np.arange(0, 4, 0.001)
    rates = []
    for train, test in folds(dist.size):
        different = np.sum(np.logical_not(same[train]))
        accepts = [accepts_at(t, dist[train], same[train])[1] for t in thresholds]
        far = np.array([float(count) / float(different) for count in accepts])
        threshold = 0.0
        if far.max() >= target:
            j = max(i for i in range(far.size) if far[i] <= target)
            threshold = thresholds[j]
            if j + 1 < far.size:
                step = (thresholds[j + 1] - thresholds[j]) / (far[j + 1] - far[j])
                threshold += (target - far[j]) * step
        here = same[test]
        true_accepts, false_accepts = accepts_at(threshold, dist[test], here)
        rates.append((true_accepts / np.sum(here), false_accepts / np.sum(~here), threshold))
    return np.array(rates)


def facexzoo(cosine, same):
    """Accuracies of the ten folds and thresholds on the cosine."""
    accuracies, chosen = [], []
    for train, test in folds(cosine.size):
        scores, labels = cosine[train], same[train]
        low, high = scores.min(), scores.max()
        best, best_threshold = -np.inf, None
        for k in range(1, 1001):
            threshold = low + (high - low) / 1000 * k
            rate = np.mean(scores[labels] > threshold) - np.mean(scores[~labels] > threshold)
            if rate > best:
                best, best_threshold = rate, threshold
        right = np.sum(cosine[test][same[test]] > best_threshold)
        right += np.sum(cosine[test][~same[test]] < best_threshold)
        accuracies.append(right / len(test))
        chosen.append(best_threshold)
    return np.array(accuracies), np.array(chosen)
