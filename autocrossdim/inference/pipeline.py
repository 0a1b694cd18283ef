"""Processing cases one after another while the next one is read and the previous one is written.

Threads suffice because reading, resampling, the network and compression all release Python's global lock. At most one
case is read ahead, one is computed and one is written at any time, so memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from autocrossdim.system.errors import UserError

Item = TypeVar("Item")
Read = TypeVar("Read")
Result = TypeVar("Result")


def overlapped(
    items: Sequence[Item],
    name: Callable[[Item], str],
    read: Callable[[Item], Read],
    compute: Callable[[Item, Read], Result],
    write: Callable[[Item, Result], None],
) -> Iterator[Item]:
    """Run `write(item, compute(item, read(item)))` for each item, the three overlapping; yield each item when written.

    `compute` runs in the calling thread, `read` and `write` in a thread each. The first failure ends the run, and so
    does Ctrl-C: the file being written is completed, nothing new is started, and no thread remains.

    Args:
        items: Items in the order of processing.
        name: Returns the name of an item for messages.
        read: Returns the input for `compute`.
        compute: Returns the result for `write`.
        write: Stores the result.

    Raises:
        UserError: One of the three raised it (the name of the item is added), or memory ran out. Other exceptions are
            passed on with a note that names the item.
    """

    def reading(item: Item) -> Read:
        with _Named("reading", name(item)):
            return read(item)

    def writing(item: Item, result: Result) -> None:
        with _Named("writing", name(item)):
            write(item, result)

    with ThreadPoolExecutor(1, "reading") as reader, ThreadPoolExecutor(1, "writing") as writer:
        ahead = [reader.submit(reading, items[0])] if items else []
        written: Future[None] | None = None
        for index, item in enumerate(items):
            try:
                case = ahead.pop().result()
                if index + 1 < len(items):
                    ahead.append(reader.submit(reading, items[index + 1]))
                with _Named("predicting", name(item)):
                    result = compute(item, case)
                del case
            finally:
                # Even if this item failed, the one before it is completed first, and its error takes precedence.
                if written is not None:
                    written.result()
            if index:
                yield items[index - 1]
            written = writer.submit(writing, item, result)
            del result
        if written is not None:
            written.result()
            yield items[-1]


class _Named:
    """Names the item and what was done with it in errors."""

    def __init__(self, doing: str, name: str) -> None:
        self.doing, self.name = doing, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UserError):
            if self.name not in str(error):
                raise UserError(f"{self.name}: {error}") from error
        elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_out_of_memory(error)):
            raise UserError(
                f"{self.name}: memory ran out while {self.doing} it. Close other programs, use a machine with more "
                "memory, or, if the GPU's memory ran out, use --device cpu."
            ) from error
        elif isinstance(error, Exception):
            error.add_note(f"This happened while {self.doing} {self.name}.")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate memory; on a CPU, it has no exception of its own for that."""
    phrases = ("not enough memory", "can't allocate memory", "bad_alloc")
    return type(error).__name__ == "OutOfMemoryError" or any(phrase in str(error) for phrase in phrases)
