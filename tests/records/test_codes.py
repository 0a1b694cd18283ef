"""The key `codes` of dataset.json."""

from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.codes import parse_codes

FILE = Path("dataset.json")


def test_a_concept_is_snomed_and_anatomy_unless_it_says_otherwise() -> None:
    codes, faults = parse_codes(FILE, {"liver": {"value": "10200004", "meaning": "Liver"}}, ("liver", "tumour"))
    assert faults == []
    assert (codes["liver"].scheme, codes["liver"].category.meaning) == ("SCT", "Anatomical Structure")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["liver"], "codes is malformed"),
        ({"liver": "10200004"}, "codes is malformed"),
        ({"liver": {"value": "10200004"}}, "liver.meaning: missing"),
        ({"liver": {"value": "1" * 17, "meaning": "Liver"}}, "liver.value: must have at most 16 characters"),
        ({"liver": {"value": "1", "meaning": "Liver", "colour": "red"}}, "liver.colour: unknown entry"),
        ({"spleen": {"value": "78961009", "meaning": "Spleen"}}, "codes names spleen, which labels does not declare"),
    ],
)
def test_faults_are_named(content: Any, message: str) -> None:
    codes, faults = parse_codes(FILE, content, ("liver",))
    assert codes == {}
    assert len(faults) == 1
    assert faults[0].startswith("dataset.json: ")
    assert message in faults[0]
