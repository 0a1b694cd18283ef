"""The result of `autocrossdim doctor --device`: tables, and what the defaults should be on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table

Row = dict[str, str | float | int | None]

WORTH_COMPILING = 0.9  # share of the time of a step above which compiling is not worth its minutes (our choice)
GOAL_WAITING = 0.15  # share of the time for which training may wait for data
GOAL_SPEED = 0.85  # of training with its loader, relative to steps whose data are on the device
NNUNETS = "nnU-Net's for "  # before the name of a network in whose place one with nnU-Net's layers predicted
GOAL_MEMORY = 0.1  # relative difference between computed and measured memory


@dataclass
class Section:
    """A table.

    Attributes:
        title: Heading.
        rows: Rows with the same columns; None for what was not measured. No rows: measuring failed, see `note`.
        note: Sentences about the table.
    """

    title: str
    rows: list[Row]
    note: str = ""


@dataclass
class DeviceReport:
    """What was measured on a device.

    Attributes:
        device: Name of the device for `--device`.
        findings: What `autocrossdim doctor` says about the machine.
        sections: Tables.
        defaults: What the defaults should be on the device, one sentence each.
        seconds: How long it took.
    """

    device: str
    findings: list[str]
    sections: list[Section]
    defaults: list[str]
    seconds: float

    def markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [f"# autocrossdim on {self.device}", "", *(f"- {finding}" for finding in self.findings), ""]
        for section in self.sections:
            lines += [f"## {section.title}", ""]
            if section.rows:
                columns = list(section.rows[0])
                lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
                lines += ["| " + " | ".join(_shown(row[column]) for column in columns) + " |" for row in section.rows]
                lines.append("")
            lines += [section.note, ""] if section.note else []
        lines += ["## Defaults", "", *(f"- {sentence}" for sentence in self.defaults), ""]
        return "\n".join(lines)

    def terminal(self) -> Iterator[RenderableType]:
        """Yield the report for the terminal."""
        yield from self.findings
        for section in self.sections:
            if not section.rows:
                yield f"{section.title}: {section.note}"
                continue
            table = Table(*section.rows[0], title=section.title, caption=section.note or None, box=box.SIMPLE_HEAD)
            for row in section.rows:
                table.add_row(*map(_shown, row.values()))
            yield table
        yield from self.defaults
        yield f"Measured in {self.seconds:.0f} s."


def _shown(value: str | float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")


def defaults(sections: list[Section], *, tiny: bool = False) -> list[str]:
    """Return what the defaults should be, one sentence each.

    Args:
        sections: The sections of `device_check.check`.
        tiny: Whether the networks were tiny, as on a CPU, so that nothing follows from their speed.
    """
    networks, memory, steps, depthwise, training, prediction = sections
    results = [_networks(networks.rows) if networks.rows else "Precision: not measured.", _memory(memory.rows)]
    if tiny:
        return [*results, "Speed: no defaults follow from it, because the networks are tiny on a CPU."]
    return [
        *results,
        *_steps(steps.rows),
        _depthwise(depthwise.rows) if depthwise.rows else "3D depthwise convolutions: not measured.",
        _loader(training.rows),
        *_prediction(prediction.rows),
    ]


def _networks(rows: list[Row]) -> str:
    apart = [f"{row['network']} in {row['precision']}" for row in rows if row["agrees"] != "yes"]
    if not apart:
        return "Precision: every network agrees with the CPU in fp32, bf16 and fp16."
    return f"Precision: do not use {', '.join(apart)}, whose results differ from those of the CPU."


def _memory(rows: list[Row]) -> str:
    ratios = _numbers(rows, "computed / measured")
    if not ratios:
        return "Memory: not measured on this device."
    span = f"computed memory is {min(ratios):.2f} to {max(ratios):.2f} times the measured memory"
    if max(abs(ratio - 1) for ratio in ratios) <= GOAL_MEMORY:
        return f"Memory: {span}, within the goal. Keep the default budget."
    return f"Memory: {span}, outside the goal of 10 %. Plan with --memory {'lower' if min(ratios) < 1 else 'higher'}."


def _steps(rows: list[Row]) -> Iterator[str]:
    """Yield, for each network, the fastest way of computing a step, and whether it is the default one."""
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        timed = {id(row): ms for row in own if isinstance(ms := row["ms per step"], float)}
        own = [row for row in own if id(row) in timed]
        plain = [row for row in own if row["compiled"] == "no"]
        if not plain:
            continue
        best = min(plain, key=lambda row: timed[id(row)])
        said = f"{network}: {best['precision']} {'with' if best['channels last'] == 'yes' else 'without'} channels last"
        said += " is fastest, and the default." if best["default"] == "yes" else " is fastest, but not the default."
        usual = [timed[id(row)] for row in own if row["default"] == "yes"]
        compiled = [timed[id(row)] for row in own if row["compiled"] == "yes"]
        if usual and compiled:
            pays = compiled[0] < WORTH_COMPILING * usual[0]
            said += f" With torch.compile, a step takes {compiled[0] / usual[0]:.2f} times as long"
            said += ": use --set compile=true." if pays else ": leave it off."
        yield said


def _depthwise(rows: list[Row]) -> str:
    ours, usual = (sum(_numbers(rows, f"{name} (ms)")) for name in ("depthwise", "conv3d"))
    said = f"3D depthwise convolutions: those of DX-Net take {ours / usual:.2f} times as long as PyTorch's conv3d"
    return f"{said}. Keep them." if ours <= usual else f"{said}, so conv3d would be better on this device."


def _loader(rows: list[Row]) -> str:
    usual = [row for row in rows if str(row["augmentation on"]).startswith("workers")]
    moved = [row for row in rows if row not in usual]
    waiting = max(_numbers(usual, "share waiting for data"), default=None)
    if waiting is None:
        return "Loader: not measured."
    if waiting > GOAL_WAITING:
        said = f"Loader: training waits for data up to {waiting:.0%} of the time. Use more workers (--set workers=...)"
        less = max(_numbers(moved, "share waiting for data"), default=1.0)
        return f"{said}, or --set augment_on_gpu=true, with which it is {less:.0%}." if less < waiting else f"{said}."
    said = f"Loader: training waits for data at most {waiting:.0%} of the time"
    slowest = min(_numbers(usual, "speed / data on the device"), default=1.0)
    if slowest < GOAL_SPEED:
        return (
            f"{said}, but reaches only {slowest:.0%} of the speed of steps whose data are on the device. Fewer workers "
            "(--set workers=...) leave more of the CPU to the training itself."
        )
    return f"{said}. Keep the number of workers."


def _prediction(rows: list[Row]) -> Iterator[str]:
    """Yield, for each network, what mirroring costs, and how it compares with nnU-Net's layers."""
    speeds = {
        (str(row["network"]), row["mirroring"]): speed
        for row in rows
        if row["on the device"] == "throughout" and isinstance(speed := row["voxels per second"], float)
    }
    for network in dict.fromkeys(name for name, _ in speeds if not name.startswith(NNUNETS)):
        ours, plain, theirs = (
            speeds.get(key) for key in ((network, "yes"), (network, "no"), (NNUNETS + network, "yes"))
        )
        if ours and plain:
            said = (
                f"{network}: prediction with mirroring, the default, takes {plain / ours:.1f} times as long as without"
            )
            yield f"{said}; nnU-Net's layers take {ours / theirs:.2f} times as long." if theirs else f"{said}."


def _numbers(rows: list[Row], column: str) -> list[float]:
    return [value for row in rows if isinstance(value := row[column], float)]
