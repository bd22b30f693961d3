"""What a file's place and name tell (BraTS, BIDS, folders): whose it is, which channel, whether it is a mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

CHANNELS = frozenset(
    (
        *("flair", "t1", "t1c", "t1ce", "t1gd", "t1n", "t1w", "t1post", "t2", "t2f", "t2w", "t2star"),
        *("pd", "pdw", "dwi", "adc", "swi", "ct", "pet"),
    )
)
"""Names by which a channel is known, as a file's name (`flair.nii.gz`) or at its end (`ann_flair`, `ann-flair`)."""

MASKS = frozenset(
    ("lesion", "lesions", "tumor", "tumour", "seg", "segmentation", "dseg", "label", "labels", "roi", "mask", "msk")
)
"""Names by which a lesion mask is known, likewise."""

_NO_LESION = re.compile(r"brain[-_ ]?mask|mask[-_ ]?brain|deface|aseg|aparc|(desc|label)-brain", re.IGNORECASE)
"""In the names of masks of something else, which are neither lesions nor scans."""

_ENDING = re.compile(r"(?P<whose>.+)[_\-.](?P<ending>[A-Za-z0-9]+)")
_BRATS_VISIT = re.compile(r"(BraTS-[A-Z]+-\d+)-\d{3}")
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_BIDS_MASK = re.compile(r"_(lesion|dseg|seg|mask|msk|roi)|_label-lesion", re.IGNORECASE)
_NO_ANATOMY = frozenset(("func", "fmap", "perf", "meg", "eeg", "ieeg", "beh", "nirs", "motion", "mrs"))
_MODALITIES = frozenset(("anat", "dwi", "ct", "pet"))


@dataclass(frozen=True)
class Told:
    """What a path tells of a file.

    study: files of equal study are channels and masks of one scan.
    patient: "" where the path tells none.
    channel: in lower case, "" where it has no name.
    """

    study: str
    patient: str = ""
    channel: str = ""
    is_mask: bool = False


def tell(stem: PurePosixPath, folder: str, beside: frozenset[str]) -> Told | None:
    """Of a file by its path without suffix; None for one that is neither a scan nor a mask of lesions.

    `folder` is the name of the folder that the path starts at. `beside` are the names, without suffix and in lower
    case, of all files in the file's own folder. In this order:

    - BIDS: `sub-X[/ses-Y]/anat/sub-X[_ses-Y][_...]_FLAIR`; the patient is `sub-X`, the channel `flair`. A mask has
      `_lesion`, `_dseg`, `_seg`, `_mask`, `_msk`, `_roi` or `_label-lesion` in its name, mostly under `derivatives`, of
      which nothing else is used; it is that of the scans with equal subject and session. `func`, `fmap` and such are
      left aside.
    - A folder for each patient: `ann/flair`, `ann/t1`, `ann/seg`. Every file beside one with such a name is a channel.
    - BraTS: `ann/ann_flair`, `ann/ann_seg`, also with hyphens (of 2023: `BraTS-GLI-00000-000-t2f`, whose last number
      is a visit of the patient `BraTS-GLI-00000`), and masks by names such as `ann_mask` beside `ann`.
    - Anything else is a scan without a channel's name, whose patient is not told.
    """
    if _NO_LESION.search(stem.name):
        return None
    if _SUBJECT.fullmatch(stem.name.split("_")[0]):
        return _bids(stem)
    name, parent = stem.name.lower(), str(stem.parent)
    if beside & (CHANNELS | MASKS):
        ending = _ENDING.fullmatch(name)
        if name in MASKS or not (ending and ending["ending"] in CHANNELS | MASKS):
            patient = folder if parent == "." else parent
            return Told(parent, patient, "" if name in MASKS else name, name in MASKS)
    return _by_ending(stem, folder)


def mask_rank(name: str) -> int:
    """Which of several masks of one scan is the lesion's: the lowest."""
    if re.search(r"lesion|tumou?r", name, re.IGNORECASE):
        return 0
    return 1 if re.search(r"seg", name, re.IGNORECASE) else 2


def _by_ending(stem: PurePosixPath, folder: str) -> Told:
    found = _ENDING.fullmatch(stem.name)
    ending = found["ending"].lower() if found else ""
    if found is None or ending not in CHANNELS | MASKS:
        return Told(str(stem))
    whose = found["whose"]
    study = str(stem.parent / whose)
    if visit := _BRATS_VISIT.fullmatch(whose):
        patient = visit[1]
    else:
        patient = whose if whose == (stem.parent.name or folder) else study
    if ending in MASKS:
        return Told(study, patient, is_mask=True)
    return Told(study, patient, ending)


def _bids(stem: PurePosixPath) -> Told | None:
    subject, *entities = stem.name.split("_")
    folders = stem.parts[:-1]
    derived = "derivatives" in folders
    is_mask = bool(_BIDS_MASK.search(stem.name))
    if (folders and folders[-1] in _NO_ANATOMY) or (derived and not is_mask):
        return None
    start = next((n for n, part in enumerate(folders) if part in (subject, "derivatives", "rawdata")), len(folders))
    above = folders[:start]
    while above and (above[-1] in _MODALITIES or above[-1].startswith("ses-")):  # the user named a subject's folder
        above = above[:-1]
    session = [entity for entity in entities if entity.startswith("ses-")]
    study = str(PurePosixPath(*above, subject, *session))
    channel = entities[-1].lower() if entities and "-" not in entities[-1] else ""
    return Told(study, subject, "" if is_mask else channel, is_mask)
