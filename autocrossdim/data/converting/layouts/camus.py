"""CAMUS: two-dimensional echocardiography, end diastole and end systole in the views of two and four chambers.

Read are the present layout (`database_nifti/patient0001/patient0001_2CH_ED.nii.gz` with `_gt`, patients divided by
`database_split/subgroup_*.txt`) and the older one (`training/patient0001/patient0001_2CH_ED.mhd` and `.raw`, ten
divisions in `listSubGroups/subGroup1_training.txt` and so on).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from autocrossdim.data.converting.description import Description, SourceCase
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import ImageFile, LabelFile, MetaImage, Source
from autocrossdim.data.splits import Split
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory, reading
from autocrossdim.system.text import counted, listed

LABELS = {"background": 0, "LV endocardium": 1, "LV myocardium": 2, "left atrium": 3}
VIEWS, PHASES = ("2CH", "4CH"), ("ED", "ES")
ENDINGS = (".nii.gz", ".mhd")
FACTS = ("ImageQuality", "EF", "Sex", "Age", "ED", "ES", "NbFrame", "FrameRate")
_PATIENT = re.compile(r"patient\d{4}")


def detects(source: Path) -> bool:
    """Whether there is a directory of a patient with a frame in a known format."""
    return source.is_dir() and any(
        (patient / f"{patient.name}_{view}_ED{ending}").is_file()
        for patient in _patients(source)[:5]
        for view in VIEWS
        for ending in ENDINGS
    )


@layout("camus", detects)
def describe(source: Path, _: Wishes) -> Description:
    """Describe the database: one case per patient, view and phase, with the patient as its group.

    Raises:
        UserError: The source holds no patient.
    """
    patients = _patients(source)
    if not patients:
        raise UserError(f"{source}: contains no directory patient0001. Give the directory that was unpacked.")
    faults: list[str] = []
    cases = [
        case
        for patient in patients
        for view in VIEWS
        for phase in PHASES
        if (case := _case(patient, view, phase, faults)) is not None
    ]
    divisions, held_out = _divisions(source, {case.group for case in cases if case.label is not None}, faults)
    cases = [
        SourceCase(case.name, case.channels, case.label, case.group, case.group in held_out, case.facts)
        for case in cases
    ]
    return Description(
        channel_names=("ultrasound",),
        labels=LABELS,
        cases=cases,
        splits=_splits(divisions, cases) or None,
        about={
            "name": "CAMUS",
            "reference": "Leclerc et al., Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D "
            "Echocardiography, IEEE Transactions on Medical Imaging 38 (2019) 2198-2210.",
            "licence": "The terms of the CAMUS database apply; see https://www.creatis.insa-lyon.fr/Challenge/camus.",
            "description": "Apical views of two (2CH) and four chambers (4CH) at end diastole (ED) and end systole "
            "(ES). The epicardium of the challenge is the endocardium together with the myocardium.",
        },
        faults=faults,
    )


def _patients(source: Path) -> list[Path]:
    """Return the directories of patients in the source or up to two levels below, sorted by name."""
    level = [source]
    patients: list[Path] = []
    for _ in range(3):
        entries = [entry for folder in level for entry in list_directory(folder) if entry.is_dir()]
        patients += [entry for entry in entries if _PATIENT.fullmatch(entry.name)]
        level = [entry for entry in entries if not _PATIENT.fullmatch(entry.name)]
    return sorted(patients, key=lambda patient: patient.name)


def _case(patient: Path, view: str, phase: str, faults: list[str]) -> SourceCase | None:
    name = f"{patient.name}_{view}_{phase}"
    for ending in ENDINGS:
        image, label = patient / f"{name}{ending}", patient / f"{name}_gt{ending}"
        if image.is_file():
            labelled = label.is_file()
            if not labelled and patient.parent.name != "testing":
                faults.append(f"{label}: no such file. Unpack the archive again, or remove the patient's directory.")
            facts = {"view": view, "phase": phase, **_facts(patient / f"Info_{view}.cfg")}
            return SourceCase(name, (_image(image),), _label(label) if labelled else None, patient.name, facts=facts)
    faults.append(f"{patient / name}.nii.gz: no such file (nor .mhd). Unpack the archive again.")
    return None


def _image(path: Path) -> Source:
    return MetaImage(path) if path.suffix == ".mhd" else ImageFile(path)


def _label(path: Path) -> Source:
    return MetaImage(path, is_label=True) if path.suffix == ".mhd" else LabelFile(path, {1: 1, 2: 2, 3: 3})


def _facts(file: Path) -> dict[str, str]:
    """Return image quality, ejection fraction and frames from `Info_2CH.cfg`; missing entries are left out."""
    with reading():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs if key.strip() in FACTS}


Division = tuple[set[str], set[str]]  # patients to train on and to validate with


def _divisions(source: Path, labelled: set[str | None], faults: list[str]) -> tuple[list[Division], set[str]]:
    """Return the divisions of the patients that the source defines, and the patients held out for the test.

    The ten divisions of the older layout test on one tenth each; here the test patients validate, and all others train,
    so that every patient is validated once. The single division of the present layout has a test set of its own.
    """
    files = sorted(source.glob("**/listSubGroups/subGroup*_testing.txt"), key=_number)
    if files:
        divisions = []
        for file in files:
            parts = [_read(file.with_name(file.name.replace("testing", part))) for part in ("training", "validation")]
            divisions.append((set().union(*parts) & labelled, _read(file) & labelled))
        return _checked(files, divisions, labelled, faults), set()
    single = next(iter(sorted(source.glob("**/database_split/subgroup_testing.txt"))), None)
    # `database_nifti` alone may have been given; the lists lie beside it.
    beside = source.parent / "database_split" / "subgroup_testing.txt"
    single = beside if single is None and beside.is_file() else single
    if single is None:
        return [], set()
    train, val = (_read(single.with_name(f"subgroup_{part}.txt")) & labelled for part in ("training", "validation"))
    held_out = _read(single) & labelled
    if left_out := sorted(str(patient) for patient in labelled - train - val - held_out):
        faults.append(
            f"{single.parent}: its lists do not name {listed(left_out)}. Add the patients to one of them, or rename "
            "the directory to use none of the lists."
        )
    return [(train, val)] if train and val else [], held_out


def _checked(
    files: Sequence[Path], divisions: list[Division], labelled: set[str | None], faults: list[str]
) -> list[Division]:
    for file, (train, val) in zip(files, divisions, strict=True):
        if left_out := sorted(str(patient) for patient in labelled - train - val):
            faults.append(
                f"{file}: {counted(len(left_out), 'patient')} in none of the three lists of this division: "
                f"{listed(left_out)}. Complete the lists, or rename their directory so that they are ignored."
            )
    return [(train, val) for train, val in divisions if train and val]


def _read(file: Path) -> set[str]:
    """Return the patients of a list, one per line."""
    with reading(file):
        return set(_PATIENT.findall(file.read_text(encoding="utf-8", errors="replace")))


def _number(file: Path) -> int:
    return int(next(iter(re.findall(r"\d+", file.name)), 0))


def _splits(divisions: Sequence[Division], cases: Sequence[SourceCase]) -> tuple[Split, ...]:
    """Return the divisions of patients as folds of training cases."""
    training = [case for case in cases if case.part == "Tr"]
    return tuple(
        Split(
            tuple(case.name for case in training if case.group in train),
            tuple(case.name for case in training if case.group in val),
        )
        for train, val in divisions
    )
