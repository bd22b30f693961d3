"""`priorlens demo`: the whole way once, on brain slices that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from priorlens.commands.evaluate import evaluate
from priorlens.commands.fit import fit
from priorlens.commands.options import Overwrite, Page, Rule, Threads

SIZE = 128
"""At which the slices of 96 pixels are seen: less than half the work of the 192 that fit would choose."""

ALPHA = 0.05


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for everything it makes.")] = Path(
        "priorlens-demo"
    ),
    seed: Annotated[
        int, typer.Option(min=0, metavar="S", help="Another seed gives other brains, lesions and training.")
    ] = 0,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="How long to train. Real images deserve the 1000 that fit takes.")
    ] = 100,
    overwrite: Overwrite = False,
    page: Page = True,
    threads: Threads = None,
) -> None:
    """See it work, on brain slices that come with it.

    Makes a cohort of brain slices, learns from the healthy ones, finds the lesions in others, and says where the
    pictures are. Takes about 3 minutes.

    The slices are made from the MNI152 template (in the nilearn package): deformed, with contrast, bias field and
    noise of their own. Half of the test slices have a lesion planted in them, so the figures say that everything
    works, not how it would do on patients.
    """
    from rich.console import Console

    from priorlens.cohort import write_cohort
    from priorlens.commands.options import use_threads
    from priorlens.outputs import prepare_folder
    from priorlens.pictures import contact_sheet

    cohort, model, results = out / "cohort", out / "model", out / "results"
    prepare_folder(out, overwrite=overwrite)
    use_threads(threads)
    with Console(stderr=True).status("making brain slices"):
        write_cohort(cohort, seed=seed, overwrite=overwrite)
    _announce(f"priorlens fit {cohort} --out {model} --size {SIZE} --seed {seed} --steps {steps}")
    fit(cohort, model, size=SIZE, seed=seed, steps=steps, overwrite=overwrite, threads=threads)
    _announce(f"priorlens evaluate {model} {cohort} --out {results} --rule local --alpha {ALPHA} --planted")
    evaluate(
        model,
        cohort,
        results,
        rule=Rule.local,
        alpha=ALPHA,
        planted=True,
        overwrite=overwrite,
        page=page,
        threads=threads,
    )
    pictures = sorted((results / "overlays" / "lesion").glob("*.png"))
    contact_sheet(pictures[:12], out / "lesions.png")
    typer.echo(
        "\nThe lesions were planted: these figures show that all works, not how well it would in patients.\n"
        f"Look at {out / 'lesions.png'} first, then open {results / 'report.html'} in a browser.\n"
        f"Your own images: priorlens fit HEALTHY --out MODEL, then priorlens score MODEL IMAGES --out DIR"
    )


def _announce(command: str) -> None:
    """The command that does the same by itself."""
    typer.echo(f"\n$ {command}")
