"""All training cases of a dataset into the store of one configuration."""

from functools import partial

from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.images import read_image, read_label
from autocrossdim.preprocessing.case import preprocess
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases


def preprocess_dataset(
    dataset: Dataset, plan: Plan, configuration: Configuration, store: Store, processes: int
) -> None:
    """Preprocess every training case that is not stored yet, one case a process."""
    store.prepare(plan, configuration)
    missing = [case for case in dataset.training_cases() if not store.has(case.name)]
    if missing:
        work = partial(_preprocess_case, plan, configuration, store)
        map_cases(work, missing, processes, f"Preprocessing for {configuration.name}")


def _preprocess_case(plan: Plan, configuration: Configuration, store: Store, case: Case) -> None:
    assert case.label is not None
    image = read_image(case.images)
    label, _ = read_label(case.label)
    try:
        done = preprocess(image.array, image.geometry.spacing, plan, configuration, label)
    except UserError as error:
        raise UserError(f"{case.images[0]}: {error}") from error
    store.write(case, image.geometry, done, plan, configuration.patch_shape)
