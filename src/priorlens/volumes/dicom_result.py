"""What every DICOM result has in common: who made it, what it refers to, and how it is written."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import priorlens
from priorlens.errors import OutputError
from priorlens.outputs import atomic_write
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.dicom_source import Reference, Source, carrying_over

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

MANUFACTURER = "priorlens"

MAP_SERIES, SEGMENTATION_SERIES, REPORT_SERIES = 9101, 9102, 9103
"""SeriesNumbers, far above those that scanners give. Their SeriesInstanceUIDs are new each time."""

DISCLAIMER = "research software, not a medical device"

_SCHEME = "99PRIORLENS"
_CONCEPTS = {
    "ANOMALY": "Anomaly: how unlike healthy training images",
    "PVALUE": "p-value of the anomaly among healthy scans",
    "QVALUE": "q-value: false-discovery rate among blocks",
}
_LONG_STRING = 64
"""Characters that DICOM's LO holds."""


@dataclass(frozen=True)
class MadeBy:
    """What a result was made by.

    method: of detection, such as "AnoDODE". model: what the user calls it, such as its folder's name. fingerprint: of
    its weights. unit: of anomalies and their map; "1" where they are not bits.
    """

    method: str
    model: str
    fingerprint: str
    unit: Literal["bit", "1"] = "bit"

    @property
    def device(self) -> str:
        """A UID of this version with this model."""
        name = f"{MANUFACTURER} {priorlens.__version__} {self.method} {self.fingerprint}"
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def coded_unit(made_by: MadeBy) -> CodedConcept:
    """Of anomalies, in UCUM."""
    from highdicom.sr import CodedConcept

    return CodedConcept(made_by.unit, "UCUM", {"bit": "bit", "1": "no units"}[made_by.unit])


def own_concept(name: Literal["ANOMALY", "PVALUE", "QVALUE"]) -> CodedConcept:
    """Of a scheme of our own, since DICOM has no code for it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(name, _SCHEME, _CONCEPTS[name])


def abnormality() -> tuple[CodedConcept, CodedConcept]:
    """Category (CID 7150) and type of a region: not as it should be, and no word on what it is."""
    from highdicom.sr import CodedConcept

    category = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
    return category, CodedConcept("C9440", "NCIt", "Abnormality")


def long_string(text: str) -> str:
    """What of it fits any LO in any character set."""
    plain = text.encode("ascii", "replace").decode().replace("\\", "/")
    return "".join(character if character.isprintable() else " " for character in plain).strip()[:_LONG_STRING].strip()


def identification(
    made_by: MadeBy, source: Source, series_number: int, what: str, own_concepts: bool = True
) -> dict[str, Any]:
    """highdicom's arguments for who made it, as what, and whether with `own_concept`s. Every call is a new series."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from pydicom.uid import generate_uid

    scheme = CodingSchemeIdentificationItem(_SCHEME, name="priorlens", responsible_organization=MANUFACTURER)
    scanned = source.series.description or source.series.modality
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "series_number": series_number,
        "series_description": long_string(f"priorlens {what} (research): {scanned}"),
        "sop_instance_uid": generate_uid(prefix=None),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": long_string(f"{made_by.method} {made_by.model}"),
        "device_serial_number": long_string(made_by.fingerprint) or "none",
        "software_versions": priorlens.__version__,
        **({"coding_schemes": [scheme]} if own_concepts else {}),
    }


def refer_to_source(result: Dataset, source: Source) -> None:
    """Puts the source's own images where highdicom has put the stand-ins that it was given."""
    from pydicom import Dataset

    named = {plane.SOPInstanceUID: of for plane, of in zip(source.planes, source.references, strict=True)}
    for groups in result.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for image in derivation.SourceImageSequence:
                # Frames of several segments in a plane share one item, which is met again after it was renamed.
                if image.ReferencedSOPInstanceUID in named:
                    _rename(image, named[image.ReferencedSOPInstanceUID])
    instances = []
    for uid, references in source.files().items():
        instance = Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = references[0].sop_class_uid, uid
        instances.append(instance)
    of_series = Dataset()
    of_series.SeriesInstanceUID = source.series.uid
    of_series.ReferencedInstanceSequence = instances
    result.ReferencedSeriesSequence = [of_series]
    result.SourceImageSequence = instances


def _rename(image: Dataset, reference: Reference) -> None:
    image.ReferencedSOPClassUID = reference.sop_class_uid
    image.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reference.frame is not None:
        image.ReferencedFrameNumber = reference.frame


def require_no_input(path: Path, series: Series) -> None:
    """Raises OutputError where a result would take the place of a file that it is made from."""
    inputs = {instance.path for instance in series.instances}
    # By the file, not by its name, which may be spelt in several ways; what does not exist is none of them.
    if os.path.exists(path) and any(os.path.exists(one) and os.path.samefile(path, one) for one in inputs):
        raise OutputError(f"{path}: is a file of the scan itself; choose another output folder")


def write_dicom(path: Path, result: Dataset, source: Source) -> None:
    """Whole or not at all. Raises OutputError, and InputError of a header that cannot be encoded."""
    require_no_input(path, source.series)
    with carrying_over(source.series), atomic_write(path) as file:
        result.save_as(file, enforce_file_format=True)
