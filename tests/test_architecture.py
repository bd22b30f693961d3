"""The shape of the code base: which way imports go, how long things are, and what is never done."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "priorlens"

STEPS = {
    "ground": ("errors", "outputs", "ledger", "addresses", "checkpoint"),
    "images": (
        *("images", "manifest", "datasets", "remote_cases", "body", "acquisition", "normalise", "preparation"),
        "provenance",
    ),
    "scans": (
        *("volumes.volume", "volumes.left_out", "volumes.damage", "volumes.nifti_header", "volumes.nifti"),
        *("volumes.itk_decoder", "volumes.arrays", "volumes.dicom_headers", "volumes.dicom_stacks"),
        *("volumes.dicom_files", "volumes.dicom_decoder", "volumes.dicom_pixels", "volumes.dicom_series"),
        *("volumes.layouts", "volumes.studies", "volumes.ground_truth", "volumes.scans", "volumes.reading"),
        *("volumes.scan_body", "volumes.voxel_intensity", "volumes.canvas", "volumes.scan_preparation"),
        *("volumes.survey", "variations"),
    ),
    "made images": ("planted", "held_out", "cohort"),
    "features": ("precision", "features", "whitening"),
    "prior": (
        *("prior.denoiser", "prior.network", "prior.patches", "prior.scaled", "prior.conventions", "prior.libraries"),
        *("prior.external", "prior.solvers", "prior.ode", "prior.oracles"),
        *("prior.variance", "prior.views", "prior.watch", "prior.processes", "prior.training"),
    ),
    "measurement": (
        *("measurement.operator", "measurement.linear", "measurement.inverses", "measurement.ct", "measurement.mri"),
        *("measurement.physics", "measurement.cfl", "measurement.arrays", "measurement.kspace", "measurement.files"),
    ),
    "posterior": ("posterior.denoisers", "posterior.sampling", "posterior.divergence", "posterior.reference"),
    "surprise": ("surprise", "feature_prior", "weighing", "combination", "rules"),
    "detector": (
        *("progress", "scores", "anodode"),
        *("image_prior", "klip", "klip_rules", "klip_scores", "klip_folder", "klip_model"),
        *("scan_surprise", "cube_model", "detectors", "scan_model"),
    ),
    "verdicts": (
        *("conformal", "blocks", "regions", "calibration", "calibrating", "verdicts"),
        *("tables", "result_folder", "combining", "timetable", "streams", "drift"),
    ),
    "DICOM results": (
        *("volumes.dicom_source", "volumes.dicom_result", "volumes.dicom_map", "volumes.dicom_segmentation"),
        "volumes.dicom_report",
    ),
    "figures": ("roc", "metrics", "bootstrap", "curves", "evaluation", "verdict_figures", "froc", "volume_figures"),
    "pictures": ("pictures", "plots", "monitor_plot", "layers"),
    "report": (
        *("report.facts", "report.spectra", "report.findings", "report.naming", "report.svg", "report.charts"),
        *("report.evaluation_charts", "report.evaluated", "report.card", "report.sentences"),
        *("report.layer", "report.thumbnails", "report.page", "report.watched", "report.book"),
        *("report.shown", "report.chosen", "report.map_scale", "report.rows"),
        *("report.figure_words", "report.figure_layout", "report.figure"),
    ),
    "viewer": (
        *("viewer.shelf", "viewer.nifti_layers", "viewer.answers", "viewer.guard", "viewer.uploads", "viewer.scorer"),
        *("viewer.drops", "viewer.server"),
    ),
    "commands": ("scoring", "commands", "__main__"),
}
DATA_WAY = [module for modules in STEPS.values() for module in modules]
"""Every module, in the order in which an image becomes a verdict; each may import only from those before it."""

LONGEST_MODULE, LONGEST_BODY = 400, 50
LIGHT = (
    "priorlens",
    "priorlens.__main__",
    "priorlens.errors",
    "priorlens.outputs",
    "priorlens.images",
    "priorlens.datasets",
)


def modules() -> dict[str, Path]:
    """Every module by its dotted name inside the package; a package goes by its `__init__`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def entry_of(module: str) -> str | None:
    """The entry of `DATA_WAY` that a module is, or is in; None for a package that only holds modules."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in DATA_WAY), None)


def imported(path: Path) -> set[str]:
    """What a module imports of this package, anywhere in it: inside functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return {name.removeprefix("priorlens.") for name in found if name.startswith("priorlens.")}


def test_every_module_has_its_place_in_the_way_of_the_data():
    files = {entry_of(name) or name for name, path in MODULES.items() if path.name != "__init__.py" or entry_of(name)}
    assert files == set(DATA_WAY)


def test_the_page_of_architecture_has_the_same_order():
    page = (SOURCE.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| (`.+?`) \|", page, re.MULTILINE)
    shown = {step: re.findall(r"`(\S+?)/?`", modules) for step, modules in rows}
    names = {step: [module.rpartition(".")[2] for module in modules] for step, modules in STEPS.items()}
    assert {step: [name.rpartition("/")[2] for name in modules] for step, modules in shown.items()} == names


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_a_module_imports_only_from_those_before_it(name):
    own = entry_of(name)
    for other in filter(None, map(entry_of, imported(MODULES[name]))):
        if own == other:  # inside one step, such as the commands: no circles, checked below
            continue
        assert own, f"{name}: a package that only holds modules imports nothing"
        assert DATA_WAY.index(other) < DATA_WAY.index(own), f"{name} imports {other}, which stands after it"


def test_no_circles_inside_a_step():
    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        for other in imported(MODULES[name]) & MODULES.keys():
            if entry_of(other) == entry_of(name) and other != name:
                visit(other, (*above, name))

    for name in MODULES:
        if entry_of(name):
            visit(name, ())


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_modules_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_MODULE, f"{path}: look for a seam"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            statements = node.body[1:] if ast.get_docstring(node) else node.body  # a signature may need many lines
            length = node.end_lineno - statements[0].lineno + 1 if statements else 0
            assert length <= LONGEST_BODY, f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_names_say_what_a_module_is(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"util|helper|common|misc|base|manager", path.stem), f"{path}: name it after its concept"
    assert not text or ast.get_docstring(ast.parse(text)), f"{path}: open with what it is"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_nothing_pickled_is_read(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
        names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
        assert not names & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}, f"{path.name}: {names}"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        match ast.unparse(node.func):
            case "torch.load":
                assert options.get("weights_only") == "True", f"{path.name}:{node.lineno}: torch.load may run code"
            case "np.load" | "numpy.load":
                assert options.get("allow_pickle", "False") == "False", f"{path.name}:{node.lineno}: allow_pickle"


@pytest.mark.parametrize("name", LIGHT)
def test_importing_does_not_load_torch(name):
    code = f"import sys, {name}; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]


def test_the_public_names_are_there():
    import priorlens

    for name in priorlens.__all__:
        assert getattr(priorlens, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = priorlens.no_such_name
