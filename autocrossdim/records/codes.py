"""The key `codes` of dataset.json: what the labels are in a terminology such as SNOMED CT, for DICOM-SEG."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from autocrossdim.system.errors import first_fault
from autocrossdim.system.text import listed


class Code(BaseModel):
    """A concept of a terminology.

    Attributes:
        scheme: Terminology, as DICOM abbreviates it: SCT is SNOMED CT.
        value: Identifier of the concept.
        meaning: Its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # DICOM allows 16 characters for scheme and value, 64 for the meaning.
    scheme: Annotated[str, Field(min_length=1, max_length=16)] = "SCT"
    value: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


TISSUE = Code(value="85756007", meaning="Tissue")
"""What 3D Slicer writes if nothing is known."""


class LabelCode(Code):
    """The concept of a label, and the category it belongs to."""

    category: Code = Code(value="123037004", meaning="Anatomical Structure")


Codes = dict[str, LabelCode]
"""Name of a label -> its concept."""


def parse_codes(file: Path, content: Any, names: Collection[str]) -> tuple[Codes, list[str]]:
    """Read the concepts of labels.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `codes`.
        names: Names of the labels.

    Returns:
        The concepts, and every fault, one sentence each.
    """
    try:
        codes = TypeAdapter(Codes).validate_python(content)
    except ValidationError as error:
        return {}, [
            f"{file}: codes is malformed ({first_fault(error)}). "
            'Write it as {"liver": {"value": "10200004", "meaning": "Liver"}}.'
        ]
    if unknown := sorted(set(codes) - set(names)):
        return {}, [f"{file}: codes names {listed(unknown)}, which labels does not declare. Use names of labels."]
    return codes, []
