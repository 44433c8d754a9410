"""What a conversion gave, for the terminal."""

from __future__ import annotations

from evalkit.convert.convert import Conversion
from evalkit.convert.exclusion import Trial
from evalkit.report.table import text_table

_SHOWN = 10


def describe(found: Conversion) -> str:
    """Lay out source and built model, the calibration, and the trade of excluded layers."""
    record, final = found.record, found.final
    fp32 = ["fp32", _megabytes(found.source_size), f"{found.source_speed:.1f}", "1", "1", "1"]
    table = text_table(
        ["precision", "MB", "images/s", "cosine mean", "p1", "min"],
        [fp32, [record["precision"], *_figures(final)]],
    )
    lines = [
        f"source     {record['source']['file']}",
        f"out        {found.out}" + ("" if found.failure is None else " (not written)"),
        f"toolchain  {', '.join(f'{k} {v}' for k, v in record['toolchain'].items())}",
        f"ran        {found.ran.backend} {found.ran.version}, {found.ran.precision_ran}, on "
        f"{found.ran.device} with {found.ran.threads} threads",
        *_calibration(found),
        f"compared   on {final.agreement.images} images that were held out{_chose(found)}",
        f"excluded   {_names(final.excluded)}",
    ]
    parts = ["\n".join(lines), table]
    if found.ranked:
        rows = [[name, f"{loss:.2e}"] for name, loss in found.ranked[:_SHOWN]]
        parts.append(text_table(["layer, quantised alone", "1 - cosine"], rows))
    if found.trials:
        parts.append(_trade(found.trials))
    parts += [f"note: {note}" for note in found.warnings]
    if found.failure is None:
        key = f"{record['backend']}:{record['precision']}"
        if found.yaml is None:
            parts.append(f"in a model YAML, under 'files':  {key}: {found.out}")
        else:
            parts.append(f"added to {found.yaml} as {key}")
    return "\n\n".join(parts)


def _chose(found: Conversion) -> str:
    """Say what the held-out images were used for beside the comparison."""
    if not found.record["figures"]["held_out_chose_layers"]:
        return ""
    return " from calibration, but chose the excluded layers: the figures flatter the model"


def _calibration(found: Conversion) -> list[str]:
    calibration = found.record["calibration"]
    if calibration is None:
        return []
    people = calibration["identities"]
    of = "" if people is None else f" of {len(people)} identities"
    settings = found.record["settings"]
    return [
        f"calibrated {settings['method']}, {calibration['count']} images{of} from "
        f"{calibration['data']}, seed {calibration['seed']}, sha256 {calibration['sha256'][:12]}"
    ]


def _figures(trial: Trial) -> list[str]:
    agreement = trial.agreement
    return [
        _megabytes(trial.size),
        f"{trial.images_per_second:.1f}",
        *(f"{value:.5f}" for value in (agreement.mean, agreement.p1, agreement.minimum)),
    ]


def _trade(trials: tuple[Trial, ...]) -> str:
    verified = any(trial.accuracy is not None for trial in trials)
    header = ["excluded", "MB", "images/s", "cosine mean", "p1", "min", "last excluded"]
    rows = []
    kept = trials[0].excluded
    for trial in trials:
        accuracy = "-" if trial.accuracy is None else f"{100 * trial.accuracy:.2f}"
        cells = [str(len(trial.excluded)), *_figures(trial), *([accuracy] if verified else [])]
        added = trial.excluded[len(kept) :]
        last = added[-1] if added else "-"
        if len(added) > 1:
            last += f" with {len(added) - 1} taken back before"
        rows.append([*cells, f"{last} (taken back)" if trial.taken_back else last])
        kept = kept if trial.taken_back else trial.excluded
    if verified:
        header.insert(6, "accuracy %")
    return text_table(header, rows)


def _names(names: tuple[str, ...]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} layers: {', '.join(names[:_SHOWN])}{more}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"
