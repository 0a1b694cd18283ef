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

    def among(self, validated: Collection[str], trained: Collection[str], contents: Contents) -> list[str]:
        """Return the validation cases that are among these scans, each with its former name if it was renamed.

        Args:
            validated: Present validation cases.
            trained: Present training cases. What the dataset holds twice, in both, was copied and not renamed.
            contents: Gives the content hashes of a present case.
        """
        if not self.contents:
            return sorted(self.names.intersection(validated))
        copies = {name: self.contents.keys() & contents(name) for name in validated if name not in self.names}
        twice = set[str]().union(*map(contents, trained)) if any(copies.values()) else set[str]()
        former = {name: self.contents[min(found - twice)] for name, found in copies.items() if found - twice}
        return sorted(self.names.intersection(validated)) + [f"{new} (then named {old})" for new, old in former.items()]
