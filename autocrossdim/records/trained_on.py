"""The scans that weights were trained on, which must never validate them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

Contents = Callable[[str], Collection[str]]
"""Returns the content hashes of the present files of a case (`records.sources.contents`)."""


@dataclass(frozen=True)
class TrainedOn:
    """The scans that weights were trained on, in one training and in those that it continues.

    Attributes:
        names: Their names then.
        contents: Their names by the content hashes of their files, because a scan may be renamed afterwards.
    """

    names: frozenset[str] = frozenset()
    contents: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> "TrainedOn":
        """Return what the provenance of a checkpoint records about the training that it continues."""
        return cls(frozenset(provenance.get("cases", ())), provenance.get("contents", {}))

    def provenance(self) -> dict[str, Any]:
        """Return what `of` reads, JSON-able."""
        return {"cases": sorted(self.names), "contents": dict(self.contents)}

    def among(
        self, validated: Collection[str], trained: Collection[str], contents: Contents, groups: Mapping[str, str]
    ) -> list[str]:
        """Return the validation cases that are themselves among these scans, or whose patient (group) is.

        Renamed cases are listed with their former name, and cases of a shared group with the scan of that group.

        Args:
            validated: Present validation cases.
            trained: Present training cases. What the dataset holds twice, in both, was copied and not renamed.
            contents: Gives the content hashes of a present case.
            groups: Case or scan -> group; one without is a group of its own.
        """
        known = sorted(self.names.intersection(validated))
        former = self._former_names(set(validated) - set(known), trained, contents)
        scan_of = {groups[name]: name for name in sorted(self.names, reverse=True) if name in groups}
        others = sorted(set(validated) - set(known) - former.keys())
        of_group = {name: scan_of[groups[name]] for name in others if groups.get(name) in scan_of}
        return [
            *known,
            *(f"{new} (then named {old})" for new, old in former.items()),
            *(f"{name} (through {scan}, of the same group)" for name, scan in of_group.items()),
        ]

    def _former_names(self, validated: Collection[str], trained: Collection[str], contents: Contents) -> dict[str, str]:
        """Return the former names of validation cases that are among these scans under another name."""
        if not self.contents:
            return {}
        copies = {name: self.contents.keys() & contents(name) for name in sorted(validated)}
        twice = set[str]().union(*map(contents, trained)) if any(copies.values()) else set[str]()
        return {name: self.contents[min(found - twice)] for name, found in copies.items() if found - twice}
