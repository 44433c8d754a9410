"""The summary of a conversion, for the terminal."""

from __future__ import annotations

from evalkit.convert.convert import Conversion
from evalkit.convert.exclusion import Trial
from evalkit.report.table import text_table

_SHOWN = 10


def describe(conversion: Conversion) -> str:
    """Lay out source and built model, the calibration, and the trade of excluded layers."""
    record, model = conversion.record, conversion.model
    final, ran = model.trial, model.ran
    source = _megabytes(conversion.source_size), f"{conversion.source_speed:.1f}"
    table = text_table(
        ["precision", "MB", "images/s", "cosine mean", "p1", "min"],
        [["fp32", *source, "1", "1", "1"], [record["precision"], *_figures(final)]],
    )
    lines = [
        f"source     {record['source']['file']}",
        f"out        {conversion.out}" + ("" if conversion.failure is None else " (not written)"),
        f"toolchain  {', '.join(f'{k} {v}' for k, v in record['toolchain'].items())}",
        f"ran        {ran.backend} {ran.version}, {ran.precision_ran}, on {ran.device} with "
        f"{ran.threads} threads",
        *_calibration(conversion),
        f"compared   on {final.agreement.images} images that were held out{_chose(conversion)}",
        f"excluded   {_names(final.excluded)}",
    ]
    parts = ["\n".join(lines), table]
    if model.ranked:
        rows = [[name, f"{loss:.2e}"] for name, loss in model.ranked[:_SHOWN]]
        parts.append(text_table(["layer, quantised alone", "1 - cosine"], rows))
    if model.trials:
        parts.append(_trade(model.trials))
    parts += [f"note: {note}" for note in conversion.warnings]
    if conversion.failure is None:
        key = f"{record['backend']}:{record['precision']}"
        if conversion.yaml is None:
            parts.append(f"in a model YAML, under 'files':  {key}: {conversion.out}")
        else:
            parts.append(f"added to {conversion.yaml} as {key}")
    return "\n\n".join(parts)


def _chose(conversion: Conversion) -> str:
    """Say where the images of the comparison chose the excluded layers too."""
    if not conversion.record["figures"]["held_out_chose_layers"]:
        return ""
    return " from calibration, but chose the excluded layers: the figures flatter the model"


def _calibration(conversion: Conversion) -> list[str]:
    calibration = conversion.record["calibration"]
    if calibration is None:
        return []
    people = calibration["identities"]
    of = "" if people is None else f" of {len(people)} identities"
    settings = conversion.record["settings"]
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
