"""Numbers and tables as Markdown."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

NOTHING = "–"
"""Stands where there is no figure."""

FEW = 10
"""Patients below which an interval of resampled patients is no evidence."""

FEW_WORDS = (
    f"†: an interval over fewer than {FEW} patients, of the abnormal or of the healthy ones. Resampling so few says "
    "little of others: it is no evidence, and no such difference is called clear."
)


NO_INTERVAL = f"[{NOTHING}]"

NO_INTERVAL_WORDS = (
    f"{NO_INTERVAL}: no interval. It takes two patients with abnormal images and, for figures of images, two with "
    "healthy ones, in each fold where figures are taken within folds, and three in all at the same height: among the "
    "images that were judged there are fewer."
)


def few(patients: int | None) -> bool:
    """Whether an interval over these is no evidence; it stays unmarked where their number is not known."""
    return patients is not None and patients < FEW


def bracketed(
    value: float | None, low: float | None, high: float | None, patients: int | None, sign: bool = False
) -> str:
    """The interval of a figure, or with `sign` of a difference, with its mark; nothing where there is no value."""
    if value is None or math.isnan(value):
        return ""
    found = between(low, high, sign)
    if not found:
        return f" {NO_INTERVAL}"
    return f"{found} †" if few(patients) else found


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are aligned to the left, the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def figure(value: float | None) -> str:
    """A figure in [0, 1]."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def bold(text: str, best: str) -> str:
    """Emphasised where it is printed as the best is."""
    return f"**{text}**" if text == best else text


def signed(value: float | None) -> str:
    """A difference of such figures."""
    return NOTHING if value is None or math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def between(low: float | None, high: float | None, sign: bool = False) -> str:
    """An interval in brackets; nothing where it is not known."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    ends = (signed(low), signed(high)) if sign else (figure(low), figure(high))
    return f" [{', '.join(ends)}]"


def amount(value: float | None) -> str:
    """A positive number to three digits, without an exponent: 0.0123, 4.56, 1 235."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".replace(",", " ")


def duration(seconds: float) -> str:
    """Such as 42 s, 12 min or 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def plain(text: str) -> str:
    """Words that came from elsewhere, such as an error, on one line and without any markup of their own."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in r"\`*_[]|" else sign for sign in escaped)


def listed(names: Sequence[str]) -> str:
    """Such as a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def count(number: int, one: str, many: str | None = None) -> str:
    """Such as 1 image, or 3 images."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def folded(summary: str, text: str) -> str:
    """Text that shows when its heading is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"
